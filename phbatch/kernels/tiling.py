"""Tiling that leaves no trace: the halo a network needs, and tiles on its pooling grid.

A U-Net with max pooling is equal tile by tile to the whole image when four things hold: the halo is at least its
receptive field; every tile starts on the pooling grid of the frame as CSBDeep pads it (reflect, half before and half
after); zeros are padded only at the true edges of that padded frame; and the statistics were fixed before. The first
three are here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise, product
from typing import Any

import numpy as np
from numpy.typing import NDArray


@lru_cache(maxsize=64)
def required_halo(depth: int, kernel: int) -> int:
    """Pixels that a tile must read beyond what it writes, per side and axis, for a CARE U-Net.

    Derived by interval arithmetic through the network: two convolutions per level, max pooling and nearest upsampling
    by two. It is the need of tiles whose edges lie on the pooling grid, rounded up to that grid.

    Parameters
    ----------
    depth : int
        Number of poolings (``unet_n_depth``).
    kernel : int
        Odd width of the convolutions (``unet_kern_size``).

    Returns
    -------
    int
        A multiple of ``2**depth``.

    Examples
    --------
    >>> required_halo(2, 5), required_halo(2, 3), required_halo(3, 3), required_halo(4, 3)
    (40, 24, 48, 96)
    """
    reach = 2 * ((kernel - 1) // 2)  # two convolutions

    def pooled(level: int, low: int, high: int) -> tuple[int, int]:
        return (low, high) if level == 0 else down(level - 1, 2 * low, 2 * high + 1)

    def down(level: int, low: int, high: int) -> tuple[int, int]:
        return pooled(level, low - reach, high + reach)

    def up(level: int, low: int, high: int) -> tuple[int, int]:
        low, high = low - reach, high + reach
        if level == depth:
            return pooled(depth, low, high)
        skip, below = down(level, low, high), up(level + 1, low // 2, high // 2)
        return min(skip[0], below[0]), max(skip[1], below[1])

    grid = 1 << depth
    need = 0
    for position in range(grid):
        low, high = up(0, position, position)
        need = max(need, -low, high - (grid - 1))
    return -(-need // grid) * grid


def split_padding(size: int, grid: int) -> tuple[int, int]:
    """Padding before and after that makes a length a multiple of `grid`, split as CSBDeep splits it.

    Examples
    --------
    >>> split_padding(1022, 4), split_padding(517, 4), split_padding(512, 4)
    ((1, 1), (1, 2), (0, 0))
    """
    total = -size % grid
    return total // 2, total - total // 2


@dataclass(frozen=True)
class Span:
    """One tile along an axis of the padded frame: it reads ``[read, read + size)``, writes ``[start, stop)``."""

    read: int
    start: int
    stop: int


def plan_spans(length: int, size: int, halo: int, grid: int) -> tuple[Span, ...]:
    """Cover an axis with tiles of one size, with as even overlap as the grid allows.

    Parameters
    ----------
    length : int
        Of the padded frame along the axis, a multiple of `grid`.
    size : int
        Of the tiles: a multiple of `grid`, at most `length`, more than ``2 * halo`` unless it is `length`.
    halo : int
        Pixels per side, a multiple of `grid`.
    grid : int
        Pooling grid; every read and write edge is on it.

    Returns
    -------
    tuple of Span
        Their writes partition the axis; a write edge is `halo` or more from the read edge unless it is the frame's.

    Examples
    --------
    >>> plan_spans(100, 100, 40, 4)
    (Span(read=0, start=0, stop=100),)
    >>> plan_spans(128, 64, 16, 4)
    (Span(read=0, start=0, stop=48), Span(read=32, start=48, stop=80), Span(read=64, start=80, stop=128))
    """
    if size == length:
        return (Span(0, 0, length),)
    count = count_spans(length, size, halo)
    free = (length - size) // grid
    reads = [grid * (index * free // (count - 1)) for index in range(count)]
    middles = (grid * ((previous + size + read) // (2 * grid)) for previous, read in pairwise(reads))
    edges = [0, *middles, length]
    return tuple(Span(read, start, stop) for read, (start, stop) in zip(reads, pairwise(edges), strict=True))


def count_spans(length: int, size: int, halo: int) -> int:
    """How many tiles of `size` cover `length`: the first and last save one halo, since the frame ends there."""
    if size >= length:
        return 1
    return -(-(length - 2 * halo) // (size - 2 * halo))


@dataclass(frozen=True)
class TilePlan:
    """How one frame is padded, cut into equal tiles, and put together again.

    Attributes
    ----------
    shape : tuple of int
        Spatial shape of the frame, ``(y, x)`` or ``(z, y, x)``.
    tile : tuple of int
        Shape of every tile, each a multiple of `grid`.
    halo : int
        Pixels per side and axis.
    grid : int
        Pooling grid, ``2**depth``.
    """

    shape: tuple[int, ...]
    tile: tuple[int, ...]
    halo: int
    grid: int

    def __post_init__(self) -> None:
        for size, tile, padded in zip(self.shape, self.tile, self.padded_shape, strict=True):
            if size < 1 or tile % self.grid or tile > padded or (tile < padded and tile <= 2 * self.halo):
                raise ValueError(
                    f"tile {self.tile} does not fit frame {self.shape}, halo {self.halo}, grid {self.grid}"
                )

    @property
    def padding(self) -> tuple[tuple[int, int], ...]:
        """Reflect padding before and after, per axis."""
        return tuple(split_padding(size, self.grid) for size in self.shape)

    @property
    def padded_shape(self) -> tuple[int, ...]:
        """Shape of the padded frame: multiples of the grid."""
        return tuple(size + -size % self.grid for size in self.shape)

    @property
    def tiles(self) -> tuple[tuple[Span, ...], ...]:
        """Every tile, one span per axis, in row-major order."""
        axes = (
            plan_spans(length, size, self.halo, self.grid)
            for length, size in zip(self.padded_shape, self.tile, strict=True)
        )
        return tuple(product(*axes))

    @property
    def first_row(self) -> int:
        """Of the frame, that is written."""
        return 0

    @property
    def cut_shape(self) -> tuple[int, ...]:
        """Shape of what is cut into tiles at once: the frame."""
        return self.shape

    @property
    def cuts(self) -> int:
        """How many of them a frame has."""
        return 1

    @property
    def overhead(self) -> float:
        """Pixels computed per pixel of the padded frame; 1 when the frame is one tile."""
        computed = float(len(self.tiles)) * float(np.prod(self.tile))
        return computed / float(np.prod(self.padded_shape))

    def pad(self, frame: NDArray[Any]) -> NDArray[Any]:
        """Pad a frame ``(*shape, channel)`` by reflection to the pooling grid, as CSBDeep does."""
        padding = (*self.padding, (0, 0))
        return np.pad(frame, padding, mode="reflect") if any(map(any, padding)) else frame

    def gather(self, padded: NDArray[Any], tile: Sequence[Span]) -> NDArray[Any]:
        """View of the window ``(*tile, channel)`` that a tile reads from the padded frame."""
        return padded[tuple(slice(span.read, span.read + size) for span, size in zip(tile, self.tile, strict=True))]

    def owned(self, tile: Sequence[Span]) -> tuple[slice, ...]:
        """What a tile owns of its window: neither halo, nor padding of the frame."""
        parts = []
        for span, size, (before, _) in zip(tile, self.shape, self.padding, strict=True):
            start, stop = max(span.start, before), min(span.stop, size + before)
            parts.append(slice(start - span.read, stop - span.read))
        return tuple(parts)

    def scatter(self, output: NDArray[Any], tile: Sequence[Span], result: NDArray[Any]) -> None:
        """Write the part of a tile's result that it owns into the frame ``(*shape, channel)``."""
        source = self.owned(tile)
        shifts = [span.read - before for span, (before, _) in zip(tile, self.padding, strict=True)]
        shifts[-2] -= self.first_row
        target = tuple(slice(part.start + shift, part.stop + shift) for part, shift in zip(source, shifts, strict=True))
        output[target] = result[source]


def choose_tile(shape: Sequence[int], halo: int, grid: int, max_pixels: int) -> tuple[int, ...]:
    """The tile shape that computes the fewest pixels for a frame within a number of pixels per tile.

    Parameters
    ----------
    shape : sequence of int
        Spatial shape of the frame, ``(y, x)`` or ``(z, y, x)``.
    halo, grid : int
        Of the network.
    max_pixels : int
        Pixels that a tile may have at most; the smallest possible tile is taken where nothing fits.

    Returns
    -------
    tuple of int
        Multiples of `grid`; on ties the smaller tile, then the longer rows.

    Examples
    --------
    >>> choose_tile((512, 512), 24, 4, 10**6), choose_tile((2048, 2048), 24, 4, 512 * 512)
    ((512, 512), (448, 548))
    """
    options = [_tile_lengths(size + -size % grid, halo, grid) for size in shape]
    best: tuple[float, int, tuple[int, ...]] | None = None
    smallest = tuple(min(lengths) for lengths in options)
    for tile in product(*options):
        pixels = int(np.prod(tile))
        if pixels > max_pixels and tile != smallest:
            continue
        count = np.prod([count_spans(size + -size % grid, t, halo) for size, t in zip(shape, tile, strict=True)])
        rank = (float(count) * pixels, pixels, tuple(-t for t in reversed(tile)))
        if best is None or rank < best:
            best = rank
    return tuple(-t for t in reversed(best[2])) if best else smallest


def _tile_lengths(length: int, halo: int, grid: int) -> list[int]:
    """Smallest tile length for every number of tiles along an axis."""
    lengths = [length]
    for count in range(2, length // grid + 1):
        inner = -(-(length - 2 * halo) // count)
        size = -(-(inner + 2 * halo) // grid) * grid
        if inner <= 0 or size >= length:
            continue
        if size != lengths[-1]:
            lengths.append(size)
        if inner <= grid:
            break
    return lengths
