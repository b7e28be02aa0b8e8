"""What can be said of a frame at a glance, where its pixels are only copied: its range, and what to show of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phbatch.kernels.display import percentiles_of
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
    low, high, nan = float(frame.min()), float(frame.max()), float("nan")
    if np.isnan(low) or np.isinf((low, high)).any():
        return FrameStatistics(*(nan,) * 6, dict.fromkeys(percentiles, nan), *(nan,) * 6, flags=("nonfinite",))
    some = frame.reshape(-1, frame.shape[-1])[::_ROWS]
    found = percentiles_of(some, percentiles).tolist()
    flags = () if low != high else ("zero", "constant") if low == 0 else ("constant",)
    values = dict(zip(percentiles, found, strict=True))
    return FrameStatistics(*(nan,) * 4, low, high, values, *(nan,) * 6, flags=flags)
