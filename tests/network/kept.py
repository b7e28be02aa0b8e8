"""Networks that are compiled, kept in a file, and opened again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from phbatch.network import predictor
from phbatch.network.backend import select_backend
from phbatch.network.compiling import compile_network, open_program
from phbatch.network.forms import build_form
from phbatch.network.model import open_model
from phbatch.network.programs import ProgramFile
from phbatch.network.steps import Steps, Windows
from phbatch.network.weights import read_weights
from tests.handmade import write_model

FILE = ProgramFile({"a": 1})


def draw_windows(shape: tuple[int, ...], steps: Steps) -> Windows:
    draw = np.random.default_rng(3)
    plain = Windows.plain(draw.integers(0, 90, shape).astype(steps.windows))
    return replace(plain, scaling=plain.scaling + np.array([[50], [28], [99], [300]], np.float32))


CASES: list[tuple[dict[str, Any], str, Any, Steps]] = [
    ({}, "plain", "float32", Steps()),
    ({"probabilistic": True}, "plain", "float32", Steps("uint16", "uint16", 1, True, True)),
    (
        {"unet_residual": True, "unet_kern_size": 5},
        "polyphase-2",
        "float32",
        Steps("uint8", "uint8", 1, False, False, -1.0, 40.0),
    ),
    ({"unet_residual": True, "unet_last_activation": "relu"}, "upsampling", "float32", Steps("int16", "float16")),
    ({"unet_n_first": 16}, "plain", "bfloat16", Steps("uint16", "float32")),
    (
        {"n_dim": 3, "axes": "ZYXC", "unet_n_depth": 1, "probabilistic": True},
        "plain",
        "float32",
        Steps("float32", "uint16", 1, True),
    ),
]
"""What is other than in `tests.handmade.CONFIG`, form, precision, steps."""


def compiled_and_opened(backend: Any, number: int, folder: Path) -> bool:
    """Whether what was compiled and what its program computes are the same bytes, after it went through a file."""
    changes, form, precision, steps = CASES[number]
    model = open_model(write_model(folder / f"model-{number}", **changes))
    config = model.config
    tile = (16, 24, 20)[-config.n_dim :]
    select_backend(backend)
    network = build_form(config, read_weights(model.weights_path, config), form, precision)
    shape = (2, *tile, 1)
    compiled = compile_network(network, shape, backend, steps)
    FILE.write(compiled.program())
    kept = FILE.read()
    assert kept is not None
    opened = open_program(backend, kept)
    for seed in range(2):
        windows = draw_windows(shape, steps)
        windows = replace(windows, scaling=windows.scaling + seed)
        pairs = list(zip(compiled.call(windows), opened(windows), strict=True))
        assert len(pairs) == 2 + steps.uncertainty
        assert np.asarray(pairs[0][1]).astype("float32").std() > 0
        if not all(predictor._same(one, other) for one, other in pairs):
            return False
    return True
