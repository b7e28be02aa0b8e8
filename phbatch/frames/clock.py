"""Where the time of a unit goes, by stage."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

STAGES = ("read", "measure", "normalize", "predict", "cast", "levels", "encode", "write")
"""Decoding, statistics, normalization (without a network with the means of coarser levels), the network and its copies,
the cast (on the network's device it is part of predict), coarser levels, encoding, and waiting for the disk, during
which another unit computes."""


class StageClock:
    """Seconds that were spent in each stage; stages do not nest.

    Examples
    --------
    >>> clock = StageClock()
    >>> with clock("read"):
    ...     pass
    >>> list(clock.seconds)
    ['read']
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Count the time inside as the stage's."""
        started = perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + perf_counter() - started
