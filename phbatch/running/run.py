"""The functions that users call: run, plan and statistics. The command line decides nothing beyond them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Unpack

from phbatch.computing.dashboard import say_dashboard
from phbatch.computing.devices import choose_devices, name_devices
from phbatch.computing.machine import going_to, may_leave, peak_rss_bytes
from phbatch.computing.tasks import load_predictor
from phbatch.computing.versions import await_workers
from phbatch.inputs.positions import Positions, find_positions
from phbatch.outputs.accounts import keep_account
from phbatch.outputs.image import refusing_storage_errors
from phbatch.places.lock import hold_output
from phbatch.planning.unit import Unit
from phbatch.running.accept_positions import AcceptedPositions, accept_positions
from phbatch.running.before import look_at_light, measure_first, statistics_before
from phbatch.running.begin import (
    AcceptedRun,
    accept_run,
    meet_cluster,
    must_scan,
    require_input,
    search_for_nan,
    settle_network,
)
from phbatch.running.commit import restore_units
from phbatch.running.drawing import draw_plan, draw_plans
from phbatch.running.finishing import finish
from phbatch.running.follow import Frames, await_input, follow, limits_in
from phbatch.running.illumination import keep_light
from phbatch.running.local import on_devices
from phbatch.running.measure import with_statistics
from phbatch.running.opening import open_output, require_same_run
from phbatch.running.plan import report_plan, report_plans
from phbatch.running.positions import run_positions
from phbatch.running.run_log import keeping_log
from phbatch.running.same_positions import require_same_positions
from phbatch.running.told import flagged_frames, piece_pixels, started_event, uncorrected_light
from phbatch.running.watching import PositionsWatch, require_followable, watch_image
from phbatch.words.events import (
    Event,
    Listener,
    Notice,
    StageStarted,
    Stop,
    UnitFinished,
    UnitMeasured,
    ignore,
    log,
    logging_notices,
    never,
)
from phbatch.words.option_types import RunOptions
from phbatch.words.options import parse_options
from phbatch.words.results import PlanReport, RunResult
from phbatch.words.settings import RunSettings

if TYPE_CHECKING:
    from distributed import Client


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
        Of a Dask cluster whose workers compute the units, instead of the address `scheduler`; it stays open. Without
        either, the units go where Dask itself would compute in this place: to the active client's workers, where there
        is one and ``dask.config.set(scheduler="threads")`` does not say otherwise, else to threads of this process.
        Within a task of the host's, it is the threads of that task's slot: one, unless `workers` says more.
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
    >>> import tempfile, numpy as np, zarr
    >>> folder = Path(tempfile.mkdtemp())
    >>> frames = np.random.default_rng(0).normal(1000, 30, (2, 64, 64)).astype("uint16")
    >>> _ = zarr.create_array(folder / "a.zarr", data=frames)
    >>> result = run(folder / "a.zarr", model="none", workers=1)
    >>> result.frames, round(float(zarr.open_array(result.output + "/0")[0].mean()), 2)
    (2, 1.0)
    """
    return _begin(input, output, options, listener, command, stop, client)


def run_again(
    input: str | Path,
    output: str | Path,
    *,
    only: Frames,
    listener: Listener = ignore,
    stop: Stop = never,
    client: Client | None = None,
    **options: Unpack[RunOptions],
) -> RunResult:
    """As `run`, of some of many images, and of their frames along t as `only` has them."""
    return _begin(input, output, options, listener, "", stop, client, only)


def _begin(
    input: str | Path,
    output: str | Path | None,
    options: Mapping[str, Any],
    listener: Listener,
    command: str,
    stop: Stop,
    client: Client | None,
    only: Frames | None = None,
) -> RunResult:
    settings = parse_options("run", options)
    listener = logging_notices(listener)
    with going_to(client, settings.scheduler, stop, listener) as scheduler:
        settings = settings.model_copy(update={"scheduler": scheduler})
        devices = _devices(settings, input, output)
        if settings.follow:
            await_input(str(input), settings, listener, stop)
        if (positions := find_positions(str(input), settings)) is not None:
            some = positions if only is None else positions.only(only)
            limits = limits_in(only or {})
            return _run_positions(some, output, settings, devices, options, command, listener, stop, limits)
        accepted = accept_run(str(input), output, settings, stop, processes=len(devices))
        if await_workers(settings, stop, listener):  # memory and threads are planned from those that came
            accepted = accept_run(str(input), output, settings, stop)
        say_dashboard(settings.scheduler, stop, listener)
        command = command or python_command(accepted, options)
        if settings.follow:
            require_followable(accepted)
            require_same_run(accepted)
        with on_devices(accepted, devices, stop, listener) as there:
            if not settings.follow:
                return _run(there, command, listener, stop)
            allowed = there.resolved.memory.allowed_mem  # as it was planned once, whatever is free later

            def again(
                settings: RunSettings, frames: Frames, listener: Listener, left: Collection[str] | None
            ) -> RunResult:
                changes = {"memory": allowed, "frames": frames[""] or settings.frames}
                now = accept_run(str(input), output, settings.model_copy(update=changes), stop)
                return _run(now, command, listener, stop, left)

            return follow(watch_image(there), there.settings, there.source.path, again, listener, stop)


def _run(
    accepted: AcceptedRun, command: str, listener: Listener, stop: Stop, left: Collection[str] | None = None
) -> RunResult:
    """Run, and finish the output, unless more frames will come: then some units may be left for the end."""
    started = perf_counter()
    require_same_run(accepted)
    accepted = require_input(accepted)
    if accepted.settings.scheduler is not None:
        listener(StageStarted("meeting workers"))
    accepted = meet_cluster(accepted, stop, listener)
    if accepted.model is not None:
        listener(StageStarted("loading the network"))
    accepted = settle_network(accepted)
    for notice in accepted.notices:
        listener(notice)
    units = accepted.resolved.geometry.units
    if accepted.settings.scheduler is None:
        load_predictor(accepted.job)
    said: list[Notice] = []

    def hear(event: Event) -> None:
        if isinstance(event, Notice):
            said.append(event)
        elif isinstance(event, UnitFinished):
            listener(UnitMeasured(event.unit, event.frames))
        else:
            listener(event)

    if must_scan(accepted):
        listener(StageStarted("searching for NaN"))
    search_for_nan(accepted, stop, hear)
    accepted, light = look_at_light(accepted, listener)
    measured = measure_first(accepted, light, stop, hear)
    with hold_output(accepted.output, accepted.job.token), ExitStack() as stack:
        with refusing_storage_errors(accepted.output):
            finished = open_output(accepted, command)
            keep_light(accepted, light)
        skipped, pieces_before = len(finished), finished.pieces
        todo = len(units) - skipped
        if todo or not finished.complete:  # what is finished stays as it is
            listener = stack.enter_context(keeping_log(accepted.output, command, listener, accepted.notices))
        if measured is None and todo:
            measured = statistics_before(accepted, accepted.job, stop, hear)
        for notice in said:
            listener(notice)
        listener(started_event(accepted, finished))
        work: Iterator[Unit] = (unit for unit in finished.todo() if unit.key not in (left or ()))
        if measured is not None:
            work = with_statistics(work, measured, accepted.resolved.recipe.volumes)
        restoring = perf_counter()
        failed = restore_units(accepted, work, finished, stop, listener)
        restoring_seconds = perf_counter() - restoring
        if left is None and len(finished) == len(units) and (todo or not finished.complete):
            listener(StageStarted("finishing"))
            with refusing_storage_errors(accepted.output):
                finish(accepted, finished)
        if uncorrected := uncorrected_light(finished.table):
            listener(uncorrected)
    notices = [notice.text for notice in (*accepted.notices, *said, *([uncorrected] if uncorrected else []))]
    result = RunResult(
        output=accepted.output.path,
        frames=accepted.resolved.geometry.frames,
        units=len(units),
        units_done=len(finished) - skipped,
        units_skipped=skipped,
        seconds=perf_counter() - started,
        pixels=(finished.pieces - pieces_before) * piece_pixels(accepted.resolved.geometry),
        peak_rss_bytes=peak_rss_bytes(),
        clipped=finished.clipped,
        failed=failed,
        flagged=flagged_frames(finished.table),
        workers=accepted.resolved.workers,
        restoring_seconds=restoring_seconds,
        stages=finished.stages,
        notices=tuple(notices),
    )
    if result.units_done or result.failed:
        _keep_account(accepted, result)
    return result


def _run_positions(
    positions: Positions,
    output: str | Path | None,
    settings: RunSettings,
    devices: tuple[str, ...],
    options: Mapping[str, Any],
    command: str,
    listener: Listener,
    stop: Stop,
    frames: Mapping[str, str],
) -> RunResult:
    await_workers(settings, stop, listener)
    accepted = accept_positions(positions, output, settings, stop, len(devices), frames=frames, empty=settings.follow)
    command = command or call_of(positions.input, accepted.output.path, options)
    if settings.follow:
        require_same_positions(accepted, some=True)
    with on_devices(accepted.leader, devices, stop, listener, len(accepted.units)) as there:
        accepted = accepted.on(there.settings.scheduler)
        if not settings.follow:
            return _restore_positions(accepted, command, listener, stop)
        once = {"memory": there.resolved.memory.allowed_mem, "overwrite": False}

        def take_up(some: Positions) -> AcceptedPositions:
            now = accepted.settings.model_copy(update=once)
            return accept_positions(some, output, now, stop, empty=True)

        watch = PositionsWatch(accepted, take_up)

        def again(settings: RunSettings, frames: Frames, listener: Listener, left: Collection[str] | None) -> RunResult:
            some = watch.positions if left is None else watch.chosen(frames)
            settings = settings.model_copy(update={"memory": once["memory"]})
            now = accept_positions(some, output, settings, stop, frames=limits_in(frames))
            return _restore_positions(now, command, listener, stop, left)

        return follow(watch, accepted.settings, positions.input, again, listener, stop)


def _restore_positions(
    accepted: AcceptedPositions, command: str, listener: Listener, stop: Stop, left: Collection[str] | None = None
) -> RunResult:
    result = replace(run_positions(accepted, command, listener, stop, left), peak_rss_bytes=peak_rss_bytes())
    if result.units_done or result.failed:
        _keep_account(accepted.whole, result)
    return result


def plan(
    input: str | Path,
    output: str | Path | None = None,
    *,
    graph: str | Path | None = None,
    client: Client | None = None,
    **options: Unpack[RunOptions],
) -> PlanReport:
    """What `run` would do with the same arguments; no pixel is read and nothing is written.

    Metadata alone are looked at: whether the chunks that they name are there, `run` finds out.

    Parameters
    ----------
    input, output, client, **options
        As for `run`.
    graph : str or Path, optional
        Where to draw the Dask graph of the first units, of many images of two of them: a file that ends in .svg, .png,
        .pdf or .txt. It is text where graphviz is missing.

    Raises
    ------
    UsageError, InputError, ModelError, OutputError, MemoryLimitError
        What `run` would refuse.
    """
    settings = parse_options("plan", options)
    with going_to(client, settings.scheduler) as scheduler:
        return _plan(input, output, graph, settings.model_copy(update={"scheduler": scheduler}))


def _plan(input: str | Path, output: str | Path | None, graph: str | Path | None, settings: RunSettings) -> PlanReport:
    devices = _devices(settings, input, output)
    if (positions := find_positions(str(input), settings)) is not None:
        several = accept_positions(positions, output, settings, processes=len(devices))
        require_same_positions(several)
        drawn = [draw_plans(several, graph)] if graph is not None else []
        notices = (*several.notices, *_shared(devices), *drawn)
        for notice in notices:
            log(notice)
        return report_plans(several, notices)
    accepted = accept_run(str(input), output, settings, processes=len(devices))
    require_same_run(accepted)
    drawn = [draw_plan(accepted, graph)] if graph is not None else []
    notices = (*accepted.notices, *_shared(devices), *drawn)
    for notice in notices:
        log(notice)
    return report_plan(accepted, notices)


def _shared(devices: tuple[str, ...]) -> list[Notice]:
    return [Notice(f"{name_devices(devices)}: memory and workers are of one of them.")] if devices else []


def _keep_account(accepted: AcceptedRun, result: RunResult) -> None:
    memory = accepted.resolved.memory
    names = ("seconds", "restoring_seconds", "units_done", "pixels", "peak_rss_bytes", "workers", "stages", "failed")
    planned = {"projected_mem": memory.projected_mem, "allowed_mem": memory.allowed_mem}
    keep_account(
        accepted.output, planned | {name: getattr(result, name) for name in names} | {"notices": list(result.notices)}
    )


def _devices(settings: RunSettings, input: str | Path, output: str | Path | None) -> tuple[str, ...]:
    return choose_devices(settings, str(input), str(output), may_leave=may_leave())


def python_command(accepted: AcceptedRun, options: Mapping[str, Any]) -> str:
    """The call in Python that reproduces a run."""
    return call_of(accepted.source.path, accepted.output.path, options)


def call_of(input: str, output: str, options: Mapping[str, Any]) -> str:
    """The call of `run` with these arguments."""
    arguments = "".join(f", {name}={value!r}" for name, value in sorted(options.items()) if name != "storage_options")
    return f"phbatch.run({input!r}, {output!r}{arguments})"
