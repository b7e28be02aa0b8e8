"""The functions that users call: run, plan and statistics. The command line decides nothing beyond them."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from math import prod
from os import cpu_count
from pathlib import Path
from time import perf_counter
from typing import Any, cast

import numpy as np

from phbatch.config import RunSettings, parse_settings
from phbatch.engine import (
    Job,
    execute,
    forget_open_stores,
    load_predictor,
    measure_unit,
    require_scheduler,
    restore_unit,
    stop_on_signal,
)
from phbatch.errors import InputError, InterruptedRunError
from phbatch.events import Event, Listener, RunStarted, UnitFailed, UnitFinished, ignore
from phbatch.kernels.stats import FrameStatistics
from phbatch.large import measure_large_frames
from phbatch.output import finish_image
from phbatch.planning import Unit, region_size, source_reads
from phbatch.prepare import Prepared, available_bytes, must_scan, open_output, prepare
from phbatch.resolve import ResolvedStatistics, resolve_statistics
from phbatch.results import PlanReport, RunResult
from phbatch.stages.restoration import FrameIndex, Recipe
from phbatch.stages.statistics import StatisticsRow, judge_series
from phbatch.storage.ledger import Ledger
from phbatch.storage.sink import Sink
from phbatch.storage.source import Source, open_source


def run(
    input: str | Path,
    output: str | Path | None = None,
    *,
    listener: Listener = ignore,
    command: str = "",
    **options: Any,
) -> RunResult:
    """Normalize and restore every frame of an image, Zarr to OME-Zarr.

    A run that was stopped continues where it left when it is called again with the same arguments.

    Parameters
    ----------
    input : str or Path
        OME-Zarr image (0.4, 0.5) or bare Zarr array with 2 to 5 of the axes ``tczyx``: a local path or an fsspec URL.
    output : str or Path, optional
        Default: ``<stem>.phbatch.zarr`` beside the input.
    listener : callable
        Called with every event of `phbatch.events`, in this thread.
    command : str
        The command line that reproduces the run, for the provenance; made from the options where it is empty.
    **options
        The fields of `phbatch.RunSettings`: `model`, `normalize`, `factor`, `sigma`, `pmin`, `pmax`, `value`, `axes`,
        `channel`, `frames`, `dtype`, `rescale`, `uncertainty`, `nan`, `smooth_time`, `bad_frames`, `tile`, `batch`,
        `backend`, `memory`, `workers`, `scheduler`, `overwrite`.

    Returns
    -------
    RunResult
        Its `failed` is not empty where units failed; all others are written.

    Raises
    ------
    UsageError, InputError, ModelError, OutputError, MemoryLimitError
        Before anything is written.
    InterruptedRunError
        SIGINT or SIGTERM; what was finished is committed.

    Examples
    --------
    >>> import tempfile, zarr
    >>> folder = Path(tempfile.mkdtemp())
    >>> frames = np.random.default_rng(0).normal(1000, 30, (2, 64, 64)).astype("uint16")
    >>> _ = zarr.create_array(folder / "a.zarr", data=frames)
    >>> result = run(folder / "a.zarr", model="none", workers=1)
    >>> result.frames, round(float(zarr.open_array(result.output + "/0")[0].mean()), 2)
    (2, 1.0)
    """
    started = perf_counter()
    settings = parse_settings(options)
    prepared = prepare(str(input), output, settings)
    for notice in prepared.notices:
        listener(notice)
    if not command:
        command = _python_command(prepared, options)
    units = prepared.resolved.geometry.units
    if settings.scheduler is None:
        load_predictor(prepared.job)
    else:
        require_scheduler(settings.scheduler)
    with stop_on_signal() as stop:
        committed = open_output(prepared, command, stop)
        todo = [unit for unit in units if unit.key not in committed]
        if prepared.resolved.recipe.two_passes and todo:
            todo = _measure_before(prepared, units, {unit.key for unit in todo}, stop)
        listener(_started(prepared, units, todo))
        failed: dict[str, str] = {}
        ledger, workers = Ledger(prepared.output), prepared.resolved.workers
        for outcome in execute(
            restore_unit, prepared.job, todo, workers=workers, scheduler=settings.scheduler, stop=stop
        ):
            if outcome.result is None:
                failed[outcome.unit.key] = _describe_error(outcome.error)
                listener(UnitFailed(outcome.unit.key, failed[outcome.unit.key]))
                continue
            ledger.commit(outcome.result)
            committed[outcome.unit.key] = outcome.result
            listener(UnitFinished(outcome.unit.key, len(outcome.result["statistics"])))
        finished = len(committed) == len(units)
        if stop() and not finished and len(committed) + len(failed) < len(units):
            raise InterruptedRunError(
                f"stopped after {len(committed)} of {len(units)} units; call the same command again to continue."
            )
    if finished and (todo or (prepared.recorded or {}).get("status") != "complete"):
        finish_image(Sink(prepared.output), prepared.image, _rows(committed))
    done_now = [unit for unit in todo if unit.key in committed]
    return RunResult(
        output=prepared.output,
        frames=prepared.resolved.geometry.frames,
        units=len(units),
        units_done=len(done_now),
        units_skipped=len(units) - len(todo),
        seconds=perf_counter() - started,
        pixels=sum(_unit_pixels(unit) for unit in done_now),
        peak_rss_bytes=peak_rss_bytes(),
        clipped=sum(record["clipped"] for record in committed.values()),
        failed=failed,
        flagged=_flagged(_rows(committed)),
        notices=tuple(notice.text for notice in prepared.notices),
    )


def plan(input: str | Path, output: str | Path | None = None, **options: Any) -> PlanReport:
    """What `run` would do with the same arguments; no pixel is read and nothing is written.

    Parameters
    ----------
    input, output, **options
        As for `run`.

    Raises
    ------
    UsageError, InputError, ModelError, OutputError, MemoryLimitError
        What `run` would refuse.
    """
    prepared = prepare(str(input), output, parse_settings(options))
    resolved, recipe, source = prepared.resolved, prepared.resolved.recipe, prepared.source
    geometry = resolved.geometry
    scan = must_scan(prepared)
    itemsize = np.dtype(recipe.dtype).itemsize + (4 if recipe.uncertainty else 0)
    return PlanReport(
        input=source.path,
        output=prepared.output,
        axes=prepared.image.metadata.axes,
        shape=source.shape,
        output_shape=geometry.output_shape,
        output_chunks=geometry.output_chunks,
        dtype=recipe.dtype,
        model=prepared.model.name if prepared.model else None,
        normalization=recipe.rule.describe(),
        units=len(geometry.units),
        frames=geometry.frames,
        passes=1 + scan + recipe.two_passes,
        bytes_read=source_reads(geometry) * source.dtype.itemsize * (1 + scan + recipe.two_passes),
        bytes_written=prod(geometry.output_shape) * itemsize,
        tile=recipe.tiles.tile if recipe.tiles else None,
        tiles_per_frame=len(recipe.tiles.tiles) if recipe.tiles else 0,
        halo=recipe.tiles.halo if recipe.tiles else 0,
        tile_overhead=recipe.tiles.overhead if recipe.tiles else 0.0,
        batch=recipe.batch,
        workers=resolved.workers,
        projected_mem=resolved.memory.projected_mem,
        allowed_mem=resolved.memory.allowed_mem,
        notices=tuple(notice.text for notice in prepared.notices),
    )


def statistics(input: str | Path, *, listener: Listener = ignore, **options: Any) -> list[dict[str, Any]]:
    """Statistics of every frame of an image.

    Parameters
    ----------
    input : str or Path
        As for `run`.
    listener : callable
        Called with every event.
    **options
        `axes`, `channel`, `frames`, `sigma`, `pmin`, `pmax`, `smooth_time`, `memory`, `workers`, `scheduler`.

    Returns
    -------
    list of dict
        One row per frame, in the order of t, c, z: ``t``, ``c``, ``z``, ``median``, ``mode``, ``mean``, ``std``,
        ``min``, ``max``, percentiles as ``p2`` and ``p99.8``, and ``flags``, a list of words that is empty when the
        frame is good. Statistics of frames with NaN or infinity are None.

    Raises
    ------
    InputError
        The input cannot be read, or a frame cannot be measured.
    InterruptedRunError
        SIGINT or SIGTERM.
    """
    settings = parse_settings(options | {"model": "none"})
    source = open_source(str(input), settings.axes)
    resolved = resolve_statistics(settings, source, available_bytes=available_bytes(), cores=cpu_count() or 1)
    geometry = resolved.geometry
    frames = geometry.frames
    listener(RunStarted("", len(geometry.units), 0, frames, 0, prod(source.shape[3:])))
    rows: list[StatisticsRow] = []
    with stop_on_signal() as stop:
        forget_open_stores()
        measured = _measure_frame_by_frame if resolved.large else _measure_units
        for unit, found in measured(resolved, source, settings, stop):
            rows += found
            listener(UnitFinished(unit, len(found)))
        if len(rows) < frames:
            raise InterruptedRunError(f"stopped after {len(rows)} of {frames} frames; call the same command again.")
    return [_without_nan(row.as_dict()) for row in judge_series(rows, settings.smooth_time)]


def peak_rss_bytes() -> int:
    """Peak resident memory of this process, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count the parent's memory at the fork
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _measure_before(
    prepared: Prepared, units: Sequence[Unit], wanted: set[str], stop: Callable[[], bool]
) -> list[Unit]:
    """The first of two passes: measure every unit, judge the series, and hand the statistics to the units to do."""
    workers, scheduler = prepared.resolved.workers, prepared.settings.scheduler
    found: list[tuple[Unit, dict[FrameIndex, FrameStatistics]]] = []
    for outcome in execute(measure_unit, prepared.job, units, workers=workers, scheduler=scheduler, stop=stop):
        if outcome.result is None:
            key = outcome.unit.key
            raise InputError(
                f"unit {key} cannot be read: {_describe_error(outcome.error)}; repair it first.", frame=key
            )
        found.append((outcome.unit, outcome.result))
    if len(found) < len(units):
        raise InterruptedRunError("stopped while frames were measured; call the same command again to continue.")
    rows = [StatisticsRow(unit.frame_key(*index), row) for unit, measured in found for index, row in measured.items()]
    judged = {row.key: row.statistics for row in judge_series(rows, prepared.resolved.recipe.smooth_time)}
    return [
        replace(unit, measured={index: judged[unit.frame_key(*index)] for index in measured})
        for unit, measured in found
        if unit.key in wanted
    ]


Measured = Iterator[tuple[str, list[StatisticsRow]]]


def _measure_units(
    resolved: ResolvedStatistics, source: Source, settings: RunSettings, stop: Callable[[], bool]
) -> Measured:
    job = Job(source.path, settings.axes, Recipe(resolved.rule))
    units, workers = resolved.geometry.units, resolved.workers
    for outcome in execute(measure_unit, job, units, workers=workers, scheduler=settings.scheduler, stop=stop):
        key = outcome.unit.key
        if outcome.result is None:
            raise InputError(f"unit {key} cannot be read: {_describe_error(outcome.error)}", frame=key)
        yield key, [StatisticsRow(outcome.unit.frame_key(*index), found) for index, found in outcome.result.items()]


def _measure_frame_by_frame(
    resolved: ResolvedStatistics, source: Source, settings: RunSettings, stop: Callable[[], bool]
) -> Measured:
    for row in measure_large_frames(source, resolved.geometry, resolved.rule, resolved.workers):
        yield str(row.key), [row]
        if stop():
            return


def _python_command(prepared: Prepared, options: Mapping[str, Any]) -> str:
    arguments = "".join(f", {name}={value!r}" for name, value in sorted(options.items()))
    return f"phbatch.run({prepared.source.path!r}, {prepared.output!r}{arguments})"


def _started(prepared: Prepared, units: Sequence[Unit], todo: Sequence[Unit]) -> Event:
    geometry = prepared.resolved.geometry
    frame_pixels = prod(geometry.shape[3:]) * (geometry.shape[2] if geometry.volumes else 1)
    frames_todo = sum(_unit_frames(unit, geometry.volumes) for unit in todo)
    return RunStarted(
        prepared.output,
        len(units),
        len(units) - len(todo),
        geometry.frames,
        geometry.frames - frames_todo,
        frame_pixels,
    )


def _unit_frames(unit: Unit, volumes: bool) -> int:
    planes = 1 if volumes else unit.source[2].stop - unit.source[2].start
    return len(unit.keep_t) * len(unit.keep_c) * planes


def _unit_pixels(unit: Unit) -> int:
    return len(unit.keep_t) * len(unit.keep_c) * region_size(unit.source[2:])


def _rows(committed: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    rows = [row for record in committed.values() for row in record["statistics"]]
    return sorted((_without_nan(row) for row in rows), key=_row_order)


def _row_order(row: Mapping[str, Any]) -> tuple[int, int, int]:
    return (row["t"], row["c"], -1 if row["z"] is None else row["z"])


def _without_nan(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: None if isinstance(value, float) and not np.isfinite(value) else value for name, value in row.items()}


def _flagged(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    flagged = {}
    for row in rows:
        if row["flags"]:
            z = "" if row["z"] is None else f"/z{row['z']}"
            flagged[f"t{row['t']}/c{row['c']}{z}"] = cast(list[str], row["flags"])
    return flagged


def _describe_error(error: BaseException | None) -> str:
    text = str(error).strip() if error is not None else ""
    return text.splitlines()[0] if text else type(error).__name__
