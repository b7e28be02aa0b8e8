"""What is done to tiles on the device besides the network, within the same compiled function.

Raw pixels go up in the dtype of the input, and pixels of the output's dtype come down: half the bytes of float32 for
16 bit images. Every operation is that of `phbatch.kernels.intensity`, in the same order; numbers under 1.2e-38
are zero on a device.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_DIRECT = ("uint8", "int8", "uint16", "int16", "float32")


@dataclass(frozen=True)
class Steps:
    """What is done on the device; the same for all tiles of a run.

    Attributes
    ----------
    windows : str
        Dtype of the windows that go up.
    dtype : str
        Of the image that comes down.
    n_output : int
        Channels of the mean that are kept, the first ones of the network's; 0 keeps all that it has.
    uncertainty : bool
        Whether the scales that follow the means come down, too.
    rescale : bool
        Whether the normalization is undone.
    low, gain : float
        What integers stand for, see `phbatch.kernels.intensity.Packing`.
    """

    windows: str = "float32"
    dtype: str = "float32"
    n_output: int = 0
    uncertainty: bool = False
    rescale: bool = False
    low: float = 0.0
    gain: float = 1.0


@dataclass(frozen=True, eq=False)
class Windows:
    """Tiles on their way to the device.

    Attributes
    ----------
    pixels : (n, *tile, c) ndarray
        Of the dtype that the steps name.
    scaling : (n, 4, c) ndarray of float32
        What is subtracted from every channel of every tile, then divided by; multiplied with at the end, then added.
    owned : (n, axes, 2) ndarray of int32
        First and last + 1 pixel along every axis that a tile owns: pixels are counted as clipped only there.
    """

    pixels: NDArray[Any]
    scaling: NDArray[np.float32]
    owned: NDArray[np.int32]

    @classmethod
    def plain(cls, pixels: NDArray[Any]) -> Windows:
        """Windows that need no normalization, and own all of their pixels."""
        count, *tile, channels = pixels.shape
        scaling = np.tile(np.array([[0], [1], [1], [0]], np.float32), (count, 1, channels))
        owned = np.tile(np.array([[0, length] for length in tile], np.int32), (count, 1, 1))
        return cls(pixels, scaling, owned)

    def part(self, start: int, stop: int) -> Windows:
        """Some of the tiles."""
        return Windows(self.pixels[start:stop], self.scaling[start:stop], self.owned[start:stop])

    def fill(self, count: int) -> Windows:
        """As many tiles as are asked for; the last one stands for those that are missing."""
        missing = count - len(self.pixels)
        if missing == 0:
            return self
        arrays = (self.pixels, self.scaling, self.owned)
        return Windows(*(np.concatenate([array, np.repeat(array[-1:], missing, 0)]) for array in arrays))


@dataclass(frozen=True, eq=False)
class Prediction:
    """Tiles that came back from the device.

    Attributes
    ----------
    image : (n, *tile, n_output) ndarray
        Means, in the dtype of the steps.
    scale : (n, *tile, n_output) ndarray of float32, or None
        Of the Laplace distribution of a probabilistic network.
    clipped : (n,) ndarray of int32
        Owned pixels that the dtype could not hold.
    """

    image: NDArray[Any]
    scale: NDArray[np.float32] | None
    clipped: NDArray[np.int32]

    @classmethod
    def join(cls, parts: list[Prediction]) -> Prediction:
        """Of all tiles, from those of some."""
        scales = [part.scale for part in parts if part.scale is not None]
        return cls(
            np.concatenate([part.image for part in parts]),
            np.concatenate(scales) if scales else None,
            np.concatenate([part.clipped for part in parts]),
        )

    def part(self, start: int, stop: int) -> Prediction:
        """Some of the tiles."""
        scale = None if self.scale is None else self.scale[start:stop]
        return Prediction(self.image[start:stop], scale, self.clipped[start:stop])


def window_dtype(dtype: np.dtype[Any]) -> str:
    """The dtype in which frames of a dtype go to the device: their own where every device knows it.

    Examples
    --------
    >>> window_dtype(np.dtype("uint16")), window_dtype(np.dtype("float64")), window_dtype(np.dtype(">u2"))
    ('uint16', 'float32', 'uint16')
    """
    return dtype.name if dtype.name in _DIRECT else "float32"


def apply_steps(network: Any, steps: Steps, pixels: Any, scaling: Any, owned: Any) -> tuple[Any, ...]:
    """Normalize, predict, rescale and cast tensors of Keras' backend: image, number of clipped pixels, scale if any."""
    from keras import ops

    axes = len(pixels.shape) - 2
    # one number per tile and channel, for all pixels
    spread = ops.reshape(scaling, (-1, 4, *(1,) * (axes - 1), scaling.shape[-1]))
    subtract, divide, multiply, add = ops.split(spread, 4, axis=1)
    result = network((ops.cast(pixels, "float32") - subtract) / divide)
    n_output = steps.n_output or result.shape[-1]
    image = result if n_output == result.shape[-1] else result[..., :n_output]
    if steps.rescale:
        image = image * multiply + add
    if (steps.low, steps.gain) != (0.0, 1.0):
        image = (image - steps.low) * steps.gain
    image, outside = _cast(image, steps.dtype)
    clipped = _count(outside, owned) if outside is not None else ops.zeros(pixels.shape[:1], "int32")
    if not steps.uncertainty:
        return image, clipped
    scale = result[..., n_output : 2 * n_output]
    return image, clipped, scale * multiply if steps.rescale else scale


def _cast(image: Any, dtype: str) -> tuple[Any, Any]:
    """As `phbatch.kernels.intensity.cast`; which pixels are outside of the range, and None where none can be."""
    from keras import ops

    if dtype == "float32":
        return image, None
    if dtype == "float16":
        limit = float(np.finfo(dtype).max)
        outside = ops.abs(image) > limit
        return ops.cast(ops.where(outside, ops.sign(image) * limit, image), dtype), outside
    low, high = float(np.iinfo(dtype).min), float(np.iinfo(dtype).max)
    rounded = ops.round(image)
    outside = ops.logical_not(ops.logical_and(rounded >= low, rounded <= high))
    return ops.cast(ops.where(outside, ops.where(rounded > high, high, low), rounded), dtype), outside


def _count(outside: Any, owned: Any) -> Any:
    """Pixels that are outside, of those that their tile owns."""
    from keras import ops

    axes = len(outside.shape) - 2
    for axis in range(axes):
        place = ops.reshape(ops.arange(outside.shape[axis + 1]), (1, *(-1 if a == axis else 1 for a in range(axes)), 1))
        first, stop = (ops.reshape(owned[:, axis, end], (-1, *(1,) * (axes + 1))) for end in (0, 1))
        outside = ops.logical_and(outside, ops.logical_and(place >= first, place < stop))
    return ops.sum(ops.cast(outside, "int32"), axis=tuple(range(1, axes + 2)))
