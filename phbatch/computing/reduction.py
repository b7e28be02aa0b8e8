"""Results that are merged where they were made, in a tree within the graph: only small states travel.

A call of units has one `Part`; a few parts, or what stands for them on a cluster, are joined to one by a task, and so
on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

Result = TypeVar("Result")

Fold = Callable[[Sequence[Result]], Result]
"""Merges results; in any order and grouping it gives the same."""


@dataclass(frozen=True, eq=False)
class Part(Generic[Result]):
    """What some units have in common, and how many these are."""

    state: Result | None
    units: int


def fold_parts(fold: Fold[Result], parts: Sequence[Part[Result]]) -> Part[Result]:
    """Join parts; the task of a node of the tree."""
    states = [part.state for part in parts if part.state is not None]
    return Part(fold(states) if states else None, sum(part.units for part in parts))


class Tree:
    """Parts that wait to be joined, by how often they were.

    Parameters
    ----------
    width : int
        Parts that one task joins.

    Examples
    --------
    >>> tree = Tree(2)
    >>> for name in "abc":
    ...     tree.add(0, name)
    >>> tree.take(), tree.take(), tree.take(last=True)
    ((1, ['a', 'b']), None, None)
    >>> tree.add(1, "ab")
    >>> tree.take(last=True), tree.root
    ((2, ['c', 'ab']), None)
    """

    def __init__(self, width: int) -> None:
        self._width, self._levels = width, list[list[Any]]()

    def add(self, level: int, part: Any) -> None:
        """A part, or what stands for it."""
        while len(self._levels) <= level:
            self._levels.append([])
        self._levels[level].append(part)

    def take(self, *, last: bool = False) -> tuple[int, list[Any]] | None:
        """The level of a part that should be made, and those to make it of; of what is left over where no more come."""
        for level, parts in enumerate(self._levels):
            if len(parts) >= self._width:
                self._levels[level] = parts[self._width :]
                return level + 1, parts[: self._width]
        left = [part for parts in self._levels for part in parts]
        if not last or len(left) < 2:
            return None
        top = len(self._levels)
        self._levels = [left[self._width :]]
        return top, left[: self._width]

    @property
    def root(self) -> Any:
        """The only part that is left; None where there is none."""
        left = [part for parts in self._levels for part in parts]
        return left[0] if left else None
