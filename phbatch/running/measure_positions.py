"""Statistics of many images: some at once, so that memory and temporary files do not grow with their number."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from math import prod

from phbatch.computing.engine import execute
from phbatch.computing.machine import plan_for
from phbatch.computing.measuring import measure_unit
from phbatch.computing.tasks import Job, PositionUnit, forget_open_stores
from phbatch.frames.position_statistics import PositionStatistics
from phbatch.frames.table import StatisticsRow, StatisticsTable
from phbatch.inputs.image import Source
from phbatch.inputs.opening import open_input
from phbatch.inputs.positions import Positions
from phbatch.inputs.presence import require_chunks
from phbatch.planning.positions import split_key
from phbatch.planning.resolve import ResolvedStatistics, resolve_statistics
from phbatch.running.illumination import profile_of
from phbatch.running.measure import describe, judge_frames, measure_frames, measuring_job, unreadable
from phbatch.running.told import uncorrected_light
from phbatch.words.errors import InputError, InterruptedRunError
from phbatch.words.events import Event, Listener, Notice, RunStarted, Stop, UnitFinished
from phbatch.words.settings import RunSettings

_UNITS_OF_A_WORKER = 8
"""So many units each worker is given before the images that they are of are judged."""

Planned = Mapping[str, tuple[Source, ResolvedStatistics]]


def measure_positions(
    positions: Positions, settings: RunSettings, stop: Stop, listener: Listener
) -> PositionStatistics:
    """Measure every frame of many images; one that cannot be measured is left out and named, unless all are.

    Raises
    ------
    InputError
        No image can be measured.
    InterruptedRunError
        `stop` said so.
    """
    work = _Work(settings, stop, listener)
    for text in positions.notices:
        listener(Notice(text, warning=True))
    planned = work.plan(positions)
    geometries = [resolved.geometry for _, resolved in planned.values()]
    frames = sum(one.frames for one in geometries)
    pixels = sum(one.frames * prod(one.shape[3:]) for one in geometries)
    listener(RunStarted("", sum(len(one.units) for one in geometries), 0, frames, 0, pixels // max(frames, 1)))
    forget_open_stores()
    for group in _groups(planned):
        work.measure(group)
    if not work.tables:
        raise work.first_error or InputError(f"no image of {positions.input} can be measured; look at one of them.")
    return PositionStatistics({path: work.tables[path] for path in planned if path in work.tables}, work.left_out)


def _groups(planned: Planned) -> Iterator[Planned]:
    """Some images after the other, with enough units together for all workers; one alone that has these."""
    group: dict[str, tuple[Source, ResolvedStatistics]] = {}
    units = 0
    for path, (source, resolved) in planned.items():
        group[path] = source, resolved
        units += len(resolved.geometry.units)
        if units >= _UNITS_OF_A_WORKER * resolved.workers:
            yield group
            group, units = {}, 0
    if group:
        yield group


@dataclass
class _Work:
    """What was measured, and what was left out."""

    settings: RunSettings
    stop: Stop
    listener: Listener
    tables: dict[str, StatisticsTable] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    first_error: InputError | None = None

    def plan(self, positions: Positions) -> Planned:
        """Open every image, and decide how it is measured, on the machine that measures it."""
        opened: dict[str, Source] = {}
        for path, where in positions.places.items():
            try:
                opened[path] = open_input(where, self.settings)
            except InputError as error:
                self.leave_out(path, error)

        def resolve(available_bytes: int, cores: int) -> Planned:
            found = {}
            for path, source in opened.items():
                try:
                    resolved = resolve_statistics(self.settings, source, available_bytes=available_bytes, cores=cores)
                    found[path] = source, resolved
                except InputError as error:
                    self.leave_out(path, error)
            return found

        planned = plan_for(self.settings.scheduler, resolve, self.stop)
        if not planned and self.first_error is not None:
            raise self.first_error
        for text in dict.fromkeys(text for source, _ in planned.values() for text in source.notices):
            self.listener(Notice(text))
        return planned

    def leave_out(self, path: str, error: InputError) -> None:
        """Say why an image is left out, once."""
        if path not in self.left_out:
            self.first_error = self.first_error or error
            self.left_out[path] = str(error)
            self.listener(Notice(f"{path} is left out: {error}", warning=True))

    def measure(self, group: Planned) -> None:
        """Measure some images, their units one after the other; then judge each, and pool its frames."""
        with ExitStack() as stack:
            jobs: dict[str, Job] = {}
            tables: dict[str, StatisticsTable] = {}
            for path, (source, resolved) in group.items():
                try:
                    jobs[path] = self._prepare(path, source, resolved, stack)
                    if resolved.large:
                        hear = self._of(path)
                        profile = jobs[path].profile
                        tables[path] = measure_frames(resolved, source, self.settings, profile, self.stop, hear)
                except InputError as error:
                    self.leave_out(path, error)
            apart = {path: group[path] for path in jobs if path not in tables and path not in self.left_out}
            tables |= self._measure_units(apart, jobs)
            for path, table in tables.items():
                try:
                    self._finish(path, *group[path], table, jobs[path])
                except InputError as error:
                    self.leave_out(path, error)

    def _prepare(self, path: str, source: Source, resolved: ResolvedStatistics, stack: ExitStack) -> Job:
        geometry = resolved.geometry
        for text in require_chunks(source, geometry.times, geometry.channels):
            self.listener(Notice(f"{path}: {text}"))
        profile = stack.enter_context(profile_of(self.settings, source, geometry, self._of(path)))
        return measuring_job(resolved, source, self.settings, profile)

    def _measure_units(self, planned: Planned, jobs: Mapping[str, Job]) -> dict[str, StatisticsTable]:
        if not planned:
            return {}
        tables = {path: StatisticsTable(resolved.geometry.grid) for path, (_, resolved) in planned.items()}
        units = (
            PositionUnit(**(vars(unit) | {"key": f"{path}/{unit.key}"}), job=jobs[path], position=path)
            for path, (_, resolved) in planned.items()
            for unit in resolved.geometry.units
        )
        for outcome in execute(
            measure_unit,
            jobs[next(iter(planned))],
            units,
            workers=min(resolved.workers for _, resolved in planned.values()),
            scheduler=self.settings.scheduler,
            stop=self.stop,
            listener=self.listener,
        ):
            unit = outcome.unit
            path = split_key(unit.key)[0]
            if outcome.result is None:
                self.leave_out(path, unreadable(outcome))
                continue
            for index, statistics in outcome.result.items():
                tables[path].put(StatisticsRow(unit.frame_key(*index), statistics).as_dict())
            self.listener(UnitFinished(unit.key, len(outcome.result)))
        whole = {path: table for path, table in tables.items() if path not in self.left_out}
        missing = [path for path, table in whole.items() if table.known < len(table)]
        if missing:
            raise InterruptedRunError(
                f"stopped before all frames of {missing[0]} were measured; call the same command again."
            )
        return whole

    def _finish(
        self, path: str, source: Source, resolved: ResolvedStatistics, table: StatisticsTable, job: Job
    ) -> None:
        if not resolved.large:
            judge_frames(
                table,
                job,
                resolved.geometry,
                source.dtype,
                workers=resolved.workers,
                scheduler=self.settings.scheduler,
                stop=self.stop,
                listener=self._of(path),
            )
        table.measured = describe(source, resolved.recipe)
        if uncorrected := uncorrected_light(table):
            self._of(path)(uncorrected)
        self.tables[path] = table

    def _of(self, path: str) -> Listener:
        """Who hears of one image what is said of it."""

        def hear(event: Event) -> None:
            if isinstance(event, Notice):
                event = Notice(f"{path}: {event.text}", warning=event.warning)
            elif isinstance(event, UnitFinished):
                event = UnitFinished(f"{path}/{event.unit}", event.frames)
            self.listener(event)

        return hear
