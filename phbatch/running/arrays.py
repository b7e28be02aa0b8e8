"""Lazy statistics, normalization and restoration of Dask arrays: nothing is computed until asked.

The numbers are those of `phbatch.run`, whatever the chunks; statistics of frames of floats or of integers wider than
16 bits that lie in several chunks are within a stated error of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import accumulate
from os import cpu_count
from pathlib import Path
from typing import Any, Unpack

import dask.array as da
import numpy as np
import psutil
from dask.array.overlap import overlap

from phbatch.frames.measure import percentiles_for
from phbatch.frames.restore import restore_block
from phbatch.kernels.counting import halo_of_counting
from phbatch.kernels.intensity import Affine, make_affine
from phbatch.kernels.padding import Runs, join_runs
from phbatch.kernels.smoothing import is_fixed_point
from phbatch.kernels.stats import (
    DEFAULT_PERCENTILES,
    FLAG_NAMES,
    FrameStatistics,
    finalize,
    flag_bits,
    from_block,
    measure_frame,
    merge,
)
from phbatch.network.forms import PLAIN
from phbatch.network.model import DEFAULT_MODEL, open_model
from phbatch.places.ome import ImageMetadata
from phbatch.planning.idle import require_effect
from phbatch.planning.resolve import resolve_rule, resolve_run
from phbatch.running.lazy import open_lazy, warn_of_frames
from phbatch.running.tasks import NOWHERE, Job, load_predictor
from phbatch.words.axes import CANONICAL, Shape
from phbatch.words.errors import UsageError
from phbatch.words.events import log
from phbatch.words.normalization import SIGMA, Normalization
from phbatch.words.option_types import NormalizeOptions, RestoreOptions
from phbatch.words.options import parse_options
from phbatch.words.settings import FLOAT32, FRAME_BACKGROUNDS, parse_settings

_SCALARS = ("median", "mode", "mad", "mean", "std", "min", "max", "saturated", "zero", "focus", "background", "padding")


def image_statistics(
    array: Any, axes: str | None = None, *, sigma: float = SIGMA, percentiles: Sequence[float] = DEFAULT_PERCENTILES
) -> da.Array:
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
    dask.array.Array
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
    array, axes = open_lazy(array, axes)
    frames = array.transpose(
        [*(axes.index(axis) for axis in axes if axis not in "yx"), axes.index("y"), axes.index("x")]
    )
    dtype = _row_dtype(percentiles)
    if not is_fixed_point(array.dtype) and frames.numblocks[-2:] == (1, 1):
        return frames.map_blocks(
            _measure_frames,
            sigma,
            tuple(percentiles),
            dtype=dtype,
            drop_axis=[array.ndim - 2, array.ndim - 1],
            meta=np.empty((0,) * (array.ndim - 2), dtype),
        )
    radius = halo_of_counting(sigma)
    frames = frames.rechunk({axis: -1 for axis in _PLANE if frames.shape[axis] <= 2 * radius})  # no room for a halo
    halo = {axis: radius if axis in _PLANE and frames.numblocks[axis] > 1 else 0 for axis in range(-array.ndim, 0)}
    halo = {axis + array.ndim: width for axis, width in halo.items()}
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
        meta=np.empty((0,) * array.ndim, object),
    )
    return da.reduction(
        states,
        chunk=_keep,
        combine=_merge_states,
        aggregate=_Finalize(tuple(percentiles), dtype),
        axis=(array.ndim - 2, array.ndim - 1),
        dtype=dtype,
        meta=np.empty((0,) * (array.ndim - 2), dtype),
        concatenate=True,
    )


def normalize(
    array: Any, axes: str | None = None, *, normalize: str = "median", **options: Unpack[NormalizeOptions]
) -> da.Array:
    """Normalize every ``yx`` frame by its own statistic.

    Parameters
    ----------
    array : dask.array.Array, ndarray, xarray.DataArray, or an array of a store
        Of a real dtype.
    axes : str, optional
        Its axes, such as ``"tyx"``. An xarray.DataArray names them itself.
    normalize : {"median", "mode", "percentile", "minmax", "fixed", "zscore", "none"}
        The rule.
    **options
        `factor`, `sigma`, `pmin`, `pmax`, `value`, as for `phbatch.run`; its others would do nothing, and are refused.

    Returns
    -------
    dask.array.Array
        float32, shape, axes and chunks of `array`. Frames that have no scale are unchanged; the logger ``phbatch`` of
        whoever computes them is warned.

    Raises
    ------
    InputError
        `axes` do not fit the array, or it is no array of frames of real numbers.
    UsageError
        An option is not valid.

    Examples
    --------
    >>> frames = da.full((2, 32, 32), 50, dtype=np.uint16)
    >>> frames[0, :8, :8] = 90
    >>> normalize(frames, "tyx")[0, 20, 20].compute()
    np.float32(1.0)
    """
    settings = parse_options("normalize", {"normalize": normalize, **options})
    array, axes = open_lazy(array, axes)
    rule, _ = resolve_rule(settings, None)
    require_effect(settings, rule, network=False, table=False)
    percentiles = percentiles_for(rule.pmin, rule.pmax)
    rows = image_statistics(array, axes, sigma=rule.sigma, percentiles=percentiles)
    expand = tuple(np.newaxis if axis in "yx" else slice(None) for axis in axes)
    maps = rows.map_blocks(
        _make_affines,
        rule,
        percentiles,
        "".join(axis for axis in axes if axis not in "yx"),
        dtype=_AFFINE_DTYPE,
        meta=np.empty((0,) * rows.ndim, _AFFINE_DTYPE),
    )[expand]
    return da.map_blocks(_apply_affines, array, maps, dtype=np.float32, meta=np.empty((0,) * array.ndim, np.float32))


def restore(
    array: Any, axes: str | None = None, *, model: str | Path = DEFAULT_MODEL, **options: Unpack[RestoreOptions]
) -> da.Array:
    """Normalize and restore every frame with a CARE network; the same numbers as `phbatch.run`.

    Parameters
    ----------
    array : dask.array.Array, ndarray, xarray.DataArray, or an array of a store
        Of a real dtype. Frames that lie in several chunks are brought together.
    axes : str, optional
        Its axes, such as ``"tcyx"``. An xarray.DataArray names them itself.
    model : str or Path
        Bundled name or CSBDeep model folder; it must be there on every worker.
    **options
        `normalize`, `factor`, `sigma`, `pmin`, `pmax`, `value`, `illumination` (gaussian or polynomial),
        `illumination_mode`, `downscale`, `upscale_back`, `dtype`, `rescale`, `range`, `scale`, `tile`, `batch`,
        `backend`, `memory`, as for `phbatch.run`, `network`, which is plain unless it is named, and `precision`, which
        is float32. Its others would do nothing, and are refused.

    Returns
    -------
    dask.array.Array
        Restored frames, float32 unless `dtype` says otherwise. Its axes are those of `array` in the order of
        ``tczyx``, with a channel axis where the model makes several channels. Frames that have no scale are unchanged;
        the logger ``phbatch`` of whoever computes them is warned.

    Raises
    ------
    InputError, ModelError, UsageError, MemoryLimitError
        As `phbatch.run`.
    """
    settings = parse_options("restore", {"model": model, **options})
    array, axes = open_lazy(array, axes)
    if settings.illumination != "none" and settings.illumination not in FRAME_BACKGROUNDS:
        raise UsageError(
            f"illumination {settings.illumination} needs a look at many frames, which a lazy array does not allow; use"
            " gaussian or polynomial, or divide the array by the profile of `phbatch.illumination` yourself."
        )
    if settings.precision not in ("auto", FLOAT32):
        raise UsageError(
            f"precision {settings.precision} must be checked on the input first, which a lazy array does not allow; use"
            " float32, or phbatch.run."
        )
    opened = open_model(model)
    ordered = "".join(axis for axis in CANONICAL if axis in axes)
    blocks = array.transpose([axes.index(axis) for axis in ordered])
    blocks = blocks[tuple(slice(None) if axis in axes else np.newaxis for axis in CANONICAL)]
    together = {3: -1, 4: -1}
    if opened.config.n_channel_in > 1:
        together[1] = -1
    if opened.config.n_dim == 3:
        together[2] = -1
    blocks = blocks.rechunk(together)
    resolved = resolve_run(
        settings,
        _DaskImage(blocks.shape, blocks.chunksize, np.dtype(array.dtype), ImageMetadata.bare(ordered)),
        opened,
        available_bytes=int(psutil.virtual_memory().available),
        cores=cpu_count() or 1,
    )
    require_effect(settings, resolved.recipe.rule, network=True, table=False)
    for notice in resolved.notices:
        log(notice)
    # To choose the fastest form of the network would compute before anything is asked.
    network = PLAIN if settings.network == "auto" else settings.network
    recipe = replace(resolved.recipe, network=network, precision=FLOAT32)
    job = Job(NOWHERE, None, recipe, model=(opened.folder, opened.sha256), backend=settings.backend)
    n_output = resolved.recipe.n_output
    channels = (n_output,) if resolved.recipe.stacked else tuple(size * n_output for size in blocks.chunks[1])
    restored = blocks.map_blocks(
        _restore_frames,
        job,
        dtype=resolved.recipe.dtype,
        chunks=(blocks.chunks[0], channels, blocks.chunks[2], *resolved.geometry.output_shape[3:]),
        meta=np.empty((0,) * 5, resolved.recipe.dtype),
    )
    kept = axes if restored.shape[1] == 1 else axes + "c"
    return restored[tuple(slice(None) if axis in kept else 0 for axis in CANONICAL)]


@dataclass(frozen=True)
class _DaskImage:
    shape: Shape
    chunks: Shape
    dtype: np.dtype[Any]
    metadata: ImageMetadata
    copied: bool = False


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


_AFFINE_DTYPE = np.dtype([("offset", np.float64), ("divisor", np.float64)])


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
    names = [*_SCALARS, *(f"p{p:g}" for p in percentiles)]
    return np.dtype([*((name, np.float64) for name in names), ("flags", np.uint16)])


def _as_tuple(row: FrameStatistics) -> tuple[Any, ...]:
    return (*(getattr(row, name) for name in _SCALARS), *row.percentiles.values(), flag_bits(row.flags))


def _statistics_of_row(row: Any, percentiles: tuple[float, ...]) -> FrameStatistics:
    scalars: dict[str, Any] = {name: float(row[name]) for name in _SCALARS}
    return FrameStatistics(
        **scalars,
        percentiles={p: float(row[f"p{p:g}"]) for p in percentiles},
        flags=tuple(name for bit, name in enumerate(FLAG_NAMES) if row["flags"] >> bit & 1),
    )


def _make_affines(
    rows: Any, rule: Normalization, percentiles: tuple[float, ...], axes: str, block_info: Any = None
) -> Any:
    maps = np.empty(rows.shape, _AFFINE_DTYPE)
    unscaled = []
    for index in np.ndindex(rows.shape):
        affine = make_affine(_statistics_of_row(rows[index], percentiles), rule)
        if affine is None:
            unscaled.append(index)
            affine = Affine()
        maps[index] = (affine.offset, affine.divisor)
    _warn_of_unscaled(unscaled, axes, block_info)
    return maps


def _apply_affines(block: Any, maps: Any) -> Any:
    with np.errstate(over="ignore", invalid="ignore"):  # of frames that are left as they are, with infinity
        result = block.astype(np.float32)
        result -= maps["offset"].astype(np.float32)
        result /= maps["divisor"].astype(np.float32)
    return result


def _restore_frames(block: Any, job: Job, block_info: Any = None) -> Any:
    predictor = load_predictor(job)
    restored = restore_block(block, job.recipe, predictor.restore if predictor else None)
    rows = restored.statistics.items()
    _warn_of_unscaled([index for index, row in rows if make_affine(row, job.recipe.rule) is None], "tcz", block_info)
    uncorrected = [index for index, row in rows if "uncorrected" in row.flags]
    warn_of_frames(
        uncorrected,
        "tcz",
        block_info,
        "their uneven light is left, since their background is not above 0",
        "leave illumination out for them, or subtract it with illumination_mode='subtract'",
    )
    return restored.image


def _warn_of_unscaled(indices: Sequence[tuple[int | None, ...]], axes: str, block_info: Any) -> None:
    why = "they are left as they are, since they have no scale"
    which = "they are constant, hold NaN or infinity, or have a statistic that is not above 0"
    warn_of_frames(indices, axes, block_info, why, which)
