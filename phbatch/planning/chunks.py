"""How an output is cut: its levels, their chunks, and their shards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count as count_from

from phbatch.words.axes import Shape

_CHUNK_LENGTH = 1024  # along y and x, at most
_COARSEST = 1024  # length along y and x at which a pyramid ends


@dataclass(frozen=True)
class Level:
    """One resolution of the output.

    Attributes
    ----------
    factor : int
        Pixels of level 0 along y and x that one of this level stands for.
    shape, chunks : tuple of int
        Along ``tczyx``.
    shards : tuple of int or None
        Along ``tczyx``; None where every chunk is an object.
    """

    factor: int
    shape: Shape
    chunks: Shape
    shards: Shape | None


def count_levels(lengths: Sequence[int]) -> int:
    """Levels that an image gets by itself: lengths along y and x are halved until none is above 1024.

    Examples
    --------
    >>> [count_levels(lengths) for lengths in ((1024, 1024), (512, 1025), (2048, 2048), (20_000, 20_000))]
    [1, 2, 2, 6]
    """
    return next(count for count in count_from(1) if -(-max(lengths) // 2 ** (count - 1)) <= _COARSEST)


def chunk_length(size: int) -> int:
    """Even chunks of a length, at most 1024.

    Examples
    --------
    >>> [chunk_length(size) for size in (7, 1024, 1025, 2048)]
    [7, 1024, 513, 1024]
    """
    return -(-size // -(-size // _CHUNK_LENGTH))
