"""Running units: one graph, computed by Dask's threaded scheduler here, or by the workers of a Dask cluster."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from typing import Any, TypeVar

from phbatch.planning.units import Unit
from phbatch.running.cluster import Crew, connect
from phbatch.running.dispatch import Dispatch
from phbatch.running.graph import stage_of
from phbatch.running.outcome import Outcome, attempt
from phbatch.running.schedulers import Scheduler
from phbatch.running.tasks import Job, nonfinite_error, scan_unit
from phbatch.running.threads import Threads
from phbatch.running.workers import Workers, lost
from phbatch.words.errors import InterruptedRunError
from phbatch.words.events import Listener, ignore, never

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
        Units at once.
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
    if scheduler is None:
        with closing(Threads(workers, stop)) as threads:
            yield from _dispatch(threads, task, job, units, stop)
        return
    with _there(job, workers, scheduler, stop, listener) as there:
        yield from _dispatch(there, task, job, units, stop)


def _dispatch(
    scheduler: Scheduler, task: Callable[[Job, Unit], Result], job: Job, units: Iterable[Unit], stop: Callable[[], bool]
) -> Generator[Outcome[Result], None, None]:
    dispatch = Dispatch(scheduler, stage_of(task), partial(attempt, task, job), units, stop)
    with closing(dispatch.outcomes()) as outcomes:
        yield from outcomes


@contextmanager
def _there(job: Job, workers: int, scheduler: str, stop: Callable[[], bool], listener: Listener) -> Iterator[Scheduler]:
    """The workers of a Dask cluster, while inside."""
    try:
        with connect(scheduler, stop) as client:
            crew = Crew(client, scheduler, job.memory, listener)
            crew.wait(stop)
            with closing(Workers(client, crew, workers)) as there:
                yield there
    except OSError as error:  # of the connection: those of units are outcomes, and it is none of the output
        raise lost(scheduler) from error


def call_there(function: Callable[..., Result], scheduler: str | None, job: Job, *arguments: Any) -> Result:
    """Call a function of a job where its units will run: in this process, or on one worker of a Dask cluster."""
    if scheduler is None:
        return function(job, *arguments)
    only: Any = [arguments]
    with _there(job, 1, scheduler, never, ignore) as there:
        (outcome,) = Dispatch(there, stage_of(function), partial(_call, function, job), only, never).outcomes()
    if outcome.error is not None:
        raise outcome.error
    result: Result = outcome.result  # type: ignore[assignment]
    return result


def _call(function: Callable[..., Result], job: Job, arguments: Any) -> Outcome[Result]:
    try:
        return Outcome(arguments, result=function(job, *arguments))
    except Exception as error:
        return Outcome(arguments, error=error)
