"""Units on their way: a bounded window of them is under way in graphs; what ended is settled and passed on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from dataclasses import replace
from itertools import islice
from typing import Any, Generic, TypeVar

from phbatch.places.lock import new_token
from phbatch.planning.units import Unit
from phbatch.running.graph import Bundle, Call, build_graph, name_call
from phbatch.running.outcome import Outcome
from phbatch.running.schedulers import Scheduler, Try
from phbatch.words.events import Stop

Result = TypeVar("Result")

LOOK_S = 1.0
"""How often the scheduler is asked for its workers, at most."""


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
    """

    def __init__(
        self,
        scheduler: Scheduler,
        stage: str,
        attempt: Callable[[Unit], Outcome[Result]],
        units: Iterable[Unit],
        stop: Stop,
    ) -> None:
        self._scheduler, self._stage, self._attempt = scheduler, stage, attempt
        self._units, self._stop = iter(units), stop
        self._queue: deque[list[Try]] = deque()
        self._running: dict[str, list[Try]] = {}
        self._together, self._started, self._token = 1, 0, new_token()
        self._interrupt: KeyboardInterrupt | None = None

    def outcomes(self) -> Generator[Outcome[Result], None, None]:
        """Outcomes, as units finish.

        Raises
        ------
        InterruptedRunError
            A cluster is gone, somebody cancelled the work, or all units fail alike.
        KeyboardInterrupt
            Of the host: what was in flight is finished first, unless a second one follows.
        """
        self._fill()
        while self._running or self._queue:
            for key in self._scheduler.look():
                self._queue.append(self._running.pop(key))
            try:
                ended = self._scheduler.found(LOOK_S)
            except KeyboardInterrupt as error:
                if self._halted():
                    raise
                self._interrupt = error
                continue
            outcomes = []
            if ended is not None:
                key, found = ended
                outcomes = self._settle(self._running.pop(key), found)
            self._fill()
            yield from outcomes
        if self._interrupt is not None:
            raise self._interrupt

    def _halted(self) -> bool:
        return self._interrupt is not None or self._stop()

    def _fill(self) -> None:
        """Start what may be started, some calls in one graph."""
        if self._halted():
            self._queue.clear()
            return
        window = self._scheduler.window
        room = window - len(self._running)
        if room < max(1, window // 4):
            return
        graphs: dict[tuple[str, ...], list[Call[Result]]] = {}
        for _ in range(room):
            bundle = self._queue[0] if self._queue else [Try(unit) for unit in islice(self._units, self._together)]
            if not bundle:
                break
            allowed = tuple(self._scheduler.allowed(bundle))
            if not allowed:
                if not self._queue:
                    self._queue.append(bundle)
                break
            if self._queue:
                self._queue.popleft()
            units = [each.unit for each in bundle]
            self._started += 1
            key = name_call(self._stage, units, self._token, self._started)
            graphs.setdefault(allowed, []).append(Call(key, self._attempt, units))
            self._running[key] = bundle
        for allowed, calls in graphs.items():
            self._scheduler.compute(build_graph(self._scheduler.turn, calls), allowed)

    def _settle(self, bundle: list[Try], found: Any) -> list[Outcome[Result]]:
        """Outcomes that are final; the others are tried elsewhere."""
        if not isinstance(found, Bundle):
            if len(bundle) > 1:  # one of them ended its worker, say; alone, it fails alone
                self._queue.extend([each] for each in bundle)
                return []
            (each,) = bundle
            self._scheduler.lose(found)
            return [Outcome(each.unit, error=found, attempts=each.attempts + 1, failed_on=each.failed_on)]
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
