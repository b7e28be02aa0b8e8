"""Adapters of Zarr, OME-NGFF metadata and the ledger."""
