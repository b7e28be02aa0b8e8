"""A network as a function of its weights and of tensors of Keras' backend.

What predicts needs no layers of Keras, which take longer to make and to trace than what they compute: the operations
are those that layers would call, in their order, so that the numbers are the same to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phbatch.network.unet import FIRST, SCALE_FLOOR, upsample
from phbatch.words.choices import FLOAT32, Precision

Arrays = Mapping[str, tuple[NDArray[np.float32], ...]]
"""A kernel, and its bias if it has one, by the name of what they are for."""


class Functions:
    """Parts of a network (`phbatch.network.unet.Parts`) that are functions of tensors.

    Parameters
    ----------
    weights : mapping of str to tuple of tensors
        Kernel, and bias if any, by name; float32.
    precision : {"float32", "tf32", "float16", "bfloat16"}
        What is computed in where no other dtype is asked for; but for the first convolution.
    """

    def __init__(self, weights: Mapping[str, tuple[Any, ...]], precision: Precision) -> None:
        from keras import ops

        self.ops = ops
        self._weights = weights
        self._reduced = precision if precision in ("float16", "bfloat16") else None

    def convolve(self, tensor: Any, name: str, activation: str = "relu", dtype: str | None = None) -> Any:
        """The convolution of this name."""
        dtype = FLOAT32 if name == FIRST else dtype
        kernel, *bias = self._cast(dtype, *self._weights[name])
        (tensor,) = self._cast(dtype, tensor)
        made = self.ops.conv(tensor, kernel, padding="same", data_format="channels_last")
        made = self._add_bias(made, *bias)
        return self._apply(made, activation)

    def convolve_transposed(self, tensor: Any, name: str) -> Any:
        """The transposed convolution of this name, of stride two."""
        (kernel,) = self._cast(None, *self._weights[name])
        (tensor,) = self._cast(None, tensor)
        return self.ops.conv_transpose(tensor, kernel, strides=2, padding="same", data_format="channels_last")

    def mix(self, tensor: Any, name: str) -> Any:
        """Sums over the channels of every pixel, in float32."""
        kernel, bias = self._weights[name]
        (tensor,) = self._cast(FLOAT32, tensor)
        return self.ops.add(self.ops.matmul(tensor, kernel), bias)

    def pool(self, tensor: Any) -> Any:
        """The largest of every two pixels along each axis."""
        return self.ops.max_pool(tensor, 2, strides=2, padding="valid", data_format="channels_last")

    def upsample(self, tensor: Any) -> Any:
        """Every pixel twice along each axis."""
        return upsample(tensor)

    def concatenate(self, tensors: list[Any], dtype: str | None = None) -> Any:
        """Channels of several tensors."""
        return self.ops.concatenate(self._cast(dtype, *tensors), axis=-1)

    def add(self, tensors: list[Any]) -> Any:
        """The sum in float32."""
        return self.ops.add(*self._cast(FLOAT32, *tensors))

    def activate(self, tensor: Any, activation: str) -> Any:
        """An activation in float32."""
        (tensor,) = self._cast(FLOAT32, tensor)
        return self._apply(tensor, activation)

    def lift(self, tensor: Any) -> Any:
        """`SCALE_FLOOR` more, in float32."""
        return self.ops.add(tensor, SCALE_FLOOR)

    def _add_bias(self, tensor: Any, *bias: Any) -> Any:
        for each in bias:
            # Keras sees a bias in what has one axis and more than one number, and adds others as they are
            shaped = each if each.shape[0] > 1 else self.ops.reshape(each, (1,) * len(tensor.shape))
            tensor = self.ops.add(tensor, shaped)
        return tensor

    def _apply(self, tensor: Any, activation: str) -> Any:
        return tensor if activation == "linear" else getattr(self.ops, activation)(tensor)

    def _cast(self, dtype: str | None, *tensors: Any) -> list[Any]:
        """Tensors in a dtype, else in that of the precision."""
        if self._reduced is None:
            return list(tensors)
        return [self.ops.cast(tensor, dtype or self._reduced) for tensor in tensors]


@dataclass(frozen=True, eq=False)
class Network:
    """A network and its weights.

    Attributes
    ----------
    weights : mapping of str to (kernel, bias) or (kernel,)
        By name.
    connect : callable
        Takes parts and a tensor of tiles, and gives the tensor of predictions.
    precision : {"float32", "tf32", "float16", "bfloat16"}
        Of all layers but the first and the last ones, which are float32.
    """

    weights: Arrays
    connect: Callable[[Functions, Any], Any]
    precision: Precision = FLOAT32

    @property
    def arrays(self) -> list[NDArray[np.float32]]:
        """All weights in their order."""
        return [array for arrays in self.weights.values() for array in arrays]

    def apply(self, tensors: Sequence[Any], tiles: Any) -> Any:
        """The predictions of tiles, with tensors of the backend in the place of `arrays`."""
        left = iter(tensors)
        weights = {name: tuple(next(left) for _ in arrays) for name, arrays in self.weights.items()}
        return self.connect(Functions(weights, self.precision), tiles)

    def __call__(self, tiles: Any) -> Any:
        """The predictions of tiles, computed at once."""
        from keras import ops

        return self.apply([ops.convert_to_tensor(array) for array in self.arrays], ops.convert_to_tensor(tiles))
