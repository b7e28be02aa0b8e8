"""What of a frame is shown: its smallest and largest pixel and two percentiles, exactly, of integers and floats alike.

Pixels of up to 32 bits are counted by the upper 16 bits of an integer that sorts as they do, and those that share these
with a wanted rank once more by the lower 16: a radix selection (Knuth, The Art of Computer Programming 3, 5.2.5), of
two passes over the pixels at most and no copy of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from phbatch.kernels.compiled import compile_later

PERCENTILES = (2.0, 99.8)
"""Between which a viewer stretches its contrast."""

_BINS = 1 << 16
_FEW = 1 << 14
"""Pixels that are sorted in less time than the bins are gone through."""


class Extent(NamedTuple):
    """Of the pixels of a frame; NaN where one of them is NaN or infinite.

    Attributes
    ----------
    min, start, end, max : float
        Smallest value, percentiles 2 and 99.8, largest value.
    """

    min: float
    start: float
    end: float
    max: float


def measure_extent(frame: NDArray[Any]) -> Extent:
    """Extent of a frame of integers or floats, of any shape.

    Examples
    --------
    >>> measure_extent(np.arange(1001, dtype=np.uint16))
    Extent(min=0.0, start=20.0, end=998.0, max=1000.0)
    >>> measure_extent(np.array([0.5, np.nan], np.float32))
    Extent(min=nan, start=nan, end=nan, max=nan)
    """
    found = percentiles_of(frame, (0, *PERCENTILES, 100))
    return Extent(*found.tolist()) if np.isfinite(found).all() else Extent(*[float("nan")] * 4)


def percentiles_of(pixels: NDArray[Any], percentiles: Sequence[float]) -> NDArray[np.float64]:
    """Percentiles as ``numpy.percentile`` finds them in float64, with linear interpolation.

    Parameters
    ----------
    pixels : ndarray
        Of integers or floats, of any shape. One that is NaN is beyond all others, below or above as its sign is.
    percentiles : sequence of float
        0 to 100.

    Examples
    --------
    >>> percentiles_of(np.array([[3, 1], [2, 4]], np.int16), (0, 50, 100))
    array([1. , 2.5, 4. ])
    """
    return _interpolate(partial(_select, pixels), pixels.size, percentiles)


def extent_of_blocks(read: Callable[[], Iterable[NDArray[Any]]]) -> Extent | None:
    """Extent of a frame that is read in blocks, twice at most; None where its pixels have more than 32 bits.

    Parameters
    ----------
    read : callable
        Gives the blocks, of one dtype.

    Examples
    --------
    >>> frame = np.arange(1001, dtype=np.uint16)
    >>> extent_of_blocks(lambda: (frame[:600], frame[600:])) == measure_extent(frame)
    True
    """
    found = percentiles_of_blocks(read, (0, *PERCENTILES, 100))
    if found is None:
        return None
    return Extent(*found.tolist()) if np.isfinite(found).all() else Extent(*[float("nan")] * 4)


def percentiles_of_blocks(
    read: Callable[[], Iterable[NDArray[Any]]], percentiles: Sequence[float]
) -> NDArray[np.float64] | None:
    """As `percentiles_of` of all blocks together; `read` and None as for `extent_of_blocks`."""
    upper = _Upper.of(read())
    return None if upper is None else _interpolate(partial(upper.select, read), upper.size, percentiles)


def _interpolate(
    select: Callable[[NDArray[np.int64]], NDArray[np.float64]], size: int, percentiles: Sequence[float]
) -> NDArray[np.float64]:
    """Percentiles from the values of ranks."""
    position = np.asarray(percentiles, np.float64) / 100 * (size - 1)
    lower = position.astype(np.int64)
    fraction = position - lower
    ranks, where = np.unique([lower, np.minimum(lower + 1, size - 1)], return_inverse=True)
    below, above = select(ranks)[where.reshape(2, -1)]
    step = above - below  # and numpy's own two branches
    return np.asarray(np.where(fraction >= 0.5, above - step * (1 - fraction), below + step * fraction))


def _select(frame: NDArray[Any], ranks: NDArray[np.int64]) -> NDArray[np.float64]:
    """Values of some ranks of all pixels in ascending order."""
    known = frame.dtype.newbyteorder("=")
    flat = np.ascontiguousarray(frame, known).reshape(-1)
    if known.itemsize > 4 or known.kind not in "uif" or flat.size < _FEW:
        return np.asarray(np.partition(flat, ranks)[ranks], np.float64)
    upper = _Upper.of((flat,))
    if upper is None:
        raise AssertionError("its dtype is counted")
    return upper.select(lambda: (flat,), ranks)


@dataclass(frozen=True, eq=False)
class _Upper:
    """Pixels of a dtype counted by the upper bits of integers that sort as they do."""

    dtype: np.dtype[Any]
    cumulative: NDArray[np.int64]

    @classmethod
    def of(cls, blocks: Iterable[NDArray[Any]]) -> _Upper | None:
        """None where the dtype is not counted."""
        counts, dtype = np.zeros((4, _BINS), np.int64), np.dtype(np.uint8)
        for block in blocks:
            dtype = block.dtype.newbyteorder("=")
            if dtype.itemsize > 4 or dtype.kind not in "uif":
                return None
            own = np.zeros((4, _BINS), np.uint32)
            _count_upper(_bits_of(block), *_key_of(dtype), own)
            counts += own
        return cls(dtype, np.cumsum(counts.sum(axis=0)))

    @property
    def size(self) -> int:
        """Pixels that were counted."""
        return int(self.cumulative[-1])

    def select(self, read: Callable[[], Iterable[NDArray[Any]]], ranks: NDArray[np.int64]) -> NDArray[np.float64]:
        """Values of some ranks, for which those pixels are gone through once more that have more bits."""
        known, cumulative = self.dtype, self.cumulative
        top, sign, flip, shift = _key_of(known)
        keys = np.searchsorted(cumulative, ranks, side="right")
        if shift:
            chosen = np.unique(keys)
            slots = np.full(_BINS, -1, np.int8)
            slots[chosen] = np.arange(len(chosen))
            fine = np.zeros((len(chosen), _BINS), np.int64)
            for block in read():
                own = np.zeros((len(chosen), _BINS), np.uint32)
                _count_lower(_bits_of(block), sign, flip, slots, own)
                fine += own
            before = np.where(keys > 0, cumulative[keys - 1], 0)
            within = np.cumsum(fine, axis=1)[slots[keys]]
            rest = [np.searchsorted(row, rank, side="right") for row, rank in zip(within, ranks - before, strict=True)]
            keys = (keys << 16) | np.array(rest)
        positive = keys >> top if known.kind == "f" else np.ones_like(keys)
        changed = np.where(positive, int(sign), int(sign) | int(flip))
        return (keys ^ changed).astype(f"u{known.itemsize}").view(known).astype(np.float64)


def _bits_of(block: NDArray[Any]) -> NDArray[Any]:
    known = block.dtype.newbyteorder("=")
    return np.ascontiguousarray(block, known).reshape(-1).view(f"u{known.itemsize}")


def _key_of(dtype: np.dtype[Any]) -> tuple[int, np.uint32, np.uint32, np.uint32]:
    """Top bit, what changes in the key of a positive pixel, what besides in that of a negative one, and the shift."""
    top = 8 * dtype.itemsize - 1
    sign = np.uint32(0 if dtype.kind == "u" else 1 << top)
    flip = np.uint32((1 << top) - 1 if dtype.kind == "f" else 0)
    return top, sign, flip, np.uint32(max(top - 15, 0))


@compile_later
def _count_upper(bits: Any, top: int, sign: Any, flip: Any, shift: Any, counts: Any) -> None:  # pragma: no cover
    """Counts in turn, since equal neighbours would wait for each other."""
    for i in range(bits.size):
        pixel = np.uint32(bits[i])
        key = pixel ^ (sign | (flip * (pixel >> np.uint32(top))))
        counts[i & 3, key >> shift] += 1


@compile_later
def _count_lower(bits: Any, sign: Any, flip: Any, slots: Any, counts: Any) -> None:  # pragma: no cover
    """Of those pixels alone whose upper bits are chosen."""
    for i in range(bits.size):
        pixel = np.uint32(bits[i])
        key = pixel ^ (sign | (flip * (pixel >> np.uint32(31))))
        slot = slots[key >> np.uint32(16)]
        if slot >= 0:
            counts[slot, key & np.uint32(0xFFFF)] += 1
