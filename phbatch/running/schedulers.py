"""What computes graphs, and what it has to say of calls that failed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from phbatch.planning.units import Unit
from phbatch.running.graph import Graph, Turn


@dataclass(frozen=True)
class Try:
    """A unit, and the workers that it failed on."""

    unit: Unit
    attempts: int = 0
    failed_on: tuple[str, ...] = ()


class Scheduler(ABC):
    """Threads of this process, or the workers of a Dask cluster.

    Attributes
    ----------
    share_s : float
        Seconds of work that units share a call for, since a call costs something.
    largest : int
        Units of a call, at most.
    turn : callable
        How a call takes its turn to compute.
    """

    share_s: float
    largest: int
    turn: Turn

    @property
    @abstractmethod
    def window(self) -> int:
        """Calls that should be under way."""

    @abstractmethod
    def compute(self, graph: Graph, allowed: Sequence[str]) -> None:
        """Start a graph, on some of the workers."""

    @abstractmethod
    def found(self, seconds: float) -> tuple[str, Any] | None:
        """A call that ended, and a `Bundle` or the error of the call; None where none does in time."""

    @abstractmethod
    def close(self) -> None:
        """Begin no more."""

    def look(self) -> list[str]:
        """Calls that must be made anew, since nobody is left who may take them."""
        return []

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
