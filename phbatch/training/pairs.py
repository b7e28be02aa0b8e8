"""Pairs of frames as a network sees them: prepared, measured whole and normalized by the objects of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from phbatch.frames.light import Corrections, Preparation, PreparedFrame, prepare_frame
from phbatch.frames.measure import percentiles_for
from phbatch.kernels.intensity import Affine, make_affine
from phbatch.kernels.shift import undo_shift
from phbatch.training.scenes import Block, Scene
from phbatch.words.axes import FrameKey
from phbatch.words.normalization import Normalization

FloatImage = NDArray[np.float32]


@dataclass(frozen=True)
class Rule:
    """What becomes of the pixels of a pair before the network sees them.

    Attributes
    ----------
    normalization : Normalization
        The rule.
    preparation : Preparation
        Light and averages.
    target : {"low", "own"}
        Whose statistic normalizes the high frame.
    """

    normalization: Normalization
    preparation: Preparation
    target: Literal["low", "own"] = "low"


@dataclass(frozen=True, eq=False)
class Pair:
    """A frame of both, normalized.

    Attributes
    ----------
    low, high : ([z,] y, x, c) ndarray of float32
        What the network is given, and what it should make of it.
    margin : (y, x)
        Pixels at the edges that hold no image, since the high frame was moved.
    scales : (float, float)
        That the first channels were divided by.
    cells : ([z,] y, x) ndarray of bool, or None
        Where the high frame holds cells, where that is known; else it is estimated.
    """

    low: FloatImage
    high: FloatImage
    margin: tuple[int, int]
    scales: tuple[float, float]
    cells: NDArray[np.bool_] | None = None

    @property
    def nbytes(self) -> int:
        """In memory."""
        return self.low.nbytes + self.high.nbytes


@dataclass(frozen=True)
class FrameAt:
    """A frame of a training: its scene, and its key there."""

    scene: int
    key: FrameKey


@dataclass(frozen=True)
class Pairs:
    """All pairs of a training.

    Attributes
    ----------
    scenes : sequence of Scene
        Positions.
    rule : Rule
        What becomes of their pixels.
    seed : int
        Of what is drawn for frames that are made worse.
    """

    scenes: Sequence[Scene]
    rule: Rule
    seed: int = 0

    @property
    def frames(self) -> list[FrameAt]:
        """Every frame, position after position."""
        return [FrameAt(index, key) for index, scene in enumerate(self.scenes) for key in scene.keys]

    def lengths(self, frame: FrameAt) -> tuple[int, ...]:
        """Of a frame as the network sees it, along [z,] y and x."""
        z, *plane = self.scenes[frame.scene].lengths
        averaged = tuple(ceil(length / self.rule.preparation.downscale) for length in plane)
        return averaged if frame.key.z is not None else (z, *averaged)

    def read(self, frame: FrameAt, turn: int = 0) -> Pair | None:
        """A pair, normalized; None where one of the two has no scale by the rule.

        Parameters
        ----------
        frame : FrameAt
            Which one.
        turn : int
            How often it was read before: what is drawn for it differs with each.
        """
        scene = self.scenes[frame.scene]
        key = frame.key
        random = np.random.default_rng([self.seed, 3, turn, frame.scene, key.t, key.c, key.z or 0])
        low, high = scene.read(key, random)
        return normalize_pair(
            (low, high if scene.shift is None else undo_shift(high, scene.shift)),
            scene.corrections_of(key),
            self.rule,
            volumes=key.z is None,
            margin=_margin(scene, self.rule.preparation.downscale),
        )


def _margin(scene: Scene, downscale: int) -> tuple[int, int]:
    if scene.shift is None:
        return 0, 0
    return ceil(abs(scene.shift.y) / downscale), ceil(abs(scene.shift.x) / downscale)


def normalize_pair(
    blocks: tuple[Block, Block],
    corrections: tuple[Corrections | None, Corrections | None],
    rule: Rule,
    *,
    volumes: bool,
    margin: tuple[int, int] = (0, 0),
) -> Pair | None:
    """Normalize both frames of a pair by statistics of the whole of them; None where one has no scale.

    Parameters
    ----------
    blocks : (low, high)
        Channels as read, ``(1, c, z, y, x)``.
    corrections : (low, high)
        Of a profile of light.
    rule : Rule
        What to do.
    volumes : bool
        Whether a frame is a ``zyx`` volume.
    margin : (y, x)
        Pixels at the edges that hold no image.
    """
    low, high = (
        [prepare_frame(block, (0, c, None if volumes else 0), rule.preparation, found) for c in range(block.shape[1])]
        for block, found in zip(blocks, corrections, strict=True)
    )
    affines = _affines(low, rule.normalization)
    targets = _affines(high, rule.normalization) if rule.target == "own" else _for_target(affines, len(high))
    if affines is None or targets is None:
        return None
    return Pair(_normalize(low, affines), _normalize(high, targets), margin, (affines[0].divisor, targets[0].divisor))


def _for_target(affines: list[Affine] | None, count: int) -> list[Affine] | None:
    """Those of the low channels for the high ones; where these are more, those of the first."""
    if affines is None:
        return None
    return affines[:count] if len(affines) >= count else [affines[0]] * count


def _affines(frames: Sequence[PreparedFrame], rule: Normalization) -> list[Affine] | None:
    percentiles = percentiles_for(rule.pmin, rule.pmax)
    found = [make_affine(frame.measure(rule.sigma, percentiles), rule) for frame in frames]
    return None if any(affine is None for affine in found) else [affine for affine in found if affine is not None]


def _normalize(frames: Sequence[PreparedFrame], affines: Sequence[Affine]) -> FloatImage:
    planes: list[Any] = [frame.normalize(affine) for frame, affine in zip(frames, affines, strict=True)]
    return np.stack(planes, axis=-1)


def split(frames: Sequence[FrameAt], share: float) -> tuple[list[FrameAt], list[FrameAt]]:
    """Frames to train on, and frames to validate on: whole positions where there are five or more, else the last times.

    Neighbouring frames of a time-lapse are nearly the same, and patches of one frame are, too: drawn at random, they
    would say that a network knows what it has only seen.

    Examples
    --------
    >>> frames = [FrameAt(0, FrameKey(t, 0, 0)) for t in range(10)]
    >>> [frame.key.t for frame in split(frames, 0.2)[1]]
    [8, 9]
    >>> frames = [FrameAt(scene, FrameKey(0, 0, 0)) for scene in range(10)]
    >>> [frame.scene for frame in split(frames, 0.2)[1]]
    [2, 7]
    """
    scenes = list(dict.fromkeys(frame.scene for frame in frames))
    if len(scenes) >= 5:
        count = max(1, round(share * len(scenes)))
        kept = {scenes[(2 * index + 1) * len(scenes) // (2 * count)] for index in range(count)}
        held = [frame for frame in frames if frame.scene in kept]
    else:
        held = [frame for scene in scenes for frame in _last_times(frames, scene, share)]
    chosen = set(held)
    return [frame for frame in frames if frame not in chosen], held


def _last_times(frames: Sequence[FrameAt], scene: int, share: float) -> list[FrameAt]:
    own = [frame for frame in frames if frame.scene == scene]
    times = sorted({frame.key.t for frame in own})
    if len(times) < 2:
        return []
    first = times[-max(1, round(share * len(times)))]
    return [frame for frame in own if frame.key.t >= first]
