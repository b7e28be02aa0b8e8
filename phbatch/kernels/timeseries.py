"""Statistics over time: which frames of a series are bad, and a running median that spikes do not move."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from phbatch.kernels.histogram import STD_PER_MAD

OUTLIER_DEVIATIONS = 8.0
"""A frame is an outlier this many scaled median absolute deviations from its neighbours' median."""

_MIN_FRAMES = 5  # fewer tell nothing of what is usual


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
    times, reach = np.arange(len(values)), window // 2
    first = np.searchsorted(places, times - reach)
    stop = np.searchsorted(places, times + reach, side="right")
    for t in times:
        near = places[first[t] : stop[t]]
        if near.size == 0:
            near = places[[np.argmin(np.abs(places - t))]]
        found[t] = np.median(values[near])
    return found


def flag_bad_frames(
    columns: Mapping[str, NDArray[np.float64]], usable: NDArray[np.bool_]
) -> dict[str, NDArray[np.bool_]]:
    """What is wrong with the frames of one series, beyond what the statistics of each say by themselves.

    Parameters
    ----------
    columns : mapping of str to (n,) ndarray of float64
        Statistics of one channel and plane, in the order of time: at least median, focus and saturated.
    usable : (n,) ndarray of bool
        Frames without a flag of their own.

    Returns
    -------
    dict of str to (n,) ndarray of bool
        ``duplicate``: equal to the frame before in every statistic. ``black``: median below half of the series' and an
        outlier of its logarithm. ``saturated``: more than 5 % saturated pixels and an outlier. ``out-of-focus``: focus
        relative to the squared median below half of the series' and an outlier of its logarithm. Outliers are 8 scaled
        median absolute deviations away, among at least 5 frames that are finite and not constant.
    """
    same = np.ones(len(usable), bool)
    for values in columns.values():
        same[1:] &= values[1:] == values[:-1]
    same[0] = False
    flags = {"duplicate": same & usable}
    if usable.sum() < _MIN_FRAMES:
        return flags
    median, saturated = columns["median"], columns["saturated"]
    with np.errstate(invalid="ignore", divide="ignore"):
        level = np.log(np.where(median > 0, median, np.nan))
        sharpness = np.log(columns["focus"] / median**2)
    black = _outlies(-level, usable, 0.01) & (level < _center(level[usable]) - np.log(2)) | ~(median > 0)
    flags["black"] = black & usable
    flags["saturated"] = _outlies(saturated, usable, 0.005) & (saturated > 0.05) & usable
    lit = usable & ~black
    blurred = _outlies(-sharpness, lit, 0.02) & (sharpness < _center(sharpness[lit]) - np.log(2))
    flags["out-of-focus"] = blurred & lit
    return flags


def _outlies(values: NDArray[np.float64], usable: NDArray[np.bool_], floor: float) -> NDArray[np.bool_]:
    """Where values are far above what is usual; `floor` is the least deviation that counts as one."""
    center = _center(values[usable])
    deviation = np.fmax(STD_PER_MAD * _center(np.abs(values[usable] - center)), floor)
    return np.asarray(values > center + OUTLIER_DEVIATIONS * deviation)


def _center(values: NDArray[np.float64]) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if known.size else np.nan
