"""Area averages over blocks of pixels, and the bilinear way back to the full grid.

Block i of an axis holds the pixels ``i * factor`` to ``(i + 1) * factor - 1``, fewer at the end of an axis that
`factor` does not divide. Both directions use the true centres of the blocks, so that a linear ramp survives the way
there and back.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from phbatch.kernels.compiled import compile_later

_NARROW = 255  # up to this factor the sum over a block of 16 bit integers fits 32 bits


def area_average(image: NDArray[Any], factor: int) -> NDArray[np.float32]:
    """Mean of every block of factor x factor pixels along y and x.

    Parameters
    ----------
    image : (..., y, x) ndarray
        Any real dtype.
    factor : int
        Edge of a block in pixels, at least 1. The last block of an axis averages the pixels that there are.

    Returns
    -------
    (..., ceil(y / factor), ceil(x / factor)) ndarray of float32
        Integers of up to 16 bits are added exactly, others in float64; one division in float64, rounded to float32.

    Raises
    ------
    ValueError
        If `factor` is below 1, or the image has fewer than two axes or no pixel.

    Examples
    --------
    >>> area_average(np.array([[1, 2, 9], [3, 4, 9], [8, 8, 5]], np.uint8), 2)
    array([[2.5, 9. ],
           [8. , 5. ]], dtype=float32)
    """
    if image.ndim < 2 or image.size == 0:
        raise ValueError(f"the image has shape {image.shape}; it must be (..., y, x) with a pixel at least")
    if factor < 1:
        raise ValueError(f"factor is {factor}; it must be an integer of at least 1")
    if factor == 1:
        with np.errstate(over="ignore"):
            return image.astype(np.float32)
    *leading, height, width = image.shape
    source = _compilable(image).reshape(-1, height, width)
    result = np.empty((source.shape[0], -(-height // factor), -(-width // factor)), np.float32)
    for plane, averages in zip(source, result, strict=True):
        _average(plane, factor, np.zeros(width, _sum_dtype(image.dtype, factor)), averages)
    return result.reshape(*leading, *result.shape[1:])


def upscale(image: NDArray[np.float32], factor: int, shape: tuple[int, int]) -> NDArray[np.float32]:
    """Interpolate block averages bilinearly on the grid that they were made of.

    Parameters
    ----------
    image : (..., ceil(y / factor), ceil(x / factor)) ndarray of float32
        Values at the centres of the blocks, such as `area_average` makes.
    factor : int
        Edge of a block in pixels, at least 1.
    shape : (y, x)
        Of the full grid.

    Returns
    -------
    (..., y, x) ndarray of float32
        Computed in float64 and rounded once. Beyond the outermost centres the value is theirs.

    Raises
    ------
    ValueError
        If the image's shape is not that of the blocks of `shape`.

    Examples
    --------
    >>> upscale(np.array([[0, 4, 7]], np.float32), 2, (1, 5))  # centres 0.5, 2.5 and 4
    array([[0., 1., 3., 5., 7.]], dtype=float32)
    """
    if factor < 1 or image.shape[-2:] != tuple(-(-size // factor) for size in shape):
        raise ValueError(f"the image has shape {image.shape}; blocks of {factor} pixels of {shape} have another")
    source = np.ascontiguousarray(image, np.float32).reshape(-1, *image.shape[-2:])
    result = np.empty((source.shape[0], *shape), np.float32)
    y, x = (_places(size, factor) for size in shape)
    for plane, full in zip(source, result, strict=True):
        _interpolate(plane, *y, *x, np.empty(plane.shape[1] + 1), full)
    return result.reshape(*image.shape[:-2], *shape)


def _compilable(image: NDArray[Any]) -> NDArray[Any]:
    """Lay the pixels out one after another, in a dtype that Numba knows."""
    known = {"?": np.uint8, "e": np.float32, "g": np.float64}
    dtype = np.dtype(known.get(image.dtype.char, image.dtype))
    return np.ascontiguousarray(image, dtype.newbyteorder("="))


def _sum_dtype(dtype: np.dtype[Any], factor: int) -> type[np.generic]:
    if dtype.kind == "f" or dtype.itemsize > 2:
        return np.float64
    if factor > _NARROW:
        return np.int64
    return np.int32 if dtype.kind == "i" else np.uint32


def _places(size: int, factor: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """For every pixel the block whose centre is at or before it, and how far it lies towards the next, 0 to 1."""
    starts = np.arange(0, size, factor)
    centres = (starts + np.minimum(starts + factor, size) - 1) / 2
    pixels = np.arange(size)
    before = np.maximum(np.searchsorted(centres, pixels, side="right") - 1, 0)
    gaps = np.append(np.diff(centres), np.inf)
    return before, np.maximum((pixels - centres[before]) / gaps[before], 0)


@compile_later
def _average(image: Any, factor: int, sums: Any, averages: Any) -> None:  # pragma: no cover
    """Add the rows of a band of blocks, then the columns of each block, and divide."""
    height, width = image.shape
    whole = width // factor
    for i in range(averages.shape[0]):
        top = i * factor
        stop = min(top + factor, height)
        for x in range(width):
            sums[x] = 0
        for y in range(top, stop):
            row = image[y]
            for x in range(width):
                sums[x] += row[x]
        area = np.float64((stop - top) * factor)
        for j in range(whole):
            total = sums[j * factor]
            for x in range(j * factor + 1, (j + 1) * factor):
                total += sums[x]
            averages[i, j] = np.float32(np.float64(total) / area)
        if whole < averages.shape[1]:
            total = sums[whole * factor]
            for x in range(whole * factor + 1, width):
                total += sums[x]
            averages[i, whole] = np.float32(np.float64(total) / ((stop - top) * (width - whole * factor)))


@compile_later
def _interpolate(
    image: Any, rows: Any, row_shares: Any, columns: Any, column_shares: Any, blend: Any, full: Any
) -> None:  # pragma: no cover
    """Blend two rows of blocks, then interpolate along x; `blend` has one value more, the last one again."""
    last_row, width = image.shape[0] - 1, image.shape[1]
    for y in range(full.shape[0]):
        above, below = image[rows[y]], image[min(rows[y] + 1, last_row)]
        for j in range(width):
            first = np.float64(above[j])
            blend[j] = first + row_shares[y] * (np.float64(below[j]) - first)
        blend[width] = blend[width - 1]
        for x in range(full.shape[1]):
            first = blend[columns[x]]
            full[y, x] = np.float32(first + column_shares[x] * (blend[columns[x] + 1] - first))
