"""Numbers of every frame of a run: in memory while they are few, else mapped from a temporary file."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryFile, gettempdir
from typing import IO, Any
from weakref import finalize

import numpy as np
from numpy.typing import DTypeLike, NDArray

from phbatch.words.errors import OutputError

FRAMES_IN_MEMORY = 1 << 18
"""Of more frames, the columns are on disk, in the folder of temporary files."""

_COLUMNS_OF_A_FILE = 16
_FRAMES_AT_ONCE = 1 << 14
_ITEMSIZE = 8


class Columns:
    """Makes columns of one value for each of some frames.

    A file has room for the values of all frames and takes none on the disk before these are reached: room that the
    disk lacks is an error then, and not the death of the process when a page is written.

    Parameters
    ----------
    count : int
        Of frames.
    mapped : bool, optional
        Whether they are on disk; default: where there are more than `FRAMES_IN_MEMORY`.
    """

    def __init__(self, count: int, mapped: bool | None = None) -> None:
        self._count = count
        self._length = -(-count * _ITEMSIZE // mmap.ALLOCATIONGRANULARITY) * mmap.ALLOCATIONGRANULARITY
        self._mapped = count > FRAMES_IN_MEMORY if mapped is None else mapped
        self._files: list[tuple[IO[bytes], mmap.mmap]] = []
        self._fills: list[tuple[np.dtype[Any], float]] = []
        self._reached = 0

    def __reduce__(self) -> tuple[Any, ...]:
        return Columns, (self._count, False)  # arrays travel by themselves, and are in memory then

    def new(self, dtype: DTypeLike, fill: float) -> NDArray[Any]:
        """A column that holds one value as far as is reached, and all of it where it is in memory."""
        if not self._mapped:
            return np.full(self._count, fill, dtype)
        position = len(self._fills) % _COLUMNS_OF_A_FILE
        if position == 0:
            self._open()
        self._fills.append((np.dtype(dtype), fill))
        for first in range(0, self._reached, _FRAMES_AT_ONCE):
            self._fill(len(self._fills) - 1, first)
        return np.frombuffer(self._files[-1][1], dtype, self._count, position * self._length)

    def reach(self, frame: int) -> None:
        """Make sure that a frame and all before it have their values in every column."""
        while self._mapped and self._reached <= frame:
            for column in range(len(self._fills)):
                self._fill(column, self._reached)
            self._reached = min(self._reached + _FRAMES_AT_ONCE, self._count)

    def release(self) -> None:
        """Leave what is mapped to the system, which keeps it on disk: the process takes no memory for it."""
        if hasattr(mmap, "MADV_DONTNEED"):
            for _, each in self._files:
                each.madvise(mmap.MADV_DONTNEED)

    def _open(self) -> None:
        with self._refusing_errors():
            file = TemporaryFile(prefix="phbatch-", buffering=0)  # noqa: SIM115 - it lives as long as the columns
            finalize(self, file.close)
            file.truncate(_COLUMNS_OF_A_FILE * self._length)
            self._files.append((file, mmap.mmap(file.fileno(), 0)))

    def _fill(self, column: int, first: int) -> None:
        index, position = divmod(column, _COLUMNS_OF_A_FILE)
        file, (dtype, fill) = self._files[index][0], self._fills[column]
        left = np.full(min(_FRAMES_AT_ONCE, self._count - first), fill, dtype).view(np.uint8).data
        with self._refusing_errors():
            file.seek(position * self._length + first * dtype.itemsize)
            while left:
                left = left[file.write(left) :]

    @contextmanager
    def _refusing_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OutputError(
                f"the statistics of {self._count} frames cannot be kept in {gettempdir()} ({error.strerror}); make room"
                " there, or set TMPDIR to a folder on another disk."
            ) from error
