"""The measuring passes: every frame measured, its series judged, and its pixels pooled with those of others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from phbatch.computing.engine import execute, reduce_units
from phbatch.computing.measuring import Pool, measure_unit, merge_pools, pool_unit
from phbatch.computing.outcome import Outcome
from phbatch.computing.tasks import Job, maps_of
from phbatch.frames.light import count_fractions, in_counts
from phbatch.frames.measure import judge_series
from phbatch.frames.recipe import Recipe
from phbatch.frames.table import StatisticsRow, StatisticsTable
from phbatch.inputs.image import Source
from phbatch.kernels.stats import State, finalize
from phbatch.places.place import Place
from phbatch.places.table_file import describe_measurement
from phbatch.planning.resolve import ResolvedStatistics
from phbatch.planning.unit import Unit
from phbatch.planning.units import Geometry
from phbatch.running.large import LargeFrames
from phbatch.words.errors import InputError, InterruptedRunError
from phbatch.words.events import Listener, Notice, UnitFinished, ignore
from phbatch.words.settings import RunSettings

Stop = Callable[[], bool]


def measure_frames(
    resolved: ResolvedStatistics,
    source: Source,
    settings: RunSettings,
    profile: Place | None,
    stop: Stop,
    listener: Listener,
) -> StatisticsTable:
    """Measure every frame of an image, judge the series, and pool; parameters as in `phbatch.statistics` and `Job`.

    Raises
    ------
    InputError
        A frame cannot be read.
    InterruptedRunError
        `stop` said so.
    """
    job = measuring_job(resolved, source, settings, profile)
    geometry = resolved.geometry
    if not resolved.large:
        return measure_before(
            job,
            geometry,
            source.dtype,
            workers=resolved.workers,
            scheduler=settings.scheduler,
            stop=stop,
            listener=listener,
        )
    return measure_in_pieces(job, source, geometry, workers=resolved.workers, stop=stop, listener=listener)


def measure_in_pieces(
    job: Job, source: Source, geometry: Geometry, *, workers: int, stop: Stop, listener: Listener = ignore
) -> StatisticsTable:
    """As `measure_before`, for frames that are too large for one task: each is read in pieces, by this process."""
    table, recipe = StatisticsTable(geometry.grid), job.recipe
    frames = LargeFrames(source, recipe, workers, maps_of(job))
    for row in frames.statistics(geometry.grid):
        table.put(row.as_dict())
        listener(UnitFinished(str(row.key), 1))
        if stop():
            break
    _require_complete(table)
    judge_series(table, recipe.smooth_time)
    if recipe.scope != "image":
        good = (key for at, key in enumerate(geometry.grid) if not (table.flag_bits[at] or key.c in recipe.copied))
        states: dict[Pool, State] = {}
        for key, state in frames.states(good):
            states = merge_pools((states, {recipe.pool_of(key): state}))
            if stop():
                raise InterruptedRunError("stopped while frames were pooled; call the same command again to start.")
        fractions = count_fractions(source.dtype) if recipe.preparation.changes_pixels else 1
        assign_pools(table, states, recipe, fractions, listener)
    return table


def measuring_job(resolved: ResolvedStatistics, source: Source, settings: RunSettings, profile: Place | None) -> Job:
    """What the units of an image need to be measured."""
    return Job(
        source.place,
        settings.axes,
        resolved.recipe,
        profile=profile,
        retries=settings.retries,
        threads=settings.threads,
        wait_s=settings.wait_workers,
    )


def measure_before(
    job: Job,
    geometry: Geometry,
    dtype: np.dtype[Any],
    *,
    workers: int,
    scheduler: str | None,
    stop: Stop,
    listener: Listener = ignore,
) -> StatisticsTable:
    """Measure all units, judge the series, and pool the pixels of good frames where the recipe's scope says so."""
    table = StatisticsTable(geometry.grid)
    for outcome in execute(
        measure_unit, job, geometry.units, workers=workers, scheduler=scheduler, stop=stop, listener=listener
    ):
        unit = outcome.unit
        if outcome.result is None:
            raise unreadable(outcome)
        for index, statistics in outcome.result.items():
            table.put(StatisticsRow(unit.frame_key(*index), statistics).as_dict())
        listener(UnitFinished(unit.key, len(outcome.result)))
    _require_complete(table)
    judge_frames(table, job, geometry, dtype, workers=workers, scheduler=scheduler, stop=stop, listener=listener)
    return table


def judge_frames(
    table: StatisticsTable,
    job: Job,
    geometry: Geometry,
    dtype: np.dtype[Any],
    *,
    workers: int,
    scheduler: str | None,
    stop: Stop,
    listener: Listener = ignore,
) -> None:
    """Judge the series of a whole table, and pool the pixels of good frames where the recipe's scope says so."""
    judge_series(table, job.recipe.smooth_time)
    if job.recipe.scope != "image":
        _pool(table, job, geometry, dtype, workers=workers, scheduler=scheduler, stop=stop, listener=listener)


def describe(source: Source, recipe: Recipe) -> str:
    """How a recipe measures an image, for the table that is made."""
    light = recipe.preparation
    return describe_measurement(
        source.path, source.shape, recipe.rule.sigma, light.downscale, light.illumination, light.mode
    )


def with_statistics(units: Iterable[Unit], table: StatisticsTable, volumes: bool) -> Iterator[Unit]:
    """Units that carry the statistics of their frames."""
    for unit in units:
        indices = unit.frame_indices(volumes=volumes)
        yield replace(unit, measured={index: table.statistics(unit.frame_key(*index)) for index in indices})


@dataclass(frozen=True)
class _Measured:
    """Units that carry the statistics of their frames, as often as they are gone through."""

    units: Iterable[Unit]
    table: StatisticsTable
    volumes: bool

    def __iter__(self) -> Iterator[Unit]:
        return with_statistics(self.units, self.table, self.volumes)


def _pool(
    table: StatisticsTable,
    job: Job,
    geometry: Geometry,
    dtype: np.dtype[Any],
    *,
    workers: int,
    scheduler: str | None,
    stop: Stop,
    listener: Listener,
) -> None:
    """Statistics of the pixels of all good frames of a group, from a second reading of these frames."""
    units = _Measured(geometry.units, table, geometry.volumes)
    pooled, failed = reduce_units(
        pool_unit, merge_pools, job, units, workers=workers, scheduler=scheduler, stop=stop, listener=listener
    )
    if failed is not None:
        raise unreadable(failed)
    if pooled.units < len(geometry.units):
        raise InterruptedRunError("stopped while frames were pooled; call the same command again to start.")
    states = pooled.state or {}
    fractions = count_fractions(dtype) if job.recipe.preparation.changes_pixels else 1
    assign_pools(table, states, job.recipe, fractions, listener)


def assign_pools(
    table: StatisticsTable, states: Mapping[Pool, State], recipe: Recipe, fractions: int, listener: Listener
) -> None:
    """Give every frame the statistics of its pool; `fractions` are the steps per count of the states."""
    pooled = {pool: in_counts(finalize(state, recipe.all_percentiles), fractions) for pool, state in states.items()}
    alone: set[Pool] = set()
    for positions in table.series():
        key = table.grid.key(positions.start)
        pool = recipe.pool_of(key)
        if pool in pooled:
            row = StatisticsRow(key, replace(table.statistics(key), pooled=pooled[pool])).as_dict()
            for name, value in row.items():
                if name.startswith("pooled_"):
                    table.assign(name, positions, value)
        elif pool not in alone and key.c not in recipe.copied:
            alone.add(pool)
            plane = "" if pool[1] is None else f", plane {pool[1]}"
            listener(
                Notice(
                    f"no frame of channel {pool[0]}{plane} is good, so that there is nothing to pool: its frames keep"
                    " statistics of their own.",
                    warning=True,
                )
            )


def _require_complete(table: StatisticsTable) -> None:
    if table.known < len(table):
        raise InterruptedRunError(
            f"stopped after {table.known} of {len(table)} frames were measured; call the same command again."
        )


def unreadable(outcome: Outcome[Any]) -> InputError:
    """What is said of a unit that cannot be measured."""
    key = outcome.unit.key
    return InputError(f"unit {key} cannot be read: {outcome.problem}; repair it first.", frame=key)
