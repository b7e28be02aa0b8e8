"""One output, many tasks, no scheduler: each does a part of the units, and the last one alive finishes the output.

Everything is settled once, by `begin_parts`; a task does what is missing of its part, wherever and however often it is
started. What a task finds out of its units before they can be restored is in `phbatch.running.part_statistics`.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any, Unpack

import dask

from phbatch.computing.tasks import load_predictor
from phbatch.inputs.positions import find_positions
from phbatch.outputs.creation import read_output_attributes
from phbatch.outputs.finished import Finished
from phbatch.outputs.image import forget_tasks, refusing_storage_errors
from phbatch.outputs.ledger import Ledger
from phbatch.places.holder import Array, HeldError, require_array
from phbatch.places.lock import hold_output, hold_part, read_array
from phbatch.places.place import Place
from phbatch.planning.units import Units
from phbatch.running.before import statistics_before
from phbatch.running.begin import AcceptedRun, accept_run, require_input, settle_network
from phbatch.running.commit import restore_units
from phbatch.running.finishing import finish
from phbatch.running.illumination import estimate_light, keep_light, light_aside
from phbatch.running.measure import with_statistics
from phbatch.running.opening import continue_units, open_output, recorded_options, require_same_run
from phbatch.running.part_statistics import gather_statistics, needs_statistics
from phbatch.running.position_parts import PositionShare, begin_position_parts
from phbatch.running.run import call_of, python_command
from phbatch.running.run_log import keeping_log
from phbatch.running.scale import require_scale
from phbatch.running.told import counted_in, piece_pixels
from phbatch.words.errors import OutputError, UsageError
from phbatch.words.events import Listener, Notice, RunStarted, Stop, ignore, logging_notices, never
from phbatch.words.option_types import RunOptions
from phbatch.words.options import parse_options
from phbatch.words.results import PartResult, PartsReport
from phbatch.words.settings import RunSettings


def begin_parts(
    input: str | Path,
    output: str | Path | None = None,
    *,
    parts: int,
    listener: Listener = ignore,
    command: str = "",
    stop: Stop = never,
    **options: Unpack[RunOptions],
) -> PartsReport:
    """Create an output, or continue one, that many tasks will write, each a part of it by `run_part`.

    Everything is settled here and once, on this machine: options, the form of the network, tile and precision. A frame
    with NaN or infinity fails its unit; the input is not searched for such before. Of many images the units of all are
    shared out, and a task measures an image before, where that is needed, by itself.

    Parameters
    ----------
    input, output, **options
        As for `phbatch.run`, but for `scheduler`.
    parts : int
        How many tasks there will be; those of an earlier call go on where it is the same number.
    listener, command, stop
        As for `phbatch.run`.

    Returns
    -------
    PartsReport
        How often all parts must be run: twice or three times where statistics must be known first.

    Raises
    ------
    PhbatchError
        What `phbatch.run` would refuse; and tasks, or a run, are writing the output now.
    """
    if parts < 1:
        raise UsageError(f"--parts {parts} must be 1 or more; give the number of tasks.")
    settings, listener = parse_options("run", options), logging_notices(listener)
    if settings.scheduler is not None:
        raise UsageError("--scheduler does nothing where tasks share an output; leave it out.")
    if settings.follow:
        raise UsageError("--follow does nothing where tasks share an output; leave it out.")
    if (positions := find_positions(str(input), settings)) is not None:
        place = None if output is None else str(output)
        called = command or call_of(positions.input, str(place), options)
        return begin_position_parts(positions, place, parts, settings, called, listener, stop)
    accepted = _accept_here(str(input), output, settings, stop)
    require_same_run(accepted)
    accepted, light = estimate_light(settle_network(require_input(accepted)))
    for notice in accepted.notices:
        listener(notice)
    resolved = accepted.resolved
    if not accepted.continued and resolved.recipe.passes == 1:
        with light_aside(accepted, light) as job:
            require_scale(job, resolved.geometry.units, workers=resolved.workers, scheduler=None, stop=stop)
    with hold_output(accepted.output, accepted.job.token) as hold:
        with refusing_storage_errors(accepted.output):
            finished = open_output(accepted, command or python_command(accepted, options))
            keep_light(accepted, light)
        if not finished.complete:
            hold.left = Array(accepted.job.token, parts).as_holder()
    return PartsReport(
        output=accepted.output.path,
        parts=parts,
        units=finished.total,
        units_done=len(finished),
        passes=resolved.recipe.passes if needs_statistics(accepted) else 1,
        complete=finished.complete,
        notices=tuple(notice.text for notice in accepted.notices),
    )


@dataclass(frozen=True)
class Part:
    """One of the parts of an output, from 1 on."""

    number: int
    array: Array

    def of(self, units: Units) -> Units:
        """Its units: every so many of them, so that all parts are alike."""
        return units[self.number - 1 :: self.array.parts]


def do_part(
    output: Place, part: int | str, options: Mapping[str, Any], listener: Listener, stop: Stop
) -> tuple[PartResult, bool]:
    """Do what is missing of a part, and finish the output where nothing is missing of it and nobody else works on it.

    Parameters
    ----------
    output, part, options, listener, stop
        As for `phbatch.run_part`.

    Returns
    -------
    result : PartResult
        Without what is verified.
    finished : bool
        Whether it was this call that finished the output.
    """
    started, (number, parts) = perf_counter(), _parse_part(part)
    recorded = read_output_attributes(output)
    if recorded is None or "fingerprint" not in recorded:
        raise OutputError(f"{output} is no output that was begun; call `phbatch begin-parts` before.")
    complete = PartResult(output.path, number, parts, complete=True)
    if _is_complete(output):
        return complete, False
    arguments = recorded_options(recorded, options)
    source = str(arguments.pop("input"))
    try:
        with hold_part(output, number) as token:
            done = Part(number, require_array(output))
            if parts not in (0, done.array.parts):
                raise OutputError(f"--part {part} is none of {output}, which has {done.array.parts}; leave /N out.")
            settings = parse_options("run", arguments)
            share: _Share | PositionShare
            if "kinds" in recorded:
                held = (number, done.array.parts, token)
                share = PositionShare.open(source, output, recorded, settings, held, stop)
            else:
                share = _Share.open(source, output, settings, done, token, stop)
            called = f"phbatch run-part {shlex.quote(output.path)} --part {number}"
            with keeping_log(output, called, logging_notices(listener), share.notices) as hear:
                result = share.do(hear, stop)
    except OutputError:
        if not _is_complete(output):  # others finished it meanwhile
            raise
        return complete, False
    missing, whole, finished = _finish(output, share, done.array)
    return replace(result, missing=missing, complete=whole, seconds=perf_counter() - started), finished


def _accept_here(source: str, output: str | Path | None, settings: RunSettings, stop: Stop) -> AcceptedRun:
    """What is computed in this process, whatever cluster Dask is configured with."""
    with dask.config.set(scheduler="threads"):
        return accept_run(source, output, settings, stop)


def _is_complete(output: Place) -> bool:
    """Whether nothing is left for any task to do."""
    return read_array(output) is None and (read_output_attributes(output) or {}).get("status") == "complete"


def _parse_part(part: int | str) -> tuple[int, int]:
    """Number of a part, and of how many, or 0 where that is not said."""
    number, _, parts = str(part).partition("/")
    if not number.isdecimal() or (parts and not parts.isdecimal()) or int(number) < 1:
        raise UsageError(f"--part {part} is no part; give its number, from 1 on, as 3 or as 3/5.")
    return int(number), int(parts or 0)


@dataclass(frozen=True)
class _Share:
    """The part of a task, of one image."""

    accepted: AcceptedRun
    part: Part

    @classmethod
    def open(cls, source: str, output: Place, settings: RunSettings, part: Part, token: str, stop: Stop) -> _Share:
        """The share of a part that is held with a token."""
        accepted = _accept_here(source, output.path, settings, stop)
        require_same_run(accepted)
        return cls(replace(accepted, job=replace(accepted.job, token=token)), part)

    @property
    def notices(self) -> tuple[Notice, ...]:
        """What is to be said."""
        return self.accepted.notices

    def do(self, listener: Listener, stop: Stop) -> PartResult:
        """Do what is missing of the part."""
        return _do(self.accepted, self.part, listener, stop)

    def all_finished(self) -> Finished:
        """What all tasks, and runs before them, committed."""
        return _all_finished(self.accepted)

    def finish(self, finished: Finished) -> None:
        """Write what is written once all units are there."""
        finish(self.accepted, finished)


def _do(accepted: AcceptedRun, part: Part, listener: Listener, stop: Stop) -> PartResult:
    geometry, volumes = accepted.resolved.geometry, accepted.resolved.recipe.volumes
    units = part.of(geometry.units)
    finished = Finished(geometry, units)
    continue_units(accepted, finished)
    skipped, pieces_before = len(finished), finished.pieces
    frames = sum(1 for unit in units for _ in unit.frame_indices(volumes=volumes))
    pixels, counted = piece_pixels(geometry), counted_in(geometry)
    listener(RunStarted(accepted.output.path, len(units), skipped, frames, pieces_before, pixels, counted=counted))
    result = PartResult(accepted.output.path, part.number, part.array.parts, len(units), units_skipped=skipped)
    table, idle = accepted.given, skipped == len(units)
    if accepted.resolved.recipe.in_bands and not idle:
        table = statistics_before(accepted, accepted.job, stop, listener)
    if needs_statistics(accepted) and not (idle and _all_finished(accepted).missing == 0):  # others need them, too
        found = gather_statistics(accepted, part.number, part.array.parts, stop, listener)
        result = replace(result, measured=found.measured, waiting=() if idle else found.waiting)
        if found.waiting:
            return result
        table = found.table
    if idle:
        return result
    work = finished.todo() if table is None else with_statistics(finished.todo(), table, volumes)
    load_predictor(accepted.job)
    failed = restore_units(accepted, work, finished, stop, listener)
    return replace(result, units_done=len(finished) - skipped, failed=failed)


def _all_finished(accepted: AcceptedRun) -> Finished:
    """What all tasks, and runs before them, committed."""
    finished = Finished(accepted.resolved.geometry)
    for record in Ledger(accepted.output).current(accepted.resolved.geometry.units):
        finished.add(record)
    return finished


def _finish(output: Place, share: _Share | PositionShare, array: Array) -> tuple[int, bool, bool]:
    """Finish the output if all its units are there and nobody else works on it.

    Whoever ends tries it, and lets go of its part before: of those that end at once, one is the last.

    Returns
    -------
    missing : int
        Units that are not finished.
    complete, finished : bool
        Whether the output is, and by this call.
    """
    finished = share.all_finished()
    if finished.missing:
        return finished.missing, False, False
    try:
        with hold_output(output, array.token, array=array) as hold:
            with refusing_storage_errors(output):
                if finished.complete:  # by one that died before it said that the array is over
                    forget_tasks(output)
                else:
                    share.finish(finished)
            hold.left = {}
    except OutputError as error:
        if not isinstance(error, HeldError) and read_array(output) == array:
            raise
        return 0, _is_complete(output), False  # another task, or a run, finishes it
    return 0, True, True
