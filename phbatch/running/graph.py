"""A run is a Dask graph: one task for every few units, whichever scheduler computes it.

A task is keyed by its stage and its first unit (``restore-t3/c0-...``), so that a dashboard says what is done. It gets
a job and units, both small, and returns outcomes.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from time import perf_counter
from typing import Any, Generic, TypeVar

from distributed import get_worker, rejoin, secede

from phbatch.planning.units import Unit
from phbatch.running.outcome import Outcome
from phbatch.running.slots import come_back, in_lane
from phbatch.words.events import Stop, never

Result = TypeVar("Result")

Graph = dict[str, tuple[Any, ...]]
"""Of Dask: a function and its arguments, by the name of what it returns."""

Turn = Callable[[], AbstractContextManager[tuple[str, Stop]]]
"""A thread's turn to compute: while inside, it has one. Gives the name of the process, and whether to begin no more."""


@dataclass(frozen=True, eq=False)
class Call(Generic[Result]):
    """Units that one task of a graph takes, and what is done with each; for Dask it is one thing, and not searched.

    On its way the units are bytes, which the scheduler of a cluster need not look into.
    """

    key: str
    attempt: Callable[[Unit], Outcome[Result]]
    units: Sequence[Unit]

    def __dask_tokenize__(self) -> str:
        return self.key

    def __reduce__(self) -> tuple[Any, ...]:
        return _Packed, (self.key, self.attempt, pickle.dumps(self.units))

    def opened(self) -> Call[Result]:
        """With its units; see `_Packed`."""
        return self


@dataclass(frozen=True, eq=False)
class _Packed(Generic[Result]):
    """A call that travels."""

    key: str
    attempt: Callable[[Unit], Outcome[Result]]
    units: bytes

    def __dask_tokenize__(self) -> str:
        return self.key

    def opened(self) -> Call[Result]:
        return Call(self.key, self.attempt, pickle.loads(self.units))  # noqa: S301


@dataclass(frozen=True)
class Bundle(Generic[Result]):
    """What became of the units of a call, as far as they were begun, where, and the seconds that they took together.

    The units themselves do not travel back.
    """

    outcomes: list[Outcome[Result]]
    seconds: float
    worker: str

    def __reduce__(self) -> tuple[Any, ...]:
        bare = [replace(outcome, unit=None) for outcome in self.outcomes]  # type: ignore[arg-type]
        return type(self), (bare, self.seconds, self.worker)


def attempt_all(turn: Turn, call: Call[Result] | _Packed[Result]) -> Bundle[Result]:
    """The task of a graph: a unit that fails for good is an outcome, and the others go on."""
    outcomes = []
    with turn() as (worker, stop):
        started = perf_counter()
        opened = call.opened()
        for unit in opened.units:
            come_back()
            if stop():
                break
            try:
                outcomes.append(opened.attempt(unit))
            except BaseException as error:  # of a task that would end its thread
                outcomes.append(Outcome(unit, error=error))
    return Bundle(outcomes, perf_counter() - started, worker)


@contextmanager
def turn_there() -> Iterator[tuple[str, Stop]]:
    """A turn on a worker of a Dask cluster, in a task of ours: Dask holds as many at once as it has threads."""
    with in_lane(secede, rejoin):
        yield get_worker().address, never


def stage_of(task: Callable[..., Any]) -> str:
    """Name of what a task does.

    Examples
    --------
    >>> def find_scale(job, unit): ...
    >>> stage_of(find_scale), stage_of(partial(find_scale, None))
    ('find-scale', 'find-scale')
    """
    while isinstance(task, partial):
        task = task.func
    name = str(getattr(task, "__name__", type(task).__name__))
    return name.strip("_").removesuffix("_unit").replace("_", "-")


def name_call(stage: str, units: Sequence[Unit], token: str, number: int) -> str:
    """Key of a task: its stage, its first unit and how many follow, and what makes it the only one of its name."""
    more = f"+{len(units) - 1}" if len(units) > 1 else ""
    return f"{stage}-{getattr(units[0], 'key', '')}{more}-{token}-{number}"


def build_graph(turn: Turn, calls: Sequence[Call[Result]]) -> Graph:
    """The graph of some calls, by their keys."""
    return {call.key: (attempt_all, turn, call) for call in calls}
