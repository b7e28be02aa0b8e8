"""A network that was compiled before computes the same bytes without Keras, and only where it does."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import phbatch
from phbatch.network import backend as backends
from phbatch.network import c_api, compiling, predictor, programs
from phbatch.network.compiling import compile_network, open_program
from phbatch.network.model import open_model
from phbatch.network.predictor import Predictor
from phbatch.network.programs import Program, ProgramFile, find_program
from phbatch.network.steps import Steps, Windows
from phbatch.words.errors import DeviceError
from tests.forks import Forked
from tests.handmade import write_model
from tests.network.kept import CASES, FILE, compiled_and_opened

BLANK = Windows.plain(np.zeros((1, 16, 16, 1), np.float32))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where programs are kept."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "phbatch"


@pytest.mark.parametrize("number", range(len(CASES)))
def test_a_kept_graph_of_tensorflow_computes_the_same_bytes(number: int, tmp_path: Path) -> None:
    assert compiled_and_opened("tensorflow", number, tmp_path)


FIRST = "from phbatch.shell.commands import main; main()"

LATER = """
import sys
import numpy as np
from phbatch.network.model import open_model
from phbatch.network.predictor import Predictor
from phbatch.network.steps import Windows
from phbatch.shell.commands import main

model, kind = open_model(sys.argv[1]), sys.argv[2]
del sys.argv[1:3]
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
arguments = (model.folder, (16, 16), 1, kind)
windows = Windows.plain(np.random.default_rng(0).normal(size=(1, 16, 16, 1)).astype(np.float32))
first = Predictor(*arguments, keeping=True).restore(windows).image
print(sorted({"keras", "tensorflow", "jax"} & sys.modules.keys()))
other = Predictor(*arguments).restore(windows).image
assert not ({"jax", "matplotlib", "pandas"} - {kind}) & sys.modules.keys()
again = Predictor(*arguments, keeping=True).restore(windows).image
assert "keras" in sys.modules and first.std() > 0
assert first.tobytes() == other.tobytes() == again.tobytes()
if kind == "tensorflow":
    import matplotlib.pyplot  # is there for whoever needs it later
"""


def words_of_run(folder: Path, number: int, backend: str) -> list[str]:
    """Of the command that restores the image of a folder by the model there."""
    paths = [str(folder / "in.zarr"), str(folder / f"{number}.zarr"), "--model", str(folder / "model")]
    return ["run", *paths, "--backend", backend, "--uncertainty", "--threads", "1", "--no-report", "--json"]


def write_run(folder: Path, frames: np.ndarray) -> Path:
    """An image, and a model, which is returned."""
    zarr.create_array(folder / "in.zarr", data=frames)
    return write_model(folder / "model", probabilistic=True)


def require_found(folder: Path, backend: str, loaded: list[str], environment: Mapping[str, str]) -> None:
    """What was kept is found: the second run, in a process of its own, computes the same bytes without Keras.

    Keras starts beside it where more is needed, without what no network needs.
    """
    programs = sorted((folder / "cache").rglob("program-*.npz"))
    assert len(programs) >= 2  # of the run, and of a tile of 16 x 16
    command = [sys.executable, "-c", LATER, str(folder / "model"), backend, *words_of_run(folder, 2, backend)]
    shown = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.splitlines()[-1] == str(loaded)
    assert programs == sorted((folder / "cache").rglob("program-*.npz"))
    pixels = [
        [zarr.open_array(folder / f"{number}.zarr", path=path)[:] for path in ("0", "uncertainty/0")]
        for number in (1, 2)
    ]
    assert pixels[0][0].std() > 0
    assert all(one.tobytes() == other.tobytes() for one, other in zip(*pixels, strict=True))
    assert phbatch.verify(str(folder / "2.zarr")).exit_code == 0


def test_the_second_run_imports_no_keras_and_gives_the_same_bytes(tmp_path: Path, frames: np.ndarray) -> None:
    """On TensorFlow; on JAX, which needs a process of its own, it is one of `tests/test_backends.py`."""
    model = write_run(tmp_path, frames)
    Predictor(model, (16, 16), 1, "tensorflow", keeping=True).restore(BLANK)
    first = Forked(FIRST, words_of_run(tmp_path, 1, "tensorflow"))
    assert first.wait(120) == 0, first.communicate()
    require_found(tmp_path, "tensorflow", [], os.environ)


def test_without_the_library_and_where_its_file_is_damaged_the_network_is_built(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = open_model(write_model(tmp_path / "model"))
    arguments = (model.folder, (16, 16), 1, "tensorflow")
    windows = Windows.plain(np.random.default_rng(0).normal(size=(1, 16, 16, 1)).astype(np.float32))
    expected = Predictor(*arguments, keeping=True).restore(windows).image
    (kept,) = folder.glob("program-*.npz")
    built: list[bool] = []

    def count(*arguments: Any) -> Any:
        built.append(True)
        return compile_network(*arguments)

    monkeypatch.setattr(predictor, "compile_network", count)
    assert np.array_equal(Predictor(*arguments, keeping=True).restore(windows).image, expected)
    assert not built
    kept.write_bytes(kept.read_bytes()[:-200])
    for _ in range(2):  # it is kept anew
        assert np.array_equal(Predictor(*arguments, keeping=True).restore(windows).image, expected)
        assert len(built) == 1
    monkeypatch.setattr(c_api, "_LIBRARY", "libnone.so")
    c_api._load.cache_clear()
    compiling._runtime.cache_clear()
    assert np.array_equal(Predictor(*arguments, keeping=True).restore(windows).image, expected)
    assert len(built) == 2
    c_api._load.cache_clear()
    compiling._runtime.cache_clear()


def test_nothing_is_kept_or_opened_in_a_process_of_somebody_else(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, frames: np.ndarray
) -> None:
    zarr.create_array(tmp_path / "in.zarr", data=frames)
    looked: list[Any] = []
    monkeypatch.setattr(predictor, "find_program", lambda *case: looked.append(case))
    phbatch.run(tmp_path / "in.zarr", model=write_model(tmp_path / "model", seed=23))
    assert not looked
    assert not list(folder.glob("program-*.npz"))
    monkeypatch.setitem(backends._process, "own", True)
    phbatch.run(tmp_path / "in.zarr", tmp_path / "own.zarr", model=write_model(tmp_path / "own", seed=24))
    assert looked


def test_a_program_that_gives_other_bytes_is_not_kept(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = open_model(write_model(tmp_path / "model"))
    arguments = (model.folder, (16, 16), 1, "tensorflow", "plain", "float32", Steps())
    windows = Windows.plain(np.random.default_rng(0).normal(size=(1, 16, 16, 1)).astype(np.float32))
    expected = Predictor(*arguments).restore(windows).image

    def open_other(backend: Any, program: Program) -> Any:
        opened = open_program(backend, program)
        return lambda windows: [opened(windows)[0] + np.float32(1e-7), *opened(windows)[1:]]

    monkeypatch.setattr(predictor, "open_program", open_other)
    assert np.array_equal(Predictor(*arguments, keeping=True).restore(windows).image, expected)
    assert not folder.exists()
    monkeypatch.undo()


def test_what_is_kept_is_found_for_the_same_case_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    model = open_model(write_model(tmp_path / "model"))
    cases = [
        (model, (16, 16), 1, "tensorflow", "plain", "float32", Steps()),
        (open_model(write_model(tmp_path / "other", seed=1)), (16, 16), 1, "tensorflow", "plain", "float32", Steps()),
        (model, (16, 20), 1, "tensorflow", "plain", "float32", Steps()),
        (model, (16, 16), 2, "tensorflow", "plain", "float32", Steps()),
        (model, (16, 16), 1, "tensorflow", "upsampling", "float32", Steps()),
        (model, (16, 16), 1, "tensorflow", "plain", "bfloat16", Steps()),
        (model, (16, 16), 1, "tensorflow", "plain", "float32", Steps(gain=2.0)),
    ]
    files = [find_program(*case) for case in cases]
    monkeypatch.setattr(programs, "_digest_code", lambda: "other code")
    files.append(find_program(*cases[0]))
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    files.append(find_program(*cases[0]))
    paths = {file.path for file in files if file is not None}
    assert len(paths) == len(files) == 9


def test_a_file_that_is_none_and_one_of_another_case_are_ignored_and_the_oldest_ones_make_room(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert FILE.read() is None
    program = Program(b"graph", {"a/b": np.arange(3.0)}, ("x",), ("y:0",))
    FILE.write(program)
    found = FILE.read()
    assert found is not None
    assert (found.graph, found.inputs, found.outputs, [*found.weights]) == (b"graph", ("x",), ("y:0",), ["a/b"])
    other = ProgramFile({"a": 2})
    other.path.write_bytes(FILE.path.read_bytes())
    assert other.read() is None
    whole = FILE.path.read_bytes()
    for place in range(0, len(whole), 97):
        FILE.path.write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
        again = FILE.read()
        assert again is None or again.graph == program.graph
    FILE.write(program)
    monkeypatch.setattr(programs, "_ROOM", int(3.5 * FILE.path.stat().st_size))
    for number in range(5):
        ProgramFile({"a": number}).write(program)
        os.utime(ProgramFile({"a": number}).path, (number, number))
    ProgramFile({"a": 5}).write(program)
    assert [ProgramFile({"a": number}).read() is not None for number in range(6)] == 3 * [False] + 3 * [True]
    assert len(list(folder.iterdir())) == 3
    monkeypatch.setattr(programs, "_ROOM", 20)
    ProgramFile({"a": 9}).write(program)
    assert ProgramFile({"a": 9}).read() is None


def test_a_graph_that_is_none_is_refused(tmp_path: Path) -> None:
    for program in (Program(b"graph", {}), Program(b"", {}, ("x",), ("y:0",))):
        with pytest.raises(DeviceError):
            open_program("tensorflow", program)
