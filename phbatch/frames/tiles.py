"""The network on whole frames, tile by tile: tiles of consecutive frames share a batch."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phbatch.kernels.tiling import Span, TilePlan
from phbatch.network.steps import Prediction, Windows

Predict = Callable[[Windows], Prediction]
"""The network, and the steps around it, on at most as many windows as the recipe's batch."""


@dataclass(frozen=True)
class Lane:
    """A device that has several batches at once: one is computed, others go up or come down.

    Attributes
    ----------
    begin : callable
        Sends windows on their way, and returns what waits for them.
    ahead : int
        Batches that may be on their way while the next one is sent.
    """

    begin: Callable[[Windows], Callable[[], Prediction]]
    ahead: int = 0

    @classmethod
    def of(cls, predict: Predict | Lane) -> Lane:
        """One batch after the other, where it is a function that waits."""
        if isinstance(predict, Lane):
            return predict

        def begin(windows: Windows) -> Callable[[], Prediction]:
            result = predict(windows)
            return lambda: result

        return cls(begin)


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


class Batches:
    """The network on whole frames, tile by tile, equal to the network on each frame at once.

    Tiles of consecutive frames share a batch, so that the batches of small frames are full; at most the frames of the
    batches that are on their way, and of one that is being filled, are open.

    Parameters
    ----------
    tiles : TilePlan
        How to cut the frames, which have one shape.
    batch : int
        Tiles per call.
    predict : callable or Lane
        The network on windows.
    """

    def __init__(self, tiles: TilePlan, batch: int, predict: Predict | Lane) -> None:
        self._tiles, self._batch, self._lane = tiles, batch, Lane.of(predict)
        self._opened: deque[NetworkFrame] = deque()
        self._waiting: list[tuple[NetworkFrame, tuple[Span, ...], NDArray[Any]]] = []
        self._sent: deque[tuple[list[tuple[NetworkFrame, tuple[Span, ...]]], Callable[[], Prediction]]] = deque()

    def add(self, frame: NetworkFrame) -> list[NetworkFrame]:
        """Take a frame, whose pixels are then forgotten; which frames are filled now, in their order."""
        padded = self._tiles.pad(frame.pixels)
        frame.pixels = frame.pixels[:0]
        frame.missing = len(self._tiles.tiles)
        self._opened.append(frame)
        for tile in self._tiles.tiles:
            self._waiting.append((frame, tile, self._tiles.gather(padded, tile)))
            if len(self._waiting) == self._batch:
                self._send()
        done = []
        while self._opened and self._opened[0].missing == 0:
            done.append(self._opened.popleft())
        return done

    def finish(self) -> list[NetworkFrame]:
        """Predict what waits for a full batch; the frames that were not filled before."""
        if self._waiting:
            self._send()
        while self._sent:
            self._collect()
        done = list(self._opened)
        self._opened.clear()
        return done

    def _send(self) -> None:
        tiles = self._tiles
        owned = [[(part.start, part.stop) for part in tiles.owned(tile)] for _, tile, _ in self._waiting]
        windows = Windows(
            np.stack([window for *_, window in self._waiting]),
            np.stack([frame.scaling for frame, *_ in self._waiting]),
            np.array(owned, np.int32),
        )
        places = [(frame, tile) for frame, tile, _ in self._waiting]
        self._waiting.clear()
        self._sent.append((places, self._lane.begin(windows)))
        if len(self._sent) > self._lane.ahead:
            self._collect()

    def _collect(self) -> None:
        """Bring back the batch that was sent first."""
        places, wait = self._sent.popleft()
        result = wait()
        for number, (frame, tile) in enumerate(places):
            self._tiles.scatter(frame.image, tile, result.image[number])
            if frame.scale is not None and result.scale is not None:
                self._tiles.scatter(frame.scale, tile, result.scale[number])
            frame.clipped += int(result.clipped[number])
            frame.missing -= 1
