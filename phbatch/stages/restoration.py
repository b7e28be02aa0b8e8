"""The restoration stage: normalize, tile, predict, put together, rescale, cast; a block in, a block out."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phbatch.axes import FrameKey
from phbatch.config import FLOAT32, BadFrames, Normalization, Precision, Scope
from phbatch.kernels.downsample import upscale
from phbatch.kernels.intensity import Affine, cast, make_affine
from phbatch.kernels.stats import FrameStatistics
from phbatch.kernels.tiling import Span, TilePlan
from phbatch.stages.preparation import Corrections, Preparation, PreparedFrame, prepare_frame
from phbatch.stages.statistics import percentiles_for
from phbatch.stages.timing import StageClock

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
    precision : str
        Of the network, see `phbatch.care.precision`; "auto" until it is settled.
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
    precision: Precision = FLOAT32
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

    @property
    def reason(self) -> str:
        """Why the input is read as often as it is."""
        if self.given:
            return "the statistics are given"
        if self.scope != "image":
            return f"statistics are pooled by {self.scope}, of frames that are judged first"
        if self.passes == 2:
            return "statistics are smoothed or frames judged over time"
        return "the statistics of a frame are its own"

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
    clipped = 0
    waiting: deque[_NormalizedFrame] = deque()
    clock = clock or StageClock()

    def finish(frame: _NormalizedFrame, result: NDArray[np.float32]) -> None:
        nonlocal clipped
        t, c, z = frame.index
        target = slice(c * recipe.n_output, (c + 1) * recipe.n_output)
        place: tuple[Any, ...] = (t, target) if z is None else (t, target, z)
        with clock("cast"):
            mean, scale = frame.finish(result, recipe)
            image[place], lost = cast(mean, image.dtype)
            clipped += lost
            if uncertainty is not None:
                uncertainty[place] = 0 if scale is None else scale

    def network_inputs() -> Iterator[NDArray[np.float32]]:
        for index, channels in _frames(block, recipe):
            frame = _normalize_frame(block, index, channels, recipe, measured, corrections, clock)
            statistics.update(frame.statistics)
            if frame.unchanged or predict is None:
                finish(frame, frame.channels)
            else:
                waiting.append(frame)
                yield np.moveaxis(frame.release(), 0, -1)

    def timed_predict(tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        with clock("predict"):
            return predict(tiles) if predict is not None else tiles

    if predict is None or recipe.tiles is None:
        deque(network_inputs(), maxlen=0)
    else:
        kept = recipe.n_output * (2 if recipe.uncertainty else 1)
        for result in predict_frames(network_inputs(), recipe.tiles, recipe.batch, timed_predict, kept):
            finish(waiting.popleft(), np.moveaxis(result, -1, 0))
    return RestoredBlock(image, uncertainty, statistics, clipped)


@dataclass(eq=False)
class _NormalizedFrame:
    """One frame of the network on its way.

    Attributes
    ----------
    index : (t, c, z)
        Of the frame, c being its first channel.
    channels : (channel, [z,] y, x) ndarray of float32
        Normalized, or as they are where the frame is passed through.
    affines : list of Affine
        Of every channel.
    unchanged : bool
        Whether the frame is passed through.
    skipped : bool
        Whether zeros are written in its place.
    statistics : dict of (t, c, z) to FrameStatistics
        Of every channel.
    """

    index: FrameIndex
    channels: NDArray[np.float32]
    affines: list[Affine]
    unchanged: bool
    skipped: bool
    statistics: dict[FrameIndex, FrameStatistics]

    def release(self) -> NDArray[np.float32]:
        """The channels, of which this keeps nothing."""
        channels, self.channels = self.channels, np.empty(0, np.float32)
        return channels

    def finish(
        self, result: NDArray[np.float32], recipe: Recipe
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Mean and scale in the units and on the grid of the output, from what the network made of the channels."""
        mean, scale = result[: recipe.n_output], result[recipe.n_output :] if len(result) > recipe.n_output else None
        if self.unchanged:
            scale = None
            if self.skipped or len(mean) != recipe.n_output:
                mean = np.zeros((recipe.n_output, *result.shape[1:]), np.float32)
        elif recipe.rescale:
            mean = np.stack([affine.invert(plane) for affine, plane in zip(self.affines, mean, strict=True)])
            if scale is not None:
                scale = np.stack(
                    [affine.invert_scale(plane) for affine, plane in zip(self.affines, scale, strict=True)]
                )
        if recipe.upscale_to is not None:
            mean = upscale(mean, recipe.preparation.downscale, recipe.upscale_to)
            scale = None if scale is None else upscale(scale, recipe.preparation.downscale, recipe.upscale_to)
        return mean, scale


def _normalize_frame(
    block: NDArray[Any],
    index: FrameIndex,
    channels: list[int],
    recipe: Recipe,
    measured: Mapping[FrameIndex, FrameStatistics] | None,
    corrections: Corrections | None,
    clock: StageClock,
) -> _NormalizedFrame:
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
    # One bad channel of several is background to the network: zeros.
    usable = [
        affine if affine is not None else Affine(float(frame.pixels.flat[0]))
        for affine, frame in zip(affines, frames, strict=True)
    ]
    with clock("normalize"):
        if unchanged:
            planes = [frame.pixels.astype(np.float32) for frame in frames]
        else:
            planes = [
                affine.apply(frame.pixels) if known is None else frame.normalize(affine)
                for affine, known, frame in zip(usable, affines, frames, strict=True)
            ]
        stack = planes[0][np.newaxis] if len(planes) == 1 else np.stack(planes)
    return _NormalizedFrame(index, stack, usable, unchanged, bad and recipe.bad_frames == "skip", statistics)


def _judge_frame(
    frame: PreparedFrame, measured: FrameStatistics | None, recipe: Recipe
) -> tuple[FrameStatistics, Affine | None]:
    """Statistics of a frame, flagged where they give no map, and the map."""
    row = measured if measured is not None else frame.measure(recipe.rule.sigma, recipe.all_percentiles)
    affine = make_affine(row, recipe.rule)
    return (replace(row, flags=("unscaled",)) if affine is None and not row.flags else row), affine


def predict_frames(
    frames: Iterable[NDArray[np.float32]], tiles: TilePlan, batch: int, predict: Predict, n_output: int
) -> Iterator[NDArray[np.float32]]:
    """The network on whole frames, tile by tile, equal to the network on each frame at once.

    Tiles of consecutive frames share a batch, so that the batches of small frames are full; frames are taken as they
    are needed, and at most those of one batch are open.

    Parameters
    ----------
    frames : iterable of (y, x, c) or (z, y, x, c) ndarray of float32
        Normalized, of one shape.
    tiles : TilePlan
        How to cut them.
    batch : int
        Tiles per call.
    predict : callable
        The network on ``(n, *tile, c)``.
    n_output : int
        Output channels to keep, the first ones.

    Yields
    ------
    ndarray of float32
        Shape of a frame, with `n_output` channels, in the order of the frames.
    """
    opened: deque[_OpenFrame] = deque()
    batched: list[tuple[_OpenFrame, Sequence[Span], NDArray[np.float32]]] = []

    def flush() -> None:
        results = predict(np.stack([window for _, _, window in batched]))
        for (frame, tile, _), result in zip(batched, results, strict=True):
            tiles.scatter(frame.output, tile, result[..., :n_output])
            frame.missing -= 1
        batched.clear()

    for frame in frames:
        padded = tiles.pad(frame)
        opened.append(_OpenFrame(np.empty((*frame.shape[:-1], n_output), np.float32), len(tiles.tiles)))
        for tile in tiles.tiles:
            batched.append((opened[-1], tile, tiles.gather(padded, tile)))
            if len(batched) == batch:
                flush()
        while opened and opened[0].missing == 0:
            yield opened.popleft().output
    if batched:
        flush()
    yield from (frame.output for frame in opened)


@dataclass(eq=False)
class _OpenFrame:
    """A frame of which some tiles are not predicted yet."""

    output: NDArray[np.float32]
    missing: int


def _frames(block: NDArray[Any], recipe: Recipe) -> list[tuple[FrameIndex, list[int]]]:
    """Every network frame: its (t, first channel, z), and the channels that it takes."""
    n_t, n_c, n_z = block.shape[:3]
    groups = [list(range(n_c))] if recipe.stacked else [[c] for c in range(n_c)]
    planes: Sequence[int | None] = [None] if recipe.volumes else range(n_z)
    return [((t, group[0], z), group) for t in range(n_t) for group in groups for z in planes]
