"""What a microscope wrote, whatever its format: positions, and a plane of one of them."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phbatch.places.ome import ImageMetadata
from phbatch.words.axes import CANONICAL, Shape

Index = tuple[int, int, int]
"""Of a plane: along t, c and z."""


@dataclass(frozen=True)
class Position:
    """One field of view: an image of up to five axes.

    Attributes
    ----------
    name : str
        As the file calls it; may be empty.
    axes : str
        The axes that it has, in the order of ``tczyx``; ``y`` and ``x`` are among them.
    shape : tuple of int
        Lengths along ``tczyx``; 1 where an axis is absent.
    dtype : numpy.dtype
        Of the pixels, in native byte order.
    pixel_size : tuple of float or None
        Distance between pixels along z, y and x in micrometres; None where the file does not say.
    interval : float or None
        Seconds between frames.
    channel_names : tuple of str
        One for each channel; empty where the file does not say.
    notices : tuple of str
        What was taken otherwise than it is written, or is worth a look: sentences.
    """

    name: str
    axes: str
    shape: Shape
    dtype: np.dtype[Any]
    pixel_size: tuple[float | None, float | None, float | None] = (None, None, None)
    interval: float | None = None
    channel_names: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()

    @property
    def metadata(self) -> ImageMetadata:
        """The same as OME-NGFF says it."""
        known = dict(zip("tczyx", (self.interval, None, *self.pixel_size), strict=True))
        unit = {"t": "second"} | dict.fromkeys("zyx", "micrometer")
        return ImageMetadata(
            self.axes,
            tuple(known[axis] or 1.0 for axis in self.axes),
            (0.0,) * len(self.axes),
            tuple(unit[axis] if known[axis] else None for axis in self.axes),
            channels=tuple({"label": name} for name in self.channel_names),
            name=self.name or None,
        )

    def with_shape(self, shape: tuple[int, ...], notice: str) -> Position:
        """The same with other lengths along ``tczyx``, and a sentence that says why."""
        t, c, z, y, x = shape
        return replace(self, shape=(t, c, z, y, x), notices=(*self.notices, notice))

    @property
    def planes(self) -> Iterator[Index]:
        """Every (t, c, z), in order."""
        yield from product(*map(range, self.shape[:3]))


class Recording(ABC):
    """A file or a folder of files that a microscope wrote, opened; read by many threads at once.

    A class of a format sets `path` and `positions`, and says what a plane is and which file holds it.

    Attributes
    ----------
    path : str
        Of the file, the folder, or the pattern of names.
    kind : str
        What it is, in words: ``"OME-TIFF"``, ``"folder of TIFFs"``.
    positions : tuple of Position
        At least one.
    """

    path: str
    kind: str
    positions: tuple[Position, ...]

    @abstractmethod
    def read(self, position: int, t: int, c: int, z: int) -> NDArray[Any]:
        """Read a plane.

        Returns
        -------
        (y, x) ndarray
            In the position's shape and dtype.

        Raises
        ------
        InputError
            It is damaged, or has another shape.
        OSError
            It cannot be read now.
        """

    @abstractmethod
    def file_of(self, position: int, t: int, c: int, z: int) -> Path | None:
        """The file that holds a plane; None where the plane was never written."""

    @property
    def files(self) -> list[Path]:
        """All files that it is read from, sorted."""
        found = {
            self.file_of(number, *index) for number, position in enumerate(self.positions) for index in position.planes
        }
        return sorted(path for path in found if path is not None)


def make_position(name: str, lengths: dict[str, int], dtype: np.dtype[Any], **said: Any) -> Position:
    """A position from the lengths of the axes that it has, in any order.

    Examples
    --------
    >>> make_position("a", {"c": 2, "y": 64, "x": 32}, np.dtype(">u2")).shape
    (1, 2, 1, 64, 32)
    """
    t, c, z, y, x = (int(lengths.get(axis, 1)) for axis in CANONICAL)
    axes = "".join(axis for axis in CANONICAL if axis in lengths)
    return Position(name, axes, (t, c, z, y, x), dtype.newbyteorder("="), **said)


def stamp(path: Path) -> tuple[int, str]:
    """Size and modification time of a file, as places have them."""
    status = os.stat(path)  # noqa: PTH116 - Path.stat follows with more work, and this is asked for every plane
    return status.st_size, str(status.st_mtime_ns)
