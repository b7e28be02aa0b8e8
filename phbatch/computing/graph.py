"""A run is a Dask graph: one task for every few units, whichever scheduler computes it.

A task is keyed by its stage and its first unit (``restore-t3/c0-...``), so that a dashboard says what is done. It gets
a job and units, both small, and returns outcomes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pickle import loads
from time import perf_counter
from typing import Any, Generic, TypeVar

from cloudpickle import dumps

from phbatch.computing.outcome import Outcome
from phbatch.computing.reduction import Fold, Part, fold_parts
from phbatch.computing.slots import come_back, in_lane
from phbatch.planning.unit import Unit
from phbatch.words.events import Stop, never

Result = TypeVar("Result")

Graph = dict[str, tuple[Any, ...]]
"""Of Dask: a function and its arguments, by the name of what it returns."""

Turn = Callable[[], AbstractContextManager[tuple[str, Stop]]]
"""A thread's turn to compute: while inside, it has one. Gives the name of the process, and whether to begin no more."""


@dataclass(frozen=True, eq=False)
class Call(Generic[Result]):
    """Units that one task of a graph takes, and what is done with each; for Dask it is one thing, and not searched."""

    key: str
    attempt: Callable[[Unit], Outcome[Result]]
    units: Sequence[Unit]
    fold: Fold[Result] | None = None

    def __dask_tokenize__(self) -> str:
        return self.key


@dataclass(frozen=True)
class Bundle(Generic[Result]):
    """What became of the units of a call, as far as they were begun, where, and the seconds that they took together.

    The units themselves do not travel back. Where their results are folded, `part` is what they come to, or what stands
    for it where it is kept on a worker.
    """

    outcomes: list[Outcome[Result]]
    seconds: float
    worker: str
    part: Any = None

    def __reduce__(self) -> tuple[Any, ...]:
        bare = [replace(outcome, unit=None) for outcome in self.outcomes]  # type: ignore[arg-type]
        return type(self), (bare, self.seconds, self.worker, self.part)


def attempt_all(turn: Turn, call: Call[Result]) -> Bundle[Result]:
    """The task of a graph: a unit that fails for good is an outcome, and the others go on."""
    outcomes = []
    part = None if call.fold is None else Part[Result](None, 0)
    with turn() as (worker, stop):
        started = perf_counter()
        for unit in call.units:
            come_back()
            if stop():
                break
            try:
                outcome = call.attempt(unit)
                if call.fold is not None and part is not None and outcome.error is None:
                    part = fold_parts(call.fold, (part, Part(outcome.result, 1)))
                    outcome = replace(outcome, result=None)
            except BaseException as error:  # of a task that would end its thread
                outcome = Outcome(unit, error=error)
            outcomes.append(outcome)
    return Bundle(outcomes, perf_counter() - started, worker, part)


def join(fold: Fold[Result], made: Sequence[Bundle[Result] | Part[Result]]) -> Part[Result]:
    """The task of a node of the tree: parts, those of calls among them, become one."""
    return fold_parts(fold, [each.part if isinstance(each, Bundle) else each for each in made])


def report(made: Bundle[Result] | Part[Result]) -> Bundle[Result] | Part[Result]:
    """What of a call or of a node travels to whoever asked for it, while the state stays on its worker."""
    return replace(made, part=None) if isinstance(made, Bundle) else Part(None, made.units)


@contextmanager
def turn_there() -> Iterator[tuple[str, Stop]]:
    """A turn on a worker of a Dask cluster, in a task of ours: Dask holds as many at once as it has threads."""
    from distributed import get_worker, rejoin, secede

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


def name_units(stage: str, units: Sequence[Unit]) -> str:
    """What a dashboard says of a task: its stage, its first unit, and how many follow."""
    more = f"+{len(units) - 1}" if len(units) > 1 else ""
    return f"{stage}-{getattr(units[0], 'key', '')}{more}"


def name_call(stage: str, units: Sequence[Unit], token: str, number: int) -> str:
    """Key of a task: what it is, and what makes it the only one of its name."""
    return f"{name_units(stage, units)}-{token}-{number}"


def build_graph(turn: Turn, calls: Sequence[Call[Result]]) -> Graph:
    """The graph of some calls, by their keys."""
    return {call.key: (attempt_all, turn, call) for call in calls}


class _Doing:
    """A call of a function that is made by whoever unpickles it."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._called = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self._called


def pack_graph(graph: Graph) -> Graph:
    """The same tasks as bytes, which the worker that unpickles them does.

    So the scheduler of a cluster, which unpickles every graph, needs neither this package nor the time and memory of
    loading it; and where a worker cannot load it, that is an error of the task, and not the end of the worker.

    Examples
    --------
    >>> pack_graph({"three": (max, 2, 3)})["three"][0] is loads
    True
    >>> loads(pack_graph({"three": (max, 2, 3)})["three"][1])
    3
    """
    return {key: (loads, dumps(_Doing(*task))) for key, task in graph.items()}
