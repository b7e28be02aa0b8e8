"""Statistics of frames that are too large for one task: three rows of chunks in memory, whatever the height."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial, reduce
from typing import Any

import dask.threaded
import numpy as np
from numpy.typing import NDArray

from phbatch.frames.light import Corrections, as_read, count_fractions, in_counts
from phbatch.frames.recipe import Recipe
from phbatch.frames.table import StatisticsRow
from phbatch.inputs.image import Source
from phbatch.kernels.counting import halo_of_counting
from phbatch.kernels.glance import glance_at_blocks
from phbatch.kernels.padding import Extent, Padding, Runs, join_extents, may_have_padding, padding_of
from phbatch.kernels.stats import FrameStatistics, State, finalize, from_block, merge
from phbatch.planning.passes import reduction_chunks
from phbatch.running.prepared import Pixels, PreparedPixels
from phbatch.words.axes import FrameKey, to_region

_JOINED = 16  # states that a task merges
_GLANCED = 512  # rows of a frame that is only copied


class LargeFrames:
    """Frames that are too large for one task, each reduced over its chunks, one row of chunks after the other.

    The chunks of a row and the tree that merges them are a graph of Dask's threaded scheduler. Rows are not: what they
    share is read by threads beside it and held, since three rows are all that has a place in memory; nor are frames,
    for which `phbatch.computing.engine` would want a task each.

    Parameters
    ----------
    source : Source
        Every chunk is decoded once, those at the border twice, and all of a frame with padding three times at most. Of
        averages, and where light is corrected, the frame as it is read is summarized, too.
    recipe : Recipe
        How frames are prepared and measured.
    workers : int
        Threads that read and measure chunks.
    corrections : callable, optional
        The map of light of a channel and plane of the image.
    """

    def __init__(self, source: Source, recipe: Recipe, workers: int, corrections: Corrections | None = None) -> None:
        self._source, self._recipe, self._workers = source, recipe, workers
        self._prepared = PreparedPixels(source, recipe.preparation, corrections)
        self._radius = halo_of_counting(recipe.rule.sigma)

    def states(self, keys: Iterable[FrameKey]) -> Iterator[tuple[FrameKey, State]]:
        """Mergeable states of frames as the normalization sees them."""
        with ThreadPoolExecutor(self._workers) as pool:
            for key in keys:
                yield key, self._state(key, self._find_extent(key, pool), pool)

    def statistics(self, keys: Iterable[FrameKey]) -> Iterator[StatisticsRow]:
        """Statistics of frames; exact for 8 and 16 bit integers, else as `phbatch.kernels.stats.finalize` states."""
        with ThreadPoolExecutor(self._workers) as pool:
            for key in keys:
                yield StatisticsRow(key, self._measure(key, pool))

    def _measure(self, key: FrameKey, pool: ThreadPoolExecutor) -> FrameStatistics:
        recipe = self._recipe
        if recipe.copies or key.c in recipe.copied:
            return glance_at_blocks(partial(self._glanced_rows, key), recipe.all_percentiles)
        extent = self._find_extent(key, pool)
        state = self._state(key, extent, pool)
        if not recipe.preparation.changes_pixels:
            return finalize(state, recipe.all_percentiles)
        found = in_counts(finalize(state, recipe.all_percentiles), count_fractions(self._source.dtype))
        raw = self._raw_state(key, extent if self._padding(extent) else None, pool)
        return as_read(found, raw) if raw.finite else found

    def _glanced_rows(self, key: FrameKey) -> Iterator[NDArray[Any]]:
        height, width = self._source.shape[3:]
        for top in range(0, height, _GLANCED):
            yield _read_part(self._source, key, slice(top, min(top + _GLANCED, height)), slice(0, width))

    def _state(self, key: FrameKey, extent: Extent | None, pool: ThreadPoolExecutor) -> State:
        image = self._prepared if self._recipe.preparation.changes_pixels else self._source
        return _reduce_rows(self._rows(image, key, pool), self._recipe.rule.sigma, self._padding(extent))

    def _raw_state(self, key: FrameKey, extent: Extent | None, pool: ThreadPoolExecutor) -> State:
        padding = None if extent is None else Padding(extent, extent.shrunk(self._radius))
        return _reduce_rows(self._rows(self._source, key, pool), self._recipe.rule.sigma, padding)

    def _padding(self, extent: Extent | None) -> Padding | None:
        factor = self._recipe.preparation.downscale
        return padding_of(extent if extent is None or factor == 1 else extent.averaged(factor), self._radius)

    def _rows(self, image: Pixels, key: FrameKey, pool: ThreadPoolExecutor) -> _Rows:
        return _Rows(image, key, reduction_chunks(image.chunks[3:]), self._radius, pool)

    def _find_extent(self, key: FrameKey, pool: ThreadPoolExecutor) -> Extent | None:
        return _find_extent(self._source, key, reduction_chunks(self._source.chunks[3:]), pool)


@dataclass(eq=False)
class _Rows:
    """A ``yx`` frame of a source, of which the rows of chunks are held that the present one and its halo need."""

    source: Pixels
    key: FrameKey
    chunks: Sequence[int]
    radius: int
    pool: ThreadPoolExecutor
    held: dict[int, NDArray[Any]] = field(default_factory=dict)

    @property
    def columns(self) -> list[int]:
        """Where the chunks of a row start."""
        return list(range(0, self.source.shape[4], self.chunks[1]))

    def move_to(self, top: int) -> None:
        """Forget the rows that end before the halo of that which starts at `top`, and read those up to its end."""
        height = self.source.shape[3]
        first, last = max(top - self.radius, 0), min(top + self.chunks[0] + self.radius, height)
        needed = range(first // self.chunks[0] * self.chunks[0], last, self.chunks[0])
        self.held = {start: self.held[start] for start in needed if start in self.held}
        for start in needed[len(self.held) :]:
            row = np.empty((min(self.chunks[0], height - start), self.source.shape[4]), self.source.dtype)
            list(self.pool.map(partial(self._read, row, start), self.columns))
            self.held[start] = row

    def block(self, top: int, left: int) -> tuple[NDArray[Any], list[tuple[int, int]]]:
        """One chunk with its halo, and how wide that is; less where the frame ends."""
        spans, halo = [], []
        for start, chunk, size in zip((top, left), self.chunks, self.source.shape[3:], strict=True):
            stop = min(start + chunk, size)
            halo.append((min(self.radius, start), min(self.radius, size - stop)))
            spans.append((start - halo[-1][0], stop + halo[-1][1]))
        (first, last), columns = spans[0], slice(*spans[1])
        parts = [row[max(first - start, 0) : max(last - start, 0), columns] for start, row in self.held.items()]
        return np.concatenate(parts), halo

    def _read(self, row: NDArray[Any], top: int, left: int) -> None:
        right = min(left + self.chunks[1], row.shape[1])
        row[:, left:right] = _read_part(self.source, self.key, slice(top, top + len(row)), slice(left, right))


def _read_part(source: Pixels, key: FrameKey, rows: slice, columns: slice) -> NDArray[Any]:
    t, c, z = key.t, key.c, key.z or 0
    region = to_region((t, c, z, rows.start, columns.start), (t + 1, c + 1, z + 1, rows.stop, columns.stop))
    part: NDArray[Any] = source.read_or_refuse(region)[0, 0, 0]
    return part


def _find_extent(source: Pixels, key: FrameKey, chunks: Sequence[int], pool: ThreadPoolExecutor) -> Extent | None:
    """From the zeros at the borders of all parts, where the border of the frame holds some."""
    height, width = source.shape[3:]
    rows, columns = (
        [slice(start, min(start + chunk, size)) for start in range(0, size, chunk)]
        for chunk, size in zip(chunks, (height, width), strict=True)
    )
    if min(len(rows), len(columns)) > 2:  # else all chunks are at the border
        lines = [(slice(y, y + 1), slice(0, width)) for y in (0, height - 1)]
        lines += [(slice(0, height), slice(x, x + 1)) for x in (0, width - 1)]
        if not may_have_padding([_read_part(source, key, *line).ravel() for line in lines]):
            return None

    def look(row: slice, column: slice) -> Runs:
        return Runs.from_block(_read_part(source, key, row, column))

    return join_extents([list(pool.map(partial(look, row), columns)) for row in rows])


def _reduce_rows(rows: _Rows, sigma: float, padding: Padding | None) -> State:
    height, width = rows.source.shape[3:]

    def summarize(top: int, left: int) -> State:
        block, halo = rows.block(top, left)
        own = (slice(top, min(top + rows.chunks[0], height)), slice(left, min(left + rows.chunks[1], width)))
        return from_block(block, sigma, halo, padding and padding.window(*own))

    above: dict[str, State] = {}
    for top in range(0, rows.source.shape[3], rows.chunks[0]):
        rows.move_to(top)
        tasks = {f"measure-{rows.key}/y{top}/x{left}": (summarize, top, left) for left in rows.columns}
        root, nodes = _join_in_tree([*above, *tasks], f"join-{rows.key}/y{top}")
        above = {root: dask.threaded.get(above | tasks | nodes, root, pool=rows.pool, callbacks=())}
    (state,) = above.values()
    return state


def _join_in_tree(keys: Sequence[str], name: str) -> tuple[str, dict[str, tuple[Any, ...]]]:
    """Tasks of a graph that merge what these make, some at a time, and the key of the last."""
    nodes: dict[str, tuple[Any, ...]] = {}
    while len(keys) > 1:
        groups = [list(keys[first : first + _JOINED]) for first in range(0, len(keys), _JOINED)]
        made = {f"{name}-{len(nodes) + number}": (_merge_all, group) for number, group in enumerate(groups)}
        nodes |= made
        keys = list(made)
    return keys[0], nodes


def _merge_all(states: Sequence[State]) -> State:
    return reduce(merge, states)
