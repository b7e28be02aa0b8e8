"""The measuring passes: every frame measured, its series judged, its pixels pooled with others, or a table read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from phbatch.axes import FrameGrid
from phbatch.config import RunSettings, StorageOptions
from phbatch.engine import execute
from phbatch.errors import InputError, InterruptedRunError
from phbatch.events import Listener, UnitFinished, ignore
from phbatch.kernels.stats import State, finalize, merge
from phbatch.large import measure_large_frames, reduce_large_frames
from phbatch.outcome import Outcome
from phbatch.planning import Geometry, Unit
from phbatch.resolve import ResolvedStatistics
from phbatch.stages.preparation import count_fractions, in_counts
from phbatch.stages.recipe import Recipe
from phbatch.stages.statistics import judge_series
from phbatch.stages.table import StatisticsRow, StatisticsTable
from phbatch.storage.source import Source
from phbatch.storage.table import read_rows
from phbatch.tasks import Job, measure_unit, pool_unit

Pool = tuple[int, int | None]
Stop = Callable[[], bool]


def measure_frames(
    resolved: ResolvedStatistics, source: Source, settings: RunSettings, profile: str, stop: Stop, listener: Listener
) -> StatisticsTable:
    """Measure every frame of an image, judge the series, and pool; parameters as in `phbatch.statistics` and `Job`.

    Raises
    ------
    InputError
        A frame cannot be read.
    InterruptedRunError
        `stop` said so.
    """
    job = Job(
        source.path,
        settings.axes,
        resolved.recipe,
        profile=profile,
        retries=settings.retries,
        threads=settings.threads,
        storage_options=settings.storage_options,
    )
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
    table = StatisticsTable(geometry.grid)
    for row in measure_large_frames(source, geometry, resolved.recipe, resolved.workers):
        table.put(row.as_dict())
        listener(UnitFinished(str(row.key), 1))
        if stop():
            break
    _require_complete(table)
    judge_series(table, settings.smooth_time)
    if settings.scope != "image":
        good = (key for index, key in enumerate(geometry.grid) if not table.flag_bits[index])
        states: dict[Pool, State] = {}
        for key, state in reduce_large_frames(source, good, resolved.recipe.rule.sigma, resolved.workers):
            _merge_into(states, {resolved.recipe.pool_of(key): state})
            if stop():
                raise InterruptedRunError("stopped while frames were pooled; call the same command again to start.")
        _assign_pools(table, states, resolved.recipe, 1)
    return table


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
            raise _unreadable(outcome)
        for index, statistics in outcome.result.items():
            table.put(StatisticsRow(unit.frame_key(*index), statistics).as_dict())
        listener(UnitFinished(unit.key, len(outcome.result)))
    _require_complete(table)
    judge_series(table, job.recipe.smooth_time)
    if job.recipe.scope != "image":
        _pool(table, job, geometry, dtype, workers=workers, scheduler=scheduler, stop=stop, listener=listener)
    return table


def read_table(path: str, grid: FrameGrid, required: Sequence[str], options: StorageOptions = None) -> StatisticsTable:
    """Read the statistics of a run from a file of `phbatch stats`, or from another output of phbatch.

    Parameters
    ----------
    path : str
        See `phbatch.storage.table.read_rows`.
    grid : FrameGrid
        Frames of the run; rows of other frames are passed over.
    required : sequence of str
        Columns that the normalization needs.
    options : SecretStr or None
        Of the object store.

    Raises
    ------
    InputError
        A frame or a needed value is missing.
    """
    table = StatisticsTable(grid)
    for row in read_rows(path, options):
        try:
            parsed = StatisticsRow.from_dict({"z": 0} | dict(row) if grid.planes == 1 else row)
            wanted = parsed.key in grid
        except (KeyError, ValueError, TypeError) as error:
            raise InputError(f"{path} has a row that is no row of statistics ({error}); correct it.") from error
        if not wanted:
            continue
        lacking = [name for name in required if row.get(name) is None and not parsed.statistics.flags]
        if lacking:
            raise InputError(
                f"{path} has no {lacking[0]} of frame {parsed.key}, which the normalization needs; measure it with"
                " `phbatch stats`, or flag the frame.",
                frame=str(parsed.key),
            )
        table.put(parsed.as_dict())
    missing = table.first_unknown()
    if missing is not None:
        raise InputError(
            f"{path} has no row of frame {missing}; measure all frames of the run with `phbatch stats`.",
            frame=str(missing),
        )
    return table


def with_statistics(units: Sequence[Unit], table: StatisticsTable, volumes: bool) -> Iterator[Unit]:
    """Units that carry the statistics of their frames."""
    for unit in units:
        indices = unit.frame_indices(volumes=volumes)
        yield replace(unit, measured={index: table.statistics(unit.frame_key(*index)) for index in indices})


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
    states: dict[Pool, State] = {}
    units = with_statistics(geometry.units, table, geometry.volumes)
    finished = 0
    for outcome in execute(pool_unit, job, units, workers=workers, scheduler=scheduler, stop=stop, listener=listener):
        if outcome.result is None:
            raise _unreadable(outcome)
        _merge_into(states, outcome.result)
        finished += 1
    if finished < len(geometry.units):
        raise InterruptedRunError("stopped while frames were pooled; call the same command again to start.")
    _assign_pools(table, states, job.recipe, count_fractions(dtype) if job.recipe.preparation.changes_pixels else 1)


def _merge_into(states: dict[Pool, State], found: Mapping[Pool, State]) -> None:
    for pool, state in found.items():
        states[pool] = merge(states[pool], state) if pool in states else state


def _assign_pools(table: StatisticsTable, states: Mapping[Pool, State], recipe: Recipe, fractions: int) -> None:
    """Give every frame the statistics of its pool; `fractions` are the steps per count of the states."""
    pooled = {pool: in_counts(finalize(state, recipe.all_percentiles), fractions) for pool, state in states.items()}
    for positions in table.series():
        key = table.grid.key(int(positions[0]))
        pool = recipe.pool_of(key)
        if pool in pooled:
            row = StatisticsRow(key, replace(table.statistics(key), pooled=pooled[pool])).as_dict()
            for name, value in row.items():
                if name.startswith("pooled_"):
                    table.assign(name, positions, value)


def _require_complete(table: StatisticsTable) -> None:
    if table.known < len(table):
        raise InterruptedRunError(
            f"stopped after {table.known} of {len(table)} frames were measured; call the same command again."
        )


def _unreadable(outcome: Outcome[Any]) -> InputError:
    key = outcome.unit.key
    return InputError(f"unit {key} cannot be read: {outcome.problem}; repair it first.", frame=key)
