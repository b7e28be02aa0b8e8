"""Normalization and restoration of arrays: lazy for Dask, and back as the kind that was given.

The numbers are those of `phbatch.run`, whatever the chunks; statistics of frames of floats or of integers wider than
16 bits that lie in several chunks are within a stated error of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from os import cpu_count
from pathlib import Path
from typing import Any, Unpack

import dask.array as da
import numpy as np
import psutil

from phbatch.computing.tasks import NOWHERE, Job, load_predictor
from phbatch.frames.measure import percentiles_for
from phbatch.frames.restore import restore_block
from phbatch.kernels.intensity import Affine, make_affine
from phbatch.kernels.stats import (
    FLAG_NAMES,
    FrameStatistics,
)
from phbatch.network.backend import choose_backend
from phbatch.network.forms import PLAIN
from phbatch.network.model import DEFAULT_MODEL, open_model
from phbatch.places.ome import ImageMetadata
from phbatch.planning.idle import require_effect
from phbatch.planning.of_model import with_model
from phbatch.planning.resolve import resolve_run
from phbatch.planning.rule import resolve_rule
from phbatch.running.array_statistics import SCALARS, image_statistics
from phbatch.running.lazy import open_lazy, warn_of_frames
from phbatch.running.same_kind import as_given, axes_without, in_order
from phbatch.words.axes import CANONICAL, Shape
from phbatch.words.choices import FLOAT32, FRAME_BACKGROUNDS
from phbatch.words.errors import UsageError
from phbatch.words.events import Notice, log
from phbatch.words.normalization import Normalization
from phbatch.words.option_types import NormalizeOptions, RestoreOptions
from phbatch.words.options import parse_options


def normalize(
    array: Any, axes: str | None = None, *, normalize: str = "median", **options: Unpack[NormalizeOptions]
) -> Any:
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
    dask.array.Array, numpy.ndarray or xarray.DataArray
        As `array` is: computed at once of an array in memory. float32, shape, axes and chunks of `array`. Frames that
        have no scale are unchanged; the logger ``phbatch`` of whoever computes them is warned.

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
    given, (array, axes) = array, open_lazy(array, axes)
    rule, _ = resolve_rule(settings, None)
    require_effect(settings, rule, network=False, table=False)
    percentiles = percentiles_for(rule.pmin, rule.pmax)
    rows = image_statistics(array, axes, sigma=rule.sigma, percentiles=percentiles)
    expand = tuple(np.newaxis if axis in "yx" else slice(None) for axis in axes)
    maps = rows.map_blocks(
        _make_affines,
        rule,
        percentiles,
        axes_without(axes, "yx"),
        dtype=_AFFINE_DTYPE,
        meta=np.empty((0,) * rows.ndim, _AFFINE_DTYPE),
    )[expand]
    normalized = da.map_blocks(
        _apply_affines, array, maps, dtype=np.float32, meta=np.empty((0,) * array.ndim, np.float32)
    )
    return as_given(given, normalized, axes, axes)


def restore(
    array: Any, axes: str | None = None, *, model: str | Path = DEFAULT_MODEL, **options: Unpack[RestoreOptions]
) -> Any:
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
        is float32. Its others would do nothing, and are refused. `normalize="none"` is of arrays that are normalized.

    Returns
    -------
    dask.array.Array, numpy.ndarray or xarray.DataArray
        As `array` is: computed at once of an array in memory. Restored frames, float32 unless `dtype` says otherwise.
        Its axes are those of `array` in the order of ``tczyx``, with a channel axis where the model makes several
        channels. Frames that have no scale are unchanged; the logger ``phbatch`` of whoever computes them is warned.

    Raises
    ------
    InputError, ModelError, UsageError, MemoryLimitError
        As `phbatch.run`.
    """
    settings = parse_options("restore", {"model": model, **options})
    opened, of_model = open_model(model), tuple[Notice, ...]()
    if settings.normalize == "none":  # an array that was prepared before: nothing contradicts what the model had
        opened = replace(opened, normalization=None)
    else:
        settings, of_model = with_model(settings, opened, frames_alone=True)
    given, (array, axes) = array, open_lazy(array, axes)
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
    ordered = in_order(axes)
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
        levels=1,
    )
    require_effect(settings, resolved.recipe.rule, network=True, table=False)
    for notice in (*of_model, *resolved.notices):
        log(notice)
    # To choose the fastest form of the network would compute before anything is asked.
    network = PLAIN if settings.network == "auto" else settings.network
    recipe = replace(resolved.recipe, network=network, precision=FLOAT32)
    job = Job(NOWHERE, None, recipe, model=(opened.folder, opened.sha256), backend=choose_backend(settings.backend))
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
    restored = restored[tuple(slice(None) if axis in kept else 0 for axis in CANONICAL)]
    return as_given(given, restored, axes, in_order(kept))


@dataclass(frozen=True)
class _DaskImage:
    shape: Shape
    chunks: Shape
    dtype: np.dtype[Any]
    metadata: ImageMetadata
    copied: bool = False


_AFFINE_DTYPE = np.dtype([("offset", np.float64), ("divisor", np.float64)])


def _statistics_of_row(row: Any, percentiles: tuple[float, ...]) -> FrameStatistics:
    scalars: dict[str, Any] = {name: float(row[name]) for name in SCALARS}
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
