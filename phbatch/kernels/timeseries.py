"""Statistics over time: which frames of a series are bad, and a running median that spikes do not move."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from phbatch.kernels.histogram import STD_PER_MAD

OUTLIER_DEVIATIONS = 8.0
"""A frame is an outlier this many scaled median absolute deviations from its neighbours' median."""

_LIT_DEVIATIONS = 4.0  # scaled MADs of its medians that a series lies above zero, for zero to be a level of darkness
_MIN_FRAMES = 5  # fewer tell nothing of what is usual


def running_median(values: NDArray[np.float64], good: NDArray[np.bool_], window: int) -> NDArray[np.float64]:
    """Median of an odd number of good values about each position, which narrows by two towards the ends.

    As many good values before a position are taken as after it, so that neither an end nor a bad frame shifts the
    window: a single spike moves none of its neighbours, and a jump stays where it is.

    Parameters
    ----------
    values : (n,) ndarray of float64
        One statistic over time.
    good : (n,) ndarray of bool
        Which of them count.
    window : int
        Odd number of frames. A position that is not good gets the median of the nearest good one, the earlier of two.

    Returns
    -------
    (n,) ndarray of float64
        NaN where no value at all is good.

    Examples
    --------
    >>> running_median(np.array([10.0, 10, 99, 12, 12]), np.ones(5, bool), 3)
    array([10., 10., 12., 12., 12.])
    >>> running_median(np.array([10.0, 15, 15, 15, 99]), np.ones(5, bool), 3)
    array([10., 15., 15., 15., 99.])
    """
    found = np.full(len(values), np.nan)
    places = np.flatnonzero(good)
    if places.size == 0:
        return found
    reach = window // 2
    for rank, t in enumerate(places):
        before = rank - np.searchsorted(places, t - reach)
        after = np.searchsorted(places, t + reach, side="right") - rank - 1
        side = min(before, after)
        found[t] = np.median(values[places[rank - side : rank + side + 1]])
    for t in np.flatnonzero(~good):
        found[t] = found[places[np.argmin(np.abs(places - t))]]
    return found


def flag_bad_frames(
    columns: Mapping[str, NDArray[np.float64]], usable: NDArray[np.bool_]
) -> dict[str, NDArray[np.bool_]]:
    """What is wrong with the frames of one series, beyond what the statistics of each say by themselves.

    Parameters
    ----------
    columns : mapping of str to (n,) ndarray of float64
        Statistics of one channel and plane, in the order of time: at least median, std, max, focus and saturated.
    usable : (n,) ndarray of bool
        Frames without a flag of their own.

    Returns
    -------
    dict of str to (n,) ndarray of bool
        ``duplicate``: equal to the frame before in every statistic. ``black``: much darker than the series, see below.
        ``saturated``: more than 5 % of the pixels at the series' maximum, and an outlier. ``out-of-focus``: focus
        relative to the squared brightness below half of the series' and an outlier of its logarithm. Outliers are 8
        scaled median absolute deviations away, among at least 5 frames that are finite and not constant.

        Where the medians of a series are clearly above zero, a frame is black whose median is below half of the
        series' and an outlier of its logarithm, or not above zero; its brightness is the median. Where they are not, as
        after a background was subtracted, a frame is black whose median is an outlier below the series', by a
        standard deviation of its pixels at least; its brightness is that standard deviation.
    """
    same = np.ones(len(usable), bool)
    for values in columns.values():
        same[1:] &= values[1:] == values[:-1]
    same[0] = False
    flags = {"duplicate": same & usable}
    if usable.sum() < _MIN_FRAMES:
        return flags
    median, saturated, high = columns["median"], columns["saturated"], columns["max"]
    center = _center(median[usable])
    lit_series = center > _LIT_DEVIATIONS * _deviation(median, usable)
    if lit_series:
        with np.errstate(invalid="ignore", divide="ignore"):
            level = np.log(np.where(median > 0, median, np.nan))
        black = _outlies(-level, usable, 0.01) & (level < _center(level[usable]) - np.log(2)) | ~(median > 0)
        brightness = median
    else:
        contrast = _center(columns["std"][usable])
        black = _outlies(-median, usable, contrast / OUTLIER_DEVIATIONS)
        brightness = columns["std"]
    with np.errstate(invalid="ignore", divide="ignore"):
        sharpness = np.log(columns["focus"] / brightness**2)
    flags["black"] = black & usable
    top = high >= np.max(high[usable])
    flags["saturated"] = _outlies(saturated, usable, 0.005) & (saturated > 0.05) & top & usable
    lit = usable & ~black
    blurred = _outlies(-sharpness, lit, 0.02) & (sharpness < _center(sharpness[lit]) - np.log(2))
    flags["out-of-focus"] = blurred & lit
    return flags


def _outlies(values: NDArray[np.float64], usable: NDArray[np.bool_], floor: float) -> NDArray[np.bool_]:
    """Where values are far above what is usual; `floor` is the least deviation that counts as one."""
    deviation = np.fmax(_deviation(values, usable), floor)
    return np.asarray(values > _center(values[usable]) + OUTLIER_DEVIATIONS * deviation)


def _deviation(values: NDArray[np.float64], usable: NDArray[np.bool_]) -> float:
    return STD_PER_MAD * _center(np.abs(values[usable] - _center(values[usable])))


def _center(values: NDArray[np.float64]) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if known.size else np.nan
