"""Rows of frames that are larger than a task may hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Rows:
    """A band of frames, on the grid of what is normalized and restored.

    Attributes
    ----------
    held : slice
        Rows of the frame that are in memory.
    own : slice
        Those of them that are restored.
    corners : (t, c, z, y, x) ndarray, or None
        Raw pixels of the first one of every frame that is normalized, where that is asked for.

    Examples
    --------
    >>> Rows(slice(60, 150), slice(64, 128)).within
    slice(4, 68, None)
    """

    held: slice
    own: slice
    corners: NDArray[Any] | None = None

    @classmethod
    def of(cls, read: slice, own: slice, downscale: int) -> Rows:
        """From the rows that are read, which are averaged, and those of the output."""
        return cls(slice(read.start // downscale, -(-read.stop // downscale)), own)

    @property
    def within(self) -> slice:
        """What is restored of what is held."""
        return slice(self.own.start - self.held.start, self.own.stop - self.held.start)

    @property
    def count(self) -> int:
        """Rows that are restored."""
        return int(self.own.stop - self.own.start)
