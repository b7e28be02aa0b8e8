"""Running units: one graph, computed by Dask's threaded scheduler here, or by the workers of a Dask cluster."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from typing import Any, TypeVar

from phbatch.computing.cluster import connect
from phbatch.computing.crew import Crew
from phbatch.computing.devices import Kind
from phbatch.computing.dispatch import Dispatch
from phbatch.computing.graph import stage_of
from phbatch.computing.measuring import WITHOUT_NETWORK, scan_unit
from phbatch.computing.outcome import Outcome, attempt
from phbatch.computing.reduction import Fold, Part
from phbatch.computing.schedulers import PartsLostError, Scheduler
from phbatch.computing.tasks import Job, nonfinite_error
from phbatch.computing.threads import Threads
from phbatch.computing.workers import Workers, lost
from phbatch.planning.unit import Unit
from phbatch.words.errors import InterruptedRunError
from phbatch.words.events import Listener, Notice, Stop, ignore, never

Result = TypeVar("Result")

TIMES_ANEW = 3
"""How often a reduction begins anew, at most."""


def require_finite(
    job: Job,
    units: Sequence[Unit],
    *,
    workers: int,
    scheduler: str | None,
    stop: Stop = never,
    listener: Listener = ignore,
    task: Callable[[Job, Unit], str | None] | None = None,
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
    task = task or scan_unit
    for outcome in execute(task, job, units, workers=workers, scheduler=scheduler, stop=stop, listener=listener):
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
    stop: Stop = never,
    listener: Listener = ignore,
) -> Generator[Outcome[Result], None, None]:
    """As `execute_in_groups`, and yields outcomes one by one."""
    found = execute_in_groups(task, job, units, workers=workers, scheduler=scheduler, stop=stop, listener=listener)
    with closing(found) as groups:
        for group in groups:
            yield from group


def execute_in_groups(
    task: Callable[[Job, Unit], Result],
    job: Job,
    units: Iterable[Unit],
    *,
    workers: int,
    scheduler: str | None = None,
    stop: Stop = never,
    listener: Listener = ignore,
) -> Generator[list[Outcome[Result]], None, None]:
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
    list of Outcome
        As units finish, those that ended meanwhile together; an exception in a task is an outcome and not raised.

    Raises
    ------
    InterruptedRunError
        The Dask scheduler or all of its workers are gone, somebody cancelled the work, or all units fail alike.
    """
    with _open(task, job, workers, scheduler, stop, listener) as there:
        dispatch = Dispatch(there, stage_of(task), partial(attempt, task, job), units, stop)
        with closing(dispatch.groups()) as groups:
            yield from groups


def reduce_units(
    task: Callable[[Job, Unit], Result],
    fold: Fold[Result],
    job: Job,
    units: Iterable[Unit],
    *,
    workers: int,
    scheduler: str | None = None,
    stop: Stop = never,
    listener: Listener = ignore,
) -> tuple[Part[Result], Outcome[Result] | None]:
    """Run a task on every unit and merge the results where they are made, in a tree; only its root travels.

    Parameters
    ----------
    task, job, workers, scheduler, stop, listener
        As for `execute`.
    units : iterable of Unit
        Gone through once more where workers went with what they had merged; an iterator cannot be.
    fold : callable
        Merges results to one, in any order and grouping.

    Returns
    -------
    part : Part
        What all results come to, and of how many units it is: fewer where `stop` said so, or one failed.
    failed : Outcome or None
        The first that failed, which ends the work.

    Raises
    ------
    InterruptedRunError
        As `execute` does.
    """
    for left in reversed(range(TIMES_ANEW + 1)):
        try:
            with _open(task, job, workers, scheduler, stop, listener) as there:
                dispatch = Dispatch(there, stage_of(task), partial(attempt, task, job), units, stop, fold)
                with closing(dispatch.outcomes()) as outcomes:
                    for outcome in outcomes:
                        if outcome.error is not None:
                            return Part(None, 0), outcome
                return dispatch.part, None
        except PartsLostError:
            if not left or iter(units) is units:
                raise
            text = "workers went with what they had merged, and nobody can make it again; it is merged from the start."
            listener(Notice(text, warning=True))
    raise AssertionError("the last time returns or raises")


@contextmanager
def _open(
    task: Callable[..., Any],
    job: Job,
    workers: int,
    scheduler: str | None,
    stop: Stop,
    listener: Listener,
) -> Iterator[Scheduler]:
    """Where units are computed, while inside: threads of this process, or the workers of a Dask cluster."""
    network = job.model is not None and task not in WITHOUT_NETWORK
    if scheduler is None:
        ahead = job.memory.ahead if network and job.memory is not None else 0
        with closing(Threads(workers, stop, ahead)) as threads:
            yield threads
        return
    with _there(job, workers, scheduler, stop, listener, network=network) as there:
        yield there


@contextmanager
def _there(
    job: Job, workers: int, scheduler: str, stop: Stop, listener: Listener, *, network: bool
) -> Iterator[Scheduler]:
    """The workers of a Dask cluster, while inside."""
    try:
        with connect(scheduler, stop) as client:
            crew = Crew(client, scheduler, job, listener, job.wait_s)
            crew.wait(stop)
            devices = job.on_devices or bool(crew.devices & crew.threads.keys())
            kind = Kind.choose(network=network, devices=devices)
            with closing(Workers(client, crew, workers, kind)) as there:
                yield there
    except OSError as error:  # of the connection: those of units are outcomes, and it is none of the output
        raise lost(scheduler) from error


def call_there(function: Callable[..., Result], scheduler: str | None, job: Job, *arguments: Any) -> Result:
    """Call a function of a job where its units will run: here, or on a worker of the kind that computes its network."""
    if scheduler is None:
        return function(job, *arguments)
    only: Any = [arguments]
    with _there(job, 1, scheduler, never, ignore, network=job.model is not None) as there:
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
