"""From what a user asked for and what the input and the model are, to what will be done; contradictions are refused."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from phbatch.frames.light import Preparation
from phbatch.frames.recipe import Recipe
from phbatch.network.device import Device
from phbatch.network.forms import require_form
from phbatch.network.model import Model
from phbatch.network.steps import window_dtype
from phbatch.planning.channels import chosen_channels, copied_channels
from phbatch.planning.fit import Fit, profile_mem, sampling_mem
from phbatch.planning.idle import require_effect
from phbatch.planning.image import Image
from phbatch.planning.levels import resolve_levels, shard_bytes
from phbatch.planning.memory import (
    RESERVED_BYTES,
    MemoryPlan,
    measuring_unit_memory,
    table_memory,
    unit_knobs,
)
from phbatch.planning.passes import piecewise_bytes
from phbatch.planning.rule import resolve_rule
from phbatch.planning.stored import (
    copies,
    output_dtype,
    packing_notices,
    require_copyable,
    require_storable,
    resolve_packing,
)
from phbatch.planning.units import Geometry
from phbatch.words.choices import FRAME_BACKGROUNDS, MOST_WORKERS, Precision
from phbatch.words.errors import InputError, ModelError, UsageError
from phbatch.words.events import Notice
from phbatch.words.settings import RunSettings


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
    readers : int
        Threads that measure frames which are larger than a unit.
    """

    geometry: Geometry
    recipe: Recipe
    memory: MemoryPlan
    workers: int
    notices: tuple[Notice, ...]
    readers: int = 1


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
    band: int | None = 0,
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
    band : int or None
        Rows of a unit of the run that is continued; 0 where units have whole frames, and None where frames that do not
        fit are cut into bands that do.

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
    fit = Fit(settings, source, model, allowed, tile, device, cores, most_units, ahead)
    planned = fit.choose(geometry, recipe, band)
    planned.memory.require_fit(planned.recipe.tiles.tile if planned.recipe.tiles else None)
    notices = (*notices, *planned.notices, *packing_notices(recipe))
    return ResolvedRun(planned.geometry, planned.recipe, planned.memory, planned.workers, notices, planned.readers)


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
        RESERVED_BYTES + profile_mem(settings, source),
        unit.computing,
        0,
        1,
        allowed,
        sampling_mem=sampling_mem(settings, source, geometry, allowed - RESERVED_BYTES),
        table_mem=table,
        judging_mem=judging,
        unit_knobs=unit_knobs(geometry, recipe, unit, source.dtype),
    )
    asked = settings.workers or max(1, min(MOST_WORKERS, cores))
    workers = asked if settings.workers is not None else max(1, min(asked, memory.fitting))
    memory = replace(memory, in_flight=workers)
    large = settings.illumination not in FRAME_BACKGROUNDS and memory.projected_mem > allowed
    if large:
        reduction = piecewise_bytes(source, recipe, asked)
        memory = replace(memory, unit_mem=reduction, waiting_mem=0, in_flight=1, unit_knobs=())
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


def _resolve_preparation(settings: RunSettings) -> Preparation:
    return Preparation(settings.downscale, settings.illumination, settings.illumination_mode)
