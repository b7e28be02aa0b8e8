"""Units on their way: a bounded window of them is under way in graphs; what ended is settled and passed on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from dataclasses import replace
from itertools import islice
from typing import Any, Generic, TypeVar

from phbatch.computing.graph import Bundle, Call, build_graph, join, name_call
from phbatch.computing.outcome import Outcome
from phbatch.computing.reduction import Fold, Part, Tree
from phbatch.computing.schedulers import PartsLostError, Scheduler, Try, workers_ended
from phbatch.places.lock import new_token
from phbatch.planning.unit import Unit
from phbatch.words.errors import InterruptedRunError, first_line
from phbatch.words.events import Stop

Result = TypeVar("Result")

LOOK_S = 1.0
"""How often the scheduler is asked for its workers, at most."""

TOGETHER = 256
"""Outcomes are passed on where there are so many, though more may have ended meanwhile."""

SUSPECT = 2
"""A unit that so many workers went with is tried alone."""

GUILTY = 2
"""A unit that so many workers went with that had nothing else is set aside."""


def bundle_size(size: int, seconds: float, share_s: float, largest: int = 64) -> int:
    """Units of the next call, from how long the last one took: at most twice as many as before.

    Examples
    --------
    >>> bundle_size(4, 0.002, 0.1), bundle_size(4, 0.08, 0.1), bundle_size(4, 8.0, 0.1)
    (8, 5, 1)
    """
    fitting = int(share_s * size / max(seconds, 1e-9))
    return max(1, min(fitting, 2 * size, largest))


class Dispatch(Generic[Result]):
    """Units on their way to a scheduler and back.

    Parameters
    ----------
    scheduler : Scheduler
        Computes the graphs.
    stage : str
        What is done with the units, for the names of the tasks.
    attempt : callable
        Of a unit: its outcome.
    units : iterable of Unit
        Taken one by one, as they are started.
    stop : callable
        Asked before units are started.
    fold : callable, optional
        Merges results in a tree: outcomes have none, and `part` is what all come to.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        stage: str,
        attempt: Callable[[Unit], Outcome[Result]],
        units: Iterable[Unit],
        stop: Stop,
        fold: Fold[Result] | None = None,
    ) -> None:
        self._scheduler, self._stage, self._attempt = scheduler, stage, attempt
        self._units, self._stop = iter(units), stop
        self._queue: deque[list[Try]] = deque()
        self._running: dict[str, list[Try]] = {}
        self._suspects: deque[Try] = deque()
        self._alone: dict[str, str] = {}
        self._fold, self._tree = fold, Tree(scheduler.width)
        self._joining: dict[str, tuple[int, list[Any]]] = {}  # the parts, too: they are needed until then
        self._together, self._started, self._token = 1, 0, new_token()
        self._interrupt: KeyboardInterrupt | None = None

    def groups(self) -> Generator[list[Outcome[Result]], None, None]:
        """Outcomes, as units finish: those of calls that ended while the last ones were looked at are together.

        Raises
        ------
        InterruptedRunError
            A cluster is gone, somebody cancelled the work, or all units fail alike.
        KeyboardInterrupt
            Of the host: what was in flight is finished first, unless a second one follows.
        """
        self._fill()
        while self._running or self._queue or self._joining or self._suspects:
            outcomes = [outcome for key in self._scheduler.look() for outcome in self._left(key)]
            refusal: Exception | None = None
            for turn in range(max(1, self._scheduler.window // 4)):  # as many calls as the next graph is made of
                try:
                    ended = self._scheduler.found(0.0 if turn or outcomes else LOOK_S)
                    if ended is None:
                        break
                    outcomes += self._end(*ended)
                except KeyboardInterrupt as error:
                    if self._halted():
                        raise
                    self._interrupt = error
                except Exception as error:  # what ended before is passed on first
                    refusal = error
                    break
                if len(outcomes) >= TOGETHER:
                    break
            if refusal is None:
                self._fill()
                self._join()
            if outcomes:
                yield outcomes
            if refusal is not None:
                raise refusal
        if self._interrupt is not None:
            raise self._interrupt

    def outcomes(self) -> Generator[Outcome[Result], None, None]:
        """As `groups`, one by one."""
        with closing(self.groups()) as groups:
            for group in groups:
                yield from group

    @property
    def part(self) -> Part[Result]:
        """What the results of all units come to, once all outcomes are there."""
        root = self._tree.root
        return Part(None, 0) if root is None else self._scheduler.fetch(root)

    def _end(self, key: str, found: Any) -> list[Outcome[Result]]:
        """What is final, of a call that ended."""
        if key in self._joining:
            level, _ = self._joining.pop(key)
            self._tree.add(level, _joined(found))
            return []
        alone = self._alone.pop(key, None) is not None
        return self._settle(self._running.pop(key), found, alone=alone)

    def _halted(self) -> bool:
        return self._interrupt is not None or self._stop()

    def _fill(self) -> None:
        """Start what may be started, some calls in one graph."""
        if self._halted():
            self._queue.clear()
            self._suspects.clear()
            return
        window = self._scheduler.window
        room = window - len(self._running)
        if room < max(1, window // 4):
            return
        graphs: dict[tuple[str, ...], list[Call[Result]]] = {}
        for _ in range(room):
            bundle = self._queue[0] if self._queue else [Try(unit) for unit in islice(self._units, self._together)]
            if not bundle:
                self._scheduler.await_more(self._stage, more=False)
                break
            allowed = tuple(self._scheduler.allowed(bundle))
            if not allowed:
                if not self._queue:
                    self._queue.append(bundle)
                break
            if self._queue:
                self._queue.popleft()
            self._call(bundle, allowed, graphs)
        else:
            self._scheduler.await_more(self._stage, more=True)
        if not self._queue and len(self._running) == len(self._alone):
            self._fill_alone(graphs)
        for allowed, calls in graphs.items():
            self._scheduler.compute(build_graph(self._scheduler.turn, calls), allowed, keep=self._fold is not None)

    def _fill_alone(self, graphs: dict[tuple[str, ...], list[Call[Result]]]) -> None:
        """Start suspects, which come last of all, one on every worker, so that none is blamed for another."""
        while self._suspects:
            free = [each for each in self._scheduler.allowed([self._suspects[0]]) if each not in self._alone.values()]
            if not free:
                return
            self._alone[self._call([self._suspects.popleft()], (free[0],), graphs)] = free[0]

    def _call(
        self, bundle: list[Try], allowed: tuple[str, ...], graphs: dict[tuple[str, ...], list[Call[Result]]]
    ) -> str:
        units = [each.unit for each in bundle]
        self._started += 1
        key = name_call(self._stage, units, self._token, self._started)
        graphs.setdefault(allowed, []).append(Call(key, self._attempt, units, self._fold))
        self._running[key] = bundle
        return key

    def _left(self, key: str) -> list[Outcome[Result]]:
        """A call whose workers all went: it is made anew, unless its unit was to blame again and again."""
        if key in self._joining:
            raise PartsLostError("workers that merged what was found are gone; call the same command again.")
        bundle, alone = self._running.pop(key), self._alone.pop(key, None)
        if alone is None:
            bundle = [replace(each, went=each.went + 1) for each in bundle]
            self._suspects.extend(each for each in bundle if each.went >= SUSPECT)
            others = [each for each in bundle if each.went < SUSPECT]
            self._queue.extend([others] if others else [])
            return []
        (each,) = bundle
        each = replace(each, went_alone=each.went_alone + 1)
        if each.went_alone < GUILTY:
            self._suspects.append(each)
            return []
        return [_set_aside(each, workers_ended())]

    def _join(self) -> None:
        """Start nodes of the tree whose parts are there."""
        while self._fold is not None and not self._halted():
            last = not (self._running or self._queue or self._joining or self._suspects)
            taken = self._tree.take(last=last)
            if taken is None:
                return
            level, parts = taken
            self._started += 1
            key = f"{self._stage}-join-{self._token}-{self._started}"
            self._joining[key] = level, parts
            self._scheduler.compute({key: (join, self._fold, parts)}, self._scheduler.allowed(()), keep=True)

    def _settle(self, bundle: list[Try], found: Any, *, alone: bool) -> list[Outcome[Result]]:
        """Outcomes that are final; the others are tried elsewhere."""
        if not isinstance(found, Bundle):  # workers ended, one after the other, or it never began
            self._scheduler.lose(found)
            if alone:
                return [_set_aside(bundle[0], found)]
            self._suspects.extend(bundle)
            return []
        if self._fold is not None:
            self._tree.add(0, found.part)
        if all(outcome.error is None for outcome in found.outcomes):  # failing is fast, and says nothing of units
            self._together = bundle_size(len(bundle), found.seconds, self._scheduler.share_s, self._scheduler.largest)
        settled = []
        for each, outcome in zip(bundle, found.outcomes, strict=False):  # those that were not begun are left
            attempts = each.attempts + outcome.attempts
            if outcome.error is None:
                self._scheduler.succeed(each, found.worker)
                settled.append(replace(outcome, unit=each.unit, attempts=attempts))
                continue
            failed_on = tuple(dict.fromkeys((*each.failed_on, found.worker))) if found.worker else ()
            if self._scheduler.fail(each, found.worker, outcome.error):
                self._queue.append([replace(each, attempts=attempts, failed_on=failed_on)])
            else:
                settled.append(replace(outcome, unit=each.unit, attempts=attempts, failed_on=failed_on))
        return settled


def _set_aside(each: Try, error: BaseException) -> Outcome[Any]:
    return Outcome(each.unit, error=error, attempts=each.attempts + 1, failed_on=each.failed_on)


def _joined(found: Any) -> Any:
    if isinstance(found, BaseException):
        raise InterruptedRunError(
            f"stopped, since what was found could not be merged: {first_line(found)}; call the same command again."
        ) from found
    return found
