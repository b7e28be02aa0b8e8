"""Tools beside a run: verify and repair, compare rules, describe what is at a path, the demonstration.

They use runs and their parts; nothing that runs uses them.
"""
