"""One output of many images, many tasks: each does a part of the units of all images, which follow each other.

So a task opens the images of its part alone. What must be known of a whole image before its frames are restored, each
task that does some of them finds out by itself; a profile of light is estimated once, where the output is begun.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import dask

from phbatch.computing.tasks import load_predictor, restore_position_unit
from phbatch.inputs.positions import Positions, find_positions
from phbatch.outputs.finished import Finished, FinishedPositions
from phbatch.outputs.image import forget_tasks, refusing_storage_errors
from phbatch.outputs.ledger import Ledger
from phbatch.places.holder import Array
from phbatch.places.lock import hold_output
from phbatch.places.place import Place
from phbatch.planning.positions import PositionUnits
from phbatch.running.accept_positions import (
    AcceptedPositions,
    accept_positions,
    geometries_of,
    settle_positions,
)
from phbatch.running.commit import restore_units
from phbatch.running.positions import keep_light_of, open_positions, require_unchanged_positions, work_on
from phbatch.running.same_positions import require_same_positions
from phbatch.running.told import frame_pixels
from phbatch.words.errors import InputError, OutputError
from phbatch.words.events import Listener, Notice, RunStarted, Stop, never
from phbatch.words.results import PartResult, PartsReport
from phbatch.words.settings import RunSettings


def begin_position_parts(
    positions: Positions,
    output: str | None,
    parts: int,
    settings: RunSettings,
    command: str,
    listener: Listener,
    stop: Stop,
) -> PartsReport:
    """Create an output of many images, or continue one, that many tasks will write; as `phbatch.begin_parts`."""
    accepted = _accept(positions, output, settings, stop)
    require_same_positions(accepted)
    accepted = settle_positions(accepted, stop, listener)
    for notice in accepted.notices:
        listener(notice)
    with hold_output(accepted.output, accepted.whole.job.token) as hold:
        with refusing_storage_errors(accepted.output):
            finished, _ = open_positions(accepted, command)
        if not finished.complete:
            for path, run in accepted.runs.items():
                try:
                    keep_light_of(path, run, listener)
                except InputError as error:  # its tasks say it, too
                    listener(Notice(f"{path} is left out: {error}", warning=True))
            hold.left = Array(accepted.whole.job.token, parts).as_holder()
    return PartsReport(
        output=accepted.output.path,
        parts=parts,
        units=finished.total,
        units_done=len(finished),
        passes=1,
        complete=finished.complete,
        notices=tuple(notice.text for notice in accepted.notices),
    )


@dataclass(frozen=True)
class PositionShare:
    """The part of a task: what it accepted of the images that its units are of.

    Attributes
    ----------
    accepted : AcceptedPositions
        These images, and the first of all.
    units : PositionUnits
        Of the part.
    number, parts : int
        Which part of how many.
    recorded : mapping
        What the output says of the run.
    positions : Positions
        All images of the input now.
    """

    accepted: AcceptedPositions
    units: PositionUnits
    number: int
    parts: int
    recorded: Mapping[str, Any]
    positions: Positions

    @classmethod
    def open(
        cls,
        source: str,
        output: Place,
        recorded: Mapping[str, Any],
        settings: RunSettings,
        array: tuple[int, int, str],
        stop: Stop,
    ) -> PositionShare:
        """The share of a part that is held: its number, of how many, and the token that it is held with.

        Raises
        ------
        OutputError
            The input is one image, or the run is another one.
        InputError
            None of the images can be read.
        """
        number, parts, token = array
        positions = find_positions(source, settings)
        if positions is None:
            raise OutputError(f"{source} is one image and {output} is of many; give their --input.")
        units = PositionUnits(geometries_of(recorded)).part(number, parts)
        wanted = [next(iter(recorded["positions"])), *units.images]
        accepted = _accept(positions.only(wanted), output.path, settings, stop)
        require_same_positions(accepted, some=True)
        gone = {path: f"it is not in {source} any more." for path in wanted if path not in accepted.runs}
        accepted = replace(accepted, aside=gone | dict(accepted.aside))
        return cls(_with_token(accepted, token), units, number, parts, recorded, positions)

    @property
    def notices(self) -> tuple[Notice, ...]:
        """What is to be said."""
        return self.accepted.notices

    def do(self, listener: Listener, stop: Stop) -> PartResult:
        """Do what is missing of the part."""
        output, units = self.accepted.output, self.units
        finished = _take_in(output, units)
        require_unchanged_positions(self.accepted, units)
        skipped = len(finished)
        frames = sum(_frames(units, index) for index in range(len(units)))
        pixels = frame_pixels(self.accepted.leader.resolved.geometry)
        listener(RunStarted(output.path, len(units), skipped, frames, finished.frames, pixels))
        result = PartResult(output.path, self.number, self.parts, len(units), units_skipped=skipped)
        if skipped == len(units):
            return result
        token = self.accepted.leader.job.token
        accepted = _with_token(settle_positions(self.accepted, stop, listener), token)
        for job in {repr(run.job.recipe): run.job for run in accepted.runs.values()}.values():
            load_predictor(job)
        unmeasured: dict[str, str] = {}
        work = work_on(accepted, finished, unmeasured, stop, listener)
        failed = restore_units(accepted.whole, work, finished, stop, listener, restore_position_unit)
        return replace(result, units_done=len(finished) - skipped, failed=unmeasured | failed)

    def all_finished(self) -> FinishedPositions:
        """What all tasks, and runs before them, committed."""
        return _take_in(self.accepted.output, PositionUnits(geometries_of(self.recorded)))

    def finish(self, finished: Finished) -> None:
        """Write what is written once all units are there."""
        if not isinstance(finished, FinishedPositions):
            raise TypeError("it is of one image")
        settings = self.accepted.settings
        accepted = _accept(self.positions.only(self.recorded["positions"]), self.accepted.output.path, settings)
        for path in self.recorded["positions"]:
            if path not in accepted.runs:
                why = accepted.aside.get(path, "it is not in the input any more.")
                raise InputError(f"{path} cannot be read now, so that the output cannot be finished: {why}")
        forget_tasks(accepted.output)
        accepted.layout.finish(self.recorded, finished.tables, finished.all_shown)


def _accept(positions: Positions, output: str | None, settings: RunSettings, stop: Stop = never) -> AcceptedPositions:
    """What is computed in this process, whatever cluster Dask is configured with."""
    with dask.config.set(scheduler="threads"):
        return accept_positions(positions, output, settings, stop)


def _with_token(accepted: AcceptedPositions, token: str) -> AcceptedPositions:
    runs = {path: replace(run, job=replace(run.job, token=token)) for path, run in accepted.runs.items()}
    return replace(accepted, runs=runs)


def _frames(units: PositionUnits, index: int) -> int:
    volumes = units.geometries[units.place(index)[0]].volumes
    return sum(1 for _ in units[index].frame_indices(volumes=volumes))


def _take_in(output: Place, units: PositionUnits) -> FinishedPositions:
    finished = FinishedPositions(units)
    for record in Ledger(output).current(units):
        finished.add(record)
    return finished
