"""Adapters of CARE networks: model folders, weights, Keras."""
