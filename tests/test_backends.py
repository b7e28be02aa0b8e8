"""The JAX backend gives the numbers of TensorFlow; a process of its own, since Keras has one backend per process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr

import phbatch
from phbatch.kernels.tiling import required_halo
from phbatch.words.errors import UsageError
from tests.models import Case, make_model

CODE = (
    "import sys, phbatch\n"
    "source, output, model, axes, tile = sys.argv[1:]\n"
    "phbatch.run(source, output, model=model, axes=axes, backend='jax', tile=tile, uncertainty=True, workers=2)\n"
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
    draw = np.random.default_rng(0)
    image = (draw.normal(500, 40, shape) + draw.exponential(700, shape)).astype("uint16")
    zarr.create_array(tmp_path / "in.zarr", data=image)
    tile = 2 * required_halo(case.depth, case.kernel) + 2**case.depth
    options = {"model": tmp_path / "model", "axes": axes, "tile": tile, "uncertainty": True}
    assert phbatch.plan(tmp_path / "in.zarr", **options).tiles_per_frame > 1
    first = phbatch.run(tmp_path / "in.zarr", tmp_path / "tensorflow.zarr", **options)
    arguments = [str(tmp_path / name) for name in ("in.zarr", "jax.zarr", "model")]
    subprocess.run([sys.executable, "-c", CODE, *arguments, axes, str(tile)], check=True, capture_output=True)
    for path in ("0", "uncertainty/0"):
        expected = zarr.open_array(first.output, path=path)[:]
        found = zarr.open_array(tmp_path / "jax.zarr", path=path)[:]
        assert expected.std() > 0
        assert np.abs(found - expected).max() <= 1e-5 * expected.std()


def test_another_backend_than_the_running_one_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    make_model(tmp_path / "model", Case())  # CSBDeep starts Keras on TensorFlow
    zarr.create_array(tmp_path / "in.zarr", data=np.arange(1600, dtype=np.uint16).reshape(40, 40))
    with pytest.raises(UsageError, match="Keras runs on tensorflow in this process and jax is asked for"):
        phbatch.run(tmp_path / "in.zarr", tmp_path / "out.zarr", model=tmp_path / "model", axes="yx", backend="jax")
    assert not (tmp_path / "out.zarr").exists()
