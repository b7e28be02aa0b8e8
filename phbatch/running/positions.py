"""A run of many images: one plan, one window of units over all of them, one ledger."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import groupby
from time import perf_counter
from typing import Any

import numpy as np

from phbatch.computing.engine import require_finite
from phbatch.computing.measuring import scan_position_unit
from phbatch.computing.tasks import (
    PositionUnit,
    forget_open_stores,
    load_predictor,
    restore_position_unit,
)
from phbatch.computing.versions import versions_here
from phbatch.frames.table import StatisticsTable
from phbatch.inputs.image import Source, open_source
from phbatch.inputs.positions import find_positions
from phbatch.inputs.stamps import Stamps
from phbatch.outputs.finished import FinishedPositions
from phbatch.outputs.image import refusing_storage_errors, require_space
from phbatch.outputs.ledger import METADATA, Ledger
from phbatch.outputs.positions import remove_positions
from phbatch.outputs.writer import Sink
from phbatch.places.lock import hold_output
from phbatch.places.place import Place
from phbatch.planning.positions import PositionUnits, split_key
from phbatch.planning.unit import Unit
from phbatch.running.accept_positions import AcceptedPositions, geometries_of, settle_positions
from phbatch.running.before import statistics_before
from phbatch.running.begin import AcceptedRun, must_scan
from phbatch.running.commit import restore_units
from phbatch.running.growth import keeps_layout
from phbatch.running.illumination import estimate_light, keep_light
from phbatch.running.measure import with_statistics
from phbatch.running.opening import describe_run
from phbatch.running.run_log import keeping_log
from phbatch.running.same_positions import require_same_positions
from phbatch.words.axes import FrameKey
from phbatch.words.errors import InputError, OutputError
from phbatch.words.events import Event, Listener, Notice, RunStarted, Stop
from phbatch.words.results import RunResult
from phbatch.words.settings import RunSettings


def run_positions(
    accepted: AcceptedPositions, command: str, listener: Listener, stop: Stop, left: Collection[str] | None = None
) -> RunResult:
    """Restore all images as one run; what `phbatch.run` does with one.

    The output is finished, unless more frames will come: then some units may be left for the end.
    """
    started = perf_counter()
    accepted = settle_positions(accepted, stop, listener)
    require_same_positions(accepted)
    for notice in accepted.notices:
        listener(notice)
    if accepted.settings.scheduler is None:
        for job in {repr(run.job.recipe): run.job for run in accepted.runs.values()}.values():
            load_predictor(job)
    _search_for_nan(accepted, stop, listener)
    whole, layout = accepted.whole, accepted.layout
    with hold_output(accepted.output, whole.job.token), ExitStack() as stack:
        with refusing_storage_errors(accepted.output):
            finished, provenance = open_positions(accepted, command)
        skipped, frames_before, units = len(finished), finished.frames, accepted.units
        if skipped < len(units) or not finished.complete:  # what is finished stays as it is
            listener = stack.enter_context(keeping_log(accepted.output, command, listener, accepted.notices))
        pixels = sum(run.resolved.geometry.frames * _frame_pixels(run) for run in accepted.runs.values())
        frames = sum(run.resolved.geometry.frames for run in accepted.runs.values())
        listener(RunStarted(accepted.output.path, len(units), skipped, frames, frames_before, pixels // max(frames, 1)))
        restoring = perf_counter()
        unmeasured: dict[str, str] = {}
        work = work_on(accepted, finished, unmeasured, stop, listener, left or ())
        failed = restore_units(whole, work, finished, stop, listener, restore_position_unit)
        restoring_seconds = perf_counter() - restoring
        if left is None and len(finished) == len(units) and not (skipped == len(units) and finished.complete):
            with refusing_storage_errors(accepted.output):
                layout.finish(provenance, finished.tables, finished.all_shown)
    return RunResult(
        output=accepted.output.path,
        frames=frames,
        units=len(units),
        units_done=len(finished) - skipped,
        units_skipped=skipped,
        seconds=perf_counter() - started,
        pixels=(finished.frames - frames_before) * (pixels // max(frames, 1)),
        peak_rss_bytes=0,
        clipped=finished.clipped,
        failed=dict(accepted.aside) | unmeasured | failed,
        flagged=_flagged(finished.tables),
        workers=whole.resolved.workers,
        restoring_seconds=restoring_seconds,
        stages=finished.stages,
        notices=tuple(notice.text for notice in accepted.notices),
    )


def open_positions(accepted: AcceptedPositions, command: str) -> tuple[FinishedPositions, dict[str, Any]]:
    """Create the output, continue it, or add to it images, and frames of those that have grown."""
    finished, recorded = FinishedPositions(accepted.units), accepted.recorded
    provenance = _provenance(accepted, command)
    if recorded is not None and "fingerprint" in recorded:
        _continue(accepted, finished, recorded, provenance | {"command": recorded["command"]})
        return finished, provenance | {"command": recorded["command"]}
    freed = sum(size for _, size, _ in accepted.output.files()) if recorded or accepted.replaces else 0
    require_space(accepted.output, [run.image for run in accepted.runs.values()], 0, freed)
    remove_positions(accepted.output)
    forget_open_stores()
    accepted.layout.create(provenance)
    return finished, provenance


def _continue(
    accepted: AcceptedPositions,
    finished: FinishedPositions,
    recorded: Mapping[str, Any],
    provenance: Mapping[str, Any],
) -> None:
    """Take in what is finished of an output, and extend it where images, or frames along t, came since.

    A unit that is larger now is done again, and what was finished of it taken back, as are all units of an image whose
    chunks are longer now.
    """
    output, ledger, grown = accepted.output, Ledger(accepted.output), accepted.grown
    Sink(output).remove_scratch()
    before = geometries_of(recorded)
    relaid = [path for path in grown if not keeps_layout(accepted.runs[path].resolved.geometry, before[path])]
    outgrown: list[str] = []
    for record in ledger.current(accepted.units):
        unit = record["unit"]
        path = split_key(unit)[0] if unit != METADATA else ""
        if path in accepted.runs and (path in relaid or not finished.counts(unit)):
            outgrown.append(unit)
        else:
            finished.add(record)
    require_unchanged_positions(accepted)
    known = recorded["positions"]
    if [*known] != [*accepted.runs] or grown or not finished.complete:
        if relaid:
            _take_back(accepted, recorded, relaid)
        accepted.layout.create(provenance, known, grown)
        finished.complete = False
    if grown:
        forget_open_stores()
    for unit in outgrown:
        ledger.retract(unit)


def _take_back(accepted: AcceptedPositions, recorded: Mapping[str, Any], paths: Sequence[str]) -> None:
    """Remove what was restored of some images; from now on the output says nothing of them."""
    mark = recorded["fingerprint"]
    marks, positions = (
        {path: found for path, found in each.items() if path not in paths}
        for each in (mark["positions"], recorded["positions"])
    )
    said = {"positions": positions, "fingerprint": mark | {"positions": marks}, "status": "running"}
    accepted.layout.say(dict(recorded) | said)
    for path in paths:
        accepted.output.remove_folder(path)


def _provenance(accepted: AcceptedPositions, command: str) -> dict[str, Any]:
    """What the root says: of the run as of a run of one image, and of each image what is its own."""
    found = describe_run(accepted.leader, accepted.fingerprint(), command)
    for name in ("geometry", "axes"):
        del found[name]
    settings = found["settings"] | {name: getattr(accepted.settings, name) for name in ("wells", "fields", "frames")}
    return (
        found
        | accepted.describe()
        | {
            "input": accepted.positions.input,
            "settings": settings,
            "notices": [notice.text for notice in accepted.notices],
            "versions": versions_here(),
            "aside": dict(accepted.aside),
        }
    )


def work_on(
    accepted: AcceptedPositions,
    finished: FinishedPositions,
    unmeasured: dict[str, str],
    stop: Stop,
    listener: Listener,
    left: Collection[str] = (),
) -> Iterator[PositionUnit]:
    """What is to be done, image after image; what must be known of a whole image is found out when it begins.

    An image of which that cannot be said is left out, and `unmeasured` says why; some units are `left` for later.
    """
    units = finished.units
    missing = ((units.place(index)[0], units[index]) for index in finished.todo_indices())
    todo = (pair for pair in missing if pair[1].key not in left)
    begun = set()
    for path, group in groupby(todo, key=lambda pair: pair[0]):
        begun.add(path)
        if path in accepted.aside:  # it was begun, and cannot be read now
            unmeasured[path] = accepted.aside[path]
            continue
        run = accepted.runs[path]
        work: Iterator[Unit] = (unit for _, unit in group)
        try:
            keep_light_of(path, run, listener)
            table = statistics_before(run, run.job, stop, _unheard)
        except InputError as error:
            unmeasured[path] = str(error)
            listener(Notice(f"{path} is left out: {error}", warning=True))
            continue
        if table is not None:
            work = iter(with_statistics(work, table, run.resolved.recipe.volumes))
        for unit in work:
            yield _with_job(unit, accepted, path)
    if not finished.complete:
        for path in accepted.runs.keys() - begun:  # whose profile may be damaged
            keep_light_of(path, accepted.runs[path], listener)


def keep_light_of(path: str, run: AcceptedRun, listener: Listener) -> None:
    """Estimate the profile of an image that needs one, and keep it in its output, unless that was done before."""
    _, light = estimate_light(run)
    for text in light.notices if light is not None else ():
        listener(Notice(f"{path}: {text}", warning=True))
    with refusing_storage_errors(run.output):
        keep_light(run, light)


def _unheard(event: Event) -> None:
    """Of the stages of one image among many nothing is said."""


def _with_job(unit: Unit, accepted: AcceptedPositions, path: str) -> PositionUnit:
    return PositionUnit(**vars(unit), job=accepted.runs[path].job, position=path)


def _search_for_nan(accepted: AcceptedPositions, stop: Stop, listener: Listener) -> None:
    searched = [path for path, run in accepted.runs.items() if must_scan(run)]
    if not searched:
        return
    units, chosen = accepted.units, frozenset(searched)
    found = [
        _with_job(units[index], accepted, units.place(index)[0])
        for index in range(len(units))
        if units.place(index)[0] in chosen
    ]
    require_finite(
        accepted.whole.job,
        found,
        workers=accepted.whole.resolved.workers,
        scheduler=accepted.settings.scheduler,
        stop=stop,
        listener=listener,
        task=scan_position_unit,
    )


def require_unchanged_inputs(
    output: Place,
    provenance: Mapping[str, Any],
    hurt: frozenset[str],
    arguments: Mapping[str, Any],
    settings: RunSettings,
) -> None:
    """As `require_unchanged_positions` for some units of an output, before these are done again."""
    chosen = settings.model_copy(update={name: arguments.get(name) for name in ("wells", "fields")})
    positions = find_positions(str(arguments["input"]), chosen)
    if positions is None:
        raise OutputError(f"{arguments['input']} is one image and {output} is of many; give their --input.")
    paths = {split_key(unit)[0] for unit in hurt}
    sources = {
        path: open_source(positions.root / provenance["positions"][path]["input"], arguments.get("axes"))
        for path in paths
    }
    _require_unchanged(output, PositionUnits(geometries_of(provenance)), sources, hurt)


def require_unchanged_positions(accepted: AcceptedPositions, units: PositionUnits | None = None) -> None:
    """Refuse where a unit, one of some where these are given, was restored from other pixels than the input's now.

    Raises
    ------
    OutputError
        Names units.
    """
    sources = {path: run.source for path, run in accepted.runs.items()}
    _require_unchanged(accepted.output, accepted.units if units is None else units, sources)


def _require_unchanged(
    output: Place, units: PositionUnits, sources: Mapping[str, Source], only: frozenset[str] | None = None
) -> None:
    changed: list[str] = []
    stamps: dict[str, Stamps] = {}
    for record in Ledger(output).current(units):
        index = units.find(record["unit"])
        if index is None or (only is not None and record["unit"] not in only):
            continue
        path = units.place(index)[0]
        source = sources.get(path)
        if source is None:  # it cannot be read now, and is set aside
            continue
        if path not in stamps:
            stamps = {path: Stamps(source.place)}  # of one image at a time: records of one lie together
        with source.refusing_errors():
            if stamps[path].digest(source.objects(units[index].source)) != record["input"]:
                changed.append(record["unit"])
    if changed:
        more = f" and {len(changed) - 4} more" if len(changed) > 4 else ""
        raise OutputError(
            f"the input of {', '.join(changed[:4])}{more} was changed after it was restored into {output}; put it back,"
            " or start afresh with --overwrite."
        )


def _frame_pixels(run: Any) -> int:
    geometry = run.resolved.geometry
    return int(np.prod(geometry.shape[2 if geometry.volumes else 3 :]))


def _flagged(tables: Mapping[str, StatisticsTable]) -> dict[str, list[str]]:
    return {
        f"{path}/{FrameKey(row['t'], row['c'], row['z'])}": row["flags"]
        for path, table in tables.items()
        for row in (table[int(index)] for index in np.flatnonzero(table.flag_bits))
    }
