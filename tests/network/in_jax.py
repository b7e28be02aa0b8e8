"""What a process computes whose Keras runs on JAX: ``python -m tests.network.in_jax FOLDER OPTIONS WORDS``.

All that is asked of such a process is in one, since it takes seconds to start.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

import phbatch
from phbatch.kernels.intensity import Affine, cast
from phbatch.network.backend import start_sparingly
from phbatch.network.forms import list_forms
from phbatch.network.model import open_model
from phbatch.network.predictor import Predictor
from phbatch.network.steps import Steps, Windows
from phbatch.shell.commands import main
from tests.network.kept import CASES, compiled_and_opened


def take_steps(model: Path) -> None:
    """What is done on the device is what is done on the host."""
    draw = np.random.default_rng(1)
    pixels = draw.integers(0, 600, (2, 16, 16, 1), "uint16")
    scaling = np.tile(np.array([[13], [487], [487], [13]], np.float32), (2, 1, 1))
    owned = np.tile(np.array([[4, 16], [0, 9]], np.int32), (2, 1, 1))
    affine = Affine(13.0, 487.0, 487.0)
    steps = Steps("uint16", "uint8", 1, rescale=True)
    found = Predictor(model, (16, 16), 2, "jax", steps=steps).restore(Windows(pixels, scaling, owned))
    mean = affine.invert(Predictor(model, (16, 16), 2, "jax")(affine.apply(pixels)))
    expected, _ = cast(mean, np.dtype("uint8"))
    assert found.image.dtype == np.uint8
    assert found.scale is None
    difference = np.abs(found.image.astype(int) - expected)
    assert difference.max() <= 1, "steps"
    assert difference.mean() < 0.01, difference.mean()  # sums may be fused
    lost = [cast(tile[4:16, 0:9], np.dtype("uint8"))[1] for tile in mean]
    assert np.abs(found.clipped - lost).max() <= 1, (found.clipped, lost)
    assert max(lost) > 0


def compare_forms(model: Path) -> None:
    """Every form is the same function."""
    forms = list_forms(open_model(model).config)
    tiles = np.random.default_rng(0).normal(size=(2, 8, 16, 1)).astype(np.float32)
    plain, *others = (Predictor(model, (8, 16), 2, "jax", form)(tiles) for form in forms)
    assert len(others) == 3
    for form, other in zip(forms[1:], others, strict=True):
        assert 0 < np.abs(other - plain).max() <= 3e-5 * plain.std(), form


def keep(folder: Path) -> None:
    """What is kept of a network computes the same bytes: all cases but the first, the second without its steps."""
    for number in range(1, len(CASES)):
        assert compiled_and_opened("jax", number, folder), CASES[number]
    start_sparingly()
    blank = Windows.plain(np.zeros((1, 16, 16, 1), np.float32))
    Predictor(folder / "model", (16, 16), 1, "jax", keeping=True).restore(blank)


def restore(folder: Path, options: dict[str, Any]) -> None:
    """Restore an image by a model, both in a folder."""
    options = {"uncertainty": True, "workers": 2} | options
    phbatch.run(folder / "in.zarr", folder / "jax.zarr", model=folder / "model", backend="jax", **options)


if __name__ == "__main__":
    top, given, words = Path(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3:]
    take_steps(top / "small")
    compare_forms(top / "small")
    for name, options in given.items():
        restore(top / name, options)
    keep(top / "kept")
    assert "tensorflow" not in sys.modules
    sys.argv[1:] = words  # the first run, which keeps its network
    main()
