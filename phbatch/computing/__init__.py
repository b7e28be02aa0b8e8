"""Graphs of work and what computes them: threads of this process, or the workers of a Dask cluster.

Tasks, their bounded window, retries, reductions, devices and how workers are met live here. What is done with the
results, and every output, are left to `phbatch.running`.
"""
