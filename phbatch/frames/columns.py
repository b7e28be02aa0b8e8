"""Numbers of every frame of a run: in memory while they are few, else mapped from a temporary file."""

from __future__ import annotations

import mmap
from tempfile import TemporaryFile
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

FRAMES_IN_MEMORY = 1 << 18
"""Of more frames, the columns are on disk, in the folder of temporary files."""

_VALUES_AT_ONCE = 1 << 16


class Columns:
    """Makes columns of one value for each of some frames.

    Parameters
    ----------
    count : int
        Of frames.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._maps: list[mmap.mmap] = []

    def __reduce__(self) -> tuple[Any, ...]:
        return Columns, (self._count,)  # arrays travel by themselves, and are in memory then

    def new(self, dtype: DTypeLike, fill: float) -> NDArray[Any]:
        """A column that holds one value everywhere."""
        if self._count <= FRAMES_IN_MEMORY:
            return np.full(self._count, fill, dtype)
        with TemporaryFile(prefix="phbatch-") as file:
            # Written and not left out, so that a disk without room says so here and kills nobody later.
            for first in range(0, self._count, _VALUES_AT_ONCE):
                file.write(np.full(min(_VALUES_AT_ONCE, self._count - first), fill, dtype).tobytes())
            file.flush()
            self._maps.append(mmap.mmap(file.fileno(), 0))
        return np.frombuffer(self._maps[-1], dtype)

    def release(self) -> None:
        """Leave what is mapped to the system, which keeps it on disk: the process takes no memory for it."""
        if hasattr(mmap, "MADV_DONTNEED"):
            for each in self._maps:
                each.madvise(mmap.MADV_DONTNEED)
