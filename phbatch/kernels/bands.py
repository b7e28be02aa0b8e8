"""Frames in bands: rows that are restored by themselves, by the very tiles that restore them in the whole frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phbatch.kernels.tiling import Span, TilePlan, plan_spans, split_padding


def rows_about(size: int, band: int, margin: int, at: int) -> tuple[int, int]:
    """Rows that a band is made of: its own and a margin, as many for all bands.

    Parameters
    ----------
    size : int
        Rows of the frame.
    band : int
        Rows of every band but the last.
    margin : int
        Rows on either side; at an end of the frame there are more on the other side instead.
    at : int
        Which band, from 0 on.

    Returns
    -------
    (int, int)
        First row, and one past the last.

    Examples
    --------
    >>> [rows_about(100, 32, 4, at) for at in range(4)]
    [(0, 40), (28, 68), (60, 100), (60, 100)]
    """
    length = band + 2 * margin
    start = max(0, min(at * band - margin, size - length))
    return start, min(size, start + length)


def window_of_band(shape: Sequence[int], halo: int, grid: int, band: int) -> tuple[int, ...]:
    """Shape of what the tiles of the largest band read together; arguments as for `BandedTiles`.

    Examples
    --------
    >>> window_of_band((4096, 512), 24, 4, 1024), window_of_band((1000, 1022), 24, 4, 1024)
    ((1072, 512), (1000, 1024))
    """
    *planes, height, width = (size + -size % grid for size in shape)
    before, _ = split_padding(shape[-2], grid)
    return (*planes, min(height, band + 2 * halo + (grid if before else 0)), width)


@dataclass(frozen=True)
class BandedTiles(TilePlan):
    """Tiles of which none writes into two bands of rows, so that each band is made of its own tiles.

    Attributes
    ----------
    band : int
        Rows of every band but the last, a multiple of `grid`.
    """

    band: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.band < 1 or self.band % self.grid or self.tile[-2] > self.cut_shape[-2]:
            raise ValueError(f"tile {self.tile} does not fit bands of {self.band} rows, halo {self.halo}")

    @property
    def bands(self) -> int:
        """How many there are."""
        return -(-self.shape[-2] // self.band)

    @property
    def cut_shape(self) -> tuple[int, ...]:
        """Shape of what the tiles of the largest band read together."""
        return window_of_band(self.shape, self.halo, self.grid, self.band)

    @property
    def cuts(self) -> int:
        """How many such windows a frame has."""
        return self.bands

    @property
    def tiles(self) -> tuple[tuple[Span, ...], ...]:
        """Every tile, band by band, in row-major order."""
        return tuple(tile for at in range(self.bands) for tile in self.tiles_of(at))

    def tiles_of(self, at: int) -> tuple[tuple[Span, ...], ...]:
        """The tiles of a band, in row-major order."""
        axes = [
            plan_spans(length, size, self.halo, self.grid)
            for length, size in zip(self.padded_shape, self.tile, strict=True)
        ]
        axes[-2] = self._rows_of(at)
        return tuple(product(*axes))

    def part(self, at: int, read: slice) -> PartOfTiles:
        """The tiles of a band for some rows of the frame, which hold all that they read."""
        return PartOfTiles(self.shape, self.tile, self.halo, self.grid, self.band, at, read.start, read.stop)

    def _rows_of(self, at: int) -> tuple[Span, ...]:
        """Spans along y that write a band, on the grid of the padded frame."""
        length, size, (before, _) = self.padded_shape[-2], self.tile[-2], self.padding[-2]
        start = at * self.band + before if at else 0
        stop = (at + 1) * self.band + before if at + 1 < self.bands else length
        low = max(0, start // self.grid * self.grid - self.halo)
        high = min(length, -(-stop // self.grid) * self.grid + self.halo)
        if high - low <= size:
            return (Span(min(low, length - size), start, stop),)
        spans = [
            Span(low + each.read, low + each.start, low + each.stop)
            for each in plan_spans(high - low, size, self.halo, self.grid)
        ]
        edges = [start, *(span.start for span in spans[1:]), stop]
        return tuple(Span(span.read, *ends) for span, ends in zip(spans, pairwise(edges), strict=True))


@dataclass(frozen=True)
class PartOfTiles(BandedTiles):
    """The tiles of one band, for frames of which some rows alone are held, and its own rows are written.

    Attributes
    ----------
    at : int
        Which band.
    first, last : int
        First row of the frame that is held, and one past the last.
    """

    at: int
    first: int
    last: int

    @property
    def first_row(self) -> int:
        """Of the band."""
        return self.at * self.band

    @property
    def tiles(self) -> tuple[tuple[Span, ...], ...]:
        """Those of the band."""
        return self.tiles_of(self.at)

    def pad(self, frame: NDArray[Any]) -> NDArray[Any]:
        """Pad rows ``(*, y, x, channel)`` of a frame where it ends."""
        padding = [*self.padding, (0, 0)]
        before, after = padding[-3]
        padding[-3] = (before if self.first == 0 else 0, after if self.last == self.shape[-2] else 0)
        return np.pad(frame, padding, mode="reflect") if any(map(any, padding)) else frame

    def gather(self, padded: NDArray[Any], tile: Sequence[Span]) -> NDArray[Any]:
        """View of the window that a tile reads from rows that are padded."""
        *planes, rows, columns = tile
        moved = rows.read - (self.first + self.padding[-2][0] if self.first else 0)
        return super().gather(padded, (*planes, Span(moved, rows.start, rows.stop), columns))
