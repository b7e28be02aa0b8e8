"""Running units: the same task in a plain loop, in threads, or on the workers of a Dask scheduler."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from queue import SimpleQueue
from threading import Event
from time import perf_counter
from typing import Any, Generic, TypeVar

from distributed import Client, as_completed
from distributed.threadpoolexecutor import ThreadPoolExecutor

from phbatch.errors import InterruptedRunError, UsageError
from phbatch.lane import come_back, in_lane
from phbatch.planning import Unit
from phbatch.retry import call_with_retries
from phbatch.signals import deferring_signals
from phbatch.tasks import Job, nonfinite_error, scan_unit

Result = TypeVar("Result")

BUNDLE_S = 0.1
"""Seconds of work that units share a call through a Dask scheduler for, since such a call costs milliseconds."""

_LARGEST_BUNDLE = 64

_POLL_S, _CLOSING_S = 1.0, 2.0  # how long signals may wait for distributed


@dataclass(frozen=True)
class Outcome(Generic[Result]):
    """What became of a unit: a result or an error, and after how many attempts."""

    unit: Unit
    result: Result | None = None
    error: BaseException | None = None
    attempts: int = 1


def require_finite(
    job: Job, units: Sequence[Unit], *, workers: int, scheduler: str | None, stop: Callable[[], bool] = lambda: False
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
    for outcome in execute(scan_unit, job, units, workers=workers, scheduler=scheduler, stop=stop):
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

    Yields
    ------
    Outcome
        As units finish; an exception in a task is an outcome and not raised.

    Raises
    ------
    InterruptedRunError
        The Dask scheduler is gone, or somebody cancelled the work.
    """
    if workers == 1 and scheduler is None:
        for unit in units:
            if stop():
                return
            yield _attempt(task, job, unit)
        return
    halted = Event()  # by an interrupt of the host: what is in flight is finished first

    def halt() -> bool:
        return halted.is_set() or stop()

    opened = _open_threads(workers, halt) if scheduler is None else _open_cluster(workers, scheduler)
    with opened as pool:
        waiting = iter(units)
        running: dict[Any, list[Unit]] = {}
        together = 1

        def start_next() -> None:
            bundle = [] if halt() else list(islice(waiting, together))
            if bundle:
                running[pool.start(_attempt_all, task, job, bundle)] = bundle

        for _ in range(pool.window):
            start_next()
        while running:
            try:
                future, found = pool.next_finished()
            except KeyboardInterrupt:
                if halt():
                    raise
                halted.set()
                for future in running:
                    found = pool.result(future)
                    yield from found.outcomes if isinstance(found, _Bundle) else []
                raise
            bundle = running.pop(future)
            if isinstance(found, _Bundle):
                outcomes: list[Outcome[Result]] = found.outcomes
                if pool.bundles:
                    together = _bundle_size(len(bundle), found.seconds)
            else:  # no task of it returned; None: the run is to stop
                outcomes = [] if found is None else [Outcome(unit, error=found) for unit in bundle]
            start_next()
            yield from outcomes


@dataclass(frozen=True)
class _Pool:
    """Where calls run.

    Attributes
    ----------
    start : callable
        Starts a call and gives its future.
    result : callable
        Waits for a future, and gives its result or error.
    next_finished : callable
        Waits for the next future that is finished, and gives it and its result or error.
    window : int
        Calls that are started at once.
    bundles : bool
        Whether a call costs so much by itself that short units share one.
    """

    start: Callable[..., Any]
    result: Callable[[Any], Any]
    next_finished: Callable[[], tuple[Any, Any]]
    window: int
    bundles: bool


@contextmanager
def _open_threads(workers: int, stop: Callable[[], bool]) -> Iterator[_Pool]:
    """Threads of this process; a call costs a hundredth of one through a Dask scheduler (benchmarks/growth.py).

    As many calls compute as there are workers, and as many wait for the disk (`phbatch.lane`) or for their turn; those
    that still do when the run is to stop give None.
    """
    pool = ThreadPoolExecutor(workers, thread_name_prefix="phbatch")
    finished: SimpleQueue[Any] = SimpleQueue()

    def start(function: Callable[..., Any], *arguments: Any) -> Any:
        future = pool.submit(lambda: None if stop() else function(*arguments))
        future.add_done_callback(finished.put)
        return future

    def result(future: Any) -> Any:
        return future.exception() or future.result()

    def next_finished() -> tuple[Any, Any]:
        future = finished.get()
        return future, result(future)

    try:
        yield _Pool(start, result, next_finished, 2 * workers, bundles=False)
    finally:
        # Dask's threads are daemons: what is in flight when a run is dropped is not waited for.
        pool.shutdown(wait=False)


@contextmanager
def _open_cluster(workers: int, scheduler: str) -> Iterator[_Pool]:
    with _connect(scheduler) as client:
        finished = as_completed()

        def start(function: Callable[..., Any], *arguments: Any) -> Any:
            with deferring_signals():
                future = client.submit(function, *arguments, pure=False)
                finished.add(future)
            return future

        def result(future: Any) -> Any:
            return _result_or_error(future, scheduler)

        def next_finished() -> tuple[Any, Any]:
            future = next(finished)
            return future, result(future)

        with deferring_signals():
            threads = sum(client.nthreads().values())
        yield _Pool(start, result, next_finished, 2 * max(workers, threads), bundles=True)


def _result_or_error(future: Any, scheduler: str) -> Any:
    """What a future of a Dask cluster returned, or the error that it raised.

    Raises
    ------
    InterruptedRunError
        The scheduler is gone, or somebody cancelled the work.
    """
    while True:
        try:
            with deferring_signals(), suppress(TimeoutError):
                return future.exception(timeout=_POLL_S) or future.result(timeout=_POLL_S)
        except CancelledError as error:
            raise InterruptedRunError(
                f"the work was cancelled on the Dask scheduler at {scheduler}, or it is gone; what is finished stays:"
                " start one, and call the same command again to continue."
            ) from error


@dataclass(frozen=True)
class _Bundle(Generic[Result]):
    """What became of units that shared a call, and the seconds that they took together."""

    outcomes: list[Outcome[Result]]
    seconds: float


def _attempt_all(task: Callable[[Job, Unit], Result], job: Job, units: Sequence[Unit]) -> _Bundle[Result]:
    """A unit that fails for good is set aside and reported; the others go on."""
    started = perf_counter()
    outcomes = []
    with in_lane():
        for unit in units:
            come_back()
            outcomes.append(_attempt(task, job, unit))
    return _Bundle(outcomes, perf_counter() - started)


def _attempt(task: Callable[[Job, Unit], Result], job: Job, unit: Unit) -> Outcome[Result]:
    found, attempts = call_with_retries(partial(task, job, unit), job.retries)
    if isinstance(found, Exception):
        return Outcome(unit, error=found, attempts=attempts)
    return Outcome(unit, result=found, attempts=attempts)


def _bundle_size(size: int, seconds: float) -> int:
    """Units of the next call, from how long the last one took: at most twice as many as before.

    Examples
    --------
    >>> _bundle_size(4, 0.002), _bundle_size(4, 0.08), _bundle_size(4, 8.0)
    (8, 5, 1)
    """
    fitting = int(BUNDLE_S * size / max(seconds, 1e-9))
    return max(1, min(fitting, 2 * size, _LARGEST_BUNDLE))


def call_there(function: Callable[..., Result], scheduler: str | None, *arguments: Any) -> Result:
    """Call a function where units will run: in this process, or on one worker of a Dask cluster."""
    if scheduler is None:
        return function(*arguments)
    with _connect(scheduler) as client:
        with deferring_signals():
            future = client.submit(function, *arguments, pure=False)
        found = _result_or_error(future, scheduler)
    if isinstance(found, BaseException):
        raise found
    result: Result = found
    return result


def require_scheduler(address: str) -> None:
    """Refuse an address where no Dask scheduler answers, before anything is written.

    Raises
    ------
    UsageError
        Nothing answers within ten seconds.
    """
    with _connect(address):
        pass


@contextmanager
def _connect(scheduler: str) -> Iterator[Client]:
    try:
        with deferring_signals():
            client = Client(scheduler, timeout="10s")
    except (OSError, TimeoutError, ValueError) as error:
        raise UsageError(f"no Dask scheduler answers at {scheduler}; start one, or leave --scheduler out.") from error
    try:
        yield client
    finally:
        with deferring_signals(), suppress(TimeoutError):
            client.close(timeout=_CLOSING_S)
