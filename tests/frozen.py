"""Imported last by who is forked: kernels are loaded, and the collector of garbage leaves alone what is there.

A process loads them from Numba's cache for half a second. They start no thread, which would not outlive a fork.
"""

import gc

import numpy as np

from phbatch.kernels.stats import measure_frame

measure_frame(np.arange(100, 356, dtype=np.uint16).reshape(16, 16), 2.0)
gc.collect()
gc.freeze()
