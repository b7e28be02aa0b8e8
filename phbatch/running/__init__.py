"""A run: begin or continue an output, measure, settle, restore unit by unit, commit, on this machine or a cluster.

The functions that users call live here, and what they decide. What computes their graphs is `phbatch.computing`; text,
colours and exit codes do not belong here.
"""
