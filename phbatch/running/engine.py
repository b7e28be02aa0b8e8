"""Running units: the same task in a plain loop, in threads, or on the workers of a Dask scheduler."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial
from queue import SimpleQueue
from threading import Semaphore
from typing import Any, TypeVar

from phbatch.planning.units import Unit
from phbatch.running.cluster import Crew, connect
from phbatch.running.dispatch import Dispatch, lost
from phbatch.running.outcome import Outcome, attempt
from phbatch.running.slots import has_left, in_lane
from phbatch.running.tasks import Job, nonfinite_error, scan_unit
from phbatch.words.errors import InterruptedRunError
from phbatch.words.events import Listener, ignore

Result = TypeVar("Result")


def require_finite(
    job: Job,
    units: Sequence[Unit],
    *,
    workers: int,
    scheduler: str | None,
    stop: Callable[[], bool] = lambda: False,
    listener: Listener = ignore,
) -> None:
    """Read a float input once and refuse it where a frame holds NaN or infinity, before anything is written.

    A unit that cannot be read is passed over: the run sets it aside and reports it, and finishes the others.

    Raises
    ------
    InputError
        Names the first such frame.
    InterruptedRunError
        `stop` said so before all units were searched.
    """
    searched = 0
    for outcome in execute(scan_unit, job, units, workers=workers, scheduler=scheduler, stop=stop, listener=listener):
        searched += 1
        if outcome.result is not None:
            raise nonfinite_error(outcome.result)
    if searched < len(units):
        raise InterruptedRunError(
            f"stopped after {searched} of {len(units)} units were searched for NaN, and nothing is written; call the"
            " same command again to start."
        )


def execute(
    task: Callable[[Job, Unit], Result],
    job: Job,
    units: Iterable[Unit],
    *,
    workers: int,
    scheduler: str | None = None,
    stop: Callable[[], bool] = lambda: False,
    listener: Listener = ignore,
) -> Generator[Outcome[Result], None, None]:
    """Run a task on every unit, in any order, a bounded number at once.

    Parameters
    ----------
    task : callable
        Of a job and a unit.
    job : Job
        The same for all.
    units : iterable of Unit
        What is to be done; taken one by one, as they are started.
    workers : int
        Units at once; 1 without a scheduler is a plain loop.
    scheduler : str, optional
        Address of a Dask scheduler whose workers see the same files.
    stop : callable
        Asked before each unit is started; where it says so, what is running is finished and no more is started.
    listener : callable
        Called with notices of a Dask cluster: workers that are awaited, left out, or lost.

    Yields
    ------
    Outcome
        As units finish; an exception in a task is an outcome and not raised.

    Raises
    ------
    InterruptedRunError
        The Dask scheduler or all of its workers are gone, somebody cancelled the work, or all units fail alike.
    """
    if scheduler is not None:
        yield from _execute_there(partial(attempt, task, job), units, job, workers, scheduler, stop, listener)
        return
    if workers == 1:
        for unit in units:
            if stop():
                return
            yield attempt(task, job, unit)
        return
    yield from _execute_in_threads(partial(attempt, task, job), iter(units), workers, stop)


def _execute_in_threads(
    attempt_unit: Callable[[Unit], Outcome[Result]], units: Iterator[Unit], workers: int, stop: Callable[[], bool]
) -> Iterator[Outcome[Result]]:
    """Threads of this process; a call costs a hundredth of one through a Dask scheduler (benchmarks/growth.py).

    As many units compute as there are workers, and as many wait for the disk (`phbatch.running.slots`) or for their
    turn; what still does when the run is to stop is not done.
    """
    interrupted: list[KeyboardInterrupt] = []  # by the host: what is in flight is finished first
    lane, todo, found = Semaphore(workers), SimpleQueue[Unit | None](), SimpleQueue[list[Outcome[Result]] | None]()

    def halt() -> bool:
        return bool(interrupted) or stop()

    def leave() -> None:
        lane.release()
        found.put(None)

    def work() -> None:
        while (unit := todo.get()) is not None:
            lane.acquire()
            with in_lane(leave, lane.acquire):
                try:
                    outcomes = [] if halt() else [attempt_unit(unit)]
                except BaseException as error:  # of a task that would end its thread
                    outcomes = [Outcome(unit, error=error)]
                if not has_left():
                    lane.release()
            found.put(outcomes)

    def start(most: int) -> int:
        started = 0
        while started < most and not halt() and (unit := next(units, None)) is not None:
            todo.put(unit)
            started += 1
        return started

    for index in range(2 * workers):
        # Daemons: what is in flight when a run is dropped is not waited for.
        threading.Thread(target=work, name=f"phbatch-{index}", daemon=True).start()
    try:
        window = workers
        running = start(window)
        while running:
            try:
                outcomes = found.get()
            except KeyboardInterrupt as error:
                if halt():
                    raise
                interrupted.append(error)
                continue
            if outcomes is None:  # units do wait for the disk: others may start meanwhile
                window = min(window + 1, 2 * workers)
            else:
                running -= 1
            running += start(window - running)
            yield from outcomes or []
        if interrupted:
            raise interrupted[0]
    finally:
        for _ in range(2 * workers):
            todo.put(None)


def _execute_there(
    attempt_unit: Callable[[Any], Outcome[Result]],
    units: Iterable[Any],
    job: Job,
    workers: int,
    scheduler: str,
    stop: Callable[[], bool],
    listener: Listener,
) -> Iterator[Outcome[Result]]:
    try:
        with connect(scheduler, stop) as client:
            crew = Crew(client, scheduler, job.memory, listener)
            crew.wait(stop)
            with closing(Dispatch(client, crew, attempt_unit, units, workers, stop).outcomes()) as outcomes:
                yield from outcomes
    except OSError as error:  # of the connection: those of units are outcomes, and it is none of the output
        raise lost(scheduler) from error


def call_there(function: Callable[..., Result], scheduler: str | None, job: Job, *arguments: Any) -> Result:
    """Call a function of a job where its units will run: in this process, or on one worker of a Dask cluster."""
    if scheduler is None:
        return function(job, *arguments)
    call = partial(_call, function, job)
    (outcome,) = _execute_there(call, [arguments], job, 1, scheduler, lambda: False, ignore)
    if outcome.error is not None:
        raise outcome.error
    result: Result = outcome.result  # type: ignore[assignment]
    return result


def _call(function: Callable[..., Result], job: Job, arguments: Any) -> Outcome[Result]:
    try:
        return Outcome(arguments, result=function(job, *arguments))
    except Exception as error:
        return Outcome(arguments, error=error)
