"""The restoration stage: normalize, tile, predict, put together, rescale, cast; a block in, a block out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phbatch.axes import FrameKey
from phbatch.config import BadFrames, Normalization, Scope
from phbatch.kernels.downsample import upscale
from phbatch.kernels.intensity import Affine, cast, make_affine
from phbatch.kernels.stats import FrameStatistics
from phbatch.kernels.tiling import TilePlan
from phbatch.stages.preparation import Corrections, Preparation, PreparedFrame, prepare_frame
from phbatch.stages.statistics import percentiles_for

Predict = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""The network on ``(n, *tile, channel)`` float32 windows, n at most the recipe's batch."""

FrameIndex = tuple[int, int, int | None]


@dataclass(frozen=True)
class Recipe:
    """Everything that the pixels of a frame go through.

    Attributes
    ----------
    rule : Normalization
        Of the intensities.
    dtype : str
        Of the output.
    rescale : bool
        Whether the normalization is undone at the end.
    volumes : bool
        Whether a frame is a ``zyx`` volume, for a 3D network.
    stacked : bool
        Whether all channels go into the network together; else each is a frame of its own.
    n_output : int
        Channels of the mean that one frame gives.
    tiles : TilePlan or None
        How a frame is cut for the network; None where there is no network.
    batch : int
        Tiles per call of the network.
    network : str
        Form of the network (`phbatch.care.polyphase`), or "auto" until it is settled.
    uncertainty : bool
        Whether the scale of a probabilistic network is kept.
    smooth_time : int
        Odd number of frames of the running median of the statistic over time.
    bad_frames : {"normalize", "skip", "copy"}
        Whether a flagged frame is restored all the same, left at zero, or copied unchanged.
    scope : {"image", "position", "series"}
        Whose pixels the statistic is of: the frame's own, those of all good frames of its channel and plane, or those
        of all good frames of its channel.
    percentiles : tuple of float
        Measured besides those of the rule and the default ones.
    given : bool
        Whether the statistics come from a table and nothing is measured.
    preparation : Preparation
        What is done to a frame before it is measured and normalized.
    upscale_to : (y, x), or None
        Lengths that the restored frame is brought back to, bilinearly.
    """

    rule: Normalization
    dtype: str = "float32"
    rescale: bool = False
    volumes: bool = False
    stacked: bool = False
    n_output: int = 1
    tiles: TilePlan | None = None
    batch: int = 1
    network: str = "plain"
    uncertainty: bool = False
    smooth_time: int = 1
    bad_frames: BadFrames = "normalize"
    scope: Scope = "image"
    percentiles: tuple[float, ...] = ()
    given: bool = False
    preparation: Preparation = field(default_factory=Preparation)
    upscale_to: tuple[int, int] | None = None

    @property
    def all_percentiles(self) -> tuple[float, ...]:
        """What is measured of a frame."""
        return percentiles_for(self.rule.pmin, self.rule.pmax, self.percentiles)

    @property
    def passes(self) -> int:
        """How often the input is read: 1, and more where the statistics of a frame depend on other frames.

        With a running median over time or a judgement of the series all frames are measured before any is restored;
        with pooling the good ones are read once more, since the judgement comes before the pooling.
        """
        if self.given:
            return 1
        if self.scope != "image":
            return 3
        return 2 if self.smooth_time > 1 or self.bad_frames != "normalize" else 1

    def output_lengths(self, lengths: tuple[int, ...]) -> tuple[int, ...]:
        """Lengths along y and x of the output, from those of the input."""
        return self.upscale_to or tuple(-(-length // self.preparation.downscale) for length in lengths)

    def pool_of(self, key: FrameKey) -> tuple[int, int | None]:
        """Whose pixels a frame is pooled with: those of its channel and plane over time, or of its whole channel."""
        return key.c, key.z if self.scope == "position" else None


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
        Pixels that the output's dtype could not hold.
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

    Returns
    -------
    RestoredBlock
        A frame that cannot be normalized (constant, not finite, or without a positive statistic) is passed through
        unchanged and flagged.
    """
    statistics: dict[FrameIndex, FrameStatistics] = {}
    n_t, n_c, n_z = block.shape[:3]
    n_output = recipe.n_output if recipe.stacked else n_c * recipe.n_output
    image = np.empty((n_t, n_output, n_z, *recipe.output_lengths(block.shape[3:])), recipe.dtype)
    uncertainty = np.empty(image.shape, np.float32) if recipe.uncertainty else None
    clipped = 0
    for index, channels in _frames(block, recipe):
        t, c, z = index
        frames = {
            channel: prepare_frame(block, (t, channel, z), recipe.preparation, corrections) for channel in channels
        }
        affines: list[Affine | None] = []
        for channel, frame in frames.items():
            row = measured[t, channel, z] if measured is not None else None
            statistics[t, channel, z], affine = _judge_frame(frame, row, recipe)
            affines.append(affine)
        bad = recipe.bad_frames != "normalize" and any(statistics[t, channel, z].flags for channel in channels)
        chosen: list[Affine | None] = [None] * len(affines) if bad else affines
        mean, scale = _restore_frame(list(frames.values()), chosen, recipe, predict)
        if bad and recipe.bad_frames == "skip":
            mean = np.zeros_like(mean)
        if recipe.upscale_to is not None:
            mean = upscale(mean, recipe.preparation.downscale, recipe.upscale_to)
            scale = None if scale is None else upscale(scale, recipe.preparation.downscale, recipe.upscale_to)
        target = slice(c * recipe.n_output, (c + 1) * recipe.n_output)
        place: tuple[Any, ...] = (t, target) if z is None else (t, target, z)
        image[place], lost = cast(mean, image.dtype)
        clipped += lost
        if uncertainty is not None:
            uncertainty[place] = scale
    return RestoredBlock(image, uncertainty, statistics, clipped)


def _judge_frame(
    frame: PreparedFrame, measured: FrameStatistics | None, recipe: Recipe
) -> tuple[FrameStatistics, Affine | None]:
    """Statistics of a frame, flagged where they give no map, and the map."""
    row = measured if measured is not None else frame.measure(recipe.rule.sigma, recipe.all_percentiles)
    affine = make_affine(row, recipe.rule)
    return (replace(row, flags=("unscaled",)) if affine is None and not row.flags else row), affine


def predict_frame(
    frame: NDArray[np.float32], tiles: TilePlan, batch: int, predict: Predict, n_output: int
) -> NDArray[np.float32]:
    """The network on one whole frame, tile by tile, equal to the network on the frame at once.

    Parameters
    ----------
    frame : (y, x, c) or (z, y, x, c) ndarray of float32
        Normalized.
    tiles : TilePlan
        How to cut it.
    batch : int
        Tiles per call.
    predict : callable
        The network on ``(n, *tile, c)``.
    n_output : int
        Output channels to keep, the first ones.

    Returns
    -------
    ndarray of float32
        Shape of the frame, with `n_output` channels.
    """
    padded = tiles.pad(frame)
    todo = tiles.tiles
    output = np.empty((*frame.shape[:-1], n_output), np.float32)
    for first in range(0, len(todo), batch):
        part = todo[first : first + batch]
        windows = np.stack([tiles.gather(padded, tile) for tile in part])
        for tile, result in zip(part, predict(windows), strict=True):
            tiles.scatter(output, tile, result[..., :n_output])
    return output


def _frames(block: NDArray[Any], recipe: Recipe) -> list[tuple[FrameIndex, list[int]]]:
    """Every network frame: its (t, first channel, z), and the channels that it takes."""
    n_t, n_c, n_z = block.shape[:3]
    groups = [list(range(n_c))] if recipe.stacked else [[c] for c in range(n_c)]
    planes: Sequence[int | None] = [None] if recipe.volumes else range(n_z)
    return [((t, group[0], z), group) for t in range(n_t) for group in groups for z in planes]


def _restore_frame(
    frames: list[PreparedFrame], affines: list[Affine | None], recipe: Recipe, predict: Predict | None
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """Mean and scale of one network frame, given by its channels, in the units of the output."""
    shape = (recipe.n_output, *frames[0].pixels.shape)
    if all(affine is None for affine in affines):
        same = len(frames) == recipe.n_output
        unchanged = (
            np.stack([frame.pixels for frame in frames]).astype(np.float32) if same else np.zeros(shape, np.float32)
        )
        return unchanged, np.zeros(shape, np.float32) if recipe.uncertainty else None
    # One bad channel of several is background to the network: zeros.
    usable = [
        affine if affine is not None else Affine(float(frame.pixels.flat[0]))
        for affine, frame in zip(affines, frames, strict=True)
    ]
    normalized = [
        frame.normalize(affine) if given is not None else affine.apply(frame.pixels)
        for affine, given, frame in zip(usable, affines, frames, strict=True)
    ]
    scale = None
    if predict is None or recipe.tiles is None:
        mean = normalized[0][np.newaxis] if len(normalized) == 1 else np.stack(normalized)
    else:
        stack = normalized[0][..., np.newaxis] if len(normalized) == 1 else np.stack(normalized, axis=-1)
        kept = recipe.n_output * (2 if recipe.uncertainty else 1)
        result = np.moveaxis(predict_frame(stack, recipe.tiles, recipe.batch, predict, kept), -1, 0)
        mean = result[: recipe.n_output]
        scale = result[recipe.n_output :] if recipe.uncertainty else None
    if recipe.rescale:
        mean = np.stack([affine.invert(plane) for affine, plane in zip(usable, mean, strict=True)])
        if scale is not None:
            scale = np.stack([affine.invert_scale(plane) for affine, plane in zip(usable, scale, strict=True)])
    return mean, scale
