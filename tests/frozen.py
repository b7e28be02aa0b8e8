"""Imported last by who is forked: what is there stays shared, since the collector of garbage leaves it alone."""

import gc

gc.collect()
gc.freeze()
