"""What computes graphs, and what it has to say of calls that failed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from phbatch.computing.graph import Graph, Turn
from phbatch.computing.reduction import Part
from phbatch.planning.unit import Unit
from phbatch.words.errors import ClusterError, InterruptedRunError


class PartsLostError(InterruptedRunError):
    """What workers kept of a reduction went with them, and nobody is left who may make it again."""


@dataclass(frozen=True)
class Try:
    """A unit, the workers that it failed on, and how many went while they had it: among other units, and alone."""

    unit: Unit
    attempts: int = 0
    failed_on: tuple[str, ...] = ()
    went: int = 0
    went_alone: int = 0


class Scheduler(ABC):
    """Threads of this process, or the workers of a Dask cluster.

    Attributes
    ----------
    share_s : float
        Seconds of work that units share a call for, since a call costs something.
    largest : int
        Units of a call, at most.
    width : int
        Parts that one task joins.
    turn : callable
        How a call takes its turn to compute.
    """

    share_s: float
    largest: int
    width: int
    turn: Turn

    @property
    @abstractmethod
    def window(self) -> int:
        """Calls that should be under way."""

    @abstractmethod
    def compute(self, graph: Graph, allowed: Sequence[str], *, keep: bool = False) -> None:
        """Start a graph, on some of the workers, which may keep the parts that they make."""

    @abstractmethod
    def found(self, seconds: float) -> tuple[str, Any] | None:
        """A call that ended, and a `Bundle`, a part, or the error of the call; None where none does in time."""

    def fetch(self, part: Any) -> Part[Any]:
        """A part that was kept."""
        made: Part[Any] = part
        return made

    @abstractmethod
    def close(self) -> None:
        """Begin no more."""

    def look(self) -> list[str]:
        """Calls that must be made anew, since nobody is left who may take them."""
        return []

    def await_more(self, stage: str, *, more: bool) -> None:  # noqa: B027
        """Hear whether more units of a stage will come than are under way."""

    def allowed(self, tries: Sequence[Try]) -> Sequence[str]:
        """Workers that may be given these units; a call waits where there is none."""
        return ("",)

    def succeed(self, done: Try, worker: str) -> None:  # noqa: B027
        """Hear that a unit is finished."""

    def fail(self, failed: Try, worker: str, error: BaseException) -> bool:
        """Hear that a unit failed; returns whether it should be tried elsewhere."""
        return False

    def lose(self, error: BaseException) -> None:
        """Hear that a unit ended every worker that it was given to, or never began."""
        raise error


def workers_ended() -> ClusterError:
    """What is said of a unit that workers end with."""
    return ClusterError(
        "every worker that was given it ended meanwhile, also those that had nothing else to do; look into their logs,"
        " or start workers with more memory."
    )
