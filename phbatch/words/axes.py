"""Axes, regions and frame keys: every array is seen as ``tczyx``, absent axes having length one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod

from phbatch.words.errors import InputError

CANONICAL = "tczyx"
"""Order of the axes inside phbatch, which is OME-NGFF's."""

_GUESSES = {2: "yx", 3: "tyx", 5: "tczyx"}

_WORDS = {
    "t": ("t", "time", "times", "timepoint", "timepoints", "frame", "frames"),
    "c": ("c", "ch", "channel", "channels"),
    "z": ("z", "plane", "planes", "depth", "slice", "slices"),
    "y": ("y", "row", "rows", "height"),
    "x": ("x", "col", "cols", "column", "columns", "width"),
}
_LETTERS = {word: letter for letter, words in _WORDS.items() for word in words}

Region = tuple[slice, slice, slice, slice, slice]
"""Five slices, one per axis of ``tczyx``, each with a start and a stop."""

Shape = tuple[int, int, int, int, int]
"""Five lengths, one per axis of ``tczyx``."""


def validate_axes(axes: str, ndim: int) -> str:
    """Check an axes string against the number of dimensions of its array.

    Parameters
    ----------
    axes : str
        One letter of ``tczyx`` per dimension, in the array's own order, upper or lower case.
    ndim : int
        Number of dimensions of the array.

    Returns
    -------
    str
        The string in lower case.

    Raises
    ------
    InputError
        Unknown or repeated letters, another length than `ndim`, or no ``y`` and ``x``.

    Examples
    --------
    >>> validate_axes("TYX", 3)
    'tyx'
    """
    axes = axes.lower()
    unknown = sorted(set(axes) - set(CANONICAL))
    if unknown:
        raise InputError(
            f"axes {axes!r} hold {''.join(unknown)!r}; use the letters t, c, z, y and x, as in --axes tyx."
        )
    if len(set(axes)) != len(axes):
        raise InputError(f"axes {axes!r} name an axis twice; name each axis once, as in --axes tyx.")
    if len(axes) != ndim:
        raise InputError(
            f"axes {axes!r} name {len(axes)} dimensions and the array has {ndim}; name one letter for each."
        )
    if not {"y", "x"} <= set(axes):
        raise InputError(f"axes {axes!r} lack y or x; an image needs both, as in --axes tyx.")
    return axes


def axis_letter(name: object) -> str | None:
    """Letter of ``tczyx`` that a name of a dimension means in the field, in any case; None where it means none.

    A number after an underscore is passed over, as xarray and multiscale images write ``y_0``.

    Examples
    --------
    >>> axis_letter("Time"), axis_letter("channel"), axis_letter("plane"), axis_letter("y_0"), axis_letter("S")
    ('t', 'c', 'z', 'y', None)
    """
    return _LETTERS.get(re.sub(r"_\d+$", "", str(name).strip().lower()))


def infer_axes(ndim: int, names: Sequence[object] | None = None) -> str:
    """Axes of a bare array: from its dimension names if it has them, else from its number of dimensions.

    Raises
    ------
    InputError
        A name means none of the axes; or four dimensions without names, which may be ``tcyx``, ``tzyx`` or ``czyx``.

    Examples
    --------
    >>> infer_axes(3), infer_axes(4, ["time", "z", "Y", "X"])
    ('tyx', 'tzyx')
    """
    if names and any(name not in (None, "") for name in names):
        letters = [axis_letter(name) for name in names]
        if None in letters:
            unknown = names[letters.index(None)]
            raise InputError(
                f"the array's dimensions are named {', '.join(map(str, names))[:80]}, and {str(unknown)[:40]!r} is"
                " no time, channel, z, y or x; say what they are, as in --axes tcyx, or choose a part that has"
                " these axes alone."
            )
        return validate_axes("".join(letter for letter in letters if letter), ndim)
    if ndim not in _GUESSES:
        raise InputError(
            f"the array has {ndim} dimensions and no axes in its metadata; say what they are, as in --axes tcyx"
            f" (2 to 5 dimensions of t, c, z, y, x)."
        )
    return _GUESSES[ndim]


@dataclass(frozen=True, order=True)
class FrameKey:
    """Which frame: indices along t, c and z; ``z`` is None where the frame is a whole ``zyx`` volume.

    Examples
    --------
    >>> str(FrameKey(3, 0)), str(FrameKey(3, 1, 7))
    ('t3/c0', 't3/c1/z7')
    """

    t: int
    c: int
    z: int | None = None

    def __str__(self) -> str:
        return f"t{self.t}/c{self.c}" + ("" if self.z is None else f"/z{self.z}")


@dataclass(frozen=True)
class FrameGrid:
    """The frames of a run in the order of t, c, z.

    Attributes
    ----------
    times : range
        Indices along t.
    channels : tuple of int
        Indices along c.
    planes : int or None
        Number of planes along z; None where a frame is a whole ``zyx`` volume.

    Examples
    --------
    >>> grid = FrameGrid(range(4, 8, 2), (0, 3), None)
    >>> len(grid), grid.index(FrameKey(6, 0)), str(grid.key(3))
    (4, 2, 't6/c3')
    """

    times: range
    channels: tuple[int, ...]
    planes: int | None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of frames along t, c and z."""
        return len(self.times), len(self.channels), 1 if self.planes is None else self.planes

    def __len__(self) -> int:
        return prod(self.shape)

    def __iter__(self) -> Iterator[FrameKey]:
        return (self.key(index) for index in range(len(self)))

    def __contains__(self, key: FrameKey) -> bool:
        planes: Sequence[int | None] = [None] if self.planes is None else range(self.planes)
        return key.t in self.times and key.c in self.channels and key.z in planes

    def key(self, index: int) -> FrameKey:
        """Key of a frame by its position in the order."""
        _, n_c, n_z = self.shape
        t, c, z = index // (n_c * n_z), index // n_z % n_c, index % n_z
        return FrameKey(self.times[t], self.channels[c], None if self.planes is None else z)

    def index(self, key: FrameKey) -> int:
        """Position of a frame in the order."""
        _, n_c, n_z = self.shape
        return (self.times.index(key.t) * n_c + self.channels.index(key.c)) * n_z + (key.z or 0)


def to_region(starts: Sequence[int], stops: Sequence[int]) -> Region:
    """Region of ``tczyx`` from its first and one-past-last indices."""
    t, c, z, y, x = (slice(int(start), int(stop)) for start, stop in zip(starts, stops, strict=True))
    return t, c, z, y, x


def frame_indices(shape: Shape, *, volumes: bool) -> Iterator[tuple[int, int, int | None]]:
    """Every (t, c, z) of a ``tczyx`` shape in order; z is None for whole volumes."""
    planes: Sequence[int | None] = [None] if volumes else range(shape[2])
    yield from product(range(shape[0]), range(shape[1]), planes)
