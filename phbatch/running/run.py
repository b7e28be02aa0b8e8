"""The functions that users call: run, plan and statistics. The command line decides nothing beyond them."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from math import prod
from os import cpu_count
from pathlib import Path
from time import perf_counter
from typing import Any, Unpack

import numpy as np
import psutil
from distributed import Client

from phbatch.frames.table import StatisticsTable
from phbatch.inputs.image import open_source
from phbatch.inputs.presence import require_chunks
from phbatch.outputs.finished import Finished
from phbatch.outputs.image import finish_image, refusing_storage_errors
from phbatch.outputs.writer import Sink
from phbatch.places.lock import hold_output
from phbatch.places.place import Place
from phbatch.planning.resolve import resolve_statistics
from phbatch.planning.units import Geometry, source_reads
from phbatch.running.begin import (
    Prepared,
    available_bytes,
    meet_cluster,
    must_scan,
    open_output,
    prepare,
    require_input,
    require_same_run,
    search_for_nan,
    settle_network,
)
from phbatch.running.cluster import lending
from phbatch.running.commit import restore_units
from phbatch.running.illumination import IlluminationResult, estimate_light, keep_light, light_aside, profile_of
from phbatch.running.measure import describe, measure_before, measure_frames, with_statistics
from phbatch.running.scale import require_good_frames, require_scale
from phbatch.running.tasks import Job, forget_open_stores, load_predictor
from phbatch.words.axes import FrameKey
from phbatch.words.events import Event, Listener, Notice, RunStarted, Stop, ignore, log, logging_notices, never
from phbatch.words.option_types import RunOptions, StatisticsOptions
from phbatch.words.options import parse_options
from phbatch.words.results import PlanReport, RunResult

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]


def run(
    input: str | Path,
    output: str | Path | None = None,
    *,
    listener: Listener = ignore,
    command: str = "",
    stop: Stop = never,
    client: Client | None = None,
    **options: Unpack[RunOptions],
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
        Called with every event of `phbatch.words.events`, in this thread. Notices are logged by ``phbatch``, too.
    command : str
        The command line that reproduces the run, for the provenance; made from the options where it is empty.
    stop : callable
        Asked before each unit whether to stop, such as ``threading.Event().is_set``; what is in flight is finished.
    client : distributed.Client, optional
        Of a Dask cluster whose workers compute the units, instead of the address `scheduler`; it stays open.
    **options
        All settings: see `phbatch.RunSettings`, and ``phbatch run --help``.

    Returns
    -------
    RunResult
        Its `failed` is not empty where units failed; all others are written.

    Raises
    ------
    UsageError, InputError, ModelError, OutputError, MemoryLimitError
        Before anything is written.
    InterruptedRunError
        `stop` said so, or the Dask scheduler is gone; what was finished is committed.
    KeyboardInterrupt
        What was in flight is finished and committed, unless a second one follows. Signals themselves are left to the
        host.

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
    settings = parse_options("run", options)
    with lending(client, settings.scheduler) as scheduler:
        prepared = prepare(str(input), output, settings.model_copy(update={"scheduler": scheduler}))
        return _run(prepared, command or _python_command(prepared, options), logging_notices(listener), stop)


def _run(prepared: Prepared, command: str, listener: Listener, stop: Stop) -> RunResult:
    started = perf_counter()
    require_same_run(prepared)
    prepared = settle_network(meet_cluster(require_input(prepared), stop, listener))
    for notice in prepared.notices:
        listener(notice)
    units = prepared.resolved.geometry.units
    if prepared.settings.scheduler is None:
        load_predictor(prepared.job)
    said: list[Notice] = []

    def hear(event: Event) -> None:
        if isinstance(event, Notice):
            said.append(event)

    search_for_nan(prepared, stop, hear)
    prepared, light = _estimate_light(prepared, listener)
    measured = _measure_first(prepared, light, stop, hear)
    with hold_output(prepared.output, prepared.job.token):
        with refusing_storage_errors(prepared.output):
            finished = open_output(prepared, command)
            keep_light(prepared, light)
        skipped, frames_before = len(finished), finished.frames
        todo = len(units) - skipped
        if measured is None and todo:
            measured = _statistics_before(prepared, prepared.job, stop, hear)
        for notice in said:
            listener(notice)
        listener(_started(prepared, finished))
        work = finished.todo()
        if measured is not None:
            work = with_statistics(work, measured, prepared.resolved.recipe.volumes)
        restoring = perf_counter()
        failed = restore_units(prepared, work, finished, stop, listener)
        restoring_seconds = perf_counter() - restoring
        if len(finished) == len(units) and (todo or not finished.complete):
            with refusing_storage_errors(prepared.output):
                finish_image(Sink(prepared.output), prepared.image, finished.table)
    notices = [notice.text for notice in (*prepared.notices, *said)]
    if uncorrected := _uncorrected(finished.table):
        listener(uncorrected)
        notices.append(uncorrected.text)
    return RunResult(
        output=prepared.output.path,
        frames=prepared.resolved.geometry.frames,
        units=len(units),
        units_done=len(finished) - skipped,
        units_skipped=skipped,
        seconds=perf_counter() - started,
        pixels=(finished.frames - frames_before) * _frame_pixels(prepared.resolved.geometry),
        peak_rss_bytes=peak_rss_bytes(),
        clipped=finished.clipped,
        failed=failed,
        flagged=_flagged(finished.table),
        workers=prepared.resolved.workers,
        restoring_seconds=restoring_seconds,
        stages=finished.stages,
        notices=tuple(notices),
    )


def plan(input: str | Path, output: str | Path | None = None, **options: Unpack[RunOptions]) -> PlanReport:
    """What `run` would do with the same arguments; no pixel is read and nothing is written.

    Metadata alone are looked at: whether the chunks that they name are there, `run` finds out.

    Parameters
    ----------
    input, output, **options
        As for `run`.

    Raises
    ------
    UsageError, InputError, ModelError, OutputError, MemoryLimitError
        What `run` would refuse.
    """
    prepared = prepare(str(input), output, parse_options("plan", options))
    require_same_run(prepared)
    resolved, recipe, source = prepared.resolved, prepared.resolved.recipe, prepared.source
    geometry = resolved.geometry
    for notice in prepared.notices:
        log(notice)
    scan = must_scan(prepared)
    itemsize = np.dtype(recipe.dtype).itemsize + (4 if recipe.uncertainty else 0)
    return PlanReport(
        input=source.path,
        output=prepared.output.path,
        axes=prepared.image.metadata.axes,
        shape=source.shape,
        output_shape=geometry.output_shape,
        output_chunks=geometry.output_chunks,
        dtype=recipe.dtype,
        model=prepared.model.name if prepared.model else None,
        normalization=recipe.rule.describe(),
        preparation=recipe.preparation.describe(upscaled=recipe.upscale_to is not None),
        units=len(geometry.units),
        frames=geometry.frames,
        passes=scan + recipe.passes,
        passes_reason=f"{recipe.reason}{'; a float input is searched for NaN first' if scan else ''}",
        bytes_read=source_reads(geometry) * source.dtype.itemsize * (scan + recipe.passes),
        bytes_written=prod(geometry.output_shape) * itemsize,
        tile=recipe.tiles.tile if recipe.tiles else None,
        tiles_per_frame=len(recipe.tiles.tiles) if recipe.tiles else 0,
        halo=recipe.tiles.halo if recipe.tiles else 0,
        tile_overhead=recipe.tiles.overhead if recipe.tiles else 0.0,
        batch=recipe.batch,
        network=recipe.network if prepared.model else None,
        workers=resolved.workers,
        projected_mem=resolved.memory.projected_mem,
        allowed_mem=resolved.memory.allowed_mem,
        notices=tuple(notice.text for notice in prepared.notices),
    )


def statistics(
    input: str | Path, *, listener: Listener = ignore, stop: Stop = never, **options: Unpack[StatisticsOptions]
) -> StatisticsTable:
    """Statistics of every frame of an image.

    Parameters
    ----------
    input : str or Path
        As for `run`.
    listener : callable
        Called with every event.
    stop : callable
        As for `run`.
    **options
        `axes`, `channel`, `frames`, `sigma`, `pmin`, `pmax`, `percentiles`, `smooth_time`, `scope`, `illumination`,
        `illumination_mode`, `downscale`, `memory`, `workers`, `threads`, `scheduler`, `retries`, `storage_options`.

    Returns
    -------
    StatisticsTable
        A sequence with one dict per frame, in the order of t, c, z: ``t``, ``c``, ``z``, ``median``, ``mode``,
        ``mad``, ``mean``, ``std``, ``min``, ``max``, percentiles as ``p2`` and ``p99.8``, ``saturated``, ``zero``,
        ``focus``, ``background``, ``padding`` (`phbatch.kernels.stats.FrameStatistics` says what they are), with
        `smooth_time` also ``median_smooth`` and ``mode_smooth``, with another `scope` than ``image`` also
        ``pooled_median`` and so on, and ``flags``, a list of words that is empty when the frame is good. Statistics of
        frames with NaN or infinity are None.

    Raises
    ------
    InputError
        The input cannot be read, or a frame cannot be measured.
    InterruptedRunError
        `stop` said so.
    """
    settings, listener = parse_options("statistics", options), logging_notices(listener)
    source = open_source(Place.at(input, settings.storage_options), settings.axes)
    resolved = resolve_statistics(settings, source, available_bytes=available_bytes(), cores=cpu_count() or 1)
    geometry = resolved.geometry
    for text in (*source.notices, *require_chunks(source, geometry.times, geometry.channels)):
        listener(Notice(text))
    listener(RunStarted("", len(geometry.units), 0, geometry.frames, 0, prod(source.shape[3:])))
    with profile_of(settings, source, geometry, listener) as profile:
        forget_open_stores()
        table = measure_frames(resolved, source, settings, profile, stop, listener)
    table.measured = describe(source, resolved.recipe)
    if uncorrected := _uncorrected(table):
        listener(uncorrected)
    return table


def peak_rss_bytes() -> int:
    """Peak resident memory of this process, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count the parent's memory at the fork
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) * 1024
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _estimate_light(prepared: Prepared, listener: Listener) -> tuple[Prepared, IlluminationResult | None]:
    """Estimate the profile of a run that needs one, and say what is wrong with it."""
    said = len(prepared.notices)
    prepared, light = estimate_light(prepared)
    for notice in prepared.notices[said:]:
        listener(notice)
    return prepared, light


def _measure_first(
    prepared: Prepared, light: IlluminationResult | None, stop: Stop, listener: Listener
) -> StatisticsTable | None:
    """Refuse a new run that no frame has a scale in; returns the statistics where they are known with that."""
    if prepared.given is not None or prepared.continued:
        return prepared.given
    if light is not None and prepared.settings.scheduler is not None:
        return None  # workers elsewhere read an estimated profile from the new output
    resolved = prepared.resolved
    with light_aside(prepared, light) as job:
        if resolved.recipe.passes > 1:
            return _statistics_before(prepared, job, stop, listener)
        require_scale(
            job, resolved.geometry.units, workers=resolved.workers, scheduler=prepared.settings.scheduler, stop=stop
        )
    return None


def _statistics_before(prepared: Prepared, job: Job, stop: Stop, listener: Listener) -> StatisticsTable | None:
    """Statistics that must be known before the first frame is restored; None where each unit measures its own."""
    if prepared.given is not None or prepared.resolved.recipe.passes == 1:
        return prepared.given
    resolved = prepared.resolved
    table = measure_before(
        job,
        resolved.geometry,
        prepared.source.dtype,
        workers=resolved.workers,
        scheduler=prepared.settings.scheduler,
        stop=stop,
        listener=listener,
    )
    require_good_frames(table, resolved.recipe)
    return table


def _python_command(prepared: Prepared, options: Mapping[str, Any]) -> str:
    arguments = "".join(f", {name}={value!r}" for name, value in sorted(options.items()) if name != "storage_options")
    return f"phbatch.run({prepared.source.path!r}, {prepared.output.path!r}{arguments})"


def _started(prepared: Prepared, finished: Finished) -> Event:
    geometry = prepared.resolved.geometry
    units, pixels = len(geometry.units), _frame_pixels(geometry)
    return RunStarted(prepared.output.path, units, len(finished), geometry.frames, finished.frames, pixels)


def _frame_pixels(geometry: Geometry) -> int:
    return prod(geometry.shape[2 if geometry.volumes else 3 :])


def _uncorrected(table: StatisticsTable) -> Notice | None:
    """What is said where the light of frames could not be corrected."""
    keys = [key for key, words in _flagged(table).items() if "uncorrected" in words]
    if not keys:
        return None
    more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
    return Notice(
        f"the light of {len(keys)} of {len(table)} frames ({', '.join(keys[:3])}{more}) is not corrected and they are"
        " flagged uncorrected: their background is not above 0, so that nothing can be divided by it; leave"
        " --illumination out for images whose background was subtracted, or take --illumination-mode subtract.",
        warning=True,
    )


def _flagged(table: StatisticsTable) -> dict[str, list[str]]:
    rows = (table[int(index)] for index in np.flatnonzero(table.flag_bits))
    return {str(FrameKey(row["t"], row["c"], row["z"])): row["flags"] for row in rows}
