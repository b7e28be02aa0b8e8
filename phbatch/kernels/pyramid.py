"""Coarser levels of an image: every pixel stands for a square of pixels of the image itself.

Pixel i of level k holds the pixels ``i * 2**k`` to ``(i + 1) * 2**k - 1`` of the image along y and x, fewer at the end
of an axis that is no multiple. Its value is their mean, or that of which most are: of the image, not of the level
before, so that nothing is rounded twice and no border counts more than its pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from phbatch.kernels.compiled import compile_later, compile_within
from phbatch.words.choices import LevelMethod

_NARROW = 256  # up to this factor the sum over a square of 16 bit integers fits 32 bits


def empty_levels(shape: Sequence[int], dtype: DTypeLike, count: int) -> list[NDArray[Any]]:
    """Coarser levels of an image of a shape, to be filled by `make_levels`.

    Examples
    --------
    >>> [level.shape for level in empty_levels((3, 5, 8), "uint8", 2)]
    [(3, 3, 4), (3, 2, 2)]
    """
    *leading, height, width = shape
    factors = [2**level for level in range(1, count + 1)]
    return [np.empty((*leading, -(-height // factor), -(-width // factor)), dtype) for factor in factors]


def make_levels(
    image: NDArray[Any], count: int, method: LevelMethod = "mean", out: Sequence[NDArray[Any]] | None = None
) -> list[NDArray[Any]]:
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
    out : sequence of ndarray, optional
        Filled and returned: of `empty_levels`, or their rows that the rows of the image become.

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
    made = list(out) if out is not None else empty_levels(image.shape, image.dtype, count)
    if not made:
        return made
    known = np.dtype(np.float32) if image.dtype == np.float16 else image.dtype.newbyteorder("=")
    for index in np.ndindex(image.shape[:-2]):
        plane, levels = np.ascontiguousarray(image[index], known), [level[index] for level in made]
        if image.dtype != known:
            filled = empty_levels(plane.shape, np.float64 if image.dtype == np.float16 else known, count)
            _fill_levels(plane, filled, method)
            with np.errstate(over="ignore"):
                for level, pixels in zip(levels, filled, strict=True):
                    level[...] = pixels
        else:
            _fill_levels(plane, levels, method)
    return made


def _fill_levels(plane: NDArray[Any], levels: Sequence[NDArray[Any]], method: LevelMethod) -> None:
    """All levels of one plane."""
    if method == "mode" or (plane.dtype.kind in "iu" and plane.dtype.itemsize > 4):
        for level, pixels in enumerate(levels, 1):
            if method == "mode":
                fill = _modes if plane.dtype.kind in "iu" else _modes_of_floats
                fill(plane, 2**level, np.empty(4**level, plane.dtype), pixels)
            else:
                _means_of_wide(plane, 2**level, pixels)
    else:
        _add_levels(plane, levels, 1, plane.shape)


def map_with_levels(
    plane: NDArray[Any], offset: Any, divisor: Any, out: NDArray[Any], levels: Sequence[NDArray[Any]]
) -> None:
    """Fill `out` with ``(plane - offset) / divisor`` in float32, and its coarser levels with means, in one pass."""
    first, *others = levels
    sums = np.empty(first.shape if others else (1, first.shape[1]))  # of the last level they are not kept
    _map_with_means(plane, offset, divisor, out, sums, first)
    _add_levels(sums, others, 2, plane.shape)


def _add_levels(sums: NDArray[Any], levels: Sequence[NDArray[Any]], first: int, lengths: Sequence[int]) -> None:
    """Fill levels with means, from the sums over the squares of the one before the first of them.

    Parameters
    ----------
    sums : (y, x) ndarray
        The image itself before the first level.
    levels : sequence of ndarray
        Of the plane.
    first : int
        Number of the first.
    lengths : (y, x)
        Of level 0.
    """
    for level, pixels in enumerate(levels, first):
        rows = len(pixels) if level - first < len(levels) - 1 else 1  # the last are not kept
        coarser = np.empty((rows, pixels.shape[1]), _sum_dtype(pixels.dtype, level))
        mean = _rounded_means if pixels.dtype.kind in "iu" else _means
        mean(sums, coarser, pixels, 2**level, *lengths)
        sums = coarser


def _sum_dtype(dtype: np.dtype[Any], level: int) -> type[np.generic]:
    if dtype.kind == "f":
        return np.float64
    if dtype.itemsize > 2 or 2**level > _NARROW:
        return np.int64
    return np.int32 if dtype.kind == "i" else np.uint32


@compile_within
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
def map_row(source: Any, offset: Any, divisor: Any, out: Any, y: int) -> None:  # pragma: no cover
    """``(source - offset) / divisor`` in float32, of one row."""
    for x in range(source.shape[1]):
        out[y, x] = (np.float32(source[y, x]) - offset) / divisor


@compile_later
def _map_with_means(
    source: Any, offset: Any, divisor: Any, out: Any, sums: Any, means: Any
) -> None:  # pragma: no cover
    """As `map_row`, and of each two rows the sums and means of level 1 while they are in the cache."""
    height, width = source.shape
    for i in range(means.shape[0]):
        for y in range(2 * i, min(2 * i + 2, height)):
            map_row(source, offset, divisor, out, y)
        _mean_row(out, sums, means, i, 2, height, width)


@compile_later
def _means(source: Any, sums: Any, means: Any, factor: int, height: int, width: int) -> None:  # pragma: no cover
    """Sums of the next level, and its means: `height` and `width` are those of level 0."""
    for i in range(means.shape[0]):
        _mean_row(source, sums, means, i, factor, height, width)


@compile_within
def _mean_row(
    source: Any, sums: Any, means: Any, i: int, factor: int, height: int, width: int
) -> None:  # pragma: no cover
    """Row i of `_means`."""
    rows, last = min(factor, height - i * factor), means.shape[1] - 1
    inner = np.float64(rows * factor)
    if rows == factor and sums.shape[0] < means.shape[0] and means.shape[1] * factor == width:
        _mean_squares(source, means, i, 1.0 / inner)
        return
    row = sums[i % sums.shape[0]]
    _add_squares(source, row, i)
    if rows == factor:  # a power of two: the product is the quotient to the bit, and takes a third of its time
        share = 1.0 / inner
        for j in range(last):
            means[i, j] = row[j] * share
    else:
        for j in range(last):
            means[i, j] = row[j] / inner
    means[i, last] = row[last] / np.float64(rows * (width - last * factor))


@compile_within
def _mean_squares(source: Any, means: Any, i: int, share: float) -> None:  # pragma: no cover
    """Row i of means over 2 x 2 whose sums nobody needs; without views of rows, whose references Numba may count."""
    for j in range(means.shape[1]):
        above = np.float64(source[2 * i, 2 * j]) + source[2 * i, 2 * j + 1]
        means[i, j] = (above + source[2 * i + 1, 2 * j] + source[2 * i + 1, 2 * j + 1]) * share


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
    for i in range(modes.shape[0]):
        for j in range(modes.shape[1]):
            values = square[: _gather(image, factor, i, j, square)]
            for k in range(1, values.size):
                if values[k] != values[0]:
                    _sort(values)
                    break
            modes[i, j] = _most_frequent(values)


@compile_later
def _modes_of_floats(image: Any, factor: int, square: Any, modes: Any) -> None:  # pragma: no cover
    """As `_modes`; of zeros and NaN, equal or not, it is the order of this sort that says which one is found."""
    for i in range(modes.shape[0]):
        for j in range(modes.shape[1]):
            values = square[: _gather(image, factor, i, j, square)]
            values.sort()
            modes[i, j] = _most_frequent(values)


@compile_within
def _gather(image: Any, factor: int, i: int, j: int, square: Any) -> int:  # pragma: no cover
    """Copy the pixels of a square, fewer at the ends; returns their number."""
    bottom, right = min((i + 1) * factor, image.shape[0]), min((j + 1) * factor, image.shape[1])
    count = 0
    for y in range(i * factor, bottom):
        for x in range(j * factor, right):
            square[count] = image[y, x]
            count += 1
    return count


@compile_within
def _sort(values: Any) -> None:  # pragma: no cover
    """Shell's sort: Numba takes more than a second to compile its own for every dtype."""
    gap = 1
    while 3 * gap < values.size:
        gap = 3 * gap + 1
    while gap > 0:
        for k in range(gap, values.size):
            value, at = values[k], k
            while at >= gap and values[at - gap] > value:
                values[at] = values[at - gap]
                at -= gap
            values[at] = value
        gap //= 3


@compile_within
def _most_frequent(values: Any) -> Any:  # pragma: no cover
    """Of sorted values the first of those that are the most."""
    found, longest, start = values[0], 0, 0
    for k in range(1, values.size + 1):
        if k == values.size or values[k] != values[start]:
            if k - start > longest:
                longest, found = k - start, values[start]
            start = k
    return found
