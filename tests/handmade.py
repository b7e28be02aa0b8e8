"""Tiny CARE model folders written by hand, as either generation of Keras does, and a command line in process."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from phbatch.network.unet import list_layers, parse_config
from phbatch.shell import commands as cli

CONFIG: dict[str, Any] = {
    "n_dim": 2,
    "axes": "YXC",
    "n_channel_in": 1,
    "n_channel_out": 1,
    "probabilistic": False,
    "unet_residual": False,
    "unet_n_depth": 2,
    "unet_kern_size": 3,
    "unet_n_first": 2,
    "unet_last_activation": "linear",
}


def write_weights(
    path: Path, config: dict[str, Any], *, suffix: str = ":0", root: str = "", seed: int = 0
) -> dict[str, Any]:
    """Write random weights as Keras 2 (suffix ``:0``) or 3 (none) does; returns them by layer."""
    draw = np.random.default_rng(seed)
    heads = {"mean": "conv2d_7", "scale": "conv2d_12"}  # Keras numbers them per process
    written = {}
    with h5py.File(path, "w") as file:
        group = file.create_group(root) if root else file
        layers = list_layers(parse_config(config))
        names = [heads.get(layer.name, layer.name) for layer in layers]
        group.attrs["layer_names"] = [name.encode() for name in ["input_1", *names, "add_1"]]
        for empty in ("input_1", "add_1"):
            group.create_group(empty).attrs["weight_names"] = []
        for layer, name in zip(layers, names, strict=True):
            arrays = {
                f"{name}/kernel{suffix}": draw.normal(0, 0.2, layer.kernel_shape).astype(np.float32),
                f"{name}/bias{suffix}": draw.normal(0, 0.1, layer.kernel_shape[-1:]).astype(np.float32),
            }
            inner = group.create_group(name)
            inner.attrs["weight_names"] = [key.encode() for key in arrays]
            for key, array in arrays.items():
                inner[key] = array
            written[layer.name] = tuple(arrays.values())
    return written


def write_model(folder: Path, *, seed: int = 0, **overrides: Any) -> Path:
    """Write a model folder whose configuration differs from `CONFIG` by the overrides."""
    config = CONFIG | overrides
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    write_weights(folder / "weights_best.h5", config, seed=seed)
    return folder


def quickly_compiled() -> dict[str, str]:
    """Environment of a process in which JAX compiles without optimizing, which takes a third of the time."""
    return os.environ | {"XLA_FLAGS": "--xla_backend_optimization_level=0"}


class CommandLine:
    """Calls ``phbatch`` in this process: exit code, and what it printed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys
        self.out = self.err = ""

    def __call__(self, *arguments: object) -> int:
        """Run with arguments; `out` and `err` hold what was printed."""
        self._capsys.readouterr()
        self._monkeypatch.setattr(cli, "start_sparingly", lambda: None)  # this process is not phbatch's own
        self._monkeypatch.setattr(sys, "argv", ["phbatch", *(str(argument) for argument in arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        self.out, self.err = self._capsys.readouterr()
        return int(stopped.value.code or 0)
