"""Weights of a CARE network from the HDF5 file that Keras 2 or Keras 3 wrote, layer by layer, every shape checked.

There are two layouts, which are told by what is in the file, whatever it is called: that of Keras 2, in which CSBDeep
saves under Keras 3, too (layers by their names), and that of Keras 3's ``.weights.h5`` (layers by their classes and a
number, their names only as an attribute). The file is data: arrays are read, and nothing in it is executed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phbatch.network.unet import NetworkConfig, list_layers
from phbatch.words.errors import ModelError

Weights = dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]]
"""Kernel and bias by layer name."""

_KERAS_3_LAYERS = ("layers", "_layer_checkpoint_dependencies")
_CONVOLUTION = re.compile(r"conv[23]d(?:_(\d+))?")


def read_weights(path: Path, config: NetworkConfig) -> Weights:
    """Read the weights of every convolution.

    Parameters
    ----------
    path : Path
        Of a CSBDeep model folder, in either layout.
    config : NetworkConfig
        What the network must look like.

    Returns
    -------
    dict of str to (kernel, bias)
        float32, by the names of `list_layers`.

    Raises
    ------
    ModelError
        The file is truncated or no HDF5, a layer is missing or surplus, or a shape does not fit ``config.json``.
    """
    import h5py

    layers = list_layers(config)
    largest = max(prod(layer.kernel_shape) for layer in layers)
    try:
        with h5py.File(path, "r") as file:
            body = [layer.name for layer in layers if layer.name not in ("mean", "scale")]
            stored = _read_stored(file, body, largest)
    except (OSError, KeyError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{path.name} cannot be read as Keras weights ({error}); copy the file again, it may be truncated."
        ) from error
    if stored is None:
        raise ModelError(
            f"{path.name} is an HDF5 file without the layers of a network; copy the weights that CSBDeep saved."
        )
    named = {layer.name for layer in layers}
    heads = [name for name in stored if name not in named]
    expected_heads = [layer.name for layer in layers if layer.name in ("mean", "scale")]
    if len(heads) != len(expected_heads):
        raise ModelError(
            f"{path.name} holds {len(heads)} layers besides the U-Net's ({', '.join(heads[:4]) or 'none'}) and"
            f" config.json asks"
            f" for {len(expected_heads)}; the weights belong to another network."
        )
    # Keras numbers the 1 x 1 heads per process, so only their order tells the mean from the scale.
    position = dict(zip(expected_heads, heads, strict=True))
    weights: Weights = {}
    for layer in layers:
        arrays = stored.get(position.get(layer.name, layer.name))
        if arrays is None:
            raise ModelError(f"{path.name} lacks the layer {layer.name}; the weights do not fit config.json.")
        shapes = tuple(array.shape for array in arrays)
        expected = (layer.kernel_shape, layer.kernel_shape[-1:])
        if shapes != expected:
            raise ModelError(
                f"layer {layer.name} of {path.name} has shapes {shapes} and config.json asks for {expected};"
                " the weights belong to another network."
            )
        if not all(np.isfinite(array).all() for array in arrays):
            raise ModelError(
                f"layer {layer.name} of {path.name} holds NaN or infinity; the training diverged, use other weights."
            )
        weights[layer.name] = (arrays[0], arrays[1])
    return weights


def _read_stored(file: Any, names: list[str], largest: int) -> dict[str, tuple[NDArray[np.float32], ...]] | None:
    """Name and arrays of every layer that has weights, whichever layout the file has; None where it has neither."""
    root = _inside(file, "model_weights") if "model_weights" in file else file
    if "layer_names" in root.attrs:
        return dict(_read_layers(root, largest))
    container = next((key for key in _KERAS_3_LAYERS if key in root), None)
    return None if container is None else dict(_read_numbered(_inside(root, container), names, largest))


def _read_numbered(root: Any, names: list[str], largest: int) -> Iterator[tuple[str, tuple[NDArray[np.float32], ...]]]:
    """The same of Keras 3's own layout: its numbers are the order of computation, which is that of `names`, too."""
    found = {int(match[1] or 0): key for key in root if (match := _CONVOLUTION.fullmatch(key))}
    for position, number in enumerate(sorted(found)):
        variables = _inside(root, f"{found[number]}/vars")
        arrays = tuple(_read_array(variables, key, largest) for key in sorted(variables))
        unnamed = names[position] if position < len(names) else found[number]
        yield _texts([variables.attrs.get("name", unnamed)])[0], arrays


def _read_layers(root: Any, largest: int) -> Iterator[tuple[str, tuple[NDArray[np.float32], ...]]]:
    """Name and arrays of every layer that has weights, in the order of the model."""
    for name in _texts(root.attrs["layer_names"]):
        group = _inside(root, name)
        arrays = tuple(_read_array(group, weight, largest) for weight in _texts(group.attrs["weight_names"]))
        if arrays:
            yield name, arrays


def _read_array(group: Any, name: str, largest: int) -> NDArray[np.float32]:
    """Numbers of a dataset that lies in the file and is no larger than any layer can be."""
    stored = _inside(group, name)
    if stored.external or stored.is_virtual or stored.dtype.kind != "f":
        raise ValueError(f"{name} holds no floating-point numbers of its own")
    if stored.size > largest:
        raise ModelError(
            f"{name} of {Path(stored.file.filename).name} has the shape {stored.shape}, larger than any layer that"
            " config.json asks for; the weights belong to another network."
        )
    return np.asarray(stored, dtype=np.float32)


def _inside(group: Any, name: str) -> Any:
    """A member that is reached by hard links alone: links of other kinds can lead to other files."""
    import h5py

    for part in name.split("/"):
        if not isinstance(group.get(part, getlink=True), h5py.HardLink):
            raise KeyError(f"{name} is a link and no part of the file")
        group = group[part]
    return group


def _texts(values: Any) -> list[str]:
    return [value.decode() if isinstance(value, bytes) else str(value) for value in values]
