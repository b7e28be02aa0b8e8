"""JAX gives the numbers of TensorFlow, and is enough; each in a process, since Keras has one backend in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import phbatch
from phbatch.kernels.tiling import required_halo
from phbatch.network import backend
from phbatch.network.backend import choose_backend
from phbatch.words.errors import UsageError
from tests.handmade import quickly_compiled, write_model
from tests.models import Case, make_model
from tests.network.test_programs import require_found, words_of_run, write_run

CASES: dict[str, tuple[Case, tuple[int, ...], str]] = {
    "2d": (Case(kernel=3, probabilistic=True), (1, 77, 90), "tyx"),
    "3d": (Case(n_dim=3, depth=1, probabilistic=True), (9, 30, 23), "zyx"),
}


def test_jax_does_what_tensorflow_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, frames: np.ndarray) -> None:
    """Networks of either dimension, every form, the steps on the device, and what is kept; in one process (`in_jax`).

    Another one then finds what was kept.
    """
    write_model(tmp_path / "small", unet_residual=True)
    given: dict[str, dict[str, Any]] = {}
    for name, (case, shape, axes) in CASES.items():
        folder = tmp_path / name
        make_model(folder / "model", case)
        draw = np.random.default_rng(0)
        image = (draw.normal(500, 40, shape) + draw.exponential(700, shape)).astype("uint16")
        zarr.create_array(folder / "in.zarr", data=image)
        given[name] = {"axes": axes, "tile": 2 * required_halo(case.depth, case.kernel) + 2**case.depth}
        options = {"model": folder / "model", "uncertainty": True} | given[name]
        assert phbatch.plan(folder / "in.zarr", **options).tiles_per_frame > 1
        phbatch.run(folder / "in.zarr", folder / "tensorflow.zarr", **options)
    kept = tmp_path / "kept"
    kept.mkdir()
    write_run(kept, frames)
    monkeypatch.setenv("XDG_CACHE_HOME", str(kept / "cache"))
    command = [sys.executable, "-m", "tests.network.in_jax", str(tmp_path), json.dumps(given)]
    command += words_of_run(kept, 1, "jax")
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=quickly_compiled())
    assert done.returncode == 0, done.stderr
    for name in CASES:
        for path in ("0", "uncertainty/0"):
            expected, found = (
                zarr.open_array(tmp_path / name / f"{backend}.zarr", path=path)[:] for backend in ("tensorflow", "jax")
            )
            assert expected.std() > 0
            assert np.abs(found - expected).max() <= 1e-5 * expected.std(), name
    require_found(kept, "jax", ["jax"], quickly_compiled())


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


COMMANDS = """
import io, json, sys
from contextlib import redirect_stderr, redirect_stdout
from phbatch.shell.commands import main
told = []
for hidden, words in json.loads(sys.argv[1]):
    sys.argv = ["phbatch", *words]
    sys.modules |= dict.fromkeys(hidden)
    with redirect_stderr(io.StringIO()) as said, redirect_stdout(io.StringIO()):
        try:
            main()
        except SystemExit as end:
            told.append((end.code or 0, said.getvalue()))
    for library in hidden:
        del sys.modules[library]
print("TOLD" + json.dumps(told))
"""


def phbatch_in(
    environment: dict[str, str], commands: list[tuple[str | Path, ...]], hidden: dict[int, list[str]]
) -> list[tuple[int, str]]:
    """Exit code and what was said of each of some commands, one after the other in one process.

    Parameters
    ----------
    environment : dict of str to str
        Of the process.
    commands : list of tuple
        Words of each.
    hidden : dict of int to list of str
        By the place of a command, libraries that it cannot import.
    """
    given = [(hidden.get(place, []), [str(word) for word in words]) for place, words in enumerate(commands)]
    command = [sys.executable, "-c", COMMANDS, json.dumps(given)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [(code, said) for code, said in json.loads(done.stdout.rpartition("TOLD")[2])]


def test_without_tensorflow_the_same_commands_run_on_jax_and_without_either_it_is_said_what_to_install(
    tmp_path: Path, frames: np.ndarray
) -> None:
    zarr.create_array(tmp_path / "in.zarr", data=frames)
    expected = phbatch.run(tmp_path / "in.zarr", tmp_path / "tensorflow.zarr")
    source = ("run", tmp_path / "in.zarr")
    run = (*source, tmp_path / "jax.zarr", "--no-report")
    refused, normalized, version, asked, first, second, other = phbatch_in(
        without(tmp_path / "hidden", "tensorflow"),
        [
            (*source, tmp_path / "refused.zarr"),
            (*source, tmp_path / "normalized.zarr", "--model", "none"),
            ("--version",),
            (*source, tmp_path / "c.zarr", "--backend", "tensorflow"),
            run,
            run,  # the second one is continued
            (*run, "--backend", "tensorflow"),
        ],
        {0: ["jax"], 1: ["jax"]},
    )
    assert (refused[0], (tmp_path / "refused.zarr").exists()) == (2, False)
    assert "`pip install 'phbatch[tensorflow]'` or 'phbatch[jax]', or normalize only" in refused[1]
    assert normalized[0] == 0, normalized[1]
    assert [code for code, _ in (version, first, second)] == [0, 0, 0], (first, second)
    assert any(any(folder.iterdir()) for folder in Path(os.environ["XDG_CACHE_HOME"], "phbatch").glob("jax-*"))
    values = zarr.open_array(expected.output, path="0")[:]
    difference = np.abs(zarr.open_array(tmp_path / "jax.zarr", path="0")[:] - values).max()
    assert difference <= 8 * np.finfo("float32").eps * values.max()  # of little contrast on a background of 1
    assert {recorded(path) for path in (expected.output, tmp_path / "jax.zarr")} == {"tensorflow", "jax"}
    assert other[0] == 3
    assert "settings.backend was jax and is tensorflow" in other[1]
    assert asked[0] == 2
    assert "backend tensorflow is not installed; `pip install 'phbatch[tensorflow]'`" in asked[1]


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


def test_nothing_is_withheld_in_a_process_of_somebody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """In one of phbatch's own it is (`tests.network.test_programs.LATER`)."""
    monkeypatch.delitem(sys.modules, "matplotlib", raising=False)
    for own in (False, True):
        monkeypatch.setitem(backend._process, "own", own)
        with backend.starting("tensorflow"):
            assert ("matplotlib" in sys.modules) == own
            assert sys.modules.get("matplotlib") is None
