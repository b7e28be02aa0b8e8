"""Where the pairs of a training come from: positions whose frames are read, made worse or simulated when needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phbatch.frames.light import Corrections
from phbatch.inputs.image import Source
from phbatch.kernels.shift import Shift
from phbatch.words.axes import FrameKey, to_region

Block = NDArray[Any]
"""Channels of one frame, as ``(1, c, z, y, x)``."""

Reader = Callable[[FrameKey, np.random.Generator], tuple[Block, Block]]
"""Low and high frame of a key; what is drawn for them comes from the generator."""


@dataclass(frozen=True)
class Scene:
    """One position.

    Attributes
    ----------
    name : str
        For people.
    keys : sequence of FrameKey
        Frames in the order of t, c, z.
    lengths : (z, y, x)
        Of a frame as it is read.
    channels : (low, high)
        Of one frame of the network.
    read : callable
        Its frames.
    corrections : (low, high)
        Of profiles of light, by channel and plane of the images; None where there is no profile.
    shift : Shift or None
        That high frames are moved back by.
    varies : bool
        Whether a frame is another one each time that it is read.
    identity : mapping
        What makes its data these data.
    pixel_size_um : float or None
        As read.
    """

    name: str
    keys: Sequence[FrameKey]
    lengths: tuple[int, int, int]
    channels: tuple[int, int]
    read: Reader
    corrections: tuple[Corrections | None, Corrections | None] = (None, None)
    shift: Shift | None = None
    varies: bool = False
    identity: Mapping[str, Any] = field(default_factory=dict)
    pixel_size_um: float | None = None

    def corrections_of(self, key: FrameKey) -> tuple[Corrections | None, Corrections | None]:
        """As `corrections`, by channel and plane within the block of a frame."""
        low, high = (_within(found, key) for found in self.corrections)
        return low, high


def _within(found: Corrections | None, key: FrameKey) -> Corrections | None:
    return None if found is None else lambda c, z: found(key.c + c, (key.z or 0) + z)


def read_frame(source: Source, key: FrameKey, channels: int) -> Block:
    """Some channels of a frame of an image, from the one that its key names on."""
    _, _, n_z, n_y, n_x = source.shape
    first, last = (0, n_z) if key.z is None else (key.z, key.z + 1)
    return source.read_or_refuse(to_region((key.t, key.c, first, 0, 0), (key.t + 1, key.c + channels, last, n_y, n_x)))


def read_both(low: Source, high: Source, channels: tuple[int, int]) -> Reader:
    """Reader of pairs that lie in two images."""
    return lambda key, _: (read_frame(low, key, channels[0]), read_frame(high, key, channels[1]))
