"""A stream of batches of patches: the same for a seed, from any step on, with a few frames in memory.

Frames are gone through in turns, in a new order each time. A few at once give their patches, which are shuffled among
each other; a frame gives as many as cover it once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from math import prod
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from phbatch.kernels.downsample import area_average
from phbatch.network.learning import Batch
from phbatch.training.pairs import FrameAt, Pair
from phbatch.words.errors import InputError

FOREGROUND, SPARSE = 5.0, 0.2
"""A block of pixels is of a cell where the high frame changes around it, from block to block, so many times as much as
in its flattest places; a patch with a smaller share of such blocks than the second number is one of background."""

_BLOCK = 4  # pixels: wide enough for noise to average out, and narrower than a cell's edge
_NEAR, _FAR = 3, 8  # blocks over which changes are averaged
_FLATTEST = 3.0  # percent of all places, so that nearly crowded frames have them, too
_TRIES = 24  # places that are looked at for each patch


Position = tuple[int, int, int]
"""In a stream: the turn through the frames, the first frame in memory in its order, and patches of these."""


class PairReader(Protocol):
    """What reads pairs."""

    def lengths(self, frame: FrameAt) -> tuple[int, ...]:
        """Along [z,] y and x."""

    def read(self, frame: FrameAt, turn: int) -> Pair | None:
        """A normalized pair."""


@dataclass(frozen=True)
class PatchPlan:
    """How frames are cut.

    Attributes
    ----------
    shape : tuple of int
        Of a patch, along [z,] y and x.
    background : float
        Share of patches without cells, as far as there are such places.
    batch : int
        Patches of a step.
    seed : int
        Of what is drawn.
    at_once : int
        Frames in memory.
    """

    shape: tuple[int, ...]
    background: float
    batch: int
    seed: int
    at_once: int

    def of_frame(self, lengths: Sequence[int]) -> int:
        """Patches that cover a frame once."""
        return max(1, round(prod(lengths) / prod(self.shape)))

    def epochs_per_turn(self, lengths: Sequence[Sequence[int]], steps: int) -> float:
        """Epochs in which every pixel is seen about once.

        Examples
        --------
        >>> plan = PatchPlan((128, 128), 0.2, 16, 0, 4)
        >>> plan.of_frame((1024, 1024)), plan.epochs_per_turn([(1024, 1024)] * 100, 100)
        (64, 4.0)
        """
        return sum(map(self.of_frame, lengths)) / (steps * self.batch)


class PatchStream:
    """Batches of patches of frames.

    Parameters
    ----------
    pairs : PairReader
        Reads and normalizes a pair.
    frames : sequence of FrameAt
        To cut.
    plan : PatchPlan
        How.
    keeps : bool
        Whether a frame is the same each time that it is read, and is kept where all fit in memory.
    """

    def __init__(self, pairs: PairReader, frames: Sequence[FrameAt], plan: PatchPlan, *, keeps: bool) -> None:
        self._pairs, self._frames, self._plan = pairs, list(frames), plan
        self._counts = [plan.of_frame(pairs.lengths(frame)) for frame in self._frames]
        self._kept: dict[int, Pair | None] | None = {} if keeps and len(self._frames) <= plan.at_once else None
        self.drawn = self.of_background = self.unscaled = 0

    def batches(self, at: Position = (0, 0, 0)) -> Iterator[tuple[Batch, Position]]:
        """Batches without end, from a position on, each with the position behind it.

        Raises
        ------
        InputError
            No frame has a scale by the rule.
        """
        patches = self._patches(at)
        while True:
            found = [next(patches) for _ in range(self._plan.batch)]
            low, high = zip(*(patch for patch, _ in found), strict=True)
            yield (np.stack(low), np.stack(high)), found[-1][1]

    def _patches(self, at: Position) -> Iterator[tuple[Batch, Position]]:
        first, begin, skip = at
        for turn in count(first):
            order = np.random.default_rng([self._plan.seed, 1, turn]).permutation(len(self._frames))
            empty = begin == skip == 0
            for start in range(begin, len(order), self._plan.at_once):
                group = [int(index) for index in order[start : start + self._plan.at_once]]
                for done, patch in enumerate(self._of_group(group, turn, start, skip), skip + 1):
                    yield patch, (turn, start, done)
                    empty = False
                skip = 0
            if empty:
                raise InputError(
                    f"none of {len(order)} frames has a scale by the rule (constant, NaN, or a statistic that is not"
                    " above 0); choose another --normalize, or other frames."
                )
            begin = 0

    def _of_group(self, group: list[int], turn: int, start: int, skip: int) -> Iterator[Batch]:
        """Patches of some frames, shuffled, without the first ones; of a frame without a scale, those of another."""
        random = np.random.default_rng([self._plan.seed, 2, turn, start])
        read = {index: self._read(index, turn) for index in group}
        pairs = {index: pair for index, pair in read.items() if pair is not None}
        usable = list(pairs)
        if not usable:
            return
        self.unscaled += len(group) - len(usable)
        places: list[tuple[int, tuple[int, ...], int]] = []
        for index in group:
            source = index if index in pairs else usable[index % len(usable)]
            corners, sparse = draw_corners(pairs[source], self._plan, self._counts[index], random)
            self.of_background += sparse
            self.drawn += len(corners)
            places += [(source, corner, int(random.integers(8))) for corner in corners]
        for at in random.permutation(len(places))[skip:]:
            source, corner, turned = places[int(at)]
            yield cut(pairs[source], corner, self._plan.shape, turned)

    def _read(self, index: int, turn: int) -> Pair | None:
        if self._kept is None:
            return self._pairs.read(self._frames[index], turn)
        if index not in self._kept:
            pair = self._pairs.read(self._frames[index], 0)
            self._kept[index] = None if pair is None else replace(pair, cells=cells_of(pair))
        return self._kept[index]


def cells_of(pair: Pair) -> NDArray[np.bool_]:
    """Where the high frame holds cells: ``([z,] y, x)``, see `FOREGROUND`.

    Changes tell them where levels do not: cells may be as bright as the background, cover most of the frame, or lie in
    uneven light. In a frame without any flat place, few of them are told.
    """
    if pair.cells is not None:
        return pair.cells
    image = pair.high[..., 0]
    blocks = area_average(image, _BLOCK)
    changes = np.zeros_like(blocks)
    changes[..., :-1, :] += np.square(np.diff(blocks, axis=-2))
    changes[..., :-1] += np.square(np.diff(blocks, axis=-1))
    planes = (1,) * (image.ndim - 2)
    near, far = (uniform_filter(changes, (*planes, width, width)) for width in (_NEAR, _FAR))
    usual = far[far > 0]
    floor = np.percentile(usual, _FLATTEST) if usual.size else np.inf
    cells: NDArray[np.bool_] = near > FOREGROUND * floor
    height, width = image.shape[-2:]
    return cells.repeat(_BLOCK, axis=-2).repeat(_BLOCK, axis=-1)[..., :height, :width]


def draw_corners(
    pair: Pair, plan: PatchPlan, number: int, random: np.random.Generator
) -> tuple[list[tuple[int, ...]], int]:
    """First pixels of patches of a frame, and how many of them are of background.

    Of places drawn anywhere, those with the fewest cells are taken for background and the rest for cells.

    Parameters
    ----------
    pair : Pair
        The frame.
    plan : PatchPlan
        Shape and share.
    number : int
        How many.
    random : numpy.random.Generator
        Draws them.
    """
    lengths = pair.high.shape[:-1]
    edges = (0,) * (len(lengths) - 2) + pair.margin
    tries = _TRIES * number
    drawn = np.stack(
        [
            random.integers(edge, length - side - edge + 1, tries)
            for edge, length, side in zip(edges, lengths, plan.shape, strict=True)
        ],
        axis=1,
    )
    sums = np.pad(cells_of(pair).astype(np.int64), [(1, 0)] * len(lengths))
    for axis in range(len(lengths)):
        sums.cumsum(axis, out=sums)
    shares = np.zeros(tries)
    for corner in np.ndindex((2,) * len(lengths)):
        sign = (-1) ** (len(lengths) - sum(corner))
        shares += sign * sums[tuple((drawn + np.array(corner) * plan.shape).T)]
    shares /= prod(plan.shape)
    sparse, dense = np.flatnonzero(shares < SPARSE), np.flatnonzero(shares >= SPARSE)
    wanted = int(plan.background * number + random.random())
    n_sparse = min(wanted, len(sparse), number)
    n_dense = min(number - n_sparse, len(dense))
    n_sparse = number - n_dense  # where there are too few cells
    chosen = [*sparse[:n_sparse], *dense[:n_dense]]
    return [tuple(int(at) for at in drawn[index]) for index in chosen], n_sparse


def cut(pair: Pair, corner: Sequence[int], shape: Sequence[int], turned: int) -> Batch:
    """A patch of both frames, turned by quarters and flipped: `turned` is from 0 to 7."""
    region = tuple(slice(start, start + side) for start, side in zip(corner, shape, strict=True))
    plane = (len(shape) - 2, len(shape) - 1)
    parts = []
    for image in (pair.low, pair.high):
        part = np.rot90(image[region], turned % 4, plane)
        parts.append(np.flip(part, plane[1]) if turned >= 4 else part)
    return parts[0], parts[1]
