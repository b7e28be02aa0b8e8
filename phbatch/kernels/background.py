"""The background of a frame: what an empty field of view under the same light would look like, in counts.

Cells are outliers of a smooth surface. Both estimators start with a polynomial surface fitted robustly: iteratively
reweighted least squares (Holland and Welsch 1977, 10.1080/03610927708827533) with Tukey's bisquare (Beaton and Tukey
1974, 10.1080/00401706.1974.10489171), so that bright halos and dark bodies weigh nothing. A pixel near an outlier
weighs as little, down to a tenth, since halos fade below the noise. All this is done on area averages of at most 4 x 4
pixels, in which cells are still resolved. Twice the image has twice the background.
"""

from __future__ import annotations

from math import isqrt
from typing import Any

import numba
import numpy as np
from numpy.typing import DTypeLike, NDArray
from scipy import ndimage

from phbatch.errors import InputError
from phbatch.kernels.downsample import area_average, upscale
from phbatch.kernels.histogram import STD_PER_MAD

_compile = numba.njit(nogil=True, cache=True, error_model="numpy")

_CUTOFF = 4.685  # standard deviations: 95 % efficiency for normal noise
_LEAST_SCALE = 0.03  # of the level: light in a corner that the surface misses is no outlier, however clean the frame
_MAX_FACTOR = 4  # cells must still be resolved in the averages, to be told from the background
_FINE_SIZE = 256  # averages along the side of a square frame, unless the factor would be larger
_SIGMA_BLOCKS = 6.0  # of the Gaussian, in the blocks that it is computed on
_REACH = 8  # pixels about an outlier that weigh as little
_SPARED = 0.1  # of its own weight that a pixel near outliers keeps: a crowded frame is still covered
_FITS = 20
_TOLERANCE = 1e-3  # of the scale of the residuals: a fit that moves less has converged
_ROUNDS = 3
_MEDIAN_VALUES = 1 << 20  # of a stack that are sorted at a time
_PRIOR = 0.01  # weight of the surface where nothing but cells lies under the Gaussian

Float = NDArray[np.float64]


def polynomial_background(image: NDArray[Any], order: int = 2) -> NDArray[np.float32]:
    """Robust polynomial surface through the background.

    Parameters
    ----------
    image : (y, x) ndarray
        A frame, or the temporal median of many, of any real dtype.
    order : int
        Highest sum of the powers of y and x, 0 to 6.

    Returns
    -------
    (y, x) ndarray of float32
        The background in counts. Memory, with this: 1.2 float32 frames from 1024 x 1024 pixels on, 3 from 512 x 512
        on, and 13 MB below.

    Raises
    ------
    InputError
        If a pixel is NaN or infinite.

    Examples
    --------
    >>> polynomial_background(np.array([[1, 2, 3], [2, 3, 4]], np.uint8), order=1).round(3)
    array([[1., 2., 3.],
           [2., 3., 4.]], dtype=float32)
    """
    if not 0 <= order <= 6:
        raise ValueError(f"order is {order}; it must be an integer of 0 to 6")
    fine, factor = _reduce(image)
    y, x = (_places(size, factor) for size in image.shape)
    coefficients = _fit(fine, y, x, order, factor)
    return _surface(coefficients, _places(image.shape[0], 1), _places(image.shape[1], 1), np.float32)


def gaussian_background(image: NDArray[Any], sigma: float | None = None) -> NDArray[np.float32]:
    """Wide Gaussian average of the background, without the cells and without a bias at the borders.

    A robust quadratic surface is subtracted, the rest is averaged with a Gaussian in which outliers weigh nothing
    (normalized convolution, Knutsson and Westin 1993, 10.1109/CVPR.1993.341081), and the surface is added again. The
    outliers are told anew from each estimate, three times. Where light falls below half in a corner, which the surface
    misses by more than an outlier, prefer `polynomial_background` of order 4; where cells leave hardly any background
    over several `sigma`, one of order 2.

    Parameters
    ----------
    image : (y, x) ndarray
        A frame, or the temporal median of many, of any real dtype.
    sigma : float, optional
        Standard deviation of the Gaussian in pixels; an eighth of the shorter side unless given.

    Returns
    -------
    (y, x) ndarray of float32
        The background in counts. Memory, with this: 2.5 float32 frames from 1024 x 1024 pixels on, 4 from 512 x 512
        on, and 16 MB below.

    Raises
    ------
    InputError
        If a pixel is NaN or infinite.

    Examples
    --------
    >>> gaussian_background(np.full((3, 4), 7, np.uint8))[0]
    array([7., 7., 7., 7.], dtype=float32)
    """
    width = min(image.shape) / 8 if sigma is None else sigma
    if not width > 0:
        raise ValueError(f"sigma is {sigma}; it must be above 0 pixels")
    fine, factor = _reduce(image)
    y, x = (_places(size, factor) for size in image.shape)
    coefficients = _fit(fine, y, x, 2, factor)
    rest = fine - _surface(coefficients, y, x, np.float64)
    blocks = max(1, int(width / (factor * _SIGMA_BLOCKS)))
    level, smooth = float(np.median(fine)), np.zeros_like(rest, np.float32)
    for _ in range(_ROUNDS):
        weights, _ = _weigh(rest - smooth, level, factor)
        average = _average_blocks(rest, weights, blocks, width / (factor * blocks))
        smooth = upscale(average, blocks, rest.shape)
    background = _surface(coefficients, _places(image.shape[0], 1), _places(image.shape[1], 1), np.float32)
    background += upscale(average, factor * blocks, image.shape)
    return background


def temporal_background(stack: NDArray[Any]) -> NDArray[np.float32]:
    """Median over time of every pixel: the static background that moving cells leave free most of the time.

    Parameters
    ----------
    stack : (t, y, x) ndarray
        Frames of any real dtype, of one brightness: divide by their medians first where the lamp flickers.

    Returns
    -------
    (y, x) ndarray of float32
        In counts; NaN where a frame is NaN. Memory, with this: a float32 frame and a million values of
        the stack.

    Examples
    --------
    >>> temporal_background(np.array([[[5, 9]], [[5, 1]], [[80, 2]]], np.uint16))
    array([[5., 2.]], dtype=float32)
    """
    if stack.ndim != 3 or stack.size == 0:
        raise ValueError(f"the stack has shape {stack.shape}; it must be (t, y, x) with a pixel at least")
    result = np.empty(stack.shape[1:], np.float32)
    rows = max(1, _MEDIAN_VALUES // (stack.shape[0] * stack.shape[2]))
    for top in range(0, stack.shape[1], rows):
        band = np.array(np.moveaxis(stack[:, top : top + rows], 0, -1), order="C")  # a copy: the median sorts it
        result[top : top + rows] = np.median(band, axis=-1, overwrite_input=True)
    return result


def _reduce(image: NDArray[Any]) -> tuple[Float, int]:
    """Average over blocks in which cells are still resolved; also return the edge of a block."""
    if image.ndim != 2 or image.size == 0:
        raise ValueError(f"the image has shape {image.shape}; it must be (y, x) with a pixel at least")
    factor = max(1, min(_MAX_FACTOR, isqrt(image.size) // _FINE_SIZE))
    fine = area_average(image, factor).astype(np.float64)
    if not np.isfinite(fine).all():
        raise InputError(
            "The frame holds NaN or infinite pixels; its background can be estimated only where every pixel is finite, "
            "so fill them or leave the frame out."
        )
    return fine, factor


def _places(size: int, factor: int) -> Float:
    """Centres of the blocks of an axis, from -1 in its first pixel to 1 in its last."""
    starts = np.arange(0, size, factor)
    centres = starts + np.minimum(starts + factor, size) - 1
    return (centres - (size - 1)) / max(size - 1, 1)


def _weigh(rest: Float, level: float, factor: int) -> tuple[Float, float]:
    """Tukey's weights of residuals, lowered near outliers, and the scale: the normalized median absolute deviation."""
    deviation = float(np.median(np.abs(rest[::2, ::2])))  # a quarter of them tells it as well
    scale = max(STD_PER_MAD * deviation, _LEAST_SCALE * abs(level))
    if scale == 0:
        weights = (rest == 0).astype(np.float64)
    else:
        weights = (1 - np.minimum((rest / (_CUTOFF * scale)) ** 2, 1)) ** 2
    lowest = np.empty_like(weights)
    _erode(weights, _REACH // factor, lowest)
    lowest += _SPARED * weights
    return lowest, scale


def _fit(image: Float, y: Float, x: Float, order: int, factor: int) -> Float:
    """Fit a robust polynomial: coefficients of y**i * x**j, 0 where i + j exceeds the order."""
    coefficients = np.zeros((order + 1, order + 1))
    coefficients[0, 0] = level = float(np.median(image))
    for _ in range(_FITS):
        rest = image - _surface(coefficients, y, x, np.float64)
        weights, scale = _weigh(rest, level, factor)
        step = _solve(rest, weights, y, x, order)
        coefficients += step
        if np.abs(step).sum() <= _TOLERANCE * scale:
            break
    return coefficients


def _solve(rest: Float, weights: Float, y: Float, x: Float, order: int) -> Float:
    """Weighted least squares by its normal equations, whose sums over the grid separate into y and x."""
    i, j = np.array([(i, j) for i in range(order + 1) for j in range(order + 1 - i)]).T
    moments = _moments(weights, y, x, 2 * order)
    matrix = moments[i[:, None] + i, j[:, None] + j]
    found = np.zeros((order + 1, order + 1))
    found[i, j] = np.linalg.lstsq(matrix, _moments(weights * rest, y, x, order)[i, j], rcond=None)[0]
    return found


def _moments(values: Float, y: Float, x: Float, highest: int) -> Float:
    """Sums of values * y**p * x**q over the grid for every p and q up to the highest."""
    powers = np.arange(highest + 1)[:, None]
    rows = np.einsum("yx,qx->yq", values, x**powers)  # einsum, since BLAS adds in an order that depends on its threads
    return np.asarray(np.einsum("py,yq->pq", y**powers, rows))


def _average_blocks(rest: Float, weights: Float, blocks: int, sigma: float) -> NDArray[np.float32]:
    """Weighted Gaussian average over the image, on blocks; where no weight is, 0."""
    total, weight = (
        ndimage.gaussian_filter(area_average(values, blocks).astype(np.float64), sigma, mode="constant")
        for values in (rest * weights, weights)
    )
    return np.asarray(total / (weight + _PRIOR), np.float32)


def _surface(coefficients: Float, y: Float, x: Float, dtype: DTypeLike) -> NDArray[Any]:
    surface = np.empty((y.size, x.size), dtype)
    _evaluate(coefficients, y, x, surface)
    return surface


@_compile  # type: ignore[untyped-decorator]
def _evaluate(coefficients: Any, y: Any, x: Any, surface: Any) -> None:  # pragma: no cover
    """Horner's scheme, along y for the coefficients of a row, then along x."""
    order = coefficients.shape[0] - 1
    row = np.empty(order + 1)
    for i in range(y.size):
        for q in range(order + 1):
            row[q] = coefficients[order, q]
            for p in range(order - 1, -1, -1):
                row[q] = row[q] * y[i] + coefficients[p, q]
        for j in range(x.size):
            value = row[order]
            for q in range(order - 1, -1, -1):
                value = value * x[j] + row[q]
            surface[i, j] = value


@_compile  # type: ignore[untyped-decorator]
def _erode(values: Any, reach: int, lowest: Any) -> None:  # pragma: no cover
    """Minimum over a square window about each pixel, shorter at the borders."""
    height, width = values.shape
    column = np.full(width + 2 * reach, np.inf)
    for y in range(height):
        column[reach : reach + width] = values[y]
        for other in range(max(y - reach, 0), min(y + reach + 1, height)):
            for x in range(width):
                column[reach + x] = min(column[reach + x], values[other, x])
        lowest[y] = column[:width]
        for shift in range(1, 2 * reach + 1):
            for x in range(width):
                lowest[y, x] = min(lowest[y, x], column[x + shift])
