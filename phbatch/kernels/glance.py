"""What can be said of a frame at a glance, where its pixels are only copied: its range, and what to show of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phbatch.kernels.display import percentiles_of, percentiles_of_blocks
from phbatch.kernels.stats import DEFAULT_PERCENTILES, FrameStatistics

_ROWS = 8
"""One row of so many is sorted for the percentiles."""


def glance_at(frame: NDArray[Any], percentiles: Sequence[float] = DEFAULT_PERCENTILES) -> FrameStatistics:
    """Range of a frame, exactly, and percentiles of every eighth of its rows; all else is NaN, and not measured.

    Examples
    --------
    >>> found = glance_at(np.arange(256, dtype=np.uint16).reshape(16, 16))
    >>> found.min, found.max, found.flags
    (0.0, 255.0, ())
    """
    some = frame.reshape(-1, frame.shape[-1])[::_ROWS]
    ends = [(float(frame.min()), float(frame.max()))]
    return _glance(ends, percentiles, lambda: percentiles_of(some, percentiles))


def glance_at_blocks(
    read: Callable[[], Iterable[NDArray[Any]]], percentiles: Sequence[float] = DEFAULT_PERCENTILES
) -> FrameStatistics:
    """The same of a frame that is read in blocks of rows, up to three times; all but the last have a multiple of 8."""

    def some() -> Iterator[NDArray[Any]]:
        return (block[::_ROWS] for block in read())

    def select() -> NDArray[np.float64]:
        found = percentiles_of_blocks(some, percentiles)
        return percentiles_of(np.concatenate(list(some())), percentiles) if found is None else found

    ends = [(float(block.min()), float(block.max())) for block in read()]
    return _glance(ends, percentiles, select)


def _glance(
    ends: Sequence[tuple[float, float]], percentiles: Sequence[float], select: Callable[[], NDArray[np.float64]]
) -> FrameStatistics:
    """From the smallest and largest pixel of every block, and percentiles, which are found where all is finite."""
    nan = float("nan")
    if not np.isfinite(ends).all():
        return FrameStatistics(*(nan,) * 6, dict.fromkeys(percentiles, nan), *(nan,) * 6, flags=("nonfinite",))
    low, high = min(low for low, _ in ends), max(high for _, high in ends)
    flags = () if low != high else ("zero", "constant") if low == 0 else ("constant",)
    values = dict(zip(percentiles, select().tolist(), strict=True))
    return FrameStatistics(*(nan,) * 4, low, high, values, *(nan,) * 6, flags=flags)
