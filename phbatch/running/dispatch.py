"""Units on the workers of a Dask cluster: what fails on one worker is tried on another, and whoever fails alone is out.

No worker gets a unit that was not met before (`phbatch.running.cluster.Crew`), so every call names the workers that may
run it. Where all of them went, it is called anew.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from queue import Empty, SimpleQueue
from time import monotonic, perf_counter
from typing import Any, Generic, TypeVar

from distributed import Client, get_worker, rejoin, secede

from phbatch.planning.units import Unit
from phbatch.running.cluster import ANSWER_S, WORKERS_S, Crew, Stop, ask, name_workers
from phbatch.running.outcome import Outcome
from phbatch.running.signals import deferring_signals
from phbatch.running.slots import come_back, in_lane
from phbatch.words.errors import InterruptedRunError, first_line

Result = TypeVar("Result")

BUNDLE_S = 0.1
"""Seconds of work that units share a call through a Dask scheduler for, since such a call costs milliseconds."""

ALIKE = 16
"""A run ends after so many failures that say the same, where nothing succeeded."""

ALONE = 3
"""A worker gets no more units after it failed with so many in a row that another one finished."""

LOOK_S = 1.0
"""How often the scheduler is asked for its workers, at most."""

_LARGEST_BUNDLE = 64
_MOST_WORKERS_TRIED = 2


@dataclass(frozen=True)
class Try:
    """A unit, and the workers that it failed on."""

    unit: Unit
    attempts: int = 0
    failed_on: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Bundle(Generic[Result]):
    """What became of units that shared a call, where, and the seconds that they took together."""

    outcomes: list[Outcome[Result]]
    seconds: float
    worker: str


def _attempt_all(attempt: Callable[[Unit], Outcome[Result]], units: Sequence[Unit]) -> _Bundle[Result]:
    """On a worker; a unit that fails for good is an outcome, and the others go on."""
    started = perf_counter()
    outcomes = []
    with in_lane(secede, rejoin):
        for unit in units:
            come_back()
            outcomes.append(attempt(unit))
    return _Bundle(outcomes, perf_counter() - started, get_worker().address)


def bundle_size(size: int, seconds: float) -> int:
    """Units of the next call, from how long the last one took: at most twice as many as before.

    Examples
    --------
    >>> bundle_size(4, 0.002), bundle_size(4, 0.08), bundle_size(4, 8.0)
    (8, 5, 1)
    """
    fitting = int(BUNDLE_S * size / max(seconds, 1e-9))
    return max(1, min(fitting, 2 * size, _LARGEST_BUNDLE))


class _Judge:
    """Which workers failed, with what, and whether others did better."""

    def __init__(self, crew: Crew) -> None:
        self._crew = crew
        self._succeeded = False
        self._alike: Counter[str] = Counter()
        self._failing: set[str] = set()
        self._open: Counter[str] = Counter()
        self._blamed: Counter[str] = Counter()

    def allowed(self, bundle: Sequence[Try]) -> list[str]:
        """Workers that may be given these units: not those that they failed on, and not suspects while others are."""
        workers = list(self._crew.threads)
        tried = {worker for each in bundle for worker in each.failed_on}
        untried = [worker for worker in workers if worker not in tried] or workers
        return [worker for worker in untried if self._open[worker] < ALONE] or untried

    def succeed(self, done: Try, worker: str) -> None:
        """A unit is finished."""
        self._succeeded = True
        self._blamed[worker] = 0
        self._close(done)
        for failed in done.failed_on:
            self._blamed[failed] += 1
            if self._blamed[failed] >= ALONE:
                self._crew.exclude(failed, f"{ALONE} units that failed there were finished by other workers")

    def fail(self, failed: Try, worker: str, error: BaseException) -> bool:
        """A unit failed; returns whether it should be tried on another worker.

        Raises
        ------
        InterruptedRunError
            Nothing succeeded, and all fail alike.
        """
        self._failing.add(worker)
        self._count(first_line(error), everywhere=self._failing >= self._crew.threads.keys())
        tried = {*failed.failed_on, worker}
        again = len(tried) < _MOST_WORKERS_TRIED and bool(self._crew.threads.keys() - tried)
        if again:
            self._open[worker] += 1
        else:
            self._close(failed)
        return again

    def lose(self, error: BaseException) -> None:
        """A unit ended every worker that it was given to, or never began; raises as `fail` does."""
        self._count(f"{type(error).__name__}: {first_line(error)}", type(error).__name__, everywhere=True)

    def _count(self, text: str, kind: str = "", *, everywhere: bool) -> None:
        self._alike[kind or text] += 1
        count = self._alike[kind or text]
        if count >= ALIKE and everywhere and not self._succeeded:
            raise InterruptedRunError(
                f"stopped, since {count} attempts failed alike and none succeeded, on"
                f" {name_workers(self._crew.threads)}: {text.removesuffix('.')}; mend that, and call the same command"
                " again to continue."
            )

    def _close(self, judged: Try) -> None:
        for worker in judged.failed_on:
            self._open[worker] -= 1


class Dispatch(Generic[Result]):
    """Units on their way to workers and back.

    Parameters
    ----------
    client : Client
        Of the cluster.
    crew : Crew
        Its workers.
    attempt : callable
        Of a unit, on a worker: its outcome.
    units : iterable of Unit
        Taken one by one, as they are started.
    least : int
        Units at once, where the cluster has fewer threads.
    stop : callable
        Asked before units are started.
    """

    def __init__(
        self,
        client: Client,
        crew: Crew,
        attempt: Callable[[Unit], Outcome[Result]],
        units: Iterable[Unit],
        least: int,
        stop: Stop,
    ) -> None:
        self._client, self._crew, self._judge = client, crew, _Judge(crew)
        self._attempt, self._units, self._least, self._stop = attempt, iter(units), least, stop
        self._queue: deque[list[Try]] = deque()
        self._running: dict[Any, tuple[list[Try], frozenset[str]]] = {}
        self._finished: SimpleQueue[Any] = SimpleQueue()
        self._together = 1
        self._interrupt: KeyboardInterrupt | None = None
        self._next_look = self._working = self._heard = monotonic()

    def outcomes(self) -> Generator[Outcome[Result], None, None]:
        """Outcomes, as units finish.

        Raises
        ------
        InterruptedRunError
            The scheduler is gone, all workers are, somebody cancelled the work, or all units fail alike.
        """
        self._fill()
        while self._running or self._queue:
            self._look()
            try:
                future = self._finished.get(timeout=LOOK_S)
            except Empty:
                self._fill()
                continue
            except KeyboardInterrupt as error:  # of the host: what is in flight is finished first
                if self._halted():
                    raise
                self._interrupt = error
                continue
            if future not in self._running:  # it was called anew
                continue
            found = self._found(future)
            if found is None:
                future.add_done_callback(self._finished.put)
                continue
            bundle, _ = self._running.pop(future)
            outcomes = self._settle(bundle, found)
            self._working = monotonic()
            self._fill()
            yield from outcomes
        if self._interrupt is not None:
            raise self._interrupt

    def _halted(self) -> bool:
        return self._interrupt is not None or self._stop()

    def _fill(self) -> None:
        """Start what may be started: twice as many calls as there are threads, so that none waits for the next."""
        window = 2 * max(self._least, sum(self._crew.threads.values()))
        while len(self._running) < window:
            if self._halted():
                self._queue.clear()
                return
            if not self._queue:
                fresh = [Try(unit) for unit in islice(self._units, self._together)]
                if not fresh:
                    return
                self._queue.append(fresh)
            allowed = self._judge.allowed(self._queue[0])
            if not allowed:
                return
            bundle = self._queue.popleft()
            with deferring_signals():
                units = [each.unit for each in bundle]
                future = self._client.submit(_attempt_all, self._attempt, units, pure=False, workers=allowed)
                self._running[future] = bundle, frozenset(allowed)
                future.add_done_callback(self._finished.put)

    def _settle(self, bundle: list[Try], found: Any) -> list[Outcome[Result]]:
        """Outcomes that are final; the others are tried elsewhere."""
        if not isinstance(found, _Bundle):
            if len(bundle) > 1:  # one of them ended its worker, say; alone, it fails alone
                self._queue.extend([each] for each in bundle)
                return []
            (each,) = bundle
            self._judge.lose(found)
            return [Outcome(each.unit, error=found, attempts=each.attempts + 1, failed_on=each.failed_on)]
        if all(outcome.error is None for outcome in found.outcomes):  # failing is fast, and says nothing of units
            self._together = bundle_size(len(bundle), found.seconds)
        settled = []
        for each, outcome in zip(bundle, found.outcomes, strict=True):
            attempts = each.attempts + outcome.attempts
            if outcome.error is None:
                self._judge.succeed(each, found.worker)
                settled.append(replace(outcome, attempts=attempts))
                continue
            failed_on = tuple(dict.fromkeys((*each.failed_on, found.worker)))
            if self._judge.fail(each, found.worker, outcome.error):
                self._queue.append([replace(each, attempts=attempts, failed_on=failed_on)])
            else:
                settled.append(replace(outcome, attempts=attempts, failed_on=failed_on))
        return settled

    def _found(self, future: Any) -> Any:
        """What a call returned, or the error that it raised; None where its worker went before it could be read."""
        try:
            with deferring_signals():
                return future.exception(timeout=LOOK_S) or future.result(timeout=LOOK_S)
        except OSError:  # or there was no time; a scheduler that is gone cancels it soon
            return None
        except CancelledError as error:
            raise lost(self._crew.scheduler) from error

    def _look(self) -> None:
        """Meet new workers, call anew what waits for workers that went, and end where none is left."""
        started = monotonic()
        if started < self._next_look:
            return
        crew = self._crew
        try:
            crew.look()
        except (OSError, TimeoutError) as error:  # it may be busy for a while
            if monotonic() - self._heard > WORKERS_S:
                raise lost(self._crew.scheduler) from error
            return
        now = self._heard = monotonic()
        self._next_look = now + max(LOOK_S, 20 * (now - started))  # a twentieth of the time, however many there are
        if crew.threads and not crew.paused:
            self._working = now
        elif crew.paused and crew.threads:
            crew.say("all workers are paused by Dask, since their memory is full; waiting for them.")
        else:
            crew.say(f"all workers are gone; waiting up to {WORKERS_S:g} s for others.")
        if not crew.threads and now - self._working > WORKERS_S:
            raise lost(crew.scheduler, f"all workers of {{}} are gone, {WORKERS_S:g} s long")
        if not crew.threads:
            return
        for future in [each for each, (_, allowed) in self._running.items() if allowed.isdisjoint(crew.threads)]:
            bundle, _ = self._running.pop(future)
            self._queue.append(bundle)
            with suppress(OSError):
                ask(future.cancel, ANSWER_S)


def lost(scheduler: str, what: str = "the work was cancelled on {}, or it is gone") -> InterruptedRunError:
    """What is said of a run that lost its cluster."""
    return InterruptedRunError(
        f"{what.format(f'the Dask scheduler at {scheduler}')}; what is finished stays: start what is missing, and call"
        " the same command again to continue."
    )
