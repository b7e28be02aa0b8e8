"""Frames along t that belong together, by arithmetic: nothing here grows with their number."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import gcd


@dataclass(frozen=True)
class TimeGroups:
    """Selected frames along t, grouped by the stretch of the source that they lie in; empty stretches are left out.

    Attributes
    ----------
    times : range
        Selected indices, in ascending order.
    length : int
        Of a stretch, in frames of the source.

    Examples
    --------
    >>> groups = TimeGroups(range(1, 9, 2), 4)
    >>> len(groups), [groups.first(at) for at in range(3)], groups.index(3), groups.largest, groups.extent
    (2, [0, 2, 4], 1, 2, 6)
    """

    times: range
    length: int

    def __len__(self) -> int:
        if self._alone:
            return len(self.times)
        return self.times[-1] // self.length - self.times[0] // self.length + 1

    def first(self, group: int) -> int:
        """Position, among the selected frames, of the first one of a group; past the last group, their number."""
        if self._alone:
            return group
        edge = (self.times[0] // self.length + group) * self.length
        return min(max(0, -(-(edge - self.times[0]) // self.times.step)), len(self.times))

    def index(self, position: int) -> int:
        """Group of a selected frame, by its position."""
        return position if self._alone else self.times[position] // self.length - self.times[0] // self.length

    def stretch(self, group: int) -> int:
        """Which stretch of the source a group lies in."""
        return self.times[self.first(group)] // self.length

    def find(self, stretch: int) -> int | None:
        """The group that lies in a stretch of the source; None where none does."""
        position = max(0, -(-(stretch * self.length - self.times[0]) // self.times.step))
        if position >= len(self.times) or self.times[position] // self.length != stretch:
            return None
        return self.index(position)

    @property
    def largest(self) -> int:
        """Frames of the largest group."""
        return max(self._sizes)

    @property
    def even_size(self) -> int | None:
        """Frames of every group but the last, which has no more; None where they differ."""
        size, *others = self._sizes
        return size if all(other == size for other in others[:-1]) and others[-1:] <= [size] else None

    @property
    def extent(self) -> int:
        """Frames of the source from the first to the last of each group, of all groups together."""
        return len(self) + (len(self.times) - len(self)) * self.times.step

    @property
    def _alone(self) -> bool:
        """Whether no two selected frames share a stretch."""
        return self.times.step >= self.length

    @cached_property
    def _sizes(self) -> list[int]:
        """Frames of the groups, until they repeat: the last one is as large as another, or smaller.

        Since a step is shorter than a stretch, these are fewer than the root of the source's length.
        """
        if self._alone:
            return [1]
        count = min(len(self), 2 + self.times.step // gcd(self.times.step, self.length))
        return [self.first(group + 1) - self.first(group) for group in range(count)]
