"""Graphs computed by the workers of a Dask cluster: whoever fails alone is out, and what nobody can take is made anew.

No worker gets a unit that was not met before (`phbatch.computing.crew.Crew`), so every graph names the workers that
may compute it.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from queue import Empty, SimpleQueue
from time import monotonic
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from phbatch.computing.cluster import ANSWER_S, ask, name_workers
from phbatch.computing.crew import Crew
from phbatch.computing.devices import DEVICE, DEVICE_SHARE, Kind
from phbatch.computing.dispatch import LOOK_S
from phbatch.computing.graph import Bundle, Graph, attempt_all, pack_graph, report, turn_there
from phbatch.computing.reduction import Part
from phbatch.computing.schedulers import PartsLostError, Scheduler, Try, workers_ended
from phbatch.computing.signals import deferring_signals
from phbatch.computing.teams import Teams, Waiting
from phbatch.words.durations import format_duration
from phbatch.words.errors import DeviceError, InterruptedRunError, WorkersGoneError, first_line

if TYPE_CHECKING:
    from distributed import Client

ALIKE = 16
"""A run ends after so many failures that say the same, where nothing succeeded."""

ALONE = 3
"""A worker gets no more units after it failed with so many in a row that another one finished."""

SHARE_S = 0.1
"""Seconds of work that units share a call for, on few workers."""

CALLS_PER_S = 100
"""So many calls that end in a second keep a scheduler busy for a third of it (benchmarks/cluster.py)."""

SILENCE_S = 30.0
"""How long a scheduler that worked may be silent."""

_MOST_WORKERS_TRIED, _READ_TOGETHER = 2, 64


class _Judge:
    """Which workers failed, with what, and whether others did better."""

    def __init__(self, crew: Crew, kind: Kind) -> None:
        self._crew, self._kind = crew, kind
        self._succeeded = False
        self._alike: Counter[str] = Counter()
        self._failing: set[str] = set()
        self._open: Counter[str] = Counter()
        self._blamed: Counter[str] = Counter()
        self._in_a_row = 0

    @property
    def threads(self) -> Mapping[str, int]:
        """Of the workers of the kind that computes this."""
        return self._kind.of(self._crew.threads, self._crew.devices)

    def allowed(self, bundle: Sequence[Try]) -> list[str]:
        """Workers that may be given these units: not those that they failed on, and not suspects while others are."""
        workers = list(self.threads)
        tried = {worker for each in bundle for worker in each.failed_on}
        untried = [worker for worker in workers if worker not in tried] or workers
        return [worker for worker in untried if self._open[worker] < ALONE] or untried

    def succeed(self, done: Try, worker: str) -> None:
        """A unit is finished."""
        self._succeeded = True
        self._in_a_row = 0
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
        if isinstance(error, DeviceError) and self._take_out(failed, worker, error):
            self._open[worker] += 1
            return True
        self._failing.add(worker)
        self._count(first_line(error), everywhere=self._failing >= self.threads.keys())
        tried = {*failed.failed_on, worker}
        again = len(tried) < _MOST_WORKERS_TRIED and bool(self.threads.keys() - tried)
        if again:
            self._open[worker] += 1
        else:
            self._close(failed)
        return again

    def lose(self, error: BaseException) -> None:
        """A unit ended every worker that it was given to, or never began; raises as `fail` does."""
        self._count(f"{type(error).__name__}: {first_line(error)}", type(error).__name__, everywhere=True)

    def _take_out(self, failed: Try, worker: str, error: DeviceError) -> bool:
        """Use a worker no more whose device failed; False where the unit is to blame, which failed on another, too.

        The last device gets others first.
        """
        why = first_line(error).removesuffix(".")
        if self.threads.keys() - {worker}:
            if not failed.failed_on:
                self._crew.exclude(worker, f"its device failed ({why}), and its units move to others")
            return not failed.failed_on
        self._in_a_row += 1
        if self._in_a_row >= ALONE:
            raise InterruptedRunError(
                f"stopped, since {why}, {ALONE} times in a row, and no other device is left; start its worker anew, and"
                " call the same command again to continue."
            ) from error
        return False

    def _count(self, text: str, kind: str = "", *, everywhere: bool) -> None:
        self._alike[kind or text] += 1
        count = self._alike[kind or text]
        if count >= ALIKE and everywhere and not self._succeeded:
            raise InterruptedRunError(
                f"stopped, since {count} attempts failed alike and none succeeded, on"
                f" {name_workers(self.threads)}: {text.removesuffix('.')}; mend that, and call the same command"
                " again to continue."
            )

    def _close(self, judged: Try) -> None:
        for worker in judged.failed_on:
            self._open[worker] -= 1


@dataclass(frozen=True, eq=False)
class _Running:
    """A call under way: its key, the future that is heard of, who may take it, and the future of what is kept."""

    key: str
    heard: Any
    allowed: frozenset[str]
    kept: Any


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
    kind : Kind
        Of the workers that the tasks are for.
    """

    largest, width = 128, 16
    turn = staticmethod(turn_there)

    def __init__(self, client: Client, crew: Crew, least: int, kind: Kind = Kind.ANY) -> None:
        self._client, self._crew, self._judge, self._least = client, crew, _Judge(crew, kind), least
        self._kind = kind
        self._running: dict[str, _Running] = {}
        self._keeping: WeakKeyDictionary[Any, frozenset[str]] = WeakKeyDictionary()
        self._finished: SimpleQueue[Any] = SimpleQueue()
        self._ended: deque[Any] = deque()
        self._results: dict[str, Any] = {}
        self._teams, self._waiting, self._stage = Teams(), Waiting(client), ""
        self._next_look = self._working = self._heard = monotonic()

    @property
    def share_s(self) -> float:  # type: ignore[override]
        """A tenth of a second, since a call costs milliseconds; on hundreds of workers, seconds: see `CALLS_PER_S`."""
        return max(SHARE_S, sum(self._judge.threads.values()) / CALLS_PER_S)

    @property
    def window(self) -> int:
        """Three times as many calls as there are threads: one computes, one is written, and one is next."""
        return 3 * max(self._least, sum(self._judge.threads.values()))

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

    def await_more(self, stage: str, *, more: bool) -> None:
        """Show a cluster that adapts what waits, as long as there is more than what is under way."""
        self._stage = stage if more else ""
        if not more:
            self._waiting.end()

    def compute(self, graph: Graph, allowed: Sequence[str], *, keep: bool = False) -> None:
        """Start a graph on these workers; where they keep what they make, a report of it is asked for."""
        if keep:  # what is kept is joined across all of them
            self._start(graph, list(allowed), keep=True)
            return
        for team, keys in self._teams.share(graph, allowed, self._crew.threads):
            self._start({key: graph[key] for key in keys}, team, keep=False)

    def _start(self, graph: Graph, team: list[str], *, keep: bool) -> None:
        sent = graph if any(task[0] is not attempt_all for task in graph.values()) else pack_graph(graph)  # not a join
        reports: Graph = {f"{key}-report": (report, key) for key in graph} if keep else {}
        resources = {DEVICE: DEVICE_SHARE} if self._kind is Kind.WITH_DEVICE else None
        allowed = frozenset(team)
        with deferring_signals():
            asked = [*graph, *reports]
            made = self._client.get(sent | reports, asked, sync=False, workers=team, resources=resources)
            futures = dict(zip(asked, made, strict=True))
            for key in graph:
                heard = futures[f"{key}-report"] if keep else futures[key]
                self._running[heard.key] = _Running(key, heard, allowed, futures[key] if keep else None)
                if keep:
                    self._keeping[futures[key]] = allowed
                heard.add_done_callback(self._finished.put)

    def found(self, seconds: float) -> tuple[str, Any] | None:
        """A call that ended, and what it returned."""
        try:
            future = self._ended.popleft() if self._ended else self._finished.get(timeout=seconds)
        except Empty:
            return None
        if future.key not in self._results:
            self._read_together(future)
        found = self._results.pop(future.key, None)
        running = self._running.get(future.key)
        if running is None or running.heard is not future:  # it was called anew
            return None
        if found is None:
            found = self._read(future)
        if found is None:
            future.add_done_callback(self._finished.put)
            return None
        del self._running[future.key]
        if running.kept is None:
            self._teams.ended(running.allowed)
        self._working = monotonic()
        from distributed import KilledWorker

        if isinstance(found, KilledWorker):
            ended = workers_ended()
            ended.__cause__ = found
            return running.key, ended
        if running.kept is not None and isinstance(found, Bundle):
            found = replace(found, part=running.kept)
        elif running.kept is not None and isinstance(found, Part):
            found = running.kept
        return running.key, found

    def fetch(self, part: Any) -> Part[Any]:
        """A part that a worker kept."""
        while (found := self._read(part)) is None:
            self.look()
        if isinstance(found, BaseException):
            raise lost(self._crew.scheduler) from found
        made: Part[Any] = found.part if isinstance(found, Bundle) else found
        return made

    def close(self) -> None:
        """Nothing: what is in flight is let go of by the client, as it closes."""
        self._running.clear()
        self._ended.clear()
        self._results.clear()
        self._waiting.end()

    def _read_together(self, future: Any) -> None:
        """Read a call with all others that ended meanwhile: one by one, far workers would be waited for one by one."""
        while len(self._ended) < _READ_TOGETHER and not self._finished.empty():
            self._ended.append(self._finished.get())
        whole = [each for each in (future, *self._ended) if each.status == "finished"]
        if len(whole) < 2:
            return
        ask_all = partial(self._client.gather, whole, asynchronous=True)
        with suppress(Exception, asyncio.CancelledError), deferring_signals():  # then each is read alone
            results = self._client.sync(ask_all, callback_timeout=LOOK_S)
            self._results |= {each.key: result for each, result in zip(whole, results, strict=True)}

    def _read(self, future: Any) -> Any:
        """What a call returned, or the error that it raised; None where its worker went before it could be read."""
        try:
            with deferring_signals():
                failed = future.status == "error"  # known without asking
                return future.exception(timeout=LOOK_S) if failed else future.result(timeout=LOOK_S)
        except OSError:  # or there was no time; a scheduler that is gone cancels it soon
            return None
        except CancelledError as error:
            raise lost(self._crew.scheduler) from error
        except Exception as error:  # it was made anew meanwhile, and failed
            return error

    def look(self) -> list[str]:
        """Meet new workers, give up what waits for workers that went, and end where none is left."""
        started = monotonic()
        if started < self._next_look:
            return []
        crew = self._crew
        try:
            crew.look()
        except (OSError, TimeoutError) as error:  # it may be busy for a while
            if monotonic() - self._heard > SILENCE_S:
                raise lost(self._crew.scheduler) from error
            return []
        now, threads = monotonic(), self._judge.threads
        self._heard = now
        who = "all workers with a device" if self._kind is Kind.WITH_DEVICE else "all workers"
        self._next_look = now + max(LOOK_S, 20 * (now - started))  # a twentieth of the time, however many there are
        if threads and not crew.paused:
            self._working = now
        elif crew.paused and threads:
            crew.say("all workers are paused by Dask, since their memory is full; waiting for them.")
        else:
            crew.say(f"{who} are gone; waiting up to {format_duration(crew.wait_s)} for others.")
        if not threads and now - self._working > crew.wait_s:
            gone = f"{who} of {{}} are gone, {format_duration(crew.wait_s)} long (--wait-workers)"
            raise WorkersGoneError(str(lost(crew.scheduler, gone)))
        if self._stage:
            with deferring_signals():
                self._waiting.show(self._stage, max(1, sum(threads.values())))
        if not threads:
            return []
        if self._lost_parts():
            raise PartsLostError(str(lost(crew.scheduler, "all workers of {} that kept what was found are gone")))
        left = [each for each in self._running.values() if each.allowed.isdisjoint(crew.threads)]
        for each in left:
            del self._running[each.heard.key]
            if each.kept is None:
                self._teams.ended(each.allowed)
            with suppress(OSError):
                ask(each.heard.cancel, ANSWER_S)
        return [each.key for each in left]

    def _lost_parts(self) -> bool:
        """Whether something that was kept is needed and can be made by nobody."""
        under_way = {id(each.kept) for each in self._running.values()}
        return any(
            allowed.isdisjoint(self._crew.threads) and part.status != "finished" and id(part) not in under_way
            for part, allowed in list(self._keeping.items())
        )


def lost(scheduler: str, what: str = "the work was cancelled on {}, or it is gone") -> InterruptedRunError:
    """What is said of a run that lost its cluster."""
    return InterruptedRunError(
        f"{what.format(f'the Dask scheduler at {scheduler}')}; what is finished stays: start what is missing, and call"
        " the same command again to continue."
    )
