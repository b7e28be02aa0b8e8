"""Lazy statistics of the frames of Dask arrays, as a reduction over their chunks.

The numbers are those of `phbatch.run`, whatever the chunks; statistics of frames of floats or of integers wider than
16 bits that lie in several chunks are within a stated error of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import accumulate
from typing import Any

import dask.array as da
import numpy as np
from dask.array.overlap import overlap

from phbatch.kernels.counting import halo_of_counting
from phbatch.kernels.padding import Runs, join_runs
from phbatch.kernels.smoothing import is_fixed_point
from phbatch.kernels.stats import (
    DEFAULT_PERCENTILES,
    FrameStatistics,
    finalize,
    flag_bits,
    from_block,
    measure_frame,
    merge,
)
from phbatch.running.lazy import open_lazy
from phbatch.running.same_kind import as_given, axes_without
from phbatch.words.normalization import SIGMA
from phbatch.words.settings import parse_settings

SCALARS = ("median", "mode", "mad", "mean", "std", "min", "max", "saturated", "zero", "focus", "background", "padding")
"""Statistics of a row that are one number each."""


def image_statistics(
    array: Any, axes: str | None = None, *, sigma: float = SIGMA, percentiles: Sequence[float] = DEFAULT_PERCENTILES
) -> Any:
    """Robust statistics of every frame, as a Dask reduction.

    Parameters
    ----------
    array : dask.array.Array, ndarray, xarray.DataArray, or an array of a store
        Of a real dtype.
    axes : str, optional
        Its axes, such as ``"tcyx"``; a frame is one ``yx`` plane. An xarray.DataArray names them itself.
    sigma : float
        Standard deviation, in pixels, of the Gaussian that smooths a frame before its median and mode are taken.
    percentiles : sequence of float
        Of the raw frame, 0 to 100.

    Returns
    -------
    dask.array.Array, numpy.ndarray or xarray.Dataset
        As `array` is: computed at once of an array in memory, and with a variable per field of an xarray.DataArray.
        Structured, with the shape of `array` without y and x, in the array's order. Fields: ``median``, ``mode``,
        ``mad``, ``mean``, ``std``, ``min``, ``max``, ``saturated``, ``zero``, ``focus``, ``background``, ``padding``,
        percentiles as ``p2`` and ``p99.8`` (all float64; see `phbatch.kernels.stats.FrameStatistics`) and
        ``flags`` (uint16, bits in the order zero, constant, nonfinite). ``statistics["median"]`` is an array of its
        own.

        For 8 and 16 bit integers blocks are summarized with the halo that smoothing needs and merged in a tree: the
        same bits for any chunks. Where padding is, is known once all blocks of a frame have been looked at. For other
        dtypes a frame in one chunk is measured exactly, and one in several chunks is summarized too: median and
        percentiles are exact up to 2**15 different values, and have a relative error of 2**-15 at most where the pixels
        are within a factor of two, 1/16 at worst; see `phbatch.kernels.stats.finalize`.

    Raises
    ------
    InputError
        `axes` do not fit the array, or it is no array of frames of real numbers.
    UsageError
        `sigma` or `percentiles` are not valid.

    Examples
    --------
    >>> frames = da.from_array(np.arange(2 * 40 * 40, dtype=np.uint16).reshape(2, 40, 40), chunks=(1, 16, 40))
    >>> image_statistics(frames, "tyx")["median"].compute()
    array([ 799.5, 2399.5])
    """
    settings = parse_settings({"sigma": sigma, "percentiles": tuple(percentiles)})
    sigma, percentiles = settings.sigma or 0.0, settings.percentiles
    given, (array, axes) = array, open_lazy(array, axes)
    leading = axes_without(axes, "yx")
    frames = array.transpose([*map(axes.index, leading), axes.index("y"), axes.index("x")])
    dtype = _row_dtype(percentiles)
    if not is_fixed_point(array.dtype) and frames.numblocks[-2:] == (1, 1):
        rows = frames.map_blocks(
            _measure_frames,
            sigma,
            tuple(percentiles),
            dtype=dtype,
            drop_axis=[array.ndim - 2, array.ndim - 1],
            meta=np.empty((0,) * (array.ndim - 2), dtype),
        )
    else:
        rows = _reduce_blocks(frames, sigma, tuple(percentiles))
    return as_given(given, rows, axes, leading)


def _reduce_blocks(frames: da.Array, sigma: float, percentiles: tuple[float, ...]) -> da.Array:
    dtype = _row_dtype(percentiles)
    radius = halo_of_counting(sigma)
    frames = frames.rechunk({axis: -1 for axis in _PLANE if frames.shape[axis] <= 2 * radius})  # no room for a halo
    halo = {axis: radius if axis in _PLANE and frames.numblocks[axis] > 1 else 0 for axis in range(-frames.ndim, 0)}
    halo = {axis + frames.ndim: width for axis, width in halo.items()}
    padded = overlap(frames, halo, "none", allow_rechunk=True)
    ones = tuple((1,) * count for count in padded.numblocks[-2:])
    states = da.map_blocks(
        _summarize_blocks,
        padded,
        _find_paddings(frames, radius),
        sigma,
        radius,
        tuple(_starts(sizes, radius) for sizes in padded.chunks[-2:]),
        dtype=object,
        chunks=(*frames.chunks[:-2], *ones),
        meta=np.empty((0,) * frames.ndim, object),
    )
    return da.reduction(
        states,
        chunk=_keep,
        combine=_merge_states,
        aggregate=_Finalize(percentiles, dtype),
        axis=(frames.ndim - 2, frames.ndim - 1),
        dtype=dtype,
        meta=np.empty((0,) * (frames.ndim - 2), dtype),
        concatenate=True,
    )


_PLANE = (-2, -1)


def _starts(sizes: tuple[int, ...], radius: int) -> tuple[int, ...]:
    """Where the blocks of an axis start, and where the last one ends, from their sizes with halos."""
    last = len(sizes) - 1
    own = (size - radius * ((at > 0) + (at < last)) for at, size in enumerate(sizes))
    return tuple(accumulate(own, initial=0))


def _find_paddings(frames: da.Array, radius: int) -> da.Array:
    """Padding of every frame, or None: from the zeros at the borders of its blocks, since it may cross many."""
    leading = frames.ndim - 2
    counts = frames.numblocks[-2:]
    runs = frames.map_blocks(
        _runs_of_blocks,
        dtype=object,
        chunks=(*frames.chunks[:-2], (1,) * counts[0], (1,) * counts[1]),
        meta=np.empty((0,) * frames.ndim, object),
    )
    return runs.rechunk({leading: -1, leading + 1: -1}).map_blocks(
        _join_runs,
        radius,
        dtype=object,
        chunks=(*frames.chunks[:-2], (1,), (1,)),
        meta=np.empty((0,) * frames.ndim, object),
    )


def _runs_of_blocks(block: Any) -> Any:
    runs = np.empty((*block.shape[:-2], 1, 1), object)
    for index in np.ndindex(block.shape[:-2]):
        runs[(*index, 0, 0)] = Runs.from_block(block[index])
    return runs


def _join_runs(runs: Any, radius: int) -> Any:
    paddings = np.empty((*runs.shape[:-2], 1, 1), object)
    for index in np.ndindex(runs.shape[:-2]):
        paddings[(*index, 0, 0)] = join_runs(runs[index].tolist(), radius)
    return paddings


@dataclass(frozen=True)
class _Finalize:
    """Aggregation of the reduction: merge what is left, and make the rows."""

    percentiles: tuple[float, ...]
    dtype: np.dtype[Any]

    def __call__(self, states: Any, axis: Any, keepdims: bool) -> Any:
        merged = _merge_states(states, axis, keepdims=True)[..., 0, 0]
        rows = np.empty(merged.shape, self.dtype)
        for index in np.ndindex(merged.shape):
            rows[index] = _as_tuple(finalize(merged[index], self.percentiles))
        return rows[..., np.newaxis, np.newaxis] if keepdims else rows


def _keep(states: Any, axis: Any, keepdims: bool) -> Any:
    return states


def _merge_states(states: Any, axis: Any, keepdims: bool) -> Any:
    merged = np.empty((*states.shape[:-2], 1, 1), object)
    for index in np.ndindex(states.shape[:-2]):
        merged[(*index, 0, 0)] = reduce(merge, states[index].ravel())
    return merged


def _summarize_blocks(
    block: Any, paddings: Any, sigma: float, radius: int, starts: tuple[tuple[int, ...], ...], block_info: Any = None
) -> Any:
    position = block_info[0]["chunk-location"][-2:]
    halo = [
        (radius if at > 0 else 0, radius if at < len(own) - 2 else 0) for at, own in zip(position, starts, strict=True)
    ]
    region = [slice(own[at], own[at + 1]) for at, own in zip(position, starts, strict=True)]
    states = np.empty((*block.shape[:-2], 1, 1), object)
    for index in np.ndindex(block.shape[:-2]):
        padding = paddings[(*index, 0, 0)]
        if padding is not None:
            padding = padding.window(*region)
        states[(*index, 0, 0)] = from_block(np.ascontiguousarray(block[index]), sigma, halo, padding)
    return states


def _measure_frames(block: Any, sigma: float, percentiles: tuple[float, ...]) -> Any:
    rows = np.empty(block.shape[:-2], _row_dtype(percentiles))
    for index in np.ndindex(block.shape[:-2]):
        rows[index] = _as_tuple(measure_frame(block[index], sigma, percentiles))
    return rows


def _row_dtype(percentiles: Sequence[float]) -> np.dtype[Any]:
    names = [*SCALARS, *(f"p{p:g}" for p in percentiles)]
    return np.dtype([*((name, np.float64) for name in names), ("flags", np.uint16)])


def _as_tuple(row: FrameStatistics) -> tuple[Any, ...]:
    return (*(getattr(row, name) for name in SCALARS), *row.percentiles.values(), flag_bits(row.flags))
