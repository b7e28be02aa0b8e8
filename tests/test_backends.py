"""The JAX backend gives the numbers of TensorFlow; a process of its own, since Keras has one backend per process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr

import phbatch
from tests.models import Case, make_model

CODE = (
    "import sys, phbatch\n"
    "source, output, model, axes = sys.argv[1:]\n"
    "phbatch.run(source, output, model=model, axes=axes, backend='jax', tile=64, uncertainty=True)\n"
    "assert 'tensorflow' not in sys.modules"
)


@pytest.mark.parametrize(
    ("case", "shape", "axes"),
    [
        (Case(kernel=3, probabilistic=True), (1, 77, 90), "tyx"),
        (Case(n_dim=3, depth=1, probabilistic=True), (9, 50, 41), "zyx"),
    ],
    ids=["2d", "3d"],
)
def test_jax_equals_tensorflow(tmp_path: Path, case: Case, shape: tuple[int, ...], axes: str) -> None:
    make_model(tmp_path / "model", case)
    image = np.random.default_rng(0).normal(1000, 100, shape).astype("uint16")
    zarr.create_array(tmp_path / "in.zarr", data=image)
    first = phbatch.run(
        tmp_path / "in.zarr",
        tmp_path / "tensorflow.zarr",
        model=tmp_path / "model",
        axes=axes,
        tile=64,
        uncertainty=True,
    )
    arguments = [str(tmp_path / name) for name in ("in.zarr", "jax.zarr", "model")]
    subprocess.run([sys.executable, "-c", CODE, *arguments, axes], check=True, capture_output=True)
    for path in ("0", "uncertainty/0"):
        expected = zarr.open_array(first.output, path=path)[:]
        found = zarr.open_array(tmp_path / "jax.zarr", path=path)[:]
        allowed = max(1e-5 * expected.std(), 16 * np.spacing(np.abs(expected).max()))
        assert np.abs(found - expected).max() <= allowed
