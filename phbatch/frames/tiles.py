"""The network on whole frames, tile by tile: tiles of consecutive frames share a batch."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phbatch.kernels.tiling import Span, TilePlan
from phbatch.network.steps import Prediction, Windows

Predict = Callable[[Windows], Prediction]
"""The network, and the steps around it, on at most as many windows as the recipe's batch."""


@dataclass(eq=False)
class NetworkFrame:
    """A frame on its way through the network.

    Attributes
    ----------
    frame : object
        Whatever the caller knows it by.
    pixels : ([z,] y, x, c) ndarray
        Of the windows' dtype.
    scaling : (4, c) ndarray of float32
        See `phbatch.network.steps.Windows`.
    image : ([z,] y, x, n_output) ndarray
        Filled with the means.
    scale : ([z,] y, x, n_output) ndarray of float32, or None
        Filled with the scales.
    clipped : int
        Pixels that the dtype of `image` could not hold.
    missing : int
        Tiles that are not predicted yet.
    """

    frame: Any
    pixels: NDArray[Any]
    scaling: NDArray[np.float32]
    image: NDArray[Any]
    scale: NDArray[np.float32] | None = None
    clipped: int = 0
    missing: int = 0


def predict_frames(
    frames: Iterable[NetworkFrame], tiles: TilePlan, batch: int, predict: Predict
) -> Iterator[NetworkFrame]:
    """The network on whole frames, tile by tile, equal to the network on each frame at once.

    Tiles of consecutive frames share a batch, so that the batches of small frames are full; frames are taken as they
    are needed, and at most those of one batch are open.

    Parameters
    ----------
    frames : iterable of NetworkFrame
        Of one shape; their pixels are forgotten once they are on their way.
    tiles : TilePlan
        How to cut them.
    batch : int
        Tiles per call.
    predict : callable
        The network on windows.

    Yields
    ------
    NetworkFrame
        The same, in their order, with what they are to be filled with.
    """
    cut = tiles.tiles
    opened: deque[NetworkFrame] = deque()
    batched: list[tuple[NetworkFrame, tuple[Span, ...], NDArray[Any]]] = []

    def flush() -> None:
        windows = Windows(
            np.stack([window for *_, window in batched]),
            np.stack([frame.scaling for frame, *_ in batched]),
            np.array([[(part.start, part.stop) for part in tiles.owned(tile)] for _, tile, _ in batched], np.int32),
        )
        result = predict(windows)
        for number, (frame, tile, _) in enumerate(batched):
            tiles.scatter(frame.image, tile, result.image[number])
            if frame.scale is not None and result.scale is not None:
                tiles.scatter(frame.scale, tile, result.scale[number])
            frame.clipped += int(result.clipped[number])
            frame.missing -= 1
        batched.clear()

    for frame in frames:
        padded = tiles.pad(frame.pixels)
        frame.pixels = frame.pixels[:0]
        frame.missing = len(cut)
        opened.append(frame)
        for tile in cut:
            batched.append((frame, tile, tiles.gather(padded, tile)))
            if len(batched) == batch:
                flush()
        while opened and opened[0].missing == 0:
            yield opened.popleft()
    if batched:
        flush()
    yield from opened
