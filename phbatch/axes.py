"""Axes, regions and frame keys: every array is seen as ``tczyx``, absent axes having length one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from phbatch.errors import InputError

CANONICAL = "tczyx"
"""Order of the axes inside phbatch, which is OME-NGFF's."""

_GUESSES = {2: "yx", 3: "tyx", 5: "tczyx"}

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


def infer_axes(ndim: int, names: Sequence[str | None] | None = None) -> str:
    """Axes of a bare array: from its dimension names if it has them, else from its number of dimensions.

    Raises
    ------
    InputError
        Four dimensions without names may be ``tcyx``, ``tzyx`` or ``czyx``: nobody can know.

    Examples
    --------
    >>> infer_axes(3), infer_axes(4, ["t", "z", "y", "x"])
    ('tyx', 'tzyx')
    """
    if names and all(name and name.lower() in CANONICAL and len(name) == 1 for name in names):
        return validate_axes("".join(str(name) for name in names), ndim)
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


def to_region(starts: Sequence[int], stops: Sequence[int]) -> Region:
    """Region of ``tczyx`` from its first and one-past-last indices."""
    t, c, z, y, x = (slice(int(start), int(stop)) for start, stop in zip(starts, stops, strict=True))
    return t, c, z, y, x


def frame_indices(shape: Shape, *, volumes: bool) -> Iterator[tuple[int, int, int | None]]:
    """Every (t, c, z) of a ``tczyx`` shape in order; z is None for whole volumes."""
    planes: Sequence[int | None] = [None] if volumes else range(shape[2])
    yield from product(range(shape[0]), range(shape[1]), planes)
