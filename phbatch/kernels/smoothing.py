"""Gaussian smoothing whose bits do not depend on how the image was cut.

8 and 16 bit integers are smoothed in float32 and rounded to fixed point. The operations of every pixel are the same in
the same order, without fused multiplication: IEEE 754 then fixes every bit, whatever vectors the processor has, for a
block with a halo as for the whole frame. Wider types are smoothed in float64 by SciPy, which adds the taps of each
pixel in one order too.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

TRUNCATE = 4.0
"""The Gaussian is cut off at this many sigma, as SciPy's default is."""

_FIXED_POINT_DTYPES = tuple(np.dtype(name) for name in ("uint8", "int8", "uint16", "int16"))


def gaussian_radius(sigma: float) -> int:
    """Pixels per side that smoothing reads beyond what it writes: SciPy's ``int(truncate * sigma + 0.5)``.

    Examples
    --------
    >>> gaussian_radius(2.0), gaussian_radius(0.0)
    (8, 0)
    """
    return int(TRUNCATE * sigma + 0.5)


def is_fixed_point(dtype: np.dtype[np.generic]) -> bool:
    """Whether smoothed frames of this dtype are kept in fixed point, as a histogram: 8 and 16 bit integers."""
    return dtype in _FIXED_POINT_DTYPES


def smooth_fixed_point(block: NDArray[np.integer], sigma: float, per_unit: int) -> NDArray[np.int32]:
    """Smooth an 8 or 16 bit integer image with a Gaussian, and round it to fixed point.

    The plain version: `phbatch.kernels.counting.count_block` computes the same bits without making the image.

    Parameters
    ----------
    block : (y, x) ndarray of uint8, int8, uint16 or int16
        The image, or a part of it with a halo of ``gaussian_radius(sigma)`` pixels, which the caller crops.
    sigma : float
        Standard deviation in pixels; 0 leaves the image unsmoothed.
    per_unit : int
        Steps per count.

    Returns
    -------
    (y, x) ndarray of int32
        Smoothed intensities in 1 / `per_unit` counts. Beside half a step the difference to
        ``scipy.ndimage.gaussian_filter(block.astype(float), sigma, mode="reflect", truncate=4)`` is at most 2**-20 of
        the largest value for sigma up to 5 (0.06 count of 16 bits), and 2**-18 up to 100 (0.25 count): the sum of all
        roundings at their worst (Higham, 2002, Accuracy and Stability of Numerical Algorithms, section 3.1,
        https://doi.org/10.1137/1.9780898718027). A quarter of that was the most that was found.

    Examples
    --------
    >>> smooth_fixed_point(np.array([[0, 30, 0]], np.uint8), 0.5, per_unit=256)
    array([[ 820, 6041,  820]], dtype=int32)
    """
    weights = half_weights(sigma)
    columns = _smooth_first_axis(block.astype(np.float32), weights)
    smooth = _smooth_first_axis(columns.T, weights).T
    steps: NDArray[np.float32] = np.floor(smooth * np.float32(per_unit) + np.float32(0.5))
    return steps.astype(np.int32)


def _smooth_first_axis(image: NDArray[np.float32], weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """The centre, then pairs of taps from the outermost inwards, four at a time: roundings of small sums are small."""
    radius, size = weights.size - 1, image.shape[0]
    padded = np.pad(image, ((radius, radius), (0, 0)), mode="symmetric")

    def pair(k: int) -> NDArray[np.float32]:
        before, after = padded[radius - k :][:size], padded[radius + k :][:size]
        return np.asarray(weights[k] * (before + after), np.float32)

    total = weights[0] * image
    for k in range(radius - 3, 0, -4):
        total += (pair(k) + pair(k + 1)) + (pair(k + 2) + pair(k + 3))
    return np.asarray(total)


def smooth_float(block: NDArray[np.generic], sigma: float) -> NDArray[np.float64]:
    """Smooth an image of any real dtype with SciPy's Gaussian in float64 (reflect border, truncated at 4 sigma).

    Parameters
    ----------
    block : (y, x) ndarray
        The image.
    sigma : float
        Standard deviation in pixels; 0 returns the image unsmoothed.

    Returns
    -------
    (y, x) ndarray of float64
        Smoothed intensities.
    """
    image = block.astype(np.float64)
    if sigma == 0:
        return image
    return np.asarray(ndimage.gaussian_filter(image, sigma, mode="reflect", truncate=TRUNCATE))


@lru_cache(maxsize=64)
def half_weights(sigma: float) -> NDArray[np.float32]:
    """Gaussian weights of the centre and of one side, which zeros fill up to a multiple of four.

    Examples
    --------
    >>> half_weights(0.5).round(4).tolist() == np.array([0.7866, 0.1065, 0.0003, 0, 0], np.float32).tolist()
    True
    """
    radius = gaussian_radius(sigma)
    weights = np.zeros(1 + -(-radius // 4) * 4)
    weights[0] = 1.0
    weights[1 : radius + 1] = [math.exp(-0.5 * (k / sigma) ** 2) for k in range(1, radius + 1)]
    rounded = (weights / (1.0 + 2.0 * math.fsum(weights[1:]))).astype(np.float32)
    rounded.setflags(write=False)
    return rounded
