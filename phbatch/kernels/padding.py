"""Padding: the black borders of registered, stitched, cropped or masked images, which no statistic must count.

Pixels are padding that are exactly zero from the border of the frame up to them, along their row or column, where that
row or column starts in a long run of zeros along the border. Four limits per frame say which those are, so that frames
in memory and frames in pieces are cut alike: how far image reaches along every row and column. Straight and slanted
borders, steps and every convex outline are found whole; zeros that the image itself encloses are image.

Smoothing would mix padding into its neighbours. Smoothed pixels are therefore counted only where the Gaussian, and the
Laplacian after it, read no padding; they are the same bits as without padding. White borders count as image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

_LEAST_SIDE = 56  # pixels of a frame; less is a patch or a toy, in which a few zeros are no border
_LEAST_RUN = 24  # zeros along the border; noise about zero makes shorter ones
_RUNS_PER_EDGE = 8  # a run is that part of the edge, if this is longer
_LEAST_IMAGE = 1e-3  # of the frame that must be beyond the reach of the padding; less is no image with a border
_SAMPLES = 256  # along the shorter side, by which that is judged

Limits = NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Extent:
    """Where image is: the pixels whose x is from ``left[y]`` to ``right[y]``, and y from ``top[x]`` to ``bottom[x]``.

    Attributes
    ----------
    left, right : (y,) ndarray of int32
        First column of the image in every row, and one past its last.
    top, bottom : (x,) ndarray of int32
        First row of the image in every column, and one past its last.
    """

    left: Limits
    right: Limits
    top: Limits
    bottom: Limits

    def window(self, rows: slice, columns: slice) -> Extent:
        """The same, within a region and in its coordinates."""
        y, x = rows.start, columns.start
        return Extent(
            self.left[rows] - np.int32(x),
            self.right[rows] - np.int32(x),
            self.top[columns] - np.int32(y),
            self.bottom[columns] - np.int32(y),
        )

    def mask(self, step: int = 1) -> NDArray[np.bool_]:
        """Which pixels of every `step`-th row and column are image, ``(y, x)``."""
        y, x = np.arange(0, self.left.size, step)[:, np.newaxis], np.arange(0, self.top.size, step)
        inside = (x >= self.left[::step, np.newaxis]) & (x < self.right[::step, np.newaxis])
        inside &= (y >= self.top[::step]) & (y < self.bottom[::step])
        return inside

    def shrunk(self, radius: int) -> Extent:
        """Of the pixels that have no padding within `radius` along y and x."""
        height, width, size = self.left.size, self.top.size, 2 * radius + 1

        def after(limits: Limits) -> Limits:
            far = ndimage.maximum_filter1d(limits, size, mode="nearest")
            return np.where(far > 0, far + radius, 0).astype(np.int32)

        def before(limits: Limits, end: int) -> Limits:
            near = ndimage.minimum_filter1d(limits, size, mode="nearest")
            return np.where(near < end, near - radius, end).astype(np.int32)

        return Extent(after(self.left), before(self.right, width), after(self.top), before(self.bottom, height))

    def averaged(self, factor: int) -> Extent:
        """On the grid of averages over factor x factor pixels, where an average of any padding is padding."""

        def after(limits: Limits) -> Limits:
            starts = np.maximum.reduceat(limits, np.arange(0, limits.size, factor))
            return (-(-starts // factor)).astype(np.int32)

        def before(limits: Limits, end: int) -> Limits:
            stops = np.minimum.reduceat(limits, np.arange(0, limits.size, factor))
            return np.where(stops < end, stops // factor, -(-end // factor)).astype(np.int32)

        height, width = self.left.size, self.top.size
        return Extent(after(self.left), before(self.right, width), after(self.top), before(self.bottom, height))


@dataclass(frozen=True, eq=False)
class Padding:
    """What is image in a frame with padding, or in a region of it.

    Attributes
    ----------
    image : Extent
        Of the pixels that are not padding.
    clear : Extent
        Of those whose smoothed values and Laplacian read no padding.
    """

    image: Extent
    clear: Extent

    def window(self, rows: slice, columns: slice) -> Padding:
        """The same, within a region and in its coordinates."""
        return Padding(self.image.window(rows, columns), self.clear.window(rows, columns))


@dataclass(frozen=True, eq=False)
class Runs:
    """Zeros from the border of a block inwards: along every row from the left and right, along every column likewise.

    Attributes
    ----------
    left, right : (y,) ndarray of int32
        Length of the run of zeros at either end of every row.
    top, bottom : (x,) ndarray of int32
        The same of every column.
    """

    left: Limits
    right: Limits
    top: Limits
    bottom: Limits

    @classmethod
    def from_block(cls, block: NDArray[Any]) -> Runs:
        """Of a block ``(y, x)``; next to nothing where its border holds no zeros."""
        turned = block.T
        return cls(
            _runs(block, np.arange(len(block))),
            _runs(block[:, ::-1], np.arange(len(block))),
            _runs(turned, np.arange(len(turned))),
            _runs(turned[:, ::-1], np.arange(len(turned))),
        )


def find_padding(frame: NDArray[Any], radius: int) -> Padding | None:
    """The padding of a frame ``(y, x)`` that is in memory whole; None where it has none.

    Parameters
    ----------
    frame : (y, x) ndarray of a real dtype
        Only its border is looked at where that holds no long run of zeros.
    radius : int
        Pixels that smoothing and the Laplacian read on every side.

    Examples
    --------
    >>> frame = np.full((64, 64), 9, np.uint8)
    >>> frame[:10] = 0
    >>> padding = find_padding(frame, 3)
    >>> int(padding.image.top[5]), int(padding.clear.top[5])
    (10, 13)
    """
    return padding_of(find_extent(frame), radius)


def find_extent(frame: NDArray[Any]) -> Extent | None:
    """Where image is in a frame ``(y, x)``; None where its border holds no long run of zeros."""
    if min(frame.shape) < _LEAST_SIDE:
        return None
    edges = (frame[:, 0], frame[:, -1], frame[0], frame[-1])
    seeds = [_long_runs(edge == 0) for edge in edges]
    if not any(places.size for places in seeds):
        return None
    ways = (frame, frame[:, ::-1], frame.T, frame.T[:, ::-1])
    return _extent_of([_runs(way, places) for way, places in zip(ways, seeds, strict=True)])


def may_have_padding(edges: Sequence[NDArray[Any]]) -> bool:
    """Whether any of the border lines of a frame holds a long run of zeros."""
    return any(_long_runs(edge == 0).size > 0 for edge in edges)


def join_runs(blocks: Sequence[Sequence[Runs]], radius: int) -> Padding | None:
    """The padding of a frame from the runs of its blocks, in rows of blocks; None where it has none."""
    return padding_of(join_extents(blocks), radius)


def join_extents(blocks: Sequence[Sequence[Runs]]) -> Extent | None:
    """Where image is in it."""
    lengths = ([row[0].left.size for row in blocks], [block.top.size for block in blocks[0]])
    if min(map(sum, lengths)) < _LEAST_SIDE:
        return None
    columns = list(zip(*blocks, strict=True))
    left = [_chain([block.left for block in row], lengths[1]) for row in blocks]
    right = [_chain([block.right for block in row[::-1]], lengths[1][::-1]) for row in blocks]
    top = [_chain([block.top for block in column], lengths[0]) for column in columns]
    bottom = [_chain([block.bottom for block in column[::-1]], lengths[0][::-1]) for column in columns]
    found = [np.concatenate(parts) for parts in (left, right, top, bottom)]
    seeded = []
    for runs in found:
        kept = np.zeros_like(runs)
        places = _long_runs(runs > 0)
        kept[places] = runs[places]
        seeded.append(kept)
    return _extent_of(seeded)


def padding_of(extent: Extent | None, radius: int) -> Padding | None:
    """The padding about an image; None where the frame has none, or hardly a pixel is beyond the reach of it."""
    if extent is None:
        return None
    clear = extent.shrunk(radius)
    step = max(1, min(extent.left.size, extent.top.size) // _SAMPLES)
    return Padding(extent, clear) if clear.mask(step).mean() >= _LEAST_IMAGE else None


def image_pixels(frame: NDArray[Any], extents: Sequence[Extent | None]) -> NDArray[Any]:
    """The image pixels of a frame whose planes have these extents, flat."""
    if not any(extents):
        return frame.ravel()
    pairs = zip(frame.reshape(-1, *frame.shape[-2:]), extents, strict=True)
    return np.concatenate([plane.ravel() if extent is None else plane[extent.mask()] for plane, extent in pairs])


def _extent_of(runs: Sequence[Limits]) -> Extent | None:
    left, right, top, bottom = runs
    height, width = np.int32(left.size), np.int32(top.size)
    return Extent(left, width - right, top, height - bottom) if any(run.any() for run in runs) else None


def _long_runs(zeros: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Places of a border line that are in a run of zeros long enough to be padding."""
    if not zeros.any():
        return np.zeros(0, np.intp)
    size = zeros.size
    least = max(_LEAST_RUN, -(-size // _RUNS_PER_EDGE))
    edges = np.flatnonzero(np.diff(np.concatenate([[False], zeros, [False]])))
    starts, stops = edges[::2], edges[1::2]
    long = stops - starts >= least
    return np.concatenate([np.arange(a, b) for a, b in zip(starts[long], stops[long], strict=True)] or [starts[:0]])


def _runs(lines: NDArray[Any], places: NDArray[np.intp]) -> Limits:
    """Length of the run of zeros at the start of some of the lines ``(n, m)``; 0 for the others."""
    lengths = np.zeros(len(lines), np.int32)
    open_, at, step = places[lines[places, 0] == 0], 0, 64
    size = lines.shape[1]
    while open_.size and at < size:  # a piece at a time: most runs are short
        piece = lines[open_, at : at + step] != 0
        ends = piece.any(axis=1)
        lengths[open_[ends]] = at + piece[ends].argmax(axis=1)
        open_, at = open_[~ends], at + piece.shape[1]
    lengths[open_] = size
    return lengths


def _chain(runs: Sequence[Limits], lengths: Sequence[int]) -> Limits:
    """Runs that go on in the next block where they fill one."""
    total = np.zeros_like(runs[0])
    open_ = np.ones(total.size, bool)
    for run, length in zip(runs, lengths, strict=True):
        total[open_] += run[open_]
        open_ &= run == length
    return total
