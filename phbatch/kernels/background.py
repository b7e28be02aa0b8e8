"""The background of a frame: what an empty field of view under the same light would look like, in counts.

Cells are outliers of a smooth surface. Both estimators start with a polynomial surface fitted robustly: iteratively
reweighted least squares (Holland and Welsch 1977, 10.1080/03610927708827533) with Tukey's bisquare (Beaton and Tukey
1974, 10.1080/00401706.1974.10489171), so that bright halos and dark bodies weigh nothing. A pixel near an outlier
weighs as little, down to a tenth, since halos fade below the noise. All this is done on area averages of at most 4 x 4
pixels, in which cells are still resolved. Twice the image has twice the background.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray
from scipy import ndimage

from phbatch.kernels.compiled import compile_later
from phbatch.kernels.downsample import area_average, upscale
from phbatch.kernels.histogram import STD_PER_MAD
from phbatch.words.errors import InputError

_CUTOFF = 4.685  # standard deviations: 95 % efficiency for normal noise
_LEAST_SCALE = 0.03  # of the level: light in a corner that the surface misses is no outlier, however clean the frame
_MAX_FACTOR = 4  # cells must still be resolved in the averages, to be told from the background
_FINE_SIZE = 256  # averages along the side of a square frame, unless the factor would be larger
_SIGMA_BLOCKS = 6.0  # of the Gaussian, in the blocks that it is computed on
_REACH = 8  # pixels about an outlier that weigh as little
_SPARED = 0.1  # of its own weight that a pixel near outliers keeps: a crowded frame is still covered
_COARSE_SIZE = 64  # medians along the shorter side, that are fitted first
_COARSE_TOLERANCE = 1e-2
_WORTH = 1.04  # of what a quadratic agrees with: what a bowl must agree with to be taken
_FITS = 20
_TOLERANCE = 1e-3  # of the scale of the residuals: a fit that moves less has converged
_ROUNDS = 3
_MEDIAN_VALUES = 1 << 20  # of a stack that are sorted at a time
_STEEPEST = 4.0  # of the logarithm of the median over the light
_SLACK = 0.5  # of the logarithm of light over the brightest of a frame
_PRIOR = 0.01  # weight of the surface where nothing but cells lies under the Gaussian

Float = NDArray[np.float64]


def polynomial_background(image: NDArray[Any], order: int | None = None, *, light: bool = True) -> NDArray[np.float32]:
    """Robust polynomial surface through the background, or through its logarithm.

    Parameters
    ----------
    image : (y, x) ndarray
        A frame, or the temporal median of many, of any real dtype.
    order : int, optional
        Highest sum of the powers of y and x, 0 to 6. Unless given it is 2, and a vignette that no quadratic follows
        adds a bowl: the fourth power of the distance from an axis.
    light : bool
        Whether the background multiplies the image: the polynomial is then its logarithm, and it is above 0.

    Returns
    -------
    (y, x) ndarray of float32
        The background in counts. Memory, with this: 1.2 float32 frames from 1024 x 1024 pixels on, 3 from 512 x 512
        on, and 13 MB below.

    Raises
    ------
    InputError
        If a pixel is NaN or infinite, or the background of light is not above 0.

    Examples
    --------
    >>> polynomial_background(np.array([[1, 2, 4], [2, 4, 8]], np.uint8), order=1).round(3)
    array([[1., 2., 4.],
           [2., 4., 8.]], dtype=float32)
    """
    if order is not None and not 0 <= order <= 6:
        raise ValueError(f"order is {order}; it must be an integer of 0 to 6")
    fine, factor, level = _reduce(image, light)
    coefficients = _fit(fine, image.shape, factor, level, order)
    return _background(coefficients, image.shape, level)


def gaussian_background(image: NDArray[Any], sigma: float | None = None, *, light: bool = True) -> NDArray[np.float32]:
    """Wide Gaussian average of the background, without the cells and without a bias at the borders.

    The surface of `polynomial_background` is taken out, the rest is averaged with a Gaussian in which outliers weigh
    nothing (normalized convolution, Knutsson and Westin 1993, 10.1109/CVPR.1993.341081), and the surface is put back.
    The outliers are told anew from each estimate, three times. Where cells leave hardly any background over several
    `sigma`, prefer `polynomial_background`.

    Parameters
    ----------
    image : (y, x) ndarray
        A frame, or the temporal median of many, of any real dtype.
    sigma : float, optional
        Standard deviation of the Gaussian in pixels; an eighth of the shorter side unless given.
    light : bool
        As for `polynomial_background`.

    Returns
    -------
    (y, x) ndarray of float32
        The background in counts. Memory, with this: 2.5 float32 frames from 1024 x 1024 pixels on, 4 from 512 x 512
        on, and 16 MB below.

    Raises
    ------
    InputError
        If a pixel is NaN or infinite, or the background of light is not above 0.

    Examples
    --------
    >>> gaussian_background(np.full((3, 4), 7, np.uint8))[0]
    array([7., 7., 7., 7.], dtype=float32)
    """
    width = min(image.shape) / 8 if sigma is None else sigma
    if not width > 0:
        raise ValueError(f"sigma is {sigma}; it must be above 0 pixels")
    fine, factor, level = _reduce(image, light)
    coefficients = _fit(fine, image.shape, factor, level, None)
    rest = _rest(fine, coefficients, image.shape, factor, level)
    blocks = max(1, int(width / (factor * _SIGMA_BLOCKS)))
    smooth = np.zeros_like(rest, np.float32)
    for _ in range(_ROUNDS):
        weights = _weigh(rest - smooth, level, factor)[0]
        if level.light:
            weights[fine <= 0] = 0
        average = _average_blocks(rest, weights, blocks, width / (factor * blocks))
        smooth = upscale(average, blocks, rest.shape)
    return _background(coefficients, image.shape, level, upscale(average, factor * blocks, image.shape))


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


@dataclass(frozen=True)
class _Level:
    """Median and maximum of a frame, and whether its background is ``median * exp(polynomial)`` or the polynomial."""

    median: float
    highest: float
    light: bool

    @property
    def least_scale(self) -> float:
        """Residuals below it are no outliers; those of light are relative to it."""
        return _LEAST_SCALE * (1.0 if self.light else abs(self.median))


def _reduce(image: NDArray[Any], light: bool) -> tuple[Float, int, _Level]:
    """Average over blocks in which cells are still resolved; also return the edge of a block, and the level."""
    if image.ndim != 2 or image.size == 0:
        raise ValueError(f"the image has shape {image.shape}; it must be (y, x) with a pixel at least")
    factor = max(1, min(_MAX_FACTOR, isqrt(image.size) // _FINE_SIZE))
    fine = area_average(image, factor).astype(np.float64)
    if not np.isfinite(fine).all():
        raise InputError(
            "The frame holds NaN or infinite pixels; its background can be estimated only where every pixel is finite, "
            "so fill them or leave the frame out."
        )
    level = _Level(float(np.median(fine)), float(fine.max()), light)
    if light and not level.median > 0:
        raise InputError(
            f"The median of the frame is {level.median:g} counts and its light would divide it; it must be above 0, so"
            " leave the frame out or subtract the background instead."
        )
    return fine, factor, level


def _places(size: int, factor: int) -> Float:
    """Centres of the blocks of an axis, from -1 in its first pixel to 1 in its last."""
    starts = np.arange(0, size, factor)
    centres = starts + np.minimum(starts + factor, size) - 1
    return (centres - (size - 1)) / max(size - 1, 1)


def _rest(image: Float, coefficients: Float, shape: tuple[int, ...], factor: int, level: _Level) -> Float:
    """What the surface leaves: counts, or relative to the light."""
    y, x = (_places(size, factor) for size in shape)
    surface: Float = _surface(coefficients, y, x, np.float64)
    if not level.light:
        return np.subtract(image, surface, out=surface)
    rest: Float = np.exp(np.negative(surface, out=surface), out=surface)
    rest *= image
    rest /= level.median
    rest -= 1
    return rest


def _background(
    coefficients: Float, shape: tuple[int, ...], level: _Level, rest: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """The inverse of `_rest`, on the grid of the frame."""
    surface: NDArray[np.float32] = _surface(coefficients, _places(shape[0], 1), _places(shape[1], 1), np.float32)
    if not level.light:
        return surface if rest is None else np.add(surface, rest, out=surface)
    brightest = np.log(level.highest / level.median) + _SLACK
    np.clip(surface, -_STEEPEST, brightest, out=surface)  # where nothing but objects lies, it may run away
    np.exp(surface, out=surface)
    surface *= np.float32(level.median)
    if rest is not None:
        rest += 1
        surface *= rest
    return surface


def _weigh(rest: Float, level: _Level, factor: int) -> tuple[Float, float]:
    """Tukey's weights of residuals, lowered near outliers, and the scale: the normalized median absolute deviation."""
    deviation = float(
        np.median(np.abs(rest[::2, ::2] if rest.size > 4 * _COARSE_SIZE**2 else rest))
    )  # a quarter tells it
    scale = max(STD_PER_MAD * deviation, level.least_scale)
    weights = _bisquare(rest, scale) ** 2
    reach = _REACH // factor
    if reach == 0:
        return weights, scale
    lowest = np.empty_like(weights)
    _erode(weights, reach, lowest)
    lowest += _SPARED * weights
    return lowest, scale


def _bisquare(rest: Float, scale: float) -> Float:
    """1 on the surface, falling to 0 where a residual is an outlier; without a scale, whatever is off it is one."""
    if scale == 0:
        return np.asarray(rest == 0, np.float64)
    with np.errstate(over="ignore"):
        ratio = rest / (_CUTOFF * scale)
    return np.asarray(1 - np.minimum(np.abs(ratio, out=ratio), 1) ** 2)


def _fit(fine: Float, shape: tuple[int, ...], factor: int, level: _Level, order: int | None) -> Float:
    """Fit a robust surface: coefficients of y**i * x**j.

    A fit to the medians of coarse blocks comes first. The grain of a frame is even there, so that a large object stands
    out of the light; what does is no light in the fine fit either.
    """
    blocks = max(1, min(fine.shape) // _COARSE_SIZE)
    coarse, edge = _block_medians(fine, blocks), factor * blocks
    basis = _polynomials(2 if order is None else order)
    found, weights, scale = _descend(coarse, basis, shape, edge, level, _COARSE_TOLERANCE)
    scale = level.least_scale if level.light else scale  # about 0 counts, the level is no measure
    if order is None and (agreement := _agreement(coarse, found, shape, edge, level, scale)) * _WORTH < 1:
        bowls = _bowls(shape)
        other, others, _ = _descend(coarse, bowls, shape, edge, level, _COARSE_TOLERANCE)
        if _agreement(coarse, other, shape, edge, level, scale) > _WORTH * agreement:
            basis, found, weights = bowls, other, others
    kept = np.repeat(np.repeat(weights > 0, blocks, axis=0), blocks, axis=1)[: fine.shape[0], : fine.shape[1]]
    return _descend(fine, basis, shape, factor, level, _TOLERANCE, found, kept)[0]


def _descend(
    image: Float,
    basis: Float,
    shape: tuple[int, ...],
    factor: int,
    level: _Level,
    tolerance: float,
    start: Float | None = None,
    kept: NDArray[np.bool_] | None = None,
) -> tuple[Float, Float, float]:
    """Reweighted least squares from a start, or the median, among what is kept; with the last weights and scale."""
    y, x = (_places(size, factor) for size in shape)
    coefficients = np.zeros(basis.shape[1:])
    coefficients[0, 0] = 0.0 if level.light else level.median
    if start is not None:
        coefficients = start
    usable = image > 0 if level.light else np.ones(image.shape, bool)
    if kept is not None:
        usable &= kept
    for _ in range(_FITS):
        rest = _rest(image, coefficients, shape, factor, level)
        weights, scale = _weigh(rest, level, factor)
        weights *= usable
        step = _solve(rest, weights, y, x, basis)
        coefficients = coefficients + step
        if np.abs(step).sum() <= tolerance * scale:
            break
    return coefficients, weights, scale


def _agreement(
    image: Float, coefficients: Float, shape: tuple[int, ...], factor: int, level: _Level, scale: float
) -> float:
    """Share of the image that a surface follows: a pixel counts 1 on it, and nothing where it is an outlier."""
    return float((_bisquare(_rest(image, coefficients, shape, factor, level), scale) ** 3).mean())


def _block_medians(fine: Float, blocks: int) -> Float:
    """Medians of square blocks; those that the border cuts are of what there is."""
    if blocks == 1:
        return fine
    height, width = (-(-size // blocks) * blocks for size in fine.shape)
    padded = np.pad(fine, ((0, height - fine.shape[0]), (0, width - fine.shape[1])), mode="edge")
    tiles = padded.reshape(height // blocks, blocks, width // blocks, blocks).swapaxes(1, 2)
    return np.asarray(np.median(tiles.reshape(*tiles.shape[:2], -1), axis=-1))


def _polynomials(order: int) -> Float:
    """Monomials up to an order: (term, i, j)."""
    basis = [(i, j) for i in range(order + 1) for j in range(order + 1 - i)]
    terms = np.zeros((len(basis), order + 1, order + 1))
    for term, (i, j) in zip(terms, basis, strict=True):
        term[i, j] = 1
    return terms


def _bowls(shape: tuple[int, ...]) -> Float:
    """Quadratics and r**4 about any axis, r being the distance from it."""
    terms = np.zeros((9, 5, 5))
    terms[:6, :3, :3] = _polynomials(2)
    yy, xx = ((size / max(shape)) ** 2 for size in shape)
    terms[6, 4, 0], terms[6, 2, 2], terms[6, 0, 4] = yy * yy, 2 * yy * xx, xx * xx
    terms[7, 3, 0], terms[7, 1, 2] = yy, xx
    terms[8, 0, 3], terms[8, 2, 1] = xx, yy
    return terms


def _solve(rest: Float, weights: Float, y: Float, x: Float, basis: Float) -> Float:
    """Weighted least squares by its normal equations, whose sums over the grid separate into y and x."""
    order = basis.shape[1] - 1
    i, j = np.divmod(np.arange((order + 1) ** 2), order + 1)
    moments = _moments(weights, y, x, 2 * order)[i[:, None] + i, j[:, None] + j]
    flat = basis.reshape(len(basis), -1)
    matrix = np.einsum("ap,pq,bq->ab", flat, moments, flat, optimize=False)
    right = np.einsum("ap,p->a", flat, _moments(weights * rest, y, x, order).ravel())
    found = np.linalg.lstsq(matrix, right, rcond=None)[0]
    return np.asarray(np.einsum("a,aij->ij", found, basis))


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


@compile_later
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


@compile_later
def _erode(values: Any, reach: int, lowest: Any) -> None:  # pragma: no cover
    """Minimum over a square window about each pixel, shorter at the borders."""
    height, width = values.shape
    column = np.empty(width + 2 * reach)
    for x in range(column.size):
        column[x] = np.inf
    for y in range(height):
        # Pixel by pixel: Numba takes seconds to compile what an assignment of a whole row says where lengths differ.
        for x in range(width):
            column[reach + x] = values[y, x]
        for other in range(max(y - reach, 0), min(y + reach + 1, height)):
            for x in range(width):
                column[reach + x] = min(column[reach + x], values[other, x])
        for x in range(width):
            lowest[y, x] = column[x]
        for shift in range(1, 2 * reach + 1):
            for x in range(width):
                lowest[y, x] = min(lowest[y, x], column[x + shift])
