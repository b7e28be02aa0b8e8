"""A run that was stopped continues where it left, and ends byte for byte as if it never was."""

from __future__ import annotations

import re
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import phbatch
from phbatch.computing import engine
from phbatch.computing.tasks import Job
from phbatch.planning import units
from phbatch.planning.unit import Unit
from phbatch.running import commit
from phbatch.words.events import Event, UnitFinished
from tests.forks import Forked
from tests.handmade import CommandLine, write_model


@pytest.fixture(autouse=True)
def small_units() -> Iterator[None]:
    """Every frame of more than a thousand pixels is a unit of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(units, "_UNIT_PIXELS", 1000)
        yield


@pytest.fixture
def source(tmp_path: Path) -> Path:
    draw = np.random.default_rng(0)
    image = draw.integers(400, 600, (16, 104, 103), dtype="uint16")
    zarr.create_array(tmp_path / "in.zarr", data=image, chunks=(1, 52, 103))
    return tmp_path / "in.zarr"


def files(output: str | Path) -> dict[str, bytes]:
    """Every file of an output but its ledger and log, which hold times."""
    root = Path(output)
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and not {"ledger", "log"} & {*path.parts}
    }


def pixels(output: str | Path) -> dict[str, bytes]:
    """Every chunk of the image."""
    return {key: data for key, data in files(output).items() if key.startswith("0/c/")}


def committed(output: Path) -> int:
    """Units in the ledger so far."""
    return sum(path.read_bytes().count(b'{"unit": "t') for path in output.glob(".phbatch/ledger/*.jsonl"))


def stop_when_asked(times: int) -> Callable[[], bool]:
    """It says no so often, and then yes."""
    said = iter([False] * times)
    return lambda: next(said, True)


@pytest.mark.parametrize("workers", [1, 2])
def test_stopped_and_continued_is_byte_equal(source: Path, tmp_path: Path, workers: int) -> None:
    options: dict[str, Any] = {"model": "none", "workers": workers, "command": "same"}
    whole = phbatch.run(source, tmp_path / "whole.zarr", **options)
    with pytest.raises(phbatch.InterruptedRunError, match="call the same command again"):
        phbatch.run(source, tmp_path / "parts.zarr", stop=stop_when_asked(8), **options)
    assert zarr.open_group(tmp_path / "parts.zarr").attrs.asdict()["phbatch"]["status"] == "running"
    with pytest.raises(phbatch.InterruptedRunError):
        phbatch.run(source, tmp_path / "parts.zarr", stop=stop_when_asked(8), **options)
    last = phbatch.run(source, tmp_path / "parts.zarr", **options)
    assert 2 <= last.units_skipped < 16  # it is asked before each unit
    assert last.units_done == 16 - last.units_skipped
    assert files(last.output) == files(whole.output)


@pytest.mark.parametrize("workers", [1, 2])
def test_an_interrupt_at_any_point_loses_no_finished_unit(source: Path, tmp_path: Path, workers: int) -> None:
    options: dict[str, Any] = {"model": "none", "workers": workers, "command": "same"}
    whole = phbatch.run(source, tmp_path / "whole.zarr", **options)

    def interrupt(event: Event) -> None:
        if isinstance(event, UnitFinished):
            raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            phbatch.run(source, tmp_path / "parts.zarr", listener=interrupt, **options)
    last = phbatch.run(source, tmp_path / "parts.zarr", **options)
    assert last.units_skipped >= 2
    assert last.units_done == 16 - last.units_skipped
    assert files(last.output) == files(whole.output)


def test_a_search_for_nan_that_is_stopped_writes_nothing(
    tmp_path: Path, frames: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = np.tile(frames, (2, 1, 1)).astype("float32")
    zarr.create_array(tmp_path / "in.zarr", data=image, chunks=(1, *image.shape[1:]))
    original, asked = engine.scan_unit, threading.Event()

    def scan_and_stop(job: Job, unit: Unit) -> str | None:
        asked.set()
        return original(job, unit)

    monkeypatch.setattr(engine, "scan_unit", scan_and_stop)
    with pytest.raises(phbatch.InterruptedRunError, match="after 1 of 6 units were searched for NaN"):
        phbatch.run(tmp_path / "in.zarr", model="none", workers=1, stop=asked.is_set)
    assert not (tmp_path / "in.phbatch.zarr").exists()
    monkeypatch.undo()
    assert phbatch.run(tmp_path / "in.zarr", model="none", workers=1).units_done == 6


def test_a_finished_output_is_left_as_it_is(source: Path) -> None:
    first = phbatch.run(source, model="none")
    before = files(first.output)
    again = phbatch.run(source, model="none")
    assert (again.units_done, again.units_skipped) == (0, 16)
    assert files(again.output) == before


def test_failed_units_are_retried(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = commit.restore_unit

    def fail_once(job: Job, unit: Unit) -> dict[str, Any]:
        if unit.key in ("t2/c0", "t4/c0"):
            raise OSError("connection reset")
        return original(job, unit)

    monkeypatch.setattr(commit, "restore_unit", fail_once)
    first = phbatch.run(source, tmp_path / "out.zarr", model="none", command="same")
    assert set(first.failed) == {"t2/c0", "t4/c0"}
    assert first.failed["t2/c0"] == "connection reset"
    assert (first.exit_code, first.units_done) == (4, 14)
    monkeypatch.undo()
    second = phbatch.run(source, tmp_path / "out.zarr", model="none", command="same")
    assert (second.exit_code, second.units_done, second.units_skipped) == (0, 2, 14)
    whole = phbatch.run(source, tmp_path / "whole.zarr", model="none", command="same")
    assert files(second.output) == files(whole.output)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"factor": 2}, "settings.normalization.factor was 1.0 and is 2.0"),
        ({"normalize": "mode"}, "settings.normalization.method (normalize) was median and is mode"),
        ({"frames": "0:5"}, "settings.frames"),
        ({"dtype": "float16"}, "settings.dtype was float32 and is float16"),
    ],
)
def test_changed_settings_are_named(source: Path, change: dict[str, Any], named: str) -> None:
    first = phbatch.run(source, model="none")
    before = files(first.output)
    with pytest.raises(phbatch.OutputError, match=re.escape(named)):
        phbatch.run(source, first.output, **({"model": "none"} | change))
    assert files(first.output) == before
    afresh = phbatch.run(source, first.output, overwrite=True, **({"model": "none"} | change))
    assert afresh.units_skipped == 0


def test_changed_model_and_input_are_named(tmp_path: Path, frames: np.ndarray) -> None:
    source = tmp_path / "in.zarr"
    zarr.create_array(source, data=frames, chunks=(1, 40, 36))
    model = write_model(tmp_path / "model", seed=1)
    first = phbatch.run(source, model=model)
    write_model(model, seed=2)
    with pytest.raises(phbatch.OutputError, match=r"model\.sha256 was"):
        phbatch.run(source, first.output, model=model)
    write_model(model, seed=1)
    assert phbatch.run(source, first.output, model=model).units_done == 0
    zarr.open_array(source, mode="r+")[1, 3, 4] = 1
    with pytest.raises(phbatch.OutputError, match="the input of t1/c0 was changed after it was restored"):
        phbatch.run(source, first.output, model=model)


@pytest.mark.parametrize("options", [{}, {"bad_frames": "skip"}, {"illumination": "temporal"}], ids=str)
def test_an_input_that_is_repaired_may_be_continued(
    source: Path, tmp_path: Path, options: dict[str, Any], frames: np.ndarray
) -> None:
    chunk = source / "c" / "4" / "0" / "0"
    whole = chunk.read_bytes()
    chunk.write_bytes(whole[: len(whole) // 2])
    settings: dict[str, Any] = {"model": "none", "command": "same", "workers": 1} | options
    try:
        first = phbatch.run(source, tmp_path / "out.zarr", **settings)
        assert list(first.failed) == ["t4/c0"]
    except (phbatch.InputError, OSError):
        assert options  # what all frames are needed for cannot start without this one
    chunk.write_bytes(whole)
    second = phbatch.run(source, tmp_path / "out.zarr", **settings)
    assert (second.failed, second.units_skipped) == ({}, 0 if options else 15)
    untouched = phbatch.run(source, tmp_path / "whole.zarr", **settings)
    assert pixels(second.output) == pixels(untouched.output)
    chunk.write_bytes(whole)
    with pytest.raises(phbatch.OutputError, match=r"t4/c0|input\.digest"):
        phbatch.run(source, tmp_path / "out.zarr", **settings)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_an_input_that_vanishes_is_no_input_of_zeros(
    tmp_path: Path, frames: np.ndarray, zarr_format: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "in.zarr"
    zarr.create_array(source, data=frames, chunks=(1, 40, 36), zarr_format=zarr_format)
    original = commit.restore_unit

    def vanish(job: Job, unit: Unit) -> dict[str, Any]:
        if unit.key == "t1/c0" and source.exists():
            source.rename(tmp_path / "elsewhere.zarr")
        return original(job, unit)

    monkeypatch.setattr(commit, "restore_unit", vanish)
    result = phbatch.run(source, model="none", workers=1)
    assert (result.units_done, result.exit_code) == (1, 4)
    assert all("is gone" in error for error in result.failed.values())
    (tmp_path / "elsewhere.zarr").rename(source)
    monkeypatch.undo()
    assert phbatch.run(source, model="none", workers=1).units_done == 2


def test_the_tile_of_the_first_run_is_kept(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(400, 600, (1, 300, 280), dtype="uint16")
    zarr.create_array(tmp_path / "in.zarr", data=image)
    model = write_model(tmp_path / "model")
    first = phbatch.run(tmp_path / "in.zarr", model=model, tile=64)
    assert phbatch.run(tmp_path / "in.zarr", model=model).units_skipped == first.units
    with pytest.raises(phbatch.OutputError, match=r"settings\.tile"):
        phbatch.run(tmp_path / "in.zarr", model=model, tile=128)


def test_a_killed_run_is_continued_byte_for_byte(source: Path, tmp_path: Path) -> None:
    output = tmp_path / "parts.zarr"
    code = (
        "import sys, time, phbatch\n"
        "from phbatch.planning import units\n"
        "units._UNIT_PIXELS = 1000\n"
        "slow = lambda: time.sleep(0.3)\n"  # so that it is killed before its end, however busy the machine
        "phbatch.run(sys.argv[1], sys.argv[2], model='none', workers=2, command='same', stop=slow)"
    )
    process = Forked(code, [str(source), str(output)])
    deadline = time.monotonic() + 600
    while committed(output) < 2 and time.monotonic() < deadline:
        time.sleep(0.002)
    process.kill()
    assert process.wait(timeout=30) == -signal.SIGKILL
    assert zarr.open_group(output).attrs.asdict()["phbatch"]["status"] == "running"
    shutil.copytree(output, tmp_path / "copy.zarr")
    last = phbatch.run(source, output, model="none", command="same")
    assert 2 <= last.units_skipped < 16
    assert last.units_done == 16 - last.units_skipped
    whole = phbatch.run(source, tmp_path / "whole.zarr", model="none", command="same")
    assert files(output) == files(whole.output)
    # A torn last line of the ledger costs that unit and nothing else.
    ledger = max((tmp_path / "copy.zarr").glob(".phbatch/ledger/*.jsonl"))
    ledger.write_bytes(ledger.read_bytes()[:-5])
    torn = phbatch.run(source, tmp_path / "copy.zarr", model="none", command="same")
    assert torn.units_skipped == last.units_skipped - 1
    assert files(torn.output) == files(whole.output)


COMMAND = """
import sys, time
import phbatch.running.commit as commit
import phbatch.shell.commands as cli
from phbatch.planning import units

def slow(job, unit, real=commit.restore_unit):
    time.sleep(0.3)  # so that it is stopped before its end, however busy the machine
    return real(job, unit)

commit.restore_unit, units._UNIT_PIXELS = slow, 1000
sys.argv[0] = "phbatch"
cli.main()
"""


def test_sigterm_drains_and_says_how_to_go_on(source: Path, tmp_path: Path, phbatch_command: CommandLine) -> None:
    arguments = ["run", str(source), "--model", "none", "--workers", "2"]
    process = Forked(COMMAND, arguments)
    output = tmp_path / "in.phbatch.zarr"
    deadline = time.monotonic() + 600
    while not committed(output) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "call the same command again to continue" in errors
    assert "Traceback" not in errors
    assert 0 < committed(output) < 16
    assert phbatch_command(*arguments) == 0
    assert zarr.open_group(output).attrs.asdict()["phbatch"]["status"] == "complete"
