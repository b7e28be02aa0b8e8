"""Stages of a run, composed of kernels; arrays and a predictor are their arguments."""
