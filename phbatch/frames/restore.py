"""The restoration stage: normalize, tile, predict, put together, rescale, cast; a block in, a block out."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phbatch.frames.clock import StageClock
from phbatch.frames.light import Corrections, PreparedFrame, prepare_frame
from phbatch.frames.recipe import Recipe
from phbatch.frames.tiles import NetworkFrame, Predict, predict_frames
from phbatch.kernels.downsample import upscale
from phbatch.kernels.intensity import Affine, cast, make_affine
from phbatch.kernels.stats import FrameStatistics
from phbatch.network.steps import Prediction, Windows

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
    """

    image: NDArray[Any]
    uncertainty: NDArray[np.float32] | None
    statistics: dict[FrameIndex, FrameStatistics]
    clipped: int


def restore_block(
    block: NDArray[Any],
    recipe: Recipe,
    predict: Predict | None,
    measured: Mapping[FrameIndex, FrameStatistics] | None = None,
    corrections: Corrections | None = None,
    clock: StageClock | None = None,
) -> RestoredBlock:
    """Take a block of whole frames through everything.

    Parameters
    ----------
    block : (t, c, z, y, x) ndarray
        Raw frames.
    recipe : Recipe
        What to do.
    predict : callable or None
        The network on batches of tiles; None normalizes only.
    measured : mapping of (t, c, z) to FrameStatistics, optional
        From an earlier pass; else the frames are measured here.
    corrections : callable, optional
        Of a given profile of uneven light.
    clock : StageClock, optional
        Told where the time goes.

    Returns
    -------
    RestoredBlock
        A frame that cannot be normalized (constant, not finite, or without a positive statistic) is passed through
        unchanged and flagged.
    """
    statistics: dict[FrameIndex, FrameStatistics] = {}
    n_t, n_c, n_z = block.shape[:3]
    n_output = recipe.n_output if recipe.stacked else n_c * recipe.n_output
    shape = (n_t, n_output, n_z, *recipe.output_lengths(block.shape[3:]))
    image = np.empty(shape, recipe.dtype)
    uncertainty = np.empty(shape, np.float32) if recipe.uncertainty else None
    in_place = recipe.dtype == "float32" and recipe.upscale_to is None
    clipped = 0
    clock = clock or StageClock()

    def finish(frame: _JudgedFrame, mean: NDArray[Any], scale: NDArray[np.float32] | None = None) -> None:
        """Put a frame ``(channel, [z,] y, x)`` into its place: on the output's grid, and in its dtype."""
        nonlocal clipped
        place = _place(frame.index, recipe)
        with clock("cast"):
            if recipe.upscale_to is not None:
                mean = upscale(mean, recipe.preparation.downscale, recipe.upscale_to)
                scale = None if scale is None else upscale(scale, recipe.preparation.downscale, recipe.upscale_to)
            values, lost = cast(mean, image.dtype, None if frame.unchanged else recipe.packing)
            clipped += lost
            if not np.may_share_memory(values, image):
                image[place] = values
            if uncertainty is not None:
                uncertainty[place] = 0 if scale is None else scale

    def network_frames() -> Iterator[NetworkFrame]:
        for index, channels in _frames(block, recipe):
            frame = _judge_channels(block, index, channels, recipe, measured, corrections, clock)
            statistics.update(frame.statistics)
            if frame.unchanged or predict is None:
                with clock("normalize"):
                    mean = frame.normalize(recipe, image[_place(index, recipe)] if in_place else None)
                finish(frame, mean)
            else:
                with clock("normalize"):
                    pixels, scaling = frame.windows(recipe.windows)
                outputs = (
                    _own_buffers(frame, recipe) if recipe.upscale_to else _views(frame, image, uncertainty, recipe)
                )
                yield NetworkFrame(frame, pixels, scaling, *outputs)

    if predict is None or recipe.tiles is None:
        deque(network_frames(), maxlen=0)
    else:
        for done in predict_frames(network_frames(), recipe.tiles, recipe.batch, _timed(predict, clock)):
            clipped += done.clipped
            if recipe.upscale_to is not None:
                scale = None if done.scale is None else np.moveaxis(done.scale, -1, 0)
                finish(done.frame, np.moveaxis(done.image, -1, 0), scale)
    return RestoredBlock(image, uncertainty, statistics, clipped)


def _timed(predict: Predict, clock: StageClock) -> Predict:
    def call(windows: Windows) -> Prediction:
        with clock("predict"):
            return predict(windows)

    return call


def _place(index: FrameIndex, recipe: Recipe) -> tuple[Any, ...]:
    """Where the output of a frame is within the block."""
    t, c, z = index
    target = slice(c * recipe.n_output, (c + 1) * recipe.n_output)
    return (t, target) if z is None else (t, target, z)


def _views(
    frame: _JudgedFrame, image: NDArray[Any], uncertainty: NDArray[np.float32] | None, recipe: Recipe
) -> tuple[NDArray[Any], NDArray[np.float32] | None]:
    """Where a frame's mean and scale go, with channels last."""
    place = _place(frame.index, recipe)
    scale = None if uncertainty is None else np.moveaxis(uncertainty[place], 0, -1)
    return np.moveaxis(image[place], 0, -1), scale


def _own_buffers(frame: _JudgedFrame, recipe: Recipe) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """The same, for a frame that will be brought to another grid."""
    shape = (*frame.frames[0].pixels.shape, recipe.n_output)
    return np.empty(shape, np.float32), np.empty(shape, np.float32) if recipe.uncertainty else None


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
    """

    index: FrameIndex
    frames: list[PreparedFrame]
    affines: list[Affine | None]
    unchanged: bool
    skipped: bool
    statistics: dict[FrameIndex, FrameStatistics]

    @property
    def usable(self) -> list[Affine]:
        """One bad channel of several is background to the network: zeros."""
        return [
            affine if affine is not None else Affine(float(frame.pixels.flat[0]))
            for affine, frame in zip(self.affines, self.frames, strict=True)
        ]

    def normalize(self, recipe: Recipe, out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """Without a network: the channels ``(channel, [z,] y, x)``, normalized and rescaled, or as they are."""
        if self.unchanged:
            if self.skipped or len(self.frames) != recipe.n_output:
                return np.zeros((recipe.n_output, *self.frames[0].pixels.shape), np.float32)
            return np.stack([Affine().apply(frame.pixels) for frame in self.frames])
        image = self._normalized(out)
        if recipe.rescale:
            for affine, plane in zip(self.usable, image, strict=True):
                plane[:] = affine.invert(plane)
        return image

    def windows(self, dtype: str) -> tuple[NDArray[Any], NDArray[np.float32]]:
        """For the network: pixels ``([z,] y, x, channel)`` of a dtype, and how they are scaled, see `Windows`.

        They are normalized on its device; here where the light is corrected, which is one pass together.
        """
        corrected = any(frame.corrections for frame in self.frames)
        planes = list(self._normalized()) if corrected else [frame.pixels for frame in self.frames]
        pixels = planes[0][..., np.newaxis] if len(planes) == 1 else np.stack(planes, axis=-1)
        scaling = [
            (0.0, 1.0, affine.span, affine.offset)
            if corrected
            else (affine.offset, affine.divisor, affine.span, affine.offset)
            for affine in self.usable
        ]
        return pixels.astype(dtype, copy=False), np.array(scaling, np.float32).T

    def _normalized(self, out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        image = np.empty((len(self.frames), *self.frames[0].pixels.shape), np.float32) if out is None else out
        for affine, known, frame, plane in zip(self.usable, self.affines, self.frames, image, strict=True):
            if known is None:
                affine.apply(frame.pixels, plane)
            else:
                frame.normalize(affine, plane)
        return image


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
