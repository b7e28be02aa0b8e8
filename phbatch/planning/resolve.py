"""From what a user asked for and what the input and the model are, to what will be done; contradictions are refused."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from phbatch.frames.light import Preparation
from phbatch.frames.recipe import Recipe
from phbatch.kernels.smoothing import is_fixed_point
from phbatch.network.device import Device
from phbatch.network.forms import require_form
from phbatch.network.model import Model
from phbatch.network.steps import window_dtype
from phbatch.places.ome import ImageMetadata
from phbatch.planning.channels import chosen_channels, copied_channels
from phbatch.planning.idle import require_effect
from phbatch.planning.levels import resolve_levels, shard_bytes
from phbatch.planning.memory import (
    RESERVED_BYTES,
    RESERVED_NETWORK_BYTES,
    MemoryPlan,
    measuring_unit_memory,
    table_memory,
    unit_knobs,
    unit_memory,
)
from phbatch.planning.passes import profile_bytes, reduction_bytes, sampled_frames, sampling_bytes
from phbatch.planning.rule import resolve_rule
from phbatch.planning.stored import (
    copies,
    output_dtype,
    packing_notices,
    require_copyable,
    require_storable,
    resolve_packing,
)
from phbatch.planning.tiles import resolve_tiles
from phbatch.planning.units import Geometry
from phbatch.words.axes import Shape
from phbatch.words.choices import ESTIMATED_BACKGROUNDS, FRAME_BACKGROUNDS, MOST_WORKERS, Precision
from phbatch.words.errors import InputError, ModelError, UsageError
from phbatch.words.events import Notice
from phbatch.words.settings import RunSettings


class Image(Protocol):
    """What must be known of an input: `Source` has it, and so has a Dask array with axes."""

    @property
    def shape(self) -> Shape:
        """Lengths along ``tczyx``."""

    @property
    def chunks(self) -> Shape:
        """Chunks along ``tczyx``."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the pixels."""

    @property
    def metadata(self) -> ImageMetadata:
        """Axes and channels."""

    @property
    def copied(self) -> bool:
        """Whether what is read is copied, to bring its axes or bytes in order."""


@dataclass(frozen=True)
class ResolvedRun:
    """What will be done.

    Attributes
    ----------
    geometry : Geometry
        Frames, units, chunks.
    recipe : Recipe
        What the pixels go through.
    memory : MemoryPlan
        Projected and allowed bytes.
    workers : int
        Units at once.
    notices : tuple of Notice
        Choices and warnings to tell the user.
    """

    geometry: Geometry
    recipe: Recipe
    memory: MemoryPlan
    workers: int
    notices: tuple[Notice, ...]


def resolve_run(
    settings: RunSettings,
    source: Image,
    model: Model | None,
    *,
    available_bytes: int,
    cores: int,
    tile: tuple[int, ...] | None = None,
    batch: int | None = None,
    network: str | None = None,
    precision: Precision | None = None,
    levels: int | None = None,
    most_units: int | None = None,
    device: Device | None = None,
    ahead: int = 0,
) -> ResolvedRun:
    """Decide everything that can be decided before a pixel is read.

    Parameters
    ----------
    settings : RunSettings
        What the user asked for.
    source : Source
        The input.
    model : Model or None
        None normalizes only.
    available_bytes : int
        Memory of the machine that is free; half of it is the default of ``memory``.
    cores : int
        Of the machine; as many units, at most 16, are worked on at once unless ``workers`` says so.
    tile : tuple of int, optional
        Tile shape of the run that is continued.
    batch : int, optional
        Its tiles per call.
    most_units : int, optional
        Units that are worked on at once at most; all of the image by default.
    network : str, optional
        Form of the network of the run that is continued; else an ``auto`` of the settings stays, until it is settled.
    precision : str, optional
        The same of the precision.
    levels : int, optional
        Resolutions of its output.
    device : Device, optional
        The GPU that computes the network: its memory holds the tensors, and tiles are as large as it allows.
    ahead : int
        Units that are on it besides those that are worked on, at most; a processor gets none.

    Raises
    ------
    InputError, ModelError, UsageError, MemoryLimitError
        With the value, the rule and the remedy.
    """
    rule, notices = resolve_rule(settings, model)
    require_effect(settings, rule, network=model is not None)
    geometry = _resolve_geometry(settings, source, model)
    geometry = replace(geometry, levels=resolve_levels(settings, geometry, levels))
    n_input = len(geometry.channels) if geometry.stacked else 1
    if settings.rescale and geometry.n_output != n_input:
        raise UsageError(
            f"--rescale needs as many output as input channels, and the model makes {geometry.n_output} of"
            f" {n_input}; leave it out."
        )
    if settings.uncertainty and (model is None or not model.config.probabilistic):
        raise UsageError("--uncertainty needs a probabilistic model; leave it out or choose another model.")
    if settings.shard not in (None, "auto") and (settings.ome_zarr or source.metadata.version) == "0.4":
        raise UsageError("--shard needs Zarr 3, and OME-Zarr 0.4 is written as Zarr 2; leave it out.")
    allowed = int(settings.memory) if settings.memory is not None else available_bytes // 2
    batch = settings.batch or batch or 1
    network = network or settings.network
    if model is not None and network != "auto":
        require_form(model.config, network)
    recipe = Recipe(
        rule=rule,
        dtype=output_dtype(settings, source),
        rescale=settings.rescale,
        volumes=geometry.volumes,
        stacked=geometry.stacked,
        n_output=geometry.n_output,
        batch=batch,
        network=network,
        precision=precision or settings.precision,
        uncertainty=settings.uncertainty,
        smooth_time=settings.smooth_time,
        bad_frames=settings.bad_frames,
        scope=settings.scope,
        percentiles=settings.percentiles,
        given=settings.stats is not None,
        preparation=_resolve_preparation(settings),
        upscale_to=(source.shape[3], source.shape[4]) if settings.upscale_back else None,
        windows="float32" if _resolve_preparation(settings).changes_pixels else window_dtype(source.dtype),
        packing=resolve_packing(settings),
        copies=copies(settings, rule, network=model is not None),
        copied=geometry.copied,
    )
    if settings.dtype == "input" and not recipe.copies:
        require_storable(settings, recipe)
    require_copyable(settings, source, geometry, recipe)
    memory = _plan_memory(settings, source, model, geometry, recipe, allowed)
    if model is not None:
        tiles = resolve_tiles(settings, geometry, model, memory.network_room // batch, tile, device, batch)
        recipe = replace(recipe, tiles=tiles)
        knobs = [f"lower --{name}" for name, value in (("tile", settings.tile), ("batch", batch)) if (value or 1) > 1]
        bytes_of = model.config.staging_bytes if device is not None else model.config.workspace_bytes
        memory = replace(memory, network_mem=bytes_of(tiles.tile, batch), network_knobs=tuple(knobs))
        most_ahead = min(ahead, len(geometry.units) - 1) if device is not None else 0
        fitting = [count for count in range(most_ahead, 0, -1) if replace(memory, ahead=count).fitting]
        memory = replace(memory, ahead=fitting[0] if fitting else 0)
    workers = settings.workers or max(1, min(MOST_WORKERS, cores, most_units or len(geometry.units), memory.fitting))
    memory = replace(memory, in_flight=workers)
    memory.require_fit(recipe.tiles.tile if recipe.tiles else None)
    return ResolvedRun(geometry, recipe, memory, workers, (*notices, *packing_notices(recipe)))


@dataclass(frozen=True)
class ResolvedStatistics:
    """How an image will be measured.

    Attributes
    ----------
    geometry : Geometry
        Frames and units.
    recipe : Recipe
        Its sigma, percentiles, smoothing over time and scope.
    workers : int
        Units at once.
    large : bool
        Whether a frame is too large for one task, and is measured by a reduction over its chunks.
    """

    geometry: Geometry
    recipe: Recipe
    workers: int
    large: bool


def resolve_statistics(settings: RunSettings, source: Image, *, available_bytes: int, cores: int) -> ResolvedStatistics:
    """Decide how an image is measured; arguments and errors as for `resolve_run`."""
    rule, _ = resolve_rule(settings, None)
    geometry = _resolve_geometry(settings, source, None)
    allowed = int(settings.memory) if settings.memory is not None else available_bytes // 2
    recipe = Recipe(
        rule,
        smooth_time=settings.smooth_time,
        scope=settings.scope,
        percentiles=settings.percentiles,
        preparation=_resolve_preparation(settings),
    )
    unit = measuring_unit_memory(geometry, recipe, source.dtype, copied=source.copied)
    table, judging = table_memory(geometry, recipe)
    memory = MemoryPlan(
        RESERVED_BYTES + _profile_mem(settings, source),
        unit.computing,
        0,
        1,
        allowed,
        sampling_mem=_sampling_mem(settings, source, geometry, allowed - RESERVED_BYTES),
        table_mem=table,
        judging_mem=judging,
        unit_knobs=unit_knobs(geometry, recipe, unit, source.dtype),
    )
    asked = settings.workers or max(1, min(MOST_WORKERS, cores))
    workers = asked if settings.workers is not None else max(1, min(asked, memory.fitting))
    memory = replace(memory, in_flight=workers)
    large = not recipe.preparation.changes_pixels and memory.projected_mem > allowed
    if large:
        fixed_point, itemsize = is_fixed_point(source.dtype), source.dtype.itemsize
        reduction = reduction_bytes(source.shape, source.chunks, itemsize, fixed_point=fixed_point, workers=asked)
        memory = MemoryPlan(RESERVED_BYTES, reduction, 0, 1, allowed)
    memory.require_fit(None)
    return ResolvedStatistics(geometry, recipe, asked if large else workers, large)


def _resolve_geometry(settings: RunSettings, source: Image, model: Model | None) -> Geometry:
    shape = source.shape
    times = settings.select_frames(shape[0])
    if len(times) == 0:
        raise InputError(f"--frames {settings.frames} selects none of the {shape[0]} frames; choose from 0:{shape[0]}.")
    channels = chosen_channels(settings, source)
    volumes = stacked = False
    n_output = 1
    if model is not None:
        config = model.config
        volumes = config.n_dim == 3
        stacked = config.n_channel_in > 1
        n_output = config.n_channel_out
        if volumes and "z" not in source.metadata.axes:
            raise ModelError(
                f"model {model.name} is 3D and the input has the axes {source.metadata.axes}; give data with z or a"
                f" 2D model."
            )
        if stacked and len(channels) != config.n_channel_in:
            raise ModelError(
                f"model {model.name} takes {config.n_channel_in} channels and {len(channels)} are given; choose a"
                f" model or channels that fit."
            )
        if not stacked and n_output > 1 and len(channels) > 1:
            raise ModelError(
                f"model {model.name} makes {n_output} channels of one and {len(channels)} are given; choose one"
                f" with --channel."
            )
    others = copied_channels(settings, source, channels)
    return Geometry(
        shape,
        source.chunks,
        times,
        tuple(sorted((*channels, *others))),
        volumes,
        stacked,
        n_output,
        downscale=settings.downscale,
        upscaled=settings.upscale_back,
        copied=others,
        shard_pixels=shard_bytes(settings, settings.ome_zarr or source.metadata.version)
        // np.dtype(output_dtype(settings, source)).itemsize,
    )


def _plan_memory(
    settings: RunSettings, source: Image, model: Model | None, geometry: Geometry, recipe: Recipe, allowed: int
) -> MemoryPlan:
    """Of one unit at once, without the network's tensors."""
    unit = unit_memory(geometry, recipe, source.dtype, network=model is not None, copied=source.copied)
    table, judging = table_memory(geometry, recipe)
    libraries = RESERVED_BYTES + (RESERVED_NETWORK_BYTES if model is not None else 0)
    return MemoryPlan(
        libraries + _profile_mem(settings, source),
        unit.computing,
        0,
        settings.workers or 1,
        allowed,
        waiting_mem=unit.waiting,
        sampling_mem=_sampling_mem(settings, source, geometry, allowed - libraries),
        table_mem=table,
        judging_mem=judging,
        unit_knobs=unit_knobs(geometry, recipe, unit, source.dtype),
    )


def _profile_mem(settings: RunSettings, source: Image) -> int:
    if settings.illumination in ("none", *FRAME_BACKGROUNDS):
        return 0
    return profile_bytes(source.shape, dark=settings.illumination != "temporal")


def _sampling_mem(settings: RunSettings, source: Image, geometry: Geometry, spare: int) -> int:
    """What the estimate of a profile takes of what is spare: as many frames as fit."""
    if settings.illumination not in ESTIMATED_BACKGROUNDS or settings.illumination in FRAME_BACKGROUNDS:
        return 0
    count, frame = sampled_frames(source.shape, source.dtype.itemsize, spare, len(geometry.times))
    return sampling_bytes(count * frame)


def _resolve_preparation(settings: RunSettings) -> Preparation:
    return Preparation(settings.downscale, settings.illumination, settings.illumination_mode)
