"""A run: begin or continue an output, measure, settle, restore unit by unit, commit, on this machine or a cluster.

The engine and its tasks live here, and the functions that users call. Text, colours and exit codes do not.
"""
