"""Graphs computed by Dask's threaded scheduler, in threads of this process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from threading import Semaphore
from typing import Any

import dask.threaded

from phbatch.computing.graph import Graph
from phbatch.computing.schedulers import Scheduler
from phbatch.computing.slots import has_left, in_lane
from phbatch.words.events import Stop

Run = Callable[[], None]


class _Daemons:
    """Threads that end with the process: what is in flight when a run is dropped is not waited for."""

    def __init__(self, count: int) -> None:
        self._left, self._started, self._todo = count, 0, SimpleQueue[Run | None]()
        self._starting = threading.Lock()

    def do(self, runs: Iterable[Run]) -> None:
        """Do these, one after the other as threads become free; there are no more threads than there was to do."""
        with self._starting:
            for run in runs:
                self._todo.put(run)
                if self._left:
                    threading.Thread(target=self._work, name=f"phbatch-{self._started}", daemon=True).start()
                    self._left, self._started = self._left - 1, self._started + 1

    def end(self) -> None:
        """End the threads, once all is done; what comes later is not."""
        with self._starting:
            self._left = 0
            for _ in range(self._started):
                self._todo.put(None)

    def _work(self) -> None:
        while (run := self._todo.get()) is not None:
            run()


class _Handing(Executor):
    """What Dask hands one graph to: its calls are kept until it handed over all, to be done in the graph's order.

    Dask would do them by their names, downwards. `named` hears of each before it is submitted.
    """

    def __init__(self, graph: Graph, threads: _Daemons) -> None:
        self._max_workers = len(graph)  # Dask reads it of every executor: it may hand over so many at once
        self._order = {key: index for index, key in enumerate(graph)}
        self._names: list[str] = []
        self._runs: list[Run] = []
        self._threads = threads
        self.handed = threading.Event()

    def named(self, key: str, *_: Any) -> None:
        self._names.append(key)

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **_: Any) -> Future[Any]:
        future: Future[Any] = Future()

        def run() -> None:
            try:
                future.set_result(function(*arguments))
            except BaseException as error:
                future.set_exception(error)

        self._runs.append(run)
        if len(self._runs) == len(self._order):
            names = sorted(range(len(self._runs)), key=lambda index: self._order[self._names[index]])
            self._threads.do(self._runs[index] for index in names)
            self.handed.set()
        return future


class Threads(Scheduler):
    """Dask's threaded scheduler.

    As many units compute as there are workers, and as many wait for the disk (`phbatch.computing.slots`) or for their
    turn; what still does when the run is to stop is not done. Some more may be on a device. A call costs a tenth of
    one through a Dask cluster (benchmarks/growth.py), so that units share one only where they take less than `share_s`
    together.

    Parameters
    ----------
    workers : int
        Units that compute at once.
    stop : callable
        Asked before each unit.
    ahead : int
        Units that may be on a device besides those that compute.
    """

    share_s, largest = 0.002, 64
    width = 4  # all parts lie in this process's memory

    def __init__(self, workers: int, stop: Stop, ahead: int = 0) -> None:
        self.threads, self._stop = workers + ahead, stop
        self._lane = Semaphore(workers)  # of those that compute
        self._room = Semaphore(workers + ahead)  # of those that there is memory for
        several = workers + ahead > 1
        self._pool = _Daemons(2 * workers + ahead if several else 1)
        self._found: SimpleQueue[tuple[str, Any]] = SimpleQueue()
        self._closed = False
        self._handing: _Handing | None = None
        self.turn = self._turn if several else self._only_turn

    @property
    def window(self) -> int:
        """Calls under way."""
        return max(64, 4 * self.threads)

    def compute(self, graph: Graph, allowed: Sequence[str], *, keep: bool = False) -> None:
        """Start a graph; others may be under way, and share the threads."""
        handing, before = _Handing(graph, self._pool), self._handing
        self._handing = handing
        arguments = (graph, handing, before)
        threading.Thread(target=self._compute, args=arguments, name="phbatch-graph", daemon=True).start()

    def found(self, seconds: float) -> tuple[str, Any] | None:
        """A call that ended, and what it returned; None where none does in time."""
        try:
            return self._found.get(timeout=seconds)
        except Empty:
            return None

    def close(self) -> None:
        """Begin no more; what is in flight is not waited for."""
        self._closed = True
        self._pool.end()

    def _compute(self, graph: Graph, handing: _Handing, before: _Handing | None) -> None:
        left = dict.fromkeys(graph)

        def tell(key: str, result: Any, *_: Any) -> None:
            del left[key]
            self._found.put((key, result))

        if before is not None:
            before.handed.wait()
        try:
            dask.threaded.get(graph, list(graph), pool=handing, callbacks=[(None, None, handing.named, tell, None)])
        except BaseException as error:  # none of a unit's
            for key in left:
                self._found.put((key, error))
        finally:
            handing.handed.set()

    def _halted(self) -> bool:
        return self._closed or self._stop()

    @contextmanager
    def _turn(self) -> Iterator[tuple[str, Stop]]:
        self._enter()
        with in_lane(self._leave, self._enter, self._lane.release, self._lane.acquire):
            try:
                yield "", self._halted
            finally:
                if not has_left():
                    self._leave()

    def _enter(self) -> None:
        self._room.acquire()
        self._lane.acquire()

    def _leave(self) -> None:
        self._lane.release()
        self._room.release()

    @contextmanager
    def _only_turn(self) -> Iterator[tuple[str, Stop]]:
        """Nothing waits for the disk beside it: no memory is planned for that."""
        yield "", self._halted
