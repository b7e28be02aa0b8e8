"""Real clusters: worker processes over TCP, and schedulers of jobs where they are installed."""

FRAMES = 8
"""Of the input of the fixture `plain`."""
