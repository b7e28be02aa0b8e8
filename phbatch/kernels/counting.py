"""Smoothing and counting an integer image in one sweep, compiled: nothing but histograms leaves the processor's cache.

Each row of the image is smoothed along y, then along x, then counted, and its Laplacian is summed while its neighbours
are still near. Without `fastmath` the compiler may neither reorder nor fuse the float32 operations of a pixel, so that
vectorized code of any width gives the bits of `phbatch.kernels.smoothing.smooth_fixed_point`; all else is integers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phbatch.kernels.compiled import compile_later, compile_within
from phbatch.kernels.padding import Extent, Padding
from phbatch.kernels.smoothing import gaussian_radius, half_weights

_SMALL = 1 << 15
_USUAL_RADIUS = 8  # of a sigma of 2 pixels
_NO_LIMITS: tuple[NDArray[np.int32], ...] = (np.empty(0, np.int32),) * 4  # of the types of limits: one sweep for both


def halo_of_counting(sigma: float) -> int:
    """Pixels per side that `count_block` reads beyond what it counts: the smoothing's, and one for the Laplacian.

    Examples
    --------
    >>> halo_of_counting(2.0)
    9
    """
    return gaussian_radius(sigma) + 1


def count_block(
    block: NDArray[np.integer],
    sigma: float,
    halo: Sequence[tuple[int, int]],
    per_unit: int,
    padding: Padding | None = None,
) -> tuple[int, NDArray[np.uint32], int, NDArray[np.uint32], tuple[int, int, int]]:
    """Histograms of a block of an 8 or 16 bit integer image, raw and smoothed, and sums of its Laplacian.

    Parameters
    ----------
    block : (y, x) ndarray of uint8, int8, uint16 or int16
        The block with its halo of `halo_of_counting` pixels, less where the frame ends: there it is reflected.
    sigma : float
        Standard deviation of the Gaussian in pixels.
    halo : ((before, after), (before, after))
        Pixels of the halo along y and x, which are read and not counted.
    per_unit : int
        Bins of the smoothed histogram per count.
    padding : Padding, optional
        Of the block without its halo, which is neither counted raw nor read by what is counted smoothed.

    Returns
    -------
    first_raw, raw : int and ndarray of uint32
        Value of the first bin, and pixels per count.
    first_smooth, smooth : int and ndarray of uint32
        Index of the first bin in 1 / `per_unit` counts, and pixels per bin.
    laplacian : (int, int, int)
        Of the smoothed image in 1 / `per_unit` counts (four neighbours): its sum, and its sum of squares as
        ``high * 2**32 + low``.
    """
    block = np.ascontiguousarray(block)
    low, high = map(int, _range_of(block))
    first = low * per_unit - 1  # roundings may leave the range of the raw pixels by one bin
    raw = np.zeros(high - low + 1, np.uint32)
    smooth = np.zeros((high - low) * per_unit + 3, np.uint32)
    (top, bottom), (left, right) = halo
    height, width = block.shape
    window = (top, height - bottom, left, width - right)
    sums = np.zeros(3, np.int64)
    image = clear = _NO_LIMITS
    if padding is not None:
        image, clear = _limits(padding.image), _limits(padding.clear)
    weights, narrow = half_weights(sigma), np.empty(0, np.int16 if block.dtype.kind == "i" else np.uint16)
    limits = np.iinfo(narrow.dtype)
    fits = limits.min <= 2 * low and 2 * high <= limits.max
    buffers = (
        np.empty(width + 2 * (weights.size - 1), np.float32),
        np.empty(width, np.float32),
        np.empty((3, width + 2), np.int32),
        np.empty((width // 2 + 1, 2), np.int64),
    )
    _sweep(block, weights, window, per_unit, low, first, raw, smooth, sums, image, clear, narrow, fits, buffers)
    total, upper, lower = (int(value) for value in sums)
    return low, raw, first, smooth, (total, upper, lower)


def _limits(extent: Extent) -> tuple[NDArray[np.int32], ...]:
    return extent.left, extent.right, extent.top, extent.bottom


@compile_later
def _range_of(block: Any) -> tuple[int, int]:  # pragma: no cover
    """Smallest and largest pixel, in one pass."""
    low = high = block[0, 0]
    for y in range(block.shape[0]):
        row = block[y]
        for x in range(row.shape[0]):
            low, high = row[x] if row[x] < low else low, row[x] if row[x] > high else high
    return low, high


@compile_within
def _mirror(index: int, size: int) -> int:
    while index < 0 or index >= size:
        index = -index - 1 if index < 0 else 2 * size - 1 - index
    return index


@compile_within
def _smooth_row(
    block: Any, y: int, weights: Any, scale: Any, padded: Any, total: Any, bins: Any, narrow: Any, fits: bool
) -> None:  # pragma: no cover
    """Bins of one smoothed row: along y into `padded`, its ends reflected, then along x, scaled and rounded."""
    width, radius = block.shape[1], weights.shape[0] - 1
    row, body, inner = block[y], padded[radius : radius + width], bins[1 : width + 1]
    for x in range(width):
        body[x] = weights[0] * np.float32(np.int32(row[x]))
    for k in range(radius - 3, 0, -4):
        _add_rows(block, y, weights, k, body, narrow, fits)
    for k in range(1, radius + 1):
        padded[radius - k] = body[_mirror(-k, width)]
        padded[radius + width - 1 + k] = body[_mirror(width - 1 + k, width)]
    if radius == _USUAL_RADIUS:
        _weigh_columns(padded, weights, scale, inner)
    else:
        for x in range(width):
            total[x] = weights[0] * body[x]
        for k in range(radius - 3, 0, -4):
            _add_columns(padded, weights, k, total)
        for x in range(width):
            inner[x] = np.int32(np.floor(total[x] * scale + np.float32(0.5)))
    bins[0], bins[width + 1] = bins[1], bins[width]


@compile_within
def _add_rows(
    block: Any, y: int, weights: Any, k: int, total: Any, narrow: Any, fits: bool
) -> None:  # pragma: no cover
    """Add the rows at distances k to k + 3 of row y on either side.

    Sums of two pixels are made in 16 bits where they fit, since a vector then has twice as many.
    """
    height, sum_of = block.shape[0], narrow.dtype.type
    w0, w1, w2, w3 = weights[k], weights[k + 1], weights[k + 2], weights[k + 3]
    a0, b0 = block[_mirror(y - k, height)], block[_mirror(y + k, height)]
    a1, b1 = block[_mirror(y - k - 1, height)], block[_mirror(y + k + 1, height)]
    a2, b2 = block[_mirror(y - k - 2, height)], block[_mirror(y + k + 2, height)]
    a3, b3 = block[_mirror(y - k - 3, height)], block[_mirror(y + k + 3, height)]
    if fits:
        for x in range(total.shape[0]):
            pair0 = w0 * np.float32(np.int32(sum_of(a0[x] + b0[x])))
            pair1 = w1 * np.float32(np.int32(sum_of(a1[x] + b1[x])))
            pair2 = w2 * np.float32(np.int32(sum_of(a2[x] + b2[x])))
            pair3 = w3 * np.float32(np.int32(sum_of(a3[x] + b3[x])))
            total[x] += (pair0 + pair1) + (pair2 + pair3)
    else:
        for x in range(total.shape[0]):
            pair0 = w0 * np.float32(np.int32(a0[x] + b0[x]))
            pair1 = w1 * np.float32(np.int32(a1[x] + b1[x]))
            pair2 = w2 * np.float32(np.int32(a2[x] + b2[x]))
            pair3 = w3 * np.float32(np.int32(a3[x] + b3[x]))
            total[x] += (pair0 + pair1) + (pair2 + pair3)


@compile_within
def _add_columns(padded: Any, weights: Any, k: int, total: Any) -> None:  # pragma: no cover
    """Add the pixels at distances k to k + 3 along a row that has its halo."""
    radius = weights.shape[0] - 1
    w0, w1, w2, w3 = weights[k], weights[k + 1], weights[k + 2], weights[k + 3]
    before, after = padded[radius - k - 3 :], padded[radius + k :]
    for x in range(total.shape[0]):
        near = w0 * (before[x + 3] + after[x]) + w1 * (before[x + 2] + after[x + 1])
        far = w2 * (before[x + 1] + after[x + 2]) + w3 * (before[x] + after[x + 3])
        total[x] += near + far


@compile_within
def _weigh_columns(padded: Any, weights: Any, scale: Any, bins: Any) -> None:  # pragma: no cover
    """All taps of the usual radius, in the order of the others, scaled and rounded: one pass."""
    w0, w1, w2, w3, w4 = weights[0], weights[1], weights[2], weights[3], weights[4]
    w5, w6, w7, w8 = weights[5], weights[6], weights[7], weights[8]
    for x in range(bins.shape[0]):
        near = w5 * (padded[x + 3] + padded[x + 13]) + w6 * (padded[x + 2] + padded[x + 14])
        far = w7 * (padded[x + 1] + padded[x + 15]) + w8 * (padded[x] + padded[x + 16])
        total = w0 * padded[x + 8] + (near + far)
        near = w1 * (padded[x + 7] + padded[x + 9]) + w2 * (padded[x + 6] + padded[x + 10])
        far = w3 * (padded[x + 5] + padded[x + 11]) + w4 * (padded[x + 4] + padded[x + 12])
        total += near + far
        bins[x] = np.int32(np.floor(total * scale + np.float32(0.5)))


@compile_later
def _sweep(
    block: Any,
    weights: Any,
    window: Any,
    per_unit: int,
    low: int,
    first: int,
    raw: Any,
    smooth: Any,
    sums: Any,
    image: Any,
    clear: Any,
    narrow: Any,
    fits: bool,
    buffers: Any,
) -> None:  # pragma: no cover
    """Count the window of a block row by row, three smoothed rows at a time, within limits."""
    top, stop, left, right = window  # of which y and x are counted
    padded, total, ring, spans = buffers
    for y in range(top - 1 if top else 0, stop + 1):
        row = ring[y % 3]
        if y < block.shape[0]:
            _smooth_row(block, y, weights, np.float32(per_unit), padded, total, row, narrow, fits)
        else:  # below the frame is its last row again
            _copy_row(ring[(y - 1) % 3], row)
        if y == 0:  # above the frame is its first row again
            _copy_row(row, ring[2])
        if top <= y < stop:
            source, bins = block[y][left:right], row[left + 1 : right + 1]
            for at in range(_find_spans(y - top, source.size, image, spans)):
                _count_values(source[spans[at, 0] : spans[at, 1]], low, raw)
            for at in range(_find_spans(y - top, source.size, clear, spans)):
                _count_values(bins[spans[at, 0] : spans[at, 1]], first, smooth)
        if top < y:
            above, middle = ring[(y - 2) % 3], ring[(y - 1) % 3]
            for at in range(_find_spans(y - 1 - top, right - left, clear, spans)):
                _sum_laplacian(above, middle, row, left + spans[at, 0], left + spans[at, 1], sums)


@compile_within
def _copy_row(source: Any, target: Any) -> None:  # pragma: no cover
    """Pixel by pixel: Numba takes seconds to compile what an assignment of a whole row says where lengths differ."""
    for x in range(target.size):
        target[x] = source[x]


@compile_within
def _count_values(values: Any, first: int, counts: Any) -> None:  # pragma: no cover
    for x in range(values.shape[0]):
        counts[np.uint32(np.int64(values[x]) - first)] += 1


@compile_within
def _find_spans(y: int, width: int, extent: Any, spans: Any) -> int:  # pragma: no cover
    """Put the first and the last column plus one of every piece of a row within the limits; returns their number."""
    left, right, top, bottom = extent
    if left.size == 0:  # no limits
        spans[0, 0], spans[0, 1] = 0, width
        return 1
    count, start = 0, -1
    end = right[y] if right[y] < top.size else top.size
    for x in range(left[y] if left[y] > 0 else 0, end):
        inside = top[x] <= y < bottom[x]
        if inside and start < 0:
            start = x
        elif start >= 0 and not inside:
            spans[count, 0], spans[count, 1] = start, x
            count, start = count + 1, -1
    if start >= 0:
        spans[count, 0], spans[count, 1] = start, end
        count += 1
    return count


@compile_within
def _sum_laplacian(above: Any, row: Any, below: Any, left: int, right: int, sums: Any) -> None:  # pragma: no cover
    """Sum and sum of squares over one row, of up to 2**22 values below 2**20."""
    over, under = above[left + 1 : right + 1], below[left + 1 : right + 1]
    before, middle, after = row[left:right], row[left + 1 : right + 1], row[left + 2 : right + 2]
    if _sum_small(over, under, before, middle, after, sums):
        return
    total, squares = np.int64(0), np.int64(0)
    for x in range(middle.shape[0]):
        value = np.int64(np.int32(over[x] + under[x] + before[x] + after[x] - 4 * middle[x]))
        total += value
        squares += value * value
    sums[0] += total
    sums[1] += squares >> 32
    sums[2] += squares & 0xFFFFFFFF


@compile_within
def _sum_small(over: Any, under: Any, before: Any, middle: Any, after: Any, sums: Any) -> bool:  # pragma: no cover
    """The same in 32 bits, which a vector has more of; False, and nothing added, where that cannot hold the sums."""
    if middle.shape[0] > _SMALL:
        return False
    total, high, low, bits = np.int32(0), np.uint32(0), np.uint32(0), np.uint32(0)
    for x in range(middle.shape[0]):
        value = np.int32(over[x] + under[x] + before[x] + after[x] - 4 * middle[x])
        size = np.uint32(abs(value))
        square = np.uint32(size * size)
        total = np.int32(total + value)
        high = np.uint32(high + (square >> np.uint32(16)))
        low = np.uint32(low + (square & np.uint32(0xFFFF)))
        bits = np.uint32(bits | size)  # else it has 64
    if bits >= _SMALL:
        return False
    squares = (np.int64(high) << 16) + np.int64(low)
    sums[0] += total
    sums[1] += squares >> 32
    sums[2] += squares & 0xFFFFFFFF
    return True
