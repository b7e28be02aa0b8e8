"""Statistics over time: which frames of a series are bad, and a running median that spikes do not move."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from phbatch.kernels.stats import FrameStatistics

OUTLIER_DEVIATIONS = 8.0
"""A frame is an outlier this many scaled median absolute deviations from its neighbours' median."""

_MIN_FRAMES = 5  # fewer tell nothing of what is usual
_NORMAL = 1.4826  # standard deviations per median absolute deviation of a normal distribution


def running_median(values: NDArray[np.float64], good: NDArray[np.bool_], window: int) -> NDArray[np.float64]:
    """Median of the good values within a window about each position, shorter at the ends.

    Parameters
    ----------
    values : (n,) ndarray of float64
        One statistic over time.
    good : (n,) ndarray of bool
        Which of them count.
    window : int
        Odd number of frames; where it holds no good one, the nearest good one is taken.

    Returns
    -------
    (n,) ndarray of float64
        NaN where no value at all is good.

    Examples
    --------
    >>> running_median(np.array([10.0, 10, 99, 12, 12]), np.ones(5, bool), 3)
    array([10., 10., 12., 12., 12.])
    """
    found = np.full(len(values), np.nan)
    places = np.flatnonzero(good)
    if places.size == 0:
        return found
    reach = window // 2
    for t in range(len(values)):
        near = places[(places >= t - reach) & (places <= t + reach)]
        if near.size == 0:
            near = places[[np.argmin(np.abs(places - t))]]
        found[t] = np.median(values[near])
    return found


def flag_bad_frames(rows: list[FrameStatistics]) -> list[tuple[str, ...]]:
    """Words for what is wrong with each frame of one series, beyond what its own statistics say.

    Parameters
    ----------
    rows : list of FrameStatistics
        One channel and plane, in the order of time.

    Returns
    -------
    list of tuple of str
        ``duplicate``: equal to the frame before in every statistic. ``black``: median below half of the series' and an
        outlier of its logarithm. ``saturated``: more than 5 % saturated pixels and an outlier. ``out-of-focus``: focus
        relative to the squared median below half of the series' and an outlier of its logarithm. Outliers are 8 scaled
        median absolute deviations away, among at least 5 frames that are finite and not constant.
    """
    usable = np.array([not row.flags for row in rows])
    flags: list[tuple[str, ...]] = [()] * len(rows)

    def mark(found: NDArray[np.bool_], word: str) -> None:
        for t in np.flatnonzero(found & usable):
            flags[t] = (*flags[t], word)

    mark(np.array([t > 0 and _same(rows[t - 1], rows[t]) for t in range(len(rows))], dtype=bool), "duplicate")
    if usable.sum() < _MIN_FRAMES:
        return flags
    median = np.array([row.median for row in rows])
    with np.errstate(invalid="ignore", divide="ignore"):
        level = np.log(np.where(median > 0, median, np.nan))
        sharpness = np.log(np.array([row.focus for row in rows]) / median**2)
    saturated = np.array([row.saturated for row in rows])
    black = _outlies(-level, usable, 0.01) & (level < np.nanmedian(level[usable]) - np.log(2)) | ~(median > 0)
    mark(black, "black")
    mark(_outlies(saturated, usable, 0.005) & (saturated > 0.05), "saturated")
    lit = usable & ~black
    blurred = _outlies(-sharpness, lit, 0.02) & (sharpness < np.nanmedian(sharpness[lit]) - np.log(2))
    mark(blurred & lit, "out-of-focus")
    return flags


def _outlies(values: NDArray[np.float64], usable: NDArray[np.bool_], floor: float) -> NDArray[np.bool_]:
    """Where values are far above what is usual; `floor` is the least deviation that counts as one."""
    known = values[usable & np.isfinite(values)]
    if known.size == 0:
        return np.zeros(len(values), bool)
    center = np.median(known)
    deviation = max(_NORMAL * float(np.median(np.abs(known - center))), floor)
    return np.asarray(values > center + OUTLIER_DEVIATIONS * deviation)


def _same(first: FrameStatistics, second: FrameStatistics) -> bool:
    return _numbers(first) == _numbers(second)


def _numbers(row: FrameStatistics) -> tuple[float | Mapping[float, float], ...]:
    return (row.median, row.mode, row.mad, row.mean, row.std, row.focus, dict(row.percentiles))
