"""The measuring passes: every frame measured, its series judged, its pixels pooled with others, or a table read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
from phbatch.places.table_file import MEASURED, POSITION, describe_measurement, parse_measurement, read_rows
from phbatch.planning.resolve import ResolvedStatistics
from phbatch.planning.unit import Unit
from phbatch.planning.units import Geometry
from phbatch.running.large import LargeFrames
from phbatch.words.axes import FrameGrid
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


def read_table(path: Place, grid: FrameGrid, required: Sequence[str]) -> StatisticsTable:
    """Read the statistics of a run from a file of `phbatch stats`, or from another output of phbatch.

    Parameters
    ----------
    path : Place
        See `phbatch.places.table_file.read_rows`.
    grid : FrameGrid
        Frames of the run; rows of other frames are passed over.
    required : sequence of str
        Columns that the normalization needs.

    Raises
    ------
    InputError
        A frame or a needed value is missing.
    """
    table = StatisticsTable(grid)
    for row in read_rows(path):
        if row.get(POSITION) not in (None, ""):
            raise InputError(
                f"{path} is a table of many images ({POSITION} {row[POSITION]}), and the input is one; give a table of"
                " it, which `phbatch stats` of it makes."
            )
        table.measured = _one_measurement(path, table.measured, row.get(MEASURED) or "")
        try:
            parsed = StatisticsRow.from_dict({"z": 0} | dict(row) if grid.planes == 1 else row)
            wanted = parsed.key in grid
        except KeyError as error:
            raise InputError(
                f"{path} has no column {error}, which says the frame of a row; name it in the first line."
            ) from error
        except (ValueError, TypeError) as error:
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
        if table.knows(parsed.key) and str(table.statistics(parsed.key)) != str(parsed.statistics):
            raise InputError(
                f"{path} has two rows of frame {parsed.key} that differ; leave one.", frame=str(parsed.key)
            )
        table.put(parsed.as_dict())
    missing = table.first_unknown()
    if missing is not None:
        raise InputError(
            f"{path} has no row of frame {missing}; measure all frames of the run with `phbatch stats`.",
            frame=str(missing),
        )
    return table


def _one_measurement(path: Place, before: str, said: str) -> str:
    if before and said and before != said:
        raise InputError(f"{path} has rows that were measured differently; measure all with one `phbatch stats`.")
    return before or said


def require_same_measurement(path: str, table: StatisticsTable, expected: str, required: Sequence[str]) -> list[Notice]:
    """Refuse a table of another image, or of frames that were prepared otherwise than those of the run.

    Parameters
    ----------
    path : str
        For the message.
    table : StatisticsTable
        That was read; what it does not say of itself is not held against it.
    expected : str
        How the run would measure, by `phbatch.places.table_file.describe_measurement`.
    required : sequence of str
        Columns that the normalization needs.

    Returns
    -------
    list of Notice
        Warnings of what may be right.

    Raises
    ------
    InputError
        What differs, and how to mend it.
    """
    said, ours = parse_measurement(table.measured), parse_measurement(expected)
    names = ["downscale", "illumination"]
    if not {"median", "mode", "mad"}.isdisjoint(required):
        names.insert(0, "sigma")
    if said.get("illumination") == ours["illumination"] != "none":
        names.append("illumination-mode")
    for name in names:
        if name in said and said[name] != ours[name]:
            raise InputError(
                f"{path} was measured with {name} {said[name]} and this run has {name} {ours[name]}; give --{name}"
                f" {said[name]}, or measure again with `phbatch stats`."
            )
    shapes = [facts.get("shape", ours["shape"]).split("x") for facts in (said, ours)]
    if shapes[0][1:] != shapes[1][1:]:
        raise InputError(
            f"{path} is of an image of {said['shape']} (tczyx) and the input is {ours['shape']}; measure the input with"
            " `phbatch stats`."
        )
    differing = [f"{name} {said[name]}" for name in ("input", "shape") if name in said and said[name] != ours[name]]
    if not differing:
        return []
    return [Notice(f"{path} is of {', '.join(differing)}: make sure that it is of the same image.", warning=True)]


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
