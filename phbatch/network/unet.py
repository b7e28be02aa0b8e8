"""The CARE U-Net: its configuration, the layers it must have, and the same network in Keras 3.

Weigert et al., 2018, Content-aware image restoration: pushing the limits of fluorescence microscopy, Nature Methods 15,
1090-1097, https://doi.org/10.1038/s41592-018-0216-7. The architecture is CSBDeep's ``common_unet``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from math import prod
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from phbatch.kernels.tiling import required_halo
from phbatch.words.errors import ModelError

SCALE_FLOOR = 1e-3
"""What CSBDeep adds to the softplus of the scale."""

FIRST = "down_level_0_no_0"
"""The first convolution, in float32 whatever the precision: in 16 bits a contrast next to 1 loses its digits."""

_FOREIGN_KEYS = {
    "n_rays": "StarDist",
    "n2v_perc_pix": "N2V",
    "n2v_patch_shape": "N2V",
    "proj_n_depth": "ProjectionCARE",
}


@dataclass(frozen=True)
class NetworkConfig:
    """What ``config.json`` says of the network.

    Attributes
    ----------
    n_dim : int
        2 for ``yx`` frames, 3 for ``zyx``.
    n_channel_in, n_channel_out : int
        Channels of the input and of the mean.
    depth : int
        Number of poolings by two, on every axis.
    kernel : int
        Odd width of the convolutions.
    n_first : int
        Filters of the first level; doubled at each pooling.
    residual : bool
        Whether the input is added to the mean.
    last_activation : {"linear", "relu"}
        Of the mean.
    probabilistic : bool
        Whether there is a scale of a Laplace distribution beside the mean.
    """

    n_dim: int
    n_channel_in: int
    n_channel_out: int
    depth: int
    kernel: int
    n_first: int
    residual: bool
    last_activation: Literal["linear", "relu"]
    probabilistic: bool

    @property
    def grid(self) -> int:
        """Pooling grid: frames are padded to a multiple of it."""
        return 1 << self.depth

    @property
    def halo(self) -> int:
        """Pixels per side and axis that a tile reads beyond what it writes."""
        return required_halo(self.depth, self.kernel)

    @property
    def n_output(self) -> int:
        """Channels that the network returns: the means, then the scales."""
        return self.n_channel_out * (2 if self.probabilistic else 1)

    @property
    def workspace_bytes_per_pixel(self) -> int:
        """Bytes that a tile's tensors take per pixel while it is predicted.

        The top level holds the skip, the upsampled and the joined tensor; 24 float32 numbers per filter were measured
        for TensorFlow (757 bytes per pixel with 32 filters), plus input and output.
        """
        return 24 * self.n_first + 16 * self.kernel + 8 * (self.n_channel_in + self.n_output)

    @property
    def staging_bytes_per_pixel(self) -> int:
        """Bytes on the host per pixel of a tile that is computed on a GPU: float32 of three tiles, both ways."""
        return 3 * 4 * (self.n_channel_in + self.n_output)

    def staging_bytes(self, tile: tuple[int, ...], batch: int) -> int:
        """Bytes on the host of a batch of tiles that is computed on a GPU."""
        return batch * prod(tile) * self.staging_bytes_per_pixel

    def workspace_bytes(self, tile: tuple[int, ...], batch: int) -> int:
        """Bytes that the tensors of a batch of tiles take while it is predicted."""
        return batch * prod(tile) * self.workspace_bytes_per_pixel


@dataclass(frozen=True)
class Layer:
    """A convolution: its name in CSBDeep's weight file (heads have none of their own) and the shape of its kernel."""

    name: str
    kernel_shape: tuple[int, ...]


def parse_config(config: Mapping[str, Any]) -> NetworkConfig:
    """Read a CSBDeep ``config.json``.

    Raises
    ------
    ModelError
        The folder is of another kind, which is named, or a value is missing or outside what CARE allows.
    """
    for key, kind in _FOREIGN_KEYS.items():
        if key in config:
            raise ModelError(f"the model is a {kind} model ({key} in config.json); give a CARE model of CSBDeep.")
    try:
        result = NetworkConfig(
            n_dim=_integer(config, "n_dim"),
            n_channel_in=_integer(config, "n_channel_in"),
            n_channel_out=_integer(config, "n_channel_out"),
            depth=_integer(config, "unet_n_depth"),
            kernel=_integer(config, "unet_kern_size"),
            n_first=_integer(config, "unet_n_first"),
            residual=_boolean(config, "unet_residual"),
            last_activation=config["unet_last_activation"],
            probabilistic=_boolean(config, "probabilistic"),
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ModelError(
            f"config.json lacks a valid {error}; it is no configuration of a CARE model of CSBDeep."
        ) from error
    rules = {
        "n_dim": result.n_dim in (2, 3),
        "n_channel_in": 1 <= result.n_channel_in <= 1024,
        "n_channel_out": 1 <= result.n_channel_out <= 1024,
        "unet_n_depth": 1 <= result.depth <= 8,
        "unet_kern_size": result.kernel % 2 == 1 and 1 <= result.kernel <= 31,
        "unet_n_first": 1 <= result.n_first <= 4096,
        "unet_last_activation": result.last_activation in ("linear", "relu"),
        "unet_residual": not result.residual or result.n_channel_in == result.n_channel_out,
        "axes": "T" not in str(config.get("axes", "")).upper(),
    }
    for key, holds in rules.items():
        if not holds:
            raise ModelError(
                f"{key} = {config.get(key)!r} in config.json is not what a 2D or 3D CARE network can have."
            )
    return result


def _integer(config: Mapping[str, Any], key: str) -> int:
    value = config[key]
    if isinstance(value, bool) or int(value) != value:
        raise ValueError(f"{key}: {value!r} is no whole number")
    return int(value)


def _boolean(config: Mapping[str, Any], key: str) -> bool:
    if not isinstance(config[key], bool):
        raise ValueError(f"{key}: {config[key]!r} is neither true nor false")
    return bool(config[key])


def list_layers(config: NetworkConfig) -> tuple[Layer, ...]:
    """Every convolution in the order of computation; the heads last, the mean before the scale."""
    window = (config.kernel,) * config.n_dim
    layers: list[Layer] = []
    channels = config.n_channel_in

    def add(name: str, filters: int) -> None:
        nonlocal channels
        layers.append(Layer(name, (*window, channels, filters)))
        channels = filters

    for level in range(config.depth):
        for index in range(2):
            add(f"down_level_{level}_no_{index}", config.n_first * 2**level)
    add("middle_0", config.n_first * 2**config.depth)
    add("middle_2", config.n_first * 2 ** max(0, config.depth - 1))
    for level in reversed(range(config.depth)):
        channels += config.n_first * 2**level
        add(f"up_level_{level}_no_0", config.n_first * 2**level)
        add(f"up_level_{level}_no_2", config.n_first * 2 ** max(0, level - 1))
    heads = ("mean", "scale") if config.probabilistic else ("mean",)
    ones = (1,) * config.n_dim
    return (*layers, *(Layer(head, (*ones, channels, config.n_channel_out)) for head in heads))


def count_operations(config: NetworkConfig) -> float:
    """Multiply-adds per pixel of a tile.

    Examples
    --------
    >>> count_operations(NetworkConfig(2, 1, 1, 2, 5, 32, True, "linear", False))
    231232.0
    """
    total = 0.0
    for layer in list_layers(config):
        _, _, level = layer.name.partition("_level_")
        halvings = int(level.partition("_")[0]) if level else config.depth * layer.name.startswith("middle")
        total += prod(layer.kernel_shape) / 2 ** (config.n_dim * halvings)
    return total


class Parts(Protocol):
    """What a network is made of: layers of Keras, or functions of tensors (`phbatch.network.functions`)."""

    def convolve(self, tensor: Any, name: str, activation: str = "relu", dtype: str | None = None) -> Any:
        """The convolution of this name, in a dtype of its own if any."""

    def pool(self, tensor: Any) -> Any:
        """The largest of every two pixels along each axis."""

    def upsample(self, tensor: Any) -> Any:
        """Every pixel twice along each axis."""

    def concatenate(self, tensors: list[Any], dtype: str | None = None) -> Any:
        """Channels of several tensors."""

    def add(self, tensors: list[Any]) -> Any:
        """The sum in float32."""

    def activate(self, tensor: Any, activation: str) -> Any:
        """An activation in float32."""

    def lift(self, tensor: Any) -> Any:
        """`SCALE_FLOOR` more, in float32."""


def connect(config: NetworkConfig, parts: Parts, inputs: Any) -> Any:
    """The network of its parts, from a tensor ``(n, [z,] y, x, n_channel_in)`` to one with `n_output` channels."""
    tensor, skips = inputs, []
    for level in range(config.depth):
        for index in range(2):
            tensor = parts.convolve(tensor, f"down_level_{level}_no_{index}")
        skips.append(tensor)
        tensor = parts.pool(tensor)
    tensor = parts.convolve(parts.convolve(tensor, "middle_0"), "middle_2")
    for level in reversed(range(config.depth)):
        tensor = parts.concatenate([parts.upsample(tensor), skips[level]])
        tensor = parts.convolve(parts.convolve(tensor, f"up_level_{level}_no_0"), f"up_level_{level}_no_2")
    # The last layers are float32 whatever the precision: a residual next to 1 would lose its digits.
    mean = parts.convolve(tensor, "mean", "linear", "float32")
    if config.residual:
        mean = parts.add([mean, inputs])
    outputs = parts.activate(mean, config.last_activation)
    if not config.probabilistic:
        return outputs
    scale = parts.convolve(tensor, "scale", "softplus", "float32")
    return parts.concatenate([outputs, parts.lift(scale)], "float32")


def upsample(tensor: Any) -> Any:
    """Every pixel twice along each axis, of a tensor whose lengths are known, in a third of the operations of Keras."""
    from keras import ops

    count, *outer, rows, columns, channels = tensor.shape
    rest = 4 * rows * columns * channels
    split = ops.reshape(tensor, (-1, rows, 1, columns, 1, channels))
    made = ops.broadcast_to(split, (count * prod(outer), rows, 2, columns, 2, channels))
    if outer:  # in one step with the others, there would be more axes than TensorFlow broadcasts over
        made = ops.broadcast_to(ops.reshape(made, (-1, 1, rest)), (count * prod(outer), 2, rest))
    return ops.reshape(made, (count, *(2 * length for length in tensor.shape[1:-1]), channels))


@cache
def _upsampling_layer(dimensions: int) -> Any:
    """Keras' ``UpSampling2D`` or ``3D``, by `upsample`: a network is traced in two thirds of the time."""
    import keras

    class Upsampling(getattr(keras.layers, f"UpSampling{dimensions}D")):  # type: ignore[misc]
        def call(self, tensor: Any) -> Any:
            return super().call(tensor) if None in tensor.shape else upsample(tensor)

    return Upsampling


class _Layers:
    """Parts that are layers of Keras, whose weights learn."""

    def __init__(self, config: NetworkConfig) -> None:
        import keras

        dimensions = config.n_dim
        self._shapes = {layer.name: layer.kernel_shape for layer in list_layers(config)}
        self._layers = keras.layers
        self._convolution = getattr(keras.layers, f"Conv{dimensions}D")
        self._pooling = getattr(keras.layers, f"MaxPooling{dimensions}D")
        self._upsampling = _upsampling_layer(dimensions)

    def convolve(self, tensor: Any, name: str, activation: str = "relu", dtype: str | None = None) -> Any:
        *window, _, filters = self._shapes[name]
        return self._convolution(
            filters,
            tuple(window),
            padding="same",
            data_format="channels_last",
            activation=activation,
            name=name,
            dtype=dtype,
            kernel_initializer="zeros",  # drawing random ones compiles a program for each of their shapes
        )(tensor)

    def pool(self, tensor: Any) -> Any:
        return self._pooling(2, data_format="channels_last")(tensor)

    def upsample(self, tensor: Any) -> Any:
        return self._upsampling(2, data_format="channels_last")(tensor)

    def concatenate(self, tensors: list[Any], dtype: str | None = None) -> Any:
        return self._layers.Concatenate(axis=-1, dtype=dtype)(tensors)

    def add(self, tensors: list[Any]) -> Any:
        return self._layers.Add(dtype="float32")(tensors)

    def activate(self, tensor: Any, activation: str) -> Any:
        return self._layers.Activation(activation, dtype="float32")(tensor)

    def lift(self, tensor: Any) -> Any:
        return self._layers.Rescaling(1.0, offset=SCALE_FLOOR, dtype="float32")(tensor)


def build_network(config: NetworkConfig, weights: Mapping[str, tuple[NDArray[np.float32], NDArray[np.float32]]]) -> Any:
    """The network in Keras 3, on whichever backend Keras runs, to be trained in float32.

    What predicts needs no layers: `phbatch.network.forms.build_form`.

    Parameters
    ----------
    config : NetworkConfig
        The architecture.
    weights : mapping of str to (kernel, bias)
        By layer name, as `list_layers` names them.

    Returns
    -------
    keras.Model
        From ``(n, y, x, n_channel_in)`` or ``(n, z, y, x, n_channel_in)`` to the same with `n_output` channels,
        float32.
    """
    import keras

    inputs = keras.Input((*(None,) * config.n_dim, config.n_channel_in))
    network = keras.Model(inputs, connect(config, _Layers(config), inputs))
    for name, arrays in weights.items():
        network.get_layer(name).set_weights(list(arrays))
    return network
