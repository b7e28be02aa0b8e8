"""The restoration stage: normalize, tile, predict, put together, rescale, cast; a block in, a block out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phbatch.frames.clock import StageClock
from phbatch.frames.light import Corrections, Preparation, PreparedFrame, prepare_frame
from phbatch.frames.recipe import Recipe
from phbatch.frames.rows import Rows
from phbatch.frames.tiles import Batches, Lane, NetworkFrame, Predict
from phbatch.kernels.bands import BandedTiles
from phbatch.kernels.downsample import upscale
from phbatch.kernels.glance import glance_at
from phbatch.kernels.intensity import Affine, cast, make_affine
from phbatch.kernels.pyramid import empty_levels, make_levels
from phbatch.kernels.stats import FrameStatistics
from phbatch.kernels.tiling import TilePlan
from phbatch.network.steps import Prediction, Windows
from phbatch.words.axes import frame_indices
from phbatch.words.choices import LevelMethod

FrameIndex = tuple[int, int, int | None]


@dataclass(frozen=True, eq=False)
class RestoredBlock:
    """What `restore_block` makes of a block.

    Attributes
    ----------
    image : (t, c, z, y, x) ndarray
        Restored frames in the output's dtype.
    uncertainty : (t, c, z, y, x) ndarray of float32, or None
        Scale of the Laplace distribution of a probabilistic network.
    statistics : dict of (t, c, z) to FrameStatistics
        Of the frames of the input, by their indices within the block.
    clipped : int
        Pixels that the output's dtype, or the range that it stands for, could not hold.
    coarser, coarser_uncertainty : list of (t, c, z, y, x) ndarray
        Levels of `image` and `uncertainty`, each of half the length of the one before along y and x.
    """

    image: NDArray[Any]
    uncertainty: NDArray[np.float32] | None
    statistics: dict[FrameIndex, FrameStatistics]
    clipped: int
    coarser: list[NDArray[Any]] = field(default_factory=list)
    coarser_uncertainty: list[NDArray[Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Levels:
    """Coarser levels that are made of what is restored.

    Attributes
    ----------
    count : int
        How many.
    method : {"mean", "mode"}
        How those of the image are made; of its uncertainty they are means.
    """

    count: int = 0
    method: LevelMethod = "mean"


def restore_block(
    block: NDArray[Any],
    recipe: Recipe,
    predict: Predict | Lane | None,
    measured: Mapping[FrameIndex, FrameStatistics] | None = None,
    corrections: Corrections | None = None,
    clock: StageClock | None = None,
    copied: frozenset[int] = frozenset(),
    rows: Rows | None = None,
    levels: Levels = Levels(),
) -> RestoredBlock:
    """Take a block of whole frames, or of a band of them, through everything.

    Parameters
    ----------
    block : (t, c, z, y, x) ndarray
        Raw frames, or rows of them.
    recipe : Recipe
        What to do.
    predict : callable, Lane or None
        The network on batches of tiles; None normalizes only.
    measured : mapping of (t, c, z) to FrameStatistics, optional
        From an earlier pass; else the frames are measured here.
    corrections : callable, optional
        Of a given profile of uneven light.
    clock : StageClock, optional
        Told where the time goes.
    copied : frozenset of int
        Channels of the block that are passed through, and of which little is measured.
    rows : Rows, optional
        Which rows of the frames these are; their statistics should be known then, since rows alone have others. They
        begin at a multiple of the rows that a pixel of the coarsest level stands for.
    levels : Levels, optional
        Coarser levels that are made along with it; none by default.

    Returns
    -------
    RestoredBlock
        A frame that cannot be normalized (constant, not finite, or without a positive statistic) is passed through
        unchanged and flagged.
    """
    clock = clock or StageClock()
    if recipe.copies:
        return _copy_block(block if rows is None else block[..., rows.within, :], recipe, measured, clock, levels)
    output = _Output(recipe, block.shape, clock, rows, levels)
    batches = None
    if predict is not None and recipe.tiles is not None:
        batches = Batches(_tiles_of(recipe.tiles, rows), recipe.batch, _timed(predict, clock))
    statistics: dict[FrameIndex, FrameStatistics] = {}
    for index, channels in _frames(block, recipe):
        if index[1] in copied:
            frame = _copied_frame(block, index, recipe, measured, clock)
        else:
            frame = _judge_channels(block, index, channels, recipe, measured, corrections, clock)
            if rows is not None and rows.corners is not None:
                frame = replace(frame, corners=_first_pixels(rows.corners, index, channels, recipe))
        statistics.update(frame.statistics)
        if frame.unchanged or batches is None:
            output.fill(frame)
        else:
            for done in batches.add(output.open(frame)):
                output.close(done)
    for done in batches.finish() if batches is not None else ():
        output.close(done)
    return RestoredBlock(
        output.image, output.uncertainty, statistics, output.clipped, output.coarser, output.coarser_uncertainty
    )


def _copy_block(
    block: NDArray[Any],
    recipe: Recipe,
    measured: Mapping[FrameIndex, FrameStatistics] | None,
    clock: StageClock,
    levels: Levels,
) -> RestoredBlock:
    """The pixels as they are, of which little is measured."""
    if measured is None:
        with clock("measure"):
            measured = {
                (t, c, z): glance_at(block[t, c] if z is None else block[t, c, z], recipe.all_percentiles)
                for t, c, z in frame_indices(block.shape, volumes=recipe.volumes)
            }
    with clock("levels"):
        coarser = make_levels(block, levels.count, levels.method)
    return RestoredBlock(block, None, dict(measured), 0, coarser)


def _tiles_of(tiles: TilePlan, rows: Rows | None) -> TilePlan:
    """The tiles that make some rows."""
    return (
        tiles.part(rows.own.start // tiles.band, rows.held)
        if rows is not None and isinstance(tiles, BandedTiles)
        else tiles
    )


def _timed(predict: Predict | Lane, clock: StageClock) -> Lane:
    lane = Lane.of(predict)

    def begin(windows: Windows) -> Callable[[], Prediction]:
        with clock("predict"):
            collect = lane.begin(windows)

        def wait() -> Prediction:
            with clock("predict"):
                return collect()

        return wait

    return Lane(begin, lane.ahead)


class _Output:
    """The block that is filled frame by frame: by the network where it is, or from buffers of another grid or dtype."""

    def __init__(
        self, recipe: Recipe, shape: tuple[int, ...], clock: StageClock, rows: Rows | None, levels: Levels
    ) -> None:
        n_t, n_c, n_z = shape[:3]
        n_output = recipe.n_output if recipe.stacked else n_c * recipe.n_output
        height, width = recipe.output_lengths(shape[3:])
        filled = (n_t, n_output, n_z, height if rows is None else rows.count, width)
        self.image: NDArray[Any] = np.empty(filled, recipe.dtype)
        self.uncertainty = np.empty(filled, np.float32) if recipe.uncertainty else None
        self.clipped = 0
        self.coarser = empty_levels(filled, recipe.dtype, levels.count)
        self.coarser_uncertainty = empty_levels(filled, np.float32, levels.count if recipe.uncertainty else 0)
        self._recipe, self._clock, self._rows, self._levels = recipe, clock, rows, levels

    def fill(self, frame: _JudgedFrame) -> None:
        """A frame that no network sees."""
        frame = frame if self._rows is None else frame.of_rows(self._rows.within)
        place, recipe = self._place(frame), self._recipe
        in_place = recipe.dtype == "float32" and recipe.upscale_to is None
        mean = self.image[place] if in_place else np.empty((recipe.n_output, *frame.shape), np.float32)
        if self.uncertainty is not None:
            self.uncertainty[place] = 0
        along = in_place and self._levels.method == "mean" and not recipe.rescale
        with self._clock("normalize"):
            frame.normalize(recipe, mean, self._levels_of(frame, self.coarser) if along else ())
        if not in_place:
            self._put(frame, self.image, mean)
        self._coarsen(frame, self.image, () if along else self.coarser, self._levels.method)
        self._coarsen(frame, self.uncertainty, self.coarser_uncertainty, "mean")

    def open(self, frame: _JudgedFrame) -> NetworkFrame:
        """What the network takes of a frame, and where it leaves what it makes: channels last."""
        with self._clock("normalize"):
            pixels, scaling = frame.windows(self._recipe.windows)
        if self._recipe.upscale_to is None:
            place = self._place(frame)
            image = np.moveaxis(self.image[place], 0, -1)
            scale = None if self.uncertainty is None else np.moveaxis(self.uncertainty[place], 0, -1)
        else:
            shape = (*frame.shape, self._recipe.n_output)
            image = np.empty(shape, np.float32)
            scale = None if self.uncertainty is None else np.empty(shape, np.float32)
        return NetworkFrame(frame, pixels, scaling, image, scale)

    def close(self, done: NetworkFrame) -> None:
        """A frame that the network has filled."""
        self.clipped += done.clipped
        if self._recipe.upscale_to is not None:
            self._put(done.frame, self.image, np.moveaxis(done.image, -1, 0))
            if self.uncertainty is not None and done.scale is not None:
                self._put(done.frame, self.uncertainty, np.moveaxis(done.scale, -1, 0))
        self._coarsen(done.frame, self.image, self.coarser, self._levels.method)
        self._coarsen(done.frame, self.uncertainty, self.coarser_uncertainty, "mean")

    def _put(self, frame: _JudgedFrame, target: NDArray[Any], values: NDArray[np.float32]) -> None:
        """Bring a frame ``(channel, [z,] y, x)`` onto the output's grid and into its dtype."""
        recipe = self._recipe
        with self._clock("cast"):
            if recipe.upscale_to not in (None, values.shape[-2:]):
                values = upscale(values, recipe.preparation.downscale, recipe.upscale_to)
            packing = None if frame.unchanged else recipe.packing
            target[self._place(frame)], clipped = cast(values, target.dtype, packing)
        self.clipped += clipped

    def _levels_of(self, frame: _JudgedFrame, coarser: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        return [pixels[self._place(frame)] for pixels in coarser]

    def _coarsen(
        self, frame: _JudgedFrame, image: NDArray[Any] | None, coarser: Sequence[NDArray[Any]], method: LevelMethod
    ) -> None:
        """Coarser levels of a frame that is done."""
        if image is not None and coarser:
            with self._clock("levels"):
                make_levels(image[self._place(frame)], len(coarser), method, self._levels_of(frame, coarser))

    def _place(self, frame: _JudgedFrame) -> tuple[Any, ...]:
        """Where the output of a frame is within the block."""
        t, c, z = frame.index
        channels = slice(c * self._recipe.n_output, (c + 1) * self._recipe.n_output)
        return (t, channels) if z is None else (t, channels, z)


@dataclass(frozen=True, eq=False)
class _JudgedFrame:
    """One frame of the network, of which it is known what will be done with it.

    Attributes
    ----------
    index : (t, c, z)
        Of the frame, c being its first channel.
    frames : list of PreparedFrame
        Its channels.
    affines : list of Affine or None
        Of every channel; None where it has no scale.
    unchanged : bool
        Whether the frame is passed through.
    skipped : bool
        Whether zeros are written in its place.
    statistics : dict of (t, c, z) to FrameStatistics
        Of every channel.
    corners : tuple of float, or None
        First pixel of every channel, where it is not the first of those that are held.
    """

    index: FrameIndex
    frames: list[PreparedFrame]
    affines: list[Affine | None]
    unchanged: bool
    skipped: bool
    statistics: dict[FrameIndex, FrameStatistics]
    corners: tuple[float, ...] | None = None

    @property
    def usable(self) -> list[Affine]:
        """One bad channel of several is background to the network: zeros."""
        corners = self.corners or [float(frame.pixels.flat[0]) for frame in self.frames]
        return [
            affine if affine is not None else Affine(corner)
            for affine, corner in zip(self.affines, corners, strict=True)
        ]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of every channel: ([z,] y, x)."""
        return self.frames[0].pixels.shape

    def of_rows(self, rows: slice) -> _JudgedFrame:
        """Some rows of it."""
        return replace(self, frames=[frame.of_rows(rows) for frame in self.frames])

    def normalize(self, recipe: Recipe, out: NDArray[np.float32], levels: Sequence[NDArray[np.float32]] = ()) -> None:
        """Without a network: fill the channels ``(channel, [z,] y, x)``, normalized and rescaled, or as they are.

        Coarser levels, where they are given, are filled with the means of what is normalized.
        """
        if self.unchanged and (self.skipped or len(self.frames) != len(out)):
            for pixels in (out, *levels):
                pixels[:] = 0
        elif self.unchanged:
            for channel, (frame, plane) in enumerate(zip(self.frames, out, strict=True)):
                Affine().apply(frame.pixels, plane, [level[channel] for level in levels])
        else:
            self._normalize(out, levels)
            if recipe.rescale:
                for affine, plane in zip(self.usable, out, strict=True):
                    plane[:] = affine.invert(plane)

    def windows(self, dtype: str) -> tuple[NDArray[Any], NDArray[np.float32]]:
        """For the network: pixels ``([z,] y, x, channel)`` of a dtype, and how they are scaled, see `Windows`.

        They are normalized on its device; here where the light is corrected, which is one pass together.
        """
        corrected = any(frame.corrections for frame in self.frames)
        if corrected:
            planes = list(self._normalize(np.empty((len(self.frames), *self.shape), np.float32)))
        else:
            planes = [frame.pixels for frame in self.frames]
        pixels = planes[0][..., np.newaxis] if len(planes) == 1 else np.stack(planes, axis=-1)
        scaling = [
            (0.0, 1.0, affine.span, affine.offset)
            if corrected
            else (affine.offset, affine.divisor, affine.span, affine.offset)
            for affine in self.usable
        ]
        return pixels.astype(dtype, copy=False), np.array(scaling, np.float32).T

    def _normalize(self, out: NDArray[np.float32], levels: Sequence[NDArray[np.float32]] = ()) -> NDArray[np.float32]:
        for channel, (affine, known, frame) in enumerate(zip(self.usable, self.affines, self.frames, strict=True)):
            coarser = [level[channel] for level in levels]
            if known is None:
                affine.apply(frame.pixels, out[channel], coarser)
            else:
                frame.normalize(affine, out[channel], coarser)
        return out


def _judge_channels(
    block: NDArray[Any],
    index: FrameIndex,
    channels: list[int],
    recipe: Recipe,
    measured: Mapping[FrameIndex, FrameStatistics] | None,
    corrections: Corrections | None,
    clock: StageClock,
) -> _JudgedFrame:
    t, _, z = index
    with clock("normalize"):
        frames = [prepare_frame(block, (t, channel, z), recipe.preparation, corrections) for channel in channels]
    statistics: dict[FrameIndex, FrameStatistics] = {}
    affines: list[Affine | None] = []
    for channel, frame in zip(channels, frames, strict=True):
        row = measured[t, channel, z] if measured is not None else None
        with clock("measure"):
            statistics[t, channel, z], affine = _judge_frame(frame, row, recipe)
        affines.append(affine)
    bad = recipe.bad_frames != "normalize" and any(row.flags for row in statistics.values())
    unchanged = bad or all(affine is None for affine in affines)
    return _JudgedFrame(index, frames, affines, unchanged, bad and recipe.bad_frames == "skip", statistics)


def _first_pixels(
    corners: NDArray[Any], index: FrameIndex, channels: Sequence[int], recipe: Recipe
) -> tuple[float, ...]:
    """Of whole frames, as they are averaged."""
    averaged = Preparation(recipe.preparation.downscale)
    t, _, z = index
    return tuple(float(prepare_frame(corners, (t, c, z), averaged, None).pixels.flat[0]) for c in channels)


def _copied_frame(
    block: NDArray[Any],
    index: FrameIndex,
    recipe: Recipe,
    measured: Mapping[FrameIndex, FrameStatistics] | None,
    clock: StageClock,
) -> _JudgedFrame:
    """A frame that is passed through since its channel is."""
    frame = prepare_frame(block, index, Preparation(), None)
    with clock("measure"):
        known = measured[index] if measured is not None and recipe.in_bands else None
        statistics = known or glance_at(frame.pixels, recipe.all_percentiles)
    return _JudgedFrame(index, [frame], [None], True, False, {index: statistics})


def _judge_frame(
    frame: PreparedFrame, measured: FrameStatistics | None, recipe: Recipe
) -> tuple[FrameStatistics, Affine | None]:
    """Statistics of a frame, flagged where they give no map, and the map."""
    row = measured if measured is not None else frame.measure(recipe.rule.sigma, recipe.all_percentiles)
    affine = make_affine(row, recipe.rule)
    if affine is None and set(row.flags) <= {"uncorrected"}:
        row = replace(row, flags=("unscaled", *row.flags))
    return row, affine


def _frames(block: NDArray[Any], recipe: Recipe) -> list[tuple[FrameIndex, list[int]]]:
    """Every network frame: its (t, first channel, z), and the channels that it takes."""
    n_t, n_c, n_z = block.shape[:3]
    groups = [list(range(n_c))] if recipe.stacked else [[c] for c in range(n_c)]
    planes: Sequence[int | None] = [None] if recipe.volumes else range(n_z)
    return [((t, group[0], z), group) for t in range(n_t) for group in groups for z in planes]
