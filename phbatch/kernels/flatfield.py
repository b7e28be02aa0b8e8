"""Judging and mending a plane of a profile of uneven light: pixels without light, structure that light has not."""

from __future__ import annotations

from math import isqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from phbatch.kernels.downsample import area_average

_REACH = 2  # pixels about the nearest one with light, whose median stands for a dead one
_AT_ONCE = 1 << 16
_LIGHT_SIGMA = 1 / 20  # of the shorter side: light does not change over less
_GRAIN_SIGMA = 1.5  # pixels: noise is finer
_LEAST_SIDE = 48  # pixels: smaller profiles have no room for both
_FINE_SIZE, _MAX_FACTOR = 256, 4


def mend_dead_pixels(
    background: NDArray[np.float32], dark: NDArray[np.float32] | None, *, divides: bool
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None, int]:
    """Give pixels without light that of their neighbourhood: the median about the nearest pixel that has some.

    Parameters
    ----------
    background : (y, x) ndarray of float32
        In counts.
    dark : (y, x) ndarray of float32, or None
        Counts without light.
    divides : bool
        Whether the light will divide: pixels are dead where it is not finite, and then where it is not above 0, too.

    Returns
    -------
    background, dark : (y, x) ndarray of float32
        The same arrays where nothing is dead.
    dead : int
        Number of dead pixels; where all are, they are returned as they are.

    Examples
    --------
    >>> light = np.full((3, 3), 7, np.float32)
    >>> light[1, 1] = 0
    >>> mend_dead_pixels(light, None, divides=True)[0][1], mend_dead_pixels(light, None, divides=True)[2]
    (array([7., 7., 7.], dtype=float32), 1)
    """
    with np.errstate(invalid="ignore", over="ignore"):
        light = background if dark is None else background - dark
        alive = np.isfinite(light) & (light > 0) if divides else np.isfinite(light)
    dead = int(alive.size - np.count_nonzero(alive))
    if dead in (0, alive.size):
        return background, dark, dead
    mended = np.where(alive, light, np.float32(np.nan))
    mended[~alive] = _about_nearest(mended, alive)
    if dark is None:
        return mended, None, dead
    dark = np.where(alive, dark, np.median(dark[alive].astype(np.float64))).astype(np.float32)
    return np.where(alive, background, mended + dark), dark, dead


def _about_nearest(light: NDArray[np.float32], alive: NDArray[np.bool_]) -> NDArray[np.float32]:
    """For every dead pixel, the median of the living ones about the nearest of them."""
    nearest = ndimage.distance_transform_edt(~alive, return_distances=False, return_indices=True)
    y, x = nearest[0][~alive], nearest[1][~alive]
    steps = np.arange(-_REACH, _REACH + 1)
    found = np.empty(y.size, np.float32)
    for start in range(0, y.size, _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        rows = np.clip(y[part, np.newaxis] + steps, 0, light.shape[0] - 1)
        columns = np.clip(x[part, np.newaxis] + steps, 0, light.shape[1] - 1)
        windows = light[rows[:, :, np.newaxis], columns[:, np.newaxis, :]]
        found[part] = np.nanmedian(windows.reshape(len(windows), -1).astype(np.float64), axis=1)
    return found


def fine_structure(light: NDArray[Any]) -> float:
    """Standard deviation, relative to the light, of what is finer than light can be and coarser than noise.

    Smoothed over 1.5 pixels, compared with itself smoothed over a twentieth of the shorter side, away from the borders:
    below 0.01 for vignettes of any shape, above 0.05 where cells are seen; 0 below 48 pixels a side.

    Parameters
    ----------
    light : (y, x) ndarray
        Finite, in counts.

    Examples
    --------
    >>> y, x = np.mgrid[-1:1:64j, -1:1:64j]
    >>> fine_structure(np.exp(-(x**2 + y**2))) < 0.01
    True
    """
    if min(light.shape) < _LEAST_SIDE:
        return 0.0
    factor = max(1, min(_MAX_FACTOR, isqrt(light.size) // _FINE_SIZE))
    image = area_average(light, factor).astype(np.float64)
    sigma = min(image.shape) * _LIGHT_SIGMA
    smooth = ndimage.gaussian_filter(image, sigma)
    rest = ndimage.gaussian_filter(image, _GRAIN_SIGMA / factor) - smooth
    border = int(3 * sigma)
    inner = (slice(border, -border),) * 2
    level = float(np.abs(smooth[inner]).mean())
    return float(rest[inner].std() / level) if level > 0 else 0.0
