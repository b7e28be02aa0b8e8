"""Graphs computed by the workers of a Dask cluster: whoever fails alone is out, and what nobody can take is made anew.

No worker gets a unit that was not met before (`phbatch.running.cluster.Crew`), so every graph names the workers that
may compute it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any

from distributed import Client

from phbatch.running.cluster import ANSWER_S, WORKERS_S, Crew, ask, name_workers
from phbatch.running.dispatch import LOOK_S
from phbatch.running.graph import Graph, turn_there
from phbatch.running.schedulers import Scheduler, Try
from phbatch.running.signals import deferring_signals
from phbatch.words.errors import InterruptedRunError, first_line

ALIKE = 16
"""A run ends after so many failures that say the same, where nothing succeeded."""

ALONE = 3
"""A worker gets no more units after it failed with so many in a row that another one finished."""

_MOST_WORKERS_TRIED = 2


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


class Workers(Scheduler):
    """The workers of a Dask cluster.

    Parameters
    ----------
    client : Client
        Of the cluster.
    crew : Crew
        Its workers.
    least : int
        Units at once, where the cluster has fewer threads.
    """

    share_s, largest = 0.1, 128  # a call costs milliseconds
    turn = staticmethod(turn_there)

    def __init__(self, client: Client, crew: Crew, least: int) -> None:
        self._client, self._crew, self._judge, self._least = client, crew, _Judge(crew), least
        self._running: dict[str, tuple[Any, frozenset[str]]] = {}
        self._finished: SimpleQueue[Any] = SimpleQueue()
        self._next_look = self._working = self._heard = monotonic()

    @property
    def window(self) -> int:
        """Twice as many calls as there are threads, so that none waits for the next."""
        return 2 * max(self._least, sum(self._crew.threads.values()))

    def allowed(self, tries: Sequence[Try]) -> Sequence[str]:
        """Those that the units did not fail on; see `_Judge`."""
        return self._judge.allowed(tries)

    def succeed(self, done: Try, worker: str) -> None:
        """Trust a worker."""
        self._judge.succeed(done, worker)

    def fail(self, failed: Try, worker: str, error: BaseException) -> bool:
        """Blame a worker, or the unit."""
        return self._judge.fail(failed, worker, error)

    def lose(self, error: BaseException) -> None:
        """Blame the unit."""
        self._judge.lose(error)

    def compute(self, graph: Graph, allowed: Sequence[str]) -> None:
        """Start a graph on these workers."""
        with deferring_signals():
            futures = self._client.get(graph, list(graph), sync=False, workers=list(allowed))
            for key, future in zip(graph, futures, strict=True):
                self._running[key] = future, frozenset(allowed)
                future.add_done_callback(self._finished.put)

    def found(self, seconds: float) -> tuple[str, Any] | None:
        """A call that ended, and what it returned."""
        try:
            future = self._finished.get(timeout=seconds)
        except Empty:
            return None
        if future.key not in self._running or self._running[future.key][0] is not future:  # it was called anew
            return None
        found = self._read(future)
        if found is None:
            future.add_done_callback(self._finished.put)
            return None
        del self._running[future.key]
        self._working = monotonic()
        return future.key, found

    def close(self) -> None:
        """Nothing: what is in flight is let go of by the client, as it closes."""
        self._running.clear()

    def _read(self, future: Any) -> Any:
        """What a call returned, or the error that it raised; None where its worker went before it could be read."""
        try:
            with deferring_signals():
                return future.exception(timeout=LOOK_S) or future.result(timeout=LOOK_S)
        except OSError:  # or there was no time; a scheduler that is gone cancels it soon
            return None
        except CancelledError as error:
            raise lost(self._crew.scheduler) from error

    def look(self) -> list[str]:
        """Meet new workers, give up what waits for workers that went, and end where none is left."""
        started = monotonic()
        if started < self._next_look:
            return []
        crew = self._crew
        try:
            crew.look()
        except (OSError, TimeoutError) as error:  # it may be busy for a while
            if monotonic() - self._heard > WORKERS_S:
                raise lost(self._crew.scheduler) from error
            return []
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
            return []
        left = [key for key, (_, allowed) in self._running.items() if allowed.isdisjoint(crew.threads)]
        for key in left:
            future, _ = self._running.pop(key)
            with suppress(OSError):
                ask(future.cancel, ANSWER_S)
        return left


def lost(scheduler: str, what: str = "the work was cancelled on {}, or it is gone") -> InterruptedRunError:
    """What is said of a run that lost its cluster."""
    return InterruptedRunError(
        f"{what.format(f'the Dask scheduler at {scheduler}')}; what is finished stays: start what is missing, and call"
        " the same command again to continue."
    )
