"""JAX gives the numbers of TensorFlow, and is enough; each in a process, since Keras has one backend in it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr

import phbatch
from phbatch.kernels.tiling import required_halo
from phbatch.network import backend
from phbatch.network.backend import choose_backend
from phbatch.words.errors import UsageError
from tests.handmade import quickly_compiled
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
    command = [sys.executable, "-c", CODE, *arguments, axes, str(tile)]
    subprocess.run(command, check=True, capture_output=True, env=quickly_compiled())
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


def without(folder: Path, *libraries: str) -> dict[str, str]:
    """The environment of a process in which, and in the children of which, libraries cannot be imported."""
    folder.mkdir(exist_ok=True)
    lines = [f"sys.modules[{library!r}] = None" for library in libraries]
    (folder / "sitecustomize.py").write_text("\n".join(["import sys", *lines]), encoding="utf-8")
    paths = [str(folder), *filter(None, sys.path)]
    return quickly_compiled() | {"PYTHONPATH": os.pathsep.join(paths)}


def phbatch_in(environment: dict[str, str], *words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "phbatch", *map(str, words)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_without_tensorflow_the_same_commands_run_on_jax(tmp_path: Path, frames: np.ndarray) -> None:
    zarr.create_array(tmp_path / "in.zarr", data=frames)
    expected = phbatch.run(tmp_path / "in.zarr", tmp_path / "tensorflow.zarr")
    environment = without(tmp_path / "hidden", "tensorflow")
    assert phbatch_in(environment, "--version").returncode == 0
    run = ("run", tmp_path / "in.zarr", tmp_path / "jax.zarr", "--no-report")
    for _ in range(2):  # the second one is continued
        done = phbatch_in(environment, *run)
        assert done.returncode == 0, done.stderr
    assert any(any(folder.iterdir()) for folder in Path(os.environ["XDG_CACHE_HOME"], "phbatch").glob("jax-*"))
    values = zarr.open_array(expected.output, path="0")[:]
    difference = np.abs(zarr.open_array(tmp_path / "jax.zarr", path="0")[:] - values).max()
    assert difference <= 8 * np.finfo("float32").eps * values.max()  # of little contrast on a background of 1
    assert {recorded(path) for path in (expected.output, tmp_path / "jax.zarr")} == {"tensorflow", "jax"}
    other = phbatch_in(environment, *run, "--backend", "tensorflow")
    assert other.returncode == 3
    assert "settings.backend was jax and is tensorflow" in other.stderr
    asked = phbatch_in(environment, "run", run[1], tmp_path / "c.zarr", "--backend", "tensorflow")
    assert "backend tensorflow is not installed; `pip install 'phbatch[tensorflow]'`" in asked.stderr


def test_without_a_backend_it_is_said_what_to_install_and_frames_are_normalized(
    tmp_path: Path, frames: np.ndarray
) -> None:
    zarr.create_array(tmp_path / "in.zarr", data=frames)
    environment = without(tmp_path / "hidden", "tensorflow", "jax")
    refused = phbatch_in(environment, "run", tmp_path / "in.zarr", tmp_path / "out.zarr")
    assert (refused.returncode, (tmp_path / "out.zarr").exists()) == (2, False)
    assert "`pip install 'phbatch[tensorflow]'` or 'phbatch[jax]', or normalize only" in refused.stderr
    done = phbatch_in(environment, "run", tmp_path / "in.zarr", tmp_path / "out.zarr", "--model", "none")
    assert done.returncode == 0, done.stderr


def recorded(output: str | Path) -> str:
    attributes = zarr.open_group(output).attrs.asdict()
    return str(attributes["phbatch"]["fingerprint"]["settings"]["backend"])


def test_an_output_is_continued_by_the_backend_that_began_it(
    tmp_path: Path, frames: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    zarr.create_array(tmp_path / "in.zarr", data=frames)
    options = {"frames": "0:1"}
    output = phbatch.run(tmp_path / "in.zarr", backend="tensorflow", **options).output
    monkeypatch.setattr(backend, "_running", lambda: "jax")
    monkeypatch.setattr(backend, "installed_backends", lambda: ("jax",))
    assert choose_backend("auto") == "jax"
    assert phbatch.run(tmp_path / "in.zarr", **options).output == output
    assert recorded(output) == "tensorflow"
    monkeypatch.setattr(backend, "_running", lambda: None)
    monkeypatch.setattr(backend, "installed_backends", tuple)
    assert choose_backend("auto", elsewhere=True) == "tensorflow"
    with pytest.raises(UsageError, match="neither is installed"):
        choose_backend("auto")


@pytest.mark.parametrize("own", [True, False])
def test_the_command_starts_without_what_no_network_needs(own: bool) -> None:
    code = (
        "import sys\n"
        "from phbatch.network.backend import select_backend, start_sparingly\n"
        f"{own} and start_sparingly()\n"
        "select_backend('tensorflow')\n"
        "print(sorted({'jax', 'matplotlib', 'pandas'} & sys.modules.keys()))\n"
        "import matplotlib.pyplot"  # is there for whoever needs it later
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (shown.stdout.strip() == "[]") == own
