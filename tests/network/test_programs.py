"""A network that was compiled before computes the same bytes without Keras, and only where it does."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import phbatch
from phbatch.network import backend as backends
from phbatch.network import c_api, compiling, predictor, programs
from phbatch.network.backend import select_backend
from phbatch.network.compiling import compile_network, open_program
from phbatch.network.forms import build_form
from phbatch.network.model import open_model
from phbatch.network.predictor import Predictor, computing_in
from phbatch.network.programs import Program, ProgramFile, find_program
from phbatch.network.steps import Steps, Windows
from phbatch.network.weights import read_weights
from phbatch.words.errors import DeviceError
from tests.handmade import quickly_compiled, write_model

FILE = ProgramFile({"a": 1})
BLANK = Windows.plain(np.zeros((1, 16, 16, 1), np.float32))


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


def compiled_and_opened(backend: Any, number: int, folder: Path) -> bool:
    """Whether what was compiled and what its program computes are the same bytes, after it went through a file."""
    changes, form, precision, steps = CASES[number]
    model = open_model(write_model(folder / f"model-{number}", **changes))
    config = model.config
    tile = (16, 24, 20)[-config.n_dim :]
    select_backend(backend)
    with computing_in(precision):
        network = build_form(config, read_weights(model.weights_path, config), form, tile)
    shape = (2, *tile, 1)
    compiled = compile_network(network, shape, backend, precision, steps)
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


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where programs are kept."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "phbatch"


@pytest.mark.parametrize("number", range(len(CASES)))
def test_a_kept_graph_of_tensorflow_computes_the_same_bytes(number: int, tmp_path: Path) -> None:
    assert compiled_and_opened("tensorflow", number, tmp_path)


CALL = (
    "import sys; from phbatch.shell.commands import main\n"
    "try: main()\n"
    "except SystemExit as end: assert not end.code, end.code\n"
    "print(sorted({'keras', 'tensorflow', 'jax'} & sys.modules.keys()))"
)


def loaded_by(*words: object) -> list[str]:
    """What a command imported of the libraries of networks."""
    command = [sys.executable, "-c", CALL, *map(str, words), "--no-report", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=quickly_compiled())
    assert done.returncode == 0, done.stderr
    return eval(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


@pytest.mark.parametrize(("backend", "first", "later"), [("tensorflow", "tensorflow", []), ("jax", "jax", ["jax"])])
def test_the_second_run_imports_no_keras_and_gives_the_same_bytes(
    backend: str, first: str, later: list[str], tmp_path: Path, folder: Path, frames: np.ndarray
) -> None:
    zarr.create_array(tmp_path / "in.zarr", data=frames)
    model = write_model(tmp_path / "model", probabilistic=True)
    options = ("--model", model, "--backend", backend, "--uncertainty", "--threads", 1)
    run = ("run", tmp_path / "in.zarr")
    assert loaded_by(*run, tmp_path / "1.zarr", *options) == sorted(["keras", first])
    (kept,) = folder.glob("program-*.npz")
    assert loaded_by(*run, tmp_path / "2.zarr", *options) == later
    assert [kept] == list(folder.glob("program-*.npz"))
    pixels = [
        [zarr.open_array(tmp_path / f"{number}.zarr", path=path)[:] for path in ("0", "uncertainty/0")]
        for number in (1, 2)
    ]
    assert pixels[0][0].std() > 0
    assert all(one.tobytes() == other.tobytes() for one, other in zip(*pixels, strict=True))
    assert phbatch.verify(str(tmp_path / "2.zarr")).exit_code == 0


BOTH = """
import sys
import numpy as np
from phbatch.network import backend
from phbatch.network.model import open_model
from phbatch.network.predictor import Predictor
from phbatch.network.steps import Windows

model, kind = open_model(sys.argv[1]), sys.argv[2]
arguments = (model.folder, (16, 16), 1, kind)
windows = Windows.plain(np.random.default_rng(0).normal(size=(1, 16, 16, 1)).astype(np.float32))
backend.start_sparingly()
backend.limit_network_threads(kind, 1)
first = Predictor(*arguments, keeping=True).restore(windows).image
print("keras" in sys.modules)
other = Predictor(*arguments).restore(windows).image
again = Predictor(*arguments, keeping=True).restore(windows).image
assert "keras" in sys.modules and first.std() > 0
assert first.tobytes() == other.tobytes() == again.tobytes()
"""


def require_found(model: Path, backend: str) -> None:
    """What is kept of a model computes without Keras in a process of its own, and Keras starts beside it."""
    command = [sys.executable, "-c", BOTH, str(model), backend]
    shown = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (shown.returncode, shown.stdout.strip()) == (0, "False"), shown.stderr


def test_where_more_is_needed_keras_starts_beside_what_was_kept(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    Predictor(model, (16, 16), 1, "tensorflow", keeping=True).restore(BLANK)
    require_found(model, "tensorflow")


KEEPING = """
import sys
from pathlib import Path
from phbatch.network import backend
from tests.network import test_programs as t
folder = Path(sys.argv[1])
print([t.compiled_and_opened("jax", number, folder) for number in range(1, len(t.CASES))])
backend.start_sparingly()
t.Predictor(folder / "model", (16, 16), 1, "jax", keeping=True).restore(t.BLANK)
"""


def test_a_kept_graph_of_jax_computes_the_same_bytes(tmp_path: Path) -> None:
    """All but the first case, which is the second without its steps; then one is found by another process."""
    model = write_model(tmp_path / "model")
    shown = subprocess.run([sys.executable, "-c", KEEPING, str(tmp_path)], capture_output=True, text=True, check=True)
    assert shown.stdout.split("\n")[-2] == str([True] * (len(CASES) - 1))
    require_found(model, "jax")


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
