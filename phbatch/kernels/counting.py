"""Smoothing and counting an integer image in one sweep, compiled: nothing but histograms leaves the processor's cache.

Each row of the image is smoothed along y, then along x, then counted, and its Laplacian is summed while its neighbours
are still near. Products and sums are integers below 2**53 in float64, so that vectorized code of any width, with or
without fused multiplication, gives the bits of `phbatch.kernels.smoothing.smooth_fixed_point`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from phbatch.kernels.smoothing import (
    COLUMN_WEIGHT_BITS,
    FRACTION_BITS,
    ROW_WEIGHT_BITS,
    gaussian_radius,
    integer_weights,
)

_COLUMN_SCALE = 2.0 ** (FRACTION_BITS - COLUMN_WEIGHT_BITS)
_ROW_SCALE = 2.0 ** -(FRACTION_BITS + ROW_WEIGHT_BITS)


def halo_of_counting(sigma: float) -> int:
    """Pixels per side that `count_block` reads beyond what it counts: the smoothing's, and one for the Laplacian.

    Examples
    --------
    >>> halo_of_counting(2.0)
    9
    """
    return gaussian_radius(sigma) + 1


def count_block(
    block: NDArray[np.integer], sigma: float, halo: Sequence[tuple[int, int]], per_unit: int
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
    low, high = int(block.min()), int(block.max())
    raw = np.zeros(high - low + 1, np.uint32)
    smooth = np.zeros((high - low) * per_unit + 1, np.uint32)
    columns, rows = _half(sigma, COLUMN_WEIGHT_BITS), _half(sigma, ROW_WEIGHT_BITS)
    (top, bottom), (left, right) = halo
    height, width = block.shape
    window = (top, height - bottom, left, width - right)
    sums = np.zeros(3, np.int64)
    padded = np.zeros(width + 2 * (columns.size - 1), np.float64)
    _sweep(np.ascontiguousarray(block), columns, rows, window, per_unit, low, raw, smooth, padded, sums)
    total, upper, lower = (int(value) for value in sums)
    return low, raw, low * per_unit, smooth, (total, upper, lower)


def _half(sigma: float, bits: int) -> NDArray[np.float64]:
    """Weights of the centre and of one side, filled up with zeros to one and a multiple of four."""
    radius = gaussian_radius(sigma)
    side = np.zeros(1 + -(-radius // 4) * 4)
    side[: radius + 1] = integer_weights(sigma, bits)[radius:] if sigma > 0 else 2.0**bits
    return side


_compile = numba.njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})
_reorder = numba.njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract", "reassoc"})


@_compile  # type: ignore[untyped-decorator]
def _mirror(index: int, size: int) -> int:
    while index < 0 or index >= size:
        index = -index - 1 if index < 0 else 2 * size - 1 - index
    return index


@_compile  # type: ignore[untyped-decorator]
def _smooth_row(
    block: Any, y: int, columns: Any, rows: Any, scale: float, padded: Any, sums: Any, bins: Any
) -> None:  # pragma: no cover
    """Bins of one smoothed row: along y into `padded`, its ends reflected, then along x, scaled and rounded.

    Several taps per side are taken in one sweep of the row, which saves traffic to and from the cache; with more rows
    than here, LLVM gives up proving that they do not overlap, and its loop is scalar.
    """
    height, width = block.shape
    radius = columns.shape[0] - 1
    body = padded[radius : radius + width]
    row = block[y]
    for x in range(width):
        body[x] = columns[0] * row[x]
    for k in range(1, radius + 1, 2):
        w0, w1 = columns[k], columns[k + 1]
        a0, b0 = block[_mirror(y - k, height)], block[_mirror(y + k, height)]
        a1, b1 = block[_mirror(y - k - 1, height)], block[_mirror(y + k + 1, height)]
        for x in range(width):
            body[x] += w0 * (np.int32(a0[x]) + np.int32(b0[x])) + w1 * (np.int32(a1[x]) + np.int32(b1[x]))
    for x in range(width):
        body[x] = np.rint(body[x] * _COLUMN_SCALE)
    for k in range(1, radius + 1):
        padded[radius - k] = body[_mirror(-k, width)]
        padded[radius + width - 1 + k] = body[_mirror(width - 1 + k, width)]
    for x in range(width):
        sums[x] = rows[0] * body[x]
    for k in range(1, radius + 1, 4):
        w0, w1, w2, w3 = rows[k], rows[k + 1], rows[k + 2], rows[k + 3]
        before, after = padded[radius - k - 3 :], padded[radius + k :]
        for x in range(width):
            sums[x] += (
                w0 * (before[x + 3] + after[x])
                + w1 * (before[x + 2] + after[x + 1])
                + w2 * (before[x + 1] + after[x + 2])
                + w3 * (before[x] + after[x + 3])
            )
    for x in range(width):
        bins[x] = np.int32(np.floor(sums[x] * scale + 0.5))


@_compile  # type: ignore[untyped-decorator]
def _sweep(
    block: Any,
    columns: Any,
    rows: Any,
    window: Any,
    per_unit: int,
    low: int,
    raw: Any,
    smooth: Any,
    padded: Any,
    totals: Any,
) -> None:  # pragma: no cover
    """Count the window of a block row by row, three smoothed rows at a time."""
    height, width = block.shape
    top, stop, left, right = window
    scale = _ROW_SCALE * per_unit
    sums = np.empty(width, np.float64)
    ring = np.empty((3, width), np.int32)
    first = max(top - 1, 0)
    for y in range(first, min(stop + 1, height)):
        _smooth_row(block, y, columns, rows, scale, padded, sums, ring[y % 3])
        if y == 0:  # above the frame is its first row again
            ring[2] = ring[0]
        if top <= y < stop:
            row, source = ring[y % 3], block[y]
            for x in range(left, right):
                smooth[np.uint32(row[x] - low * per_unit)] += 1
                raw[np.uint32(np.int64(source[x]) - low)] += 1
        if top < y <= stop:
            _sum_laplacian(ring[(y - 2) % 3], ring[(y - 1) % 3], ring[y % 3], left, right, totals)
    if stop == height:  # below the frame is its last row again
        _sum_laplacian(ring[(height - 2) % 3], ring[(height - 1) % 3], ring[(height - 1) % 3], left, right, totals)


@_reorder  # type: ignore[untyped-decorator]
def _sum_piece(above: Any, row: Any, below: Any, start: int, stop: int) -> Any:  # pragma: no cover
    """Sum and sum of squares of at most 1024 values below 2**21: integers below 2**53, exact in any order."""
    total, squares = 0.0, 0.0
    before, middle, after = row[start - 1 :], row[start:], row[start + 1 :]
    over, under = above[start:], below[start:]
    for x in range(stop - start):
        value = np.float64(over[x] + under[x] + before[x] + after[x] - 4 * middle[x])
        total += value
        squares += value * value
    return total, squares


@_compile  # type: ignore[untyped-decorator]
def _sum_laplacian(above: Any, row: Any, below: Any, left: int, right: int, totals: Any) -> None:  # pragma: no cover
    width = row.shape[0]
    last = min(right, width - 1)
    for start in range(max(left, 1), last, 1024):
        total, squares = _sum_piece(above, row, below, start, min(start + 1024, last))
        totals[0] += np.int64(total)
        totals[1] += np.int64(squares) >> 32
        totals[2] += np.int64(squares) & 0xFFFFFFFF
    for x in range(left, right):  # beside the frame are its first and last column again
        if x in (0, width - 1):
            value = np.int64(above[x] + below[x] + row[max(x - 1, 0)] + row[min(x + 1, width - 1)] - 4 * row[x])
            totals[0] += value
            totals[1] += (value * value) >> 32
            totals[2] += (value * value) & 0xFFFFFFFF
