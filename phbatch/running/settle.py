"""What is settled where the run will be, before it starts: precision and form of the network, tile and batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from phbatch.computing.engine import call_there
from phbatch.computing.tasks import Job, read_unit
from phbatch.frames.light import Preparation
from phbatch.frames.restore import restore_block
from phbatch.kernels.tiling import TilePlan
from phbatch.network.model import open_model
from phbatch.network.steps import Prediction, Windows
from phbatch.network.tuning.form import Choice, choose_form
from phbatch.network.tuning.precision import PrecisionCheck, choose_precision
from phbatch.network.tuning.tile import Cut, CutChoice, choose_cut
from phbatch.planning.memory import MemoryPlan
from phbatch.planning.unit import Unit
from phbatch.words.choices import FRAME_BACKGROUNDS, Precision

_SAMPLED_UNITS = 3
_SAMPLED_TILES = 6


def choose_network(job: Job, frames: int, scheduler: str | None) -> Choice:
    """The fastest form of a job's network where the job will run: in this process, or on a worker of a Dask cluster.

    Parameters
    ----------
    job : Job
        With a network whose precision is settled.
    frames : int
        How many the network will see.
    scheduler : str or None
        As for `phbatch.computing.engine.execute`. One worker measures or remembers, and all use what it says.
    """
    return call_there(_choose_network, scheduler, job, frames)


def settle_cut(job: Job, memory: MemoryPlan, frames: int, asked: tuple[bool, bool], scheduler: str | None) -> CutChoice:
    """The fastest tile and batch of a job's network where the job will run, within the memory that is planned for it.

    Parameters
    ----------
    job : Job
        With a network whose form and precision are settled.
    memory : MemoryPlan
        Of the run.
    frames : int
        How many the network will see.
    asked : (bool, bool)
        Whether the user asked for a tile, and for a batch.
    scheduler : str or None
        As for `phbatch.computing.engine.execute`.
    """
    return call_there(_choose_cut, scheduler, job, memory.network_room, frames, asked)


def settle_precision(
    job: Job, units: Sequence[Unit], frames: int, asked: Precision, bound: float, scheduler: str | None
) -> tuple[PrecisionCheck, str]:
    """The precision of a job's network, checked on sample tiles of its input; see `choose_precision`.

    Parameters
    ----------
    job : Job
        With a network, of whatever form.
    units : sequence of Unit
        All units; the first, the middle and the last one give tiles.
    frames : int
        How many the network will see.
    asked, bound
        As for `phbatch.network.tuning.precision.choose_precision`.
    scheduler : str or None
        As for `phbatch.computing.engine.execute`.
    """
    some = np.unique(np.linspace(0, len(units) - 1, _SAMPLED_UNITS).round().astype(int)).tolist()
    picked = [_restored_from(units, index, job.recipe.copied) for index in some]
    return call_there(_choose_precision, scheduler, job, picked, frames, asked, bound)


def _restored_from(units: Sequence[Unit], index: int, copied: Sequence[int]) -> Unit:
    """A unit, or the next one that has not copied channels alone."""
    after = (units[at % len(units)] for at in range(index, index + len(units)))
    return next((unit for unit in after if len(unit.places_of(copied)) < len(unit.keep_c)), units[index])


def _choose_network(job: Job, frames: int) -> Choice:
    folder, tiles = _network_of(job)
    pixels = frames * _pixels_per_frame(tiles)
    recipe = job.recipe
    return choose_form(
        open_model(folder),
        tiles.tile,
        recipe.batch,
        job.backend,
        pixels,
        precision=recipe.precision,
        steps=recipe.steps,
    )


def _choose_cut(job: Job, room: int, frames: int, asked: tuple[bool, bool]) -> CutChoice:
    folder, tiles = _network_of(job)
    model, recipe = open_model(folder), job.recipe
    return choose_cut(
        model,
        tiles.cut_shape,
        Cut(tiles.tile, recipe.batch),
        job.backend,
        recipe.network,
        recipe.precision,
        room=room,
        frames=frames * tiles.cuts,
        tiles=not asked[0],
        batches=not asked[1],
    )


def _choose_precision(
    job: Job, units: Sequence[Unit], frames: int, asked: Precision, bound: float
) -> tuple[PrecisionCheck, str]:
    folder, tiles = _network_of(job)
    recipe = job.recipe

    def sample() -> NDArray[np.float32]:
        windows = [window for unit in units for window in _sample_tiles(job, unit)]
        return np.concatenate(windows[:_SAMPLED_TILES]) if windows else np.empty((0, *tiles.tile, 1), np.float32)

    return choose_precision(
        open_model(folder),
        tiles.tile,
        recipe.batch,
        job.backend,
        recipe.network,
        asked,
        bound,
        sample,
        frames * _pixels_per_frame(tiles),
        rule=f"{recipe.rule.describe()}, {recipe.preparation}",
    )


def _network_of(job: Job) -> tuple[Path, TilePlan]:
    if job.model is None or job.recipe.tiles is None:
        raise ValueError("the job has no network")
    return job.model[0], job.recipe.tiles


def _pixels_per_frame(tiles: TilePlan) -> int:
    """Of all tiles of a frame together."""
    return len(tiles.tiles) * prod(tiles.tile)


def _sample_tiles(job: Job, unit: Unit) -> list[NDArray[np.float32]]:
    """Windows ``(1, *tile, channel)`` of the first frame of a unit, normalized; none where it is passed through.

    Of a band it is one window, in its middle, as if it were a frame: it is measured by itself.
    """
    recipe = replace(job.recipe, batch=1, upscale_to=None, dtype="float32", rescale=False, packing=None)
    if recipe.preparation.illumination not in FRAME_BACKGROUNDS:
        # a profile may not be there yet, and is too even to change what a precision costs
        recipe = replace(recipe, preparation=Preparation(recipe.preparation.downscale))
    sampled: list[NDArray[np.float32]] = []

    def keep(windows: Windows) -> Prediction:
        subtract, divide = (windows.scaling[:, row].reshape(1, *(1,) * len(windows.owned[0]), -1) for row in (0, 1))
        sampled.append((windows.pixels.astype(np.float32) - subtract) / divide)
        mean = np.zeros((*windows.pixels.shape[:-1], recipe.n_output), np.float32)
        return Prediction(mean, mean if recipe.uncertainty else None, np.zeros(1, np.int32))

    block = read_unit(job, unit)[0][:1]
    if recipe.in_bands and recipe.tiles is not None:
        tile, factor = recipe.tiles.tile, recipe.preparation.downscale
        rows, columns = (_middle(size, length * factor) for size, length in zip(block.shape[3:], tile, strict=True))
        block = block[..., rows, columns]
        recipe = replace(recipe, in_bands=False, tiles=_one_tile(recipe.tiles, block.shape[3:], factor))
    restore_block(block, recipe, keep, copied=unit.places_of(recipe.copied))
    return sampled


def _middle(size: int, length: int) -> slice:
    first = max(0, (size - length) // 2)
    return slice(first, min(size, first + length))


def _one_tile(tiles: TilePlan, lengths: Sequence[int], factor: int) -> TilePlan:
    """A frame of these lengths, before it is averaged, as one tile."""
    shape = tuple(-(-length // factor) for length in lengths)
    return TilePlan(shape, tiles.tile, tiles.halo, tiles.grid)
