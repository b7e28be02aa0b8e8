"""What is done with a unit of which nothing is written: it is measured, pooled with others, or searched.

Tasks are as in `phbatch.computing.tasks`; none of them computes a network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from phbatch.computing.tasks import Job, corrections_of, own_job, read_unit
from phbatch.frames.light import Preparation, prepare_frame
from phbatch.frames.measure import measure_block
from phbatch.frames.restore import FrameIndex
from phbatch.kernels.finite import is_finite
from phbatch.kernels.intensity import make_affine
from phbatch.kernels.stats import FrameStatistics, State, merge
from phbatch.planning.unit import Unit
from phbatch.words.axes import frame_indices
from phbatch.words.choices import FRAME_BACKGROUNDS

Pool = tuple[int, int | None]
"""Frames that are pooled: their channel, and their plane where planes are apart."""


def measure_unit(job: Job, unit: Unit) -> dict[FrameIndex, FrameStatistics]:
    """Statistics of the frames of a unit, by their indices within it; nothing is written."""
    job, _ = own_job(job, unit)
    recipe = job.recipe
    return measure_block(
        read_unit(job, unit)[0],
        recipe.preparation,
        recipe.rule.sigma,
        recipe.all_percentiles,
        volumes=recipe.volumes,
        corrections=corrections_of(job, unit),
        copied=unit.places_of(recipe.copied),
    )


def pool_unit(job: Job, unit: Unit) -> dict[Pool, State]:
    """Merged states of the good frames of a unit, by the pool that they belong to."""
    block, recipe, corrections = read_unit(job, unit)[0], job.recipe, corrections_of(job, unit)
    states: dict[Pool, State] = {}
    copied = unit.places_of(recipe.copied)
    for index, statistics in (unit.measured or {}).items():
        if not statistics.flags and index[1] not in copied:
            state = prepare_frame(block, index, recipe.preparation, corrections).state(recipe.rule.sigma)
            states = merge_pools((states, {recipe.pool_of(unit.frame_key(*index)): state}))
    return states


def merge_pools(found: Sequence[Mapping[Pool, State]]) -> dict[Pool, State]:
    """States of several units, pool by pool."""
    states: dict[Pool, State] = {}
    for each in found:
        for pool, state in each.items():
            states[pool] = merge(states[pool], state) if pool in states else state
    return states


def scan_unit(job: Job, unit: Unit) -> str | None:
    """Key of the first frame of a unit that holds NaN or infinity; None where all are finite."""
    block, _ = read_unit(job, unit)
    finite = is_finite(block).all(axis=(3, 4))
    if finite.all():
        return None
    t, c, z = np.argwhere(~finite)[0].tolist()
    return str(unit.frame_key(t, c, None if job.recipe.volumes else z))


def scan_position_unit(job: Job, unit: Unit) -> str | None:
    """As `scan_unit`."""
    own, position = own_job(job, unit)
    found = scan_unit(own, unit)
    return None if found is None else f"{position}{found}"


@dataclass(frozen=True)
class ScaleFound:
    """Whether the rule of a job scales a frame of a unit, and the first that it does not though it could."""

    scaled: bool
    unscaled: str | None = None


def find_scale(job: Job, unit: Unit) -> ScaleFound:
    """Look for a frame of a unit that the rule scales; a profile that is yet to be estimated is left out.

    Mostly the first one is, and no other is read.
    """
    first = unit.first_frame(volumes=job.recipe.volumes)
    if first.source != unit.source and (found := _find_scale(job, first)).scaled:
        return found
    return _find_scale(job, unit)


def _find_scale(job: Job, unit: Unit) -> ScaleFound:
    recipe = job.recipe
    preparation = recipe.preparation
    if preparation.illumination not in FRAME_BACKGROUNDS:
        preparation = Preparation(preparation.downscale)
    block, unscaled = read_unit(job, unit)[0], None
    copied = unit.places_of(recipe.copied)
    for index in frame_indices(block.shape, volumes=recipe.volumes):
        if index[1] in copied:
            continue
        frame = prepare_frame(block, index, preparation, None)
        statistics = frame.measure(recipe.rule.sigma, recipe.all_percentiles)
        if make_affine(statistics, recipe.rule) is not None:
            return ScaleFound(True)
        if "constant" not in statistics.flags and "nonfinite" not in statistics.flags:
            unscaled = unscaled or str(unit.frame_key(*index))
    return ScaleFound(False, unscaled)


WITHOUT_NETWORK: tuple[Callable[..., Any], ...] = (measure_unit, pool_unit, scan_unit, scan_position_unit, find_scale)
"""Tasks that compute no network, whatever their job has."""
