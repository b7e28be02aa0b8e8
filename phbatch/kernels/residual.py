"""Whether what was removed from a frame looks like noise.

What a good restoration removes has no neighbours: its autocorrelation is zero or, where a part of the noise stays,
below it. Its variance follows the noise of the camera, which grows with the light, and is no larger where the frame has
texture. Removed structure breaks each of these, and is looked for in windows, since it is local.

The noise of the input is measured by the mask of Immerkaer (1996, Fast noise variance estimation, Computer Vision and
Image Understanding 64, 300-302, 10.1006/cviu.1996.0060), which smooth structure does not reach; of blocks of one
intensity the quiet ones count. A line through their variances over intensity is the photon curve (EMVA Standard 1288:
read noise squared, plus gain times light).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import convolve, gaussian_filter

WINDOW = 32
"""Side, in pixels, of a window that is judged."""

CORRELATED = 0.15
"""Autocorrelation from which on a window holds structure: seven times what that of noise varies by."""

SHARE = 0.1
"""Of the noise's variance: removed structure that is weaker than this is within the noise."""

EXCESS, FAINT = 2.0, 0.05
"""Removed variance over that of the noise from which on a fainter autocorrelation tells of structure, too: no lens
draws what has no neighbours, but noise of cameras that is not white is underestimated."""

_BLOCK = 16
_BINS = 8
_QUIET, _QUIET_RATIO = 20.0, 0.90  # percentile of blocks, and what it is of the variance of white noise
_LAPLACIANS = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32) / np.float32(6)
_TINY = 1e-30

Image = NDArray[np.float32]
Values = NDArray[np.float64]


@dataclass(frozen=True)
class Place:
    """A window that structure was removed from: its first row and column, its side, and how correlated it is there."""

    y: int
    x: int
    side: int
    autocorrelation: float
    excess: float


@dataclass(frozen=True, eq=False)
class FrameResidual:
    """What was removed from one frame.

    Attributes
    ----------
    lags : (3,) ndarray
        Sums over neighbours 0, 1 and 2 pixels apart, along y and x, of products of what was removed, per pixel.
    structure : float
        Correlation, over blocks, of the removed variance (over that of the noise) with the gradient of what was kept,
        both as logarithms; 0 where there are too few blocks.
    intensity, removed, noise : (n,) ndarray
        Intensity of bins of blocks, variance that was removed there, and variance of the input's noise by the curve.
    curve : (offset, slope)
        Of the photon curve: variance is offset + slope * intensity.
    windows : int
        That were judged.
    places : tuple of Place
        Those that structure was removed from, the worst first.
    """

    lags: Values
    structure: float
    intensity: Values
    removed: Values
    noise: Values
    curve: tuple[float, float]
    windows: int
    places: tuple[Place, ...]


def judge_residual(before: NDArray[np.floating], after: NDArray[np.floating]) -> FrameResidual | None:
    """Judge what was removed from a frame.

    Parameters
    ----------
    before, after : (y, x) ndarray
        In the same units of intensity.

    Returns
    -------
    FrameResidual or None
        None of a frame that is smaller than a block, or has no block without NaN.

    Examples
    --------
    >>> random = np.random.default_rng(0)
    >>> found = judge_residual(random.normal(100, 5, (128, 128)), np.full((128, 128), 100.0))
    >>> found.windows, len(found.places)
    (16, 0)
    """
    if min(after.shape) < _BLOCK:
        return None
    kept = np.asarray(after, np.float32)
    before = np.asarray(before, np.float32)
    residual = before - kept
    finite = np.isfinite(residual)
    if not finite.any():
        return None
    residual = np.where(finite, residual - np.float32(residual[finite].mean(dtype=np.float64)), np.nan)
    noise, edges = _local_noise(before), _local_gradient(kept)
    blocks = [_means(part, _BLOCK) for part in (residual**2, noise, edges, kept)]
    usable = np.isfinite(blocks[0]) & np.isfinite(blocks[1]) & np.isfinite(blocks[2]) & np.isfinite(blocks[3])
    if not usable.any():
        return None
    power, quiet, gradient, level = (part[usable] for part in blocks)
    order = _bins(level)
    curve = _photon_curve(level, quiet, order)
    expected = np.maximum(curve[0] + curve[1] * level, _TINY)
    windows, places = _judge_windows(residual, kept, curve)
    return FrameResidual(
        lags=_lags(residual[np.newaxis, np.newaxis])[:, 0, 0],
        structure=_correlation(np.log(np.maximum(power, _TINY) / expected), np.log(np.maximum(gradient, _TINY))),
        intensity=np.array([level[part].mean() for part in order]),
        removed=np.array([power[part].mean() for part in order]),
        noise=np.array([expected[part].mean() for part in order]),
        curve=curve,
        windows=windows,
        places=places,
    )


def photon_curve(image: NDArray[np.floating]) -> tuple[float, float]:
    """Offset and slope of the noise's variance over intensity, of one frame ``(y, x)``; zeros where it is too small.

    Examples
    --------
    >>> random = np.random.default_rng(0)
    >>> light = np.linspace(50, 200, 256) * np.ones((256, 1))
    >>> offset, slope = photon_curve(2 * random.poisson(light) + random.normal(0, 4, light.shape))
    >>> 1.7 < slope < 2.3
    True
    """
    frame = np.asarray(image, np.float32)
    noise, level = (_means(part, _BLOCK) for part in (_local_noise(frame), frame))
    usable = np.isfinite(noise) & np.isfinite(level)
    if not usable.any():
        return 0.0, 0.0
    level, noise = level[usable], noise[usable]
    return _photon_curve(level, noise, _bins(level))


def _bins(level: Values) -> list[NDArray[np.intp]]:
    """Blocks by their intensity."""
    return np.array_split(np.argsort(level, kind="stable"), min(_BINS, max(1, level.size // 8)))


def _local_noise(image: Image) -> Image:
    """Square of the masked image, whose mean is the variance of white noise; NaN where the mask leaves the frame."""
    masked = convolve(image, _LAPLACIANS, mode="nearest") ** 2
    masked[[0, -1]] = masked[:, [0, -1]] = np.nan
    return np.asarray(masked, np.float32)


def _local_gradient(image: Image) -> Image:
    """Squared gradient of the frame without its finest detail, and so without noise that was left in it."""
    rows, columns = np.gradient(gaussian_filter(image, 1.5))
    return np.asarray(rows**2 + columns**2, np.float32)


def _tiles(image: Image, side: int) -> NDArray[np.float32]:
    """Whole windows of an image, as (rows, columns, y, x)."""
    rows, columns = (length // side for length in image.shape)
    whole = image[: rows * side, : columns * side]
    return whole.reshape(rows, side, columns, side).swapaxes(1, 2)


def _means(image: Image, side: int) -> Values:
    """Mean of every window; NaN where the frame's edge is left out of none but its own pixels."""
    tiles = _tiles(image, side)
    finite = np.isfinite(tiles)
    counts = finite.sum(axis=(-2, -1))
    sums = np.where(finite, tiles, 0).sum(axis=(-2, -1), dtype=np.float64)
    return np.where(counts > side * side // 2, sums / np.maximum(counts, 1), np.nan)


def _photon_curve(level: Values, noise: Values, order: list[NDArray[np.intp]]) -> tuple[float, float]:
    """Offset and slope, neither below zero, of the noise of quiet blocks over their intensity."""
    quiet = np.array([np.percentile(noise[part], _QUIET) for part in order]) / _QUIET_RATIO
    at = np.array([level[part].mean() for part in order])
    weight = 1 / np.maximum(quiet, max(_TINY, 1e-3 * float(quiet.max())))
    light = np.maximum(at, 0)
    from scipy.optimize import nnls  # it takes a while to load, and every run knows of this module

    found, _ = nnls(np.stack([weight, weight * light], axis=1), weight * quiet)
    return float(found[0]), float(found[1])


def _lags(tiles: NDArray[np.float32]) -> Values:
    """Mean products of neighbours 0, 1 and 2 pixels apart within windows, along y and x; NaN is left out."""
    along_y = (_mean_product(tiles[..., lag:, :], tiles[..., :-lag, :]) for lag in (1, 2))
    along_x = (_mean_product(tiles[..., lag:], tiles[..., :-lag]) for lag in (1, 2))
    pairs = zip(along_y, along_x, strict=True)
    return np.stack([_mean_product(tiles, tiles), *((one + other) / 2 for one, other in pairs)])


def _mean_product(one: NDArray[np.float32], other: NDArray[np.float32]) -> Values:
    products = one * other
    finite = np.isfinite(products)
    sums = np.where(finite, products, 0).sum(axis=(-2, -1), dtype=np.float64)
    return np.asarray(sums / np.maximum(finite.sum(axis=(-2, -1)), 1))


def _judge_windows(residual: Image, kept: Image, curve: tuple[float, float]) -> tuple[int, tuple[Place, ...]]:
    side = min(WINDOW, *residual.shape)
    level = _means(kept, side)
    usable = np.isfinite(level) & np.isfinite(_means(residual, side))
    power, *lagged = _lags(_tiles(residual, side))
    noise = np.maximum(curve[0] + curve[1] * np.where(usable, level, 0), _TINY)
    correlated = np.maximum(*lagged)
    autocorrelation, excess = correlated / np.maximum(power, _TINY), power / noise
    structured = (autocorrelation > CORRELATED) & (correlated > SHARE * noise)
    structured |= (autocorrelation > FAINT) & (excess > EXCESS)
    rows, columns = np.nonzero(structured & usable & (power > _TINY))
    worst = np.argsort(-(np.maximum(correlated, 0) / noise + excess)[rows, columns], kind="stable")
    places = (
        Place(
            int(rows[at] * side),
            int(columns[at] * side),
            side,
            float(autocorrelation[rows[at], columns[at]]),
            float(excess[rows[at], columns[at]]),
        )
        for at in worst
    )
    return int(usable.sum()), tuple(places)


def _correlation(one: Values, other: Values) -> float:
    """Pearson's; 0 where either has no spread."""
    if one.size < 8 or np.ptp(one) < 1e-9 or np.ptp(other) < 1e-9:
        return 0.0
    return float(np.corrcoef(one, other)[0, 1])
