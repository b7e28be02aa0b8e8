"""New CARE networks, and their files: weights before any training, and a folder as CSBDeep writes it."""

from __future__ import annotations

import io
from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phbatch.network.unet import NetworkConfig, list_layers
from phbatch.network.weights import Weights

BEST, LAST = "weights_best.h5", "weights_last.h5"
"""Names of CSBDeep's weight files: those of the lowest validation loss, and those of the last epoch."""


def draw_weights(config: NetworkConfig, seed: int) -> Weights:
    """Weights to begin a training with, as Keras draws them: Glorot uniform kernels, and biases of zero.

    Glorot and Bengio, 2010, Understanding the difficulty of training deep feedforward neural networks, AISTATS 9,
    249-256. They are drawn by NumPy, so that a seed gives the same network on every backend.

    Parameters
    ----------
    config : NetworkConfig
        The architecture.
    seed : int
        0 or more.

    Examples
    --------
    >>> config = NetworkConfig(2, 1, 1, 1, 3, 2, True, "linear", False)
    >>> kernel, bias = draw_weights(config, 0)["down_level_0_no_0"]
    >>> kernel.shape, float(bias.sum()), bool(abs(kernel).max() <= (6 / 27) ** 0.5)
    ((3, 3, 1, 2), 0.0, True)
    """
    random = np.random.default_rng([seed, 0])
    weights: Weights = {}
    for layer in list_layers(config):
        *window, inputs, outputs = layer.kernel_shape
        limit = (6 / (prod(window) * (inputs + outputs))) ** 0.5
        kernel = random.uniform(-limit, limit, layer.kernel_shape).astype(np.float32)
        weights[layer.name] = kernel, np.zeros(outputs, np.float32)
    return weights


def encode_weights(config: NetworkConfig, weights: Mapping[str, tuple[NDArray[Any], NDArray[Any]]]) -> bytes:
    """Weights as bytes of an HDF5 file in the layout of CSBDeep, which is that of Keras 2; `read_weights` reads it.

    Parameters
    ----------
    config : NetworkConfig
        The architecture.
    weights : mapping of str to (kernel, bias)
        By the names of `list_layers`.
    """
    import h5py

    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        names = []
        for layer in list_layers(config):
            # Keras numbers heads, which have no names in CSBDeep's network.
            head = {"mean": f"conv{config.n_dim}d", "scale": f"conv{config.n_dim}d_1"}
            name = head.get(layer.name, layer.name)
            names.append(name)
            group = file.create_group(name)
            keys = [f"{name}/kernel:0", f"{name}/bias:0"]
            group.attrs["weight_names"] = [key.encode() for key in keys]
            for key, array in zip(keys, weights[layer.name], strict=True):
                group.create_dataset(key, data=np.asarray(array, np.float32))
        file.attrs["layer_names"] = [name.encode() for name in names]
        file.attrs["backend"] = b"tensorflow"
        file.attrs["keras_version"] = b"2.15.0"
    return buffer.getvalue()


def care_config(
    config: NetworkConfig,
    *,
    loss: str,
    epochs: int,
    steps: int,
    batch: int,
    rate: float,
    reduce_rate: Mapping[str, float],
) -> dict[str, Any]:
    """What CSBDeep's ``config.json`` holds of a network and its training; `parse_config` reads it.

    Parameters
    ----------
    config : NetworkConfig
        The architecture.
    loss : {"mae", "mse", "laplace"}
        Of the training.
    epochs, steps, batch : int
        Epochs, steps of each, patches of a step.
    rate : float
        Learning rate at the beginning.
    reduce_rate : mapping
        Of Keras' ``ReduceLROnPlateau``.
    """
    return {
        "n_dim": config.n_dim,
        "axes": "YXC" if config.n_dim == 2 else "ZYXC",
        "n_channel_in": config.n_channel_in,
        "n_channel_out": config.n_channel_out,
        "train_checkpoint": BEST,
        "train_checkpoint_last": LAST,
        "train_checkpoint_epoch": "weights_now.h5",
        "probabilistic": config.probabilistic,
        "unet_residual": config.residual,
        "unet_n_depth": config.depth,
        "unet_kern_size": config.kernel,
        "unet_n_first": config.n_first,
        "unet_last_activation": config.last_activation,
        "unet_input_shape": [*[None] * config.n_dim, config.n_channel_in],
        "train_loss": loss,
        "train_epochs": epochs,
        "train_steps_per_epoch": steps,
        "train_learning_rate": rate,
        "train_batch_size": batch,
        "train_tensorboard": False,
        "train_reduce_lr": dict(reduce_rate),
    }
