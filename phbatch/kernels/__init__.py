"""Numerical kernels: statistics, smoothing, light, intensities, tiling.

NumPy arrays go in, NumPy arrays come out, block by block, and states merge in any order to the same bits. No file is
opened here, and nothing is known of runs, units or outputs.
"""
