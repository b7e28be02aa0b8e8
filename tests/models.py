"""Small CARE models for tests, made by CSBDeep itself with random weights and biases."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from csbdeep.models import CARE, Config


@dataclass(frozen=True)
class Case:
    """A CARE configuration, named by what is special about it."""

    n_dim: int = 2
    depth: int = 2
    kernel: int = 3
    n_first: int = 4
    channels: tuple[int, int] = (1, 1)
    residual: bool = True
    probabilistic: bool = False
    last: str = "linear"

    def __str__(self) -> str:
        kind = f"{self.n_dim}d-depth{self.depth}-k{self.kernel}-f{self.n_first}-c{self.channels[0]}to{self.channels[1]}"
        words = ["residual"] * self.residual + ["probabilistic"] * self.probabilistic + ["relu"] * (self.last == "relu")
        return "-".join([kind, *words])


def make_model(folder: Path, case: Case, seed: int = 0) -> Any:
    """Create a CSBDeep model folder; returns CSBDeep's own model."""
    axes = "YXC" if case.n_dim == 2 else "ZYXC"
    config = Config(
        axes,
        case.channels[0],
        case.channels[1],
        probabilistic=case.probabilistic,
        unet_n_depth=case.depth,
        unet_kern_size=case.kernel,
        unet_n_first=case.n_first,
        unet_residual=case.residual,
        unet_last_activation=case.last,
        train_tensorboard=False,
    )
    model = CARE(config, folder.name, basedir=str(folder.parent))
    draw = np.random.default_rng(seed)
    # Glorot's kernels keep activations in range; random biases would show if a layer were mixed up.
    weights = []
    for weight in model.keras_model.get_weights():
        fans = weight.shape[-1] + (weight.shape[-2] if weight.ndim > 1 else 0)
        limit = (6 / (fans * np.prod(weight.shape[:-2]))) ** 0.5 if weight.ndim > 1 else 0.05
        head_or_bias = np.prod(weight.shape[:-2]) == 1
        if head_or_bias and weight.ndim > 1:
            limit *= 2  # so that the scale, behind its softplus, varies as the mean does
        low = 0.0 if head_or_bias and case.last == "relu" else -limit  # so that the output is not silent
        weights.append(draw.uniform(low, limit, weight.shape).astype(np.float32))
    model.keras_model.set_weights(weights)
    model.keras_model.save_weights(str(folder / "weights_best.h5"))
    return model


def convert_to_keras_2(source: Path, target: Path) -> None:
    """Copy a model folder, its weights in the layout of Keras 2: ``:0`` behind names, heads numbered by process."""
    target.mkdir()
    shutil.copy(source / "config.json", target)
    with h5py.File(source / "weights_best.h5") as old, h5py.File(target / "weights_best.h5", "w") as new:
        names = [name for name in old.attrs["layer_names"] if len(old[name].attrs["weight_names"])]
        numbers = iter((1, 7))
        renamed = [f"conv2d_{next(numbers)}" if name.startswith("conv") else name for name in names]
        new.attrs["layer_names"] = [name.encode() for name in renamed]
        new.attrs["backend"] = b"tensorflow"
        new.attrs["keras_version"] = b"2.15.0"
        for name, layer in zip(names, renamed, strict=True):
            group = new.create_group(layer)
            arrays = [old[name][weight][:] for weight in old[name].attrs["weight_names"]]
            keys = [f"{layer}/kernel:0", f"{layer}/bias:0"]
            group.attrs["weight_names"] = [key.encode() for key in keys]
            for key, array in zip(keys, arrays, strict=True):
                group[key] = array
