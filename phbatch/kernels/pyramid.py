"""Coarser levels of an image: every pixel stands for a square of pixels of the image itself.

Pixel i of level k holds the pixels ``i * 2**k`` to ``(i + 1) * 2**k - 1`` of the image along y and x, fewer at the end
of an axis that is no multiple. Its value is their mean, or that of which most are: of the image, not of the level
before, so that nothing is rounded twice and no border counts more than its pixels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from phbatch.kernels.compiled import compile_later
from phbatch.words.choices import LevelMethod

_NARROW = 256  # up to this factor the sum over a square of 16 bit integers fits 32 bits


def make_levels(image: NDArray[Any], count: int, method: LevelMethod = "mean") -> list[NDArray[Any]]:
    """Make the coarser levels of an image.

    Parameters
    ----------
    image : (..., y, x) ndarray
        Level 0, of integers, float16, float32 or float64.
    count : int
        Levels to make, each of half the length of the one before along y and x, rounded up.
    method : {"mean", "mode"}
        Means are of exact sums of integers, of float64 sums of others, and are rounded once; for integers half to
        even. A mean that holds NaN is NaN. The mode is the most frequent value, the smallest where
        several are; it suits labels.

    Returns
    -------
    list of (..., ceil(y / 2**k), ceil(x / 2**k)) ndarray
        In the dtype of the image.

    Examples
    --------
    >>> image = np.array([[1, 2, 9], [3, 4, 9], [8, 8, 5]], np.uint8)
    >>> for level in make_levels(image, 2):
    ...     print(level)
    [[2 9]
     [8 5]]
    [[5]]
    >>> make_levels(np.array([[7, 7], [0, 1]], np.uint16), 1, "mode")
    [array([[7]], dtype=uint16)]
    """
    *leading, height, width = image.shape
    known = np.dtype(np.float32) if image.dtype == np.float16 else image.dtype.newbyteorder("=")
    planes = np.ascontiguousarray(image, known).reshape(-1, height, width)
    made = [_empty(planes, level, np.float64 if image.dtype == np.float16 else known) for level in range(1, count + 1)]
    for index, plane in enumerate(planes):
        if method == "mode":
            for level, pixels in enumerate(made, 1):
                _modes(plane, 2**level, np.empty(4**level, plane.dtype), pixels[index])
            continue
        if known.kind in "iu" and known.itemsize > 4:
            for level, pixels in enumerate(made, 1):
                _means_of_wide(plane, 2**level, pixels[index])
            continue
        sums = plane
        for level, pixels in enumerate(made, 1):
            rows, columns = pixels.shape[1:]
            coarser = np.empty(
                (rows if level < count else 1, columns), _sum_dtype(known, level)
            )  # the last are not kept
            mean = _rounded_means if known.kind in "iu" else _means
            mean(sums, coarser, pixels[index], 2**level, height, width)
            sums = coarser
    with np.errstate(over="ignore"):
        return [pixels.astype(image.dtype, copy=False).reshape(*leading, *pixels.shape[1:]) for pixels in made]


def _empty(planes: NDArray[Any], level: int, dtype: Any) -> NDArray[Any]:
    count, *lengths = planes.shape
    return np.empty((count, *(-(-length // 2**level) for length in lengths)), dtype)


def _sum_dtype(dtype: np.dtype[Any], level: int) -> type[np.generic]:
    if dtype.kind == "f":
        return np.float64
    if dtype.itemsize > 2 or 2**level > _NARROW:
        return np.int64
    return np.int32 if dtype.kind == "i" else np.uint32


@compile_later
def _add_squares(source: Any, row: Any, i: int) -> None:  # pragma: no cover
    """Row i of the sums over 2 x 2, fewer at the ends."""
    height, width = source.shape
    above, whole = source[2 * i], width // 2
    zero = row.dtype.type(0)  # what is added is of the dtype of the sums
    if 2 * i + 1 < height:
        below = source[2 * i + 1]
        for j in range(whole):
            row[j] = (zero + above[2 * j]) + above[2 * j + 1] + below[2 * j] + below[2 * j + 1]
        if whole < row.size:
            row[whole] = (zero + above[2 * whole]) + below[2 * whole]
    else:
        for j in range(whole):
            row[j] = (zero + above[2 * j]) + above[2 * j + 1]
        if whole < row.size:
            row[whole] = above[2 * whole]


@compile_later
def _means(source: Any, sums: Any, means: Any, factor: int, height: int, width: int) -> None:  # pragma: no cover
    """Sums of the next level, and its means: `height` and `width` are those of level 0."""
    for i in range(means.shape[0]):
        row = sums[i % sums.shape[0]]
        _add_squares(source, row, i)
        rows, last = min(factor, height - i * factor), row.size - 1
        inner = np.float64(rows * factor)
        if rows == factor:  # a power of two: the product is the quotient to the bit, and takes a third of its time
            share = 1.0 / inner
            for j in range(last):
                means[i, j] = row[j] * share
        else:
            for j in range(last):
                means[i, j] = row[j] / inner
        means[i, last] = row[last] / np.float64(rows * (width - last * factor))


@compile_later
def _rounded_means(
    source: Any, sums: Any, means: Any, factor: int, height: int, width: int
) -> None:  # pragma: no cover
    """As `_means`, to the nearest integer."""
    for i in range(means.shape[0]):
        row = sums[i % sums.shape[0]]
        _add_squares(source, row, i)
        rows, last = min(factor, height - i * factor), row.size - 1
        inner = np.float64(rows * factor)
        if rows == factor:
            share = 1.0 / inner
            for j in range(last):
                means[i, j] = np.rint(np.float64(row[j]) * share)
        else:
            for j in range(last):
                means[i, j] = np.rint(np.float64(row[j]) / inner)
        means[i, last] = np.rint(np.float64(row[last]) / np.float64(rows * (width - last * factor)))


@compile_later
def _means_of_wide(image: Any, factor: int, means: Any) -> None:  # pragma: no cover
    """Of integers of 64 bits, in two halves whose sums are exact: upper * 2**32 + lower."""
    height, width = image.shape
    for i in range(means.shape[0]):
        bottom = min((i + 1) * factor, height)
        for j in range(means.shape[1]):
            right, upper, lower = min((j + 1) * factor, width), np.int64(0), np.int64(0)
            for y in range(i * factor, bottom):
                for x in range(j * factor, right):
                    value = image[y, x]
                    upper += np.int64(value >> 32)
                    lower += np.int64(value & 0xFFFFFFFF)
            count = np.int64((bottom - i * factor) * (right - j * factor))
            upper += lower >> 32
            rest = ((upper % count) << 32) + (lower & 0xFFFFFFFF)  # of the division of the upper half
            mean, left = ((upper // count) << 32) + rest // count, rest % count
            if 2 * left > count or (2 * left == count and mean & 1):
                mean += 1
            means[i, j] = mean


@compile_later
def _modes(image: Any, factor: int, square: Any, modes: Any) -> None:  # pragma: no cover
    height, width = image.shape
    for i in range(modes.shape[0]):
        bottom = min((i + 1) * factor, height)
        for j in range(modes.shape[1]):
            right, count = min((j + 1) * factor, width), 0
            for y in range(i * factor, bottom):
                for x in range(j * factor, right):
                    square[count] = image[y, x]
                    count += 1
            values = square[:count]
            values.sort()
            longest, start = 0, 0
            for k in range(1, count + 1):
                if k == count or values[k] != values[start]:
                    if k - start > longest:
                        longest = k - start
                        modes[i, j] = values[start]
                    start = k
