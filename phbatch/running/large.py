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

from phbatch.frames.recipe import Recipe
from phbatch.frames.table import StatisticsRow
from phbatch.inputs.image import Source
from phbatch.kernels.counting import halo_of_counting
from phbatch.kernels.padding import Padding, Runs, join_runs, may_have_padding
from phbatch.kernels.stats import State, finalize, from_block, merge
from phbatch.planning.passes import reduction_chunks
from phbatch.planning.units import Geometry
from phbatch.words.axes import FrameKey, to_region

_JOINED = 16  # states that a task merges


def reduce_large_frames(
    source: Source, keys: Iterable[FrameKey], sigma: float, workers: int
) -> Iterator[tuple[FrameKey, State]]:
    """Mergeable states of frames, each reduced over its chunks, one row of chunks after the other.

    The chunks of a row and the tree that merges them are a graph of Dask's threaded scheduler. Rows are not: what they
    share is read by threads beside it and held, since three rows are all that has a place in memory; nor are frames,
    for which `phbatch.computing.engine` would want a task each.

    Parameters
    ----------
    source : Source
        Every chunk is decoded once, those at the border twice, and all of a frame with padding three times at most.
    keys : iterable of FrameKey
        Which frames.
    sigma : float
        Standard deviation of the Gaussian in pixels.
    workers : int
        Threads that read and measure chunks.
    """
    with ThreadPoolExecutor(workers) as pool:
        for key in keys:
            chunks, radius = reduction_chunks(source.chunks[3:]), halo_of_counting(sigma)
            padding = _find_padding(source, key, chunks, radius, pool)
            yield key, _reduce_rows(_Rows(source, key, chunks, radius, pool), sigma, padding)


def measure_large_frames(source: Source, geometry: Geometry, recipe: Recipe, workers: int) -> Iterator[StatisticsRow]:
    """Statistics of the frames of a geometry, in the order of t, c, z; parameters as for `reduce_large_frames`.

    Yields
    ------
    StatisticsRow
        One per frame; exact for 8 and 16 bit integers, for other dtypes within the error that
        `phbatch.kernels.stats.finalize` states.
    """
    for key, state in reduce_large_frames(source, geometry.grid, recipe.rule.sigma, workers):
        yield StatisticsRow(key, finalize(state, recipe.all_percentiles))


@dataclass(eq=False)
class _Rows:
    """A ``yx`` frame of a source, of which the rows of chunks are held that the present one and its halo need."""

    source: Source
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


def _read_part(source: Source, key: FrameKey, rows: slice, columns: slice) -> NDArray[Any]:
    t, c, z = key.t, key.c, key.z or 0
    region = to_region((t, c, z, rows.start, columns.start), (t + 1, c + 1, z + 1, rows.stop, columns.stop))
    part: NDArray[Any] = source.read_or_refuse(region)[0, 0, 0]
    return part


def _find_padding(
    source: Source, key: FrameKey, chunks: Sequence[int], radius: int, pool: ThreadPoolExecutor
) -> Padding | None:
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

    return join_runs([list(pool.map(partial(look, row), columns)) for row in rows], radius)


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
