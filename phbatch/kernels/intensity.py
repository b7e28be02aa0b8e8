"""Normalization of intensities: one invertible affine map per frame, in float32."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phbatch.config import Normalization
from phbatch.kernels.stats import FrameStatistics

PERCENTILE_EPSILON = 1e-20
"""CSBDeep's guard of its divisor."""


_NORMAL = 1.4826  # standard deviations per median absolute deviation of a normal distribution


@dataclass(frozen=True)
class Affine:
    """The map ``(x - offset) / divisor``, computed in float32 as CSBDeep computes it, and its inverse.

    Attributes
    ----------
    offset : float
        Subtracted first, in counts.
    divisor : float
        Divided by next, in counts; never zero.
    span : float
        What the inverse multiplies with: the divisor without CSBDeep's epsilon.
    """

    offset: float = 0.0
    divisor: float = 1.0
    span: float = 1.0

    def apply(self, image: NDArray[np.generic]) -> NDArray[np.float32]:
        """Normalize an image of any real dtype and shape.

        Examples
        --------
        >>> Affine(divisor=50.0, span=50.0).apply(np.array([100, 25], np.uint16))
        array([2. , 0.5], dtype=float32)
        """
        result = image.astype(np.float32)
        if self.offset != 0:
            result -= np.float32(self.offset)
        if self.divisor != 1:
            result /= np.float32(self.divisor)
        return result

    def invert(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Undo the normalization: CSBDeep's ``do_after``."""
        return image * np.float32(self.span) + np.float32(self.offset)

    def invert_scale(self, scale: NDArray[np.float32]) -> NDArray[np.float32]:
        """Bring a width, such as the scale of a Laplace distribution, back to counts."""
        return scale * np.float32(self.span)


def make_affine(statistics: FrameStatistics, rule: Normalization) -> Affine | None:
    """The normalization of one frame from its statistics.

    Parameters
    ----------
    statistics : FrameStatistics
        Of the frame; its percentiles must hold those of the rule.
    rule : Normalization
        ``median`` and ``mode`` divide by the factor times the statistic of the smoothed frame; ``percentile`` is
        CSBDeep's ``(x - p_low) / (p_high - p_low + 1e-20)``; ``minmax`` maps the range to 0..1; ``fixed`` divides by
        a value; ``zscore`` subtracts the median and divides by 1.4826 times the median absolute deviation, both of
        the smoothed frame.

    Returns
    -------
    Affine or None
        None where the frame has no scale: it is constant, has NaN or infinity, or its divisor is not above zero. Such a
        frame is passed through unchanged and flagged.
    """
    if "constant" in statistics.flags or "nonfinite" in statistics.flags:
        return None
    if rule.method == "none":
        return Affine()
    if rule.method == "percentile":
        low, high = (np.float32(statistics.percentiles[p]) for p in (rule.pmin, rule.pmax))
        span = np.float32(high - low)
        divisor = np.float32(span + np.float32(PERCENTILE_EPSILON))
        return Affine(float(low), float(divisor), float(span)) if span > 0 else None
    if rule.method == "minmax":
        span = np.float32(np.float32(statistics.max) - np.float32(statistics.min))
        return Affine(float(np.float32(statistics.min)), float(span), float(span)) if span > 0 else None
    median = statistics.median if statistics.median_smooth is None else statistics.median_smooth
    mode = statistics.mode if statistics.mode_smooth is None else statistics.mode_smooth
    if rule.method == "zscore":
        deviation = np.float32(_NORMAL * statistics.mad)
        return Affine(float(np.float32(median)), float(deviation), float(deviation)) if deviation > 0 else None
    if rule.value is not None and rule.method == "fixed":
        divisor_64 = rule.value
    else:
        divisor_64 = rule.factor * (median if rule.method == "median" else mode)
    divisor = np.float32(divisor_64)
    usable = bool(divisor > 0) and math.isfinite(float(divisor)) and bool(np.float32(1) / divisor > 0)
    return Affine(0.0, float(divisor), float(divisor)) if usable else None


def cast(image: NDArray[np.float32], dtype: np.dtype[Any]) -> tuple[NDArray[np.generic], int]:
    """Convert to the storage dtype; integers round half to even and saturate.

    Parameters
    ----------
    image : ndarray of float32
        Any shape.
    dtype : dtype
        Of the output array.

    Returns
    -------
    image : ndarray of `dtype`
        The converted image.
    clipped : int
        Number of pixels outside of the range of `dtype`, which were set to its ends; NaN, which no integer can hold,
        is one of them and becomes the lower end.

    Examples
    --------
    >>> cast(np.array([-1, 2.5, 300], np.float32), np.dtype("uint8"))
    (array([  0,   2, 255], dtype=uint8), 2)
    """
    if dtype == image.dtype:
        return image, 0
    if dtype.kind == "f":
        limit = np.float32(np.finfo(dtype).max)
        clipped = int(np.count_nonzero(np.abs(image) > limit))
        return np.clip(image, -limit, limit).astype(dtype) if clipped else image.astype(dtype), clipped
    info = np.iinfo(dtype)
    rounded = np.rint(image)
    clipped = rounded.size - int(np.count_nonzero((rounded >= info.min) & (rounded <= info.max)))
    rounded = np.fmin(np.fmax(rounded, info.min, out=rounded), info.max, out=rounded)  # unlike clip, these drop NaN
    return rounded.astype(dtype), clipped
