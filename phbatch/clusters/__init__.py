"""Submitting a run: kinds of clusters, site profiles, what lies beside an output; schedulers are those of Dask's own.

Nothing here computes: a run on a cluster is `phbatch.run` with the address of a scheduler that a kind has opened, or
tasks of the run itself.
"""
