"""What the command line says, and where: progress, records, one screen, unfinished and not damaged."""

from __future__ import annotations

import io
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from rich.console import Console

import phbatch
from phbatch.outputs.ledger import METADATA, Ledger
from phbatch.places.lock import hold_output
from phbatch.places.place import Place
from phbatch.report import ProgressReport
from phbatch.shell import commands as cli
from phbatch.words.errors import InterruptedRunError, UsageError
from phbatch.words.events import Event, RunStarted, UnitFinished
from tests.faults.inputs import files
from tests.handmade import CommandLine, write_model


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Six frames, each a unit of its own."""
    image = np.random.default_rng(0).integers(900, 1100, (6, 1030, 1030), dtype="uint16")
    zarr.create_array(tmp_path / "in.zarr", data=image, chunks=(1, 1030, 1030))
    return tmp_path / "in.zarr"


@pytest.fixture
def small(tmp_path: Path, frames: np.ndarray) -> Path:
    zarr.create_array(tmp_path / "small.zarr", data=frames, chunks=(1, 40, 36))
    return tmp_path / "small.zarr"


def stop_after(source: Path, output: Path, units: int) -> None:
    """A run that is stopped when it has finished some units."""
    seen: list[Event] = []

    def listener(event: Event) -> None:
        seen.append(event)
        if sum(isinstance(event, UnitFinished) for event in seen) == units:
            raise KeyboardInterrupt

    with pytest.raises((InterruptedRunError, KeyboardInterrupt)):
        phbatch.run(source, output, model="none", workers=1, listener=listener)


def test_a_stopped_output_is_unfinished_and_not_damaged(
    phbatch_command: CommandLine, source: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out.zarr"
    stop_after(source, output, 2)
    report = phbatch.verify(output)
    assert (report.damages, report.unfinished, report.running) == ((), True, False)
    assert 2 <= report.finished < report.units == 6
    assert phbatch_command("verify", output) == 3
    assert f"unfinished: {report.finished} of 6 units" in phbatch_command.out
    assert "damaged" not in phbatch_command.out
    with hold_output(Place.at(output), "another"):
        assert phbatch.verify(output).running
        assert phbatch_command("verify", output) == 3
        assert "again" not in phbatch_command.out
    assert phbatch_command("verify", output, "--deep", 9) == 3
    assert f"computed {report.finished} units again" in phbatch_command.out
    assert phbatch_command("info", output) == 0
    assert f"{report.finished} of 6 units" in phbatch_command.out
    shutil.rmtree(output / "0" / "c" / "0")
    damages = phbatch.verify(output).damages
    assert [damage.unit for damage in damages] == ["t0/c0"] * len(damages) != []
    assert phbatch.repair(output).exit_code == 0
    assert phbatch.verify(output).exit_code == 0


def test_an_output_that_ends_while_it_is_looked_at_is_not_damaged(small: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.zarr"
    phbatch.run(small, output, model="none")
    ledger = Ledger(Place.at(output))
    kept = [record for record in ledger if record["unit"] != METADATA or not record["complete"]]
    shutil.rmtree(output / ".phbatch" / "ledger")
    for record in kept:
        ledger.commit(record)
    report = phbatch.verify(output)
    assert (report.damages, report.unfinished) == ((), True)
    assert phbatch.repair(output).units_done == 0
    assert phbatch.verify(output).exit_code == 0


def test_a_unit_that_is_missing_in_a_finished_output_is_a_damage(source: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.zarr"
    phbatch.run(source, output, model="none")
    ledger = Ledger(Place.at(output))
    ledger.retract("t3/c0")
    report = phbatch.verify(output)
    assert [damage.place for damage in report.damages] == ["t3/c0"]
    assert not report.unfinished


@pytest.mark.parametrize("command", ["verify", "repair"])
def test_what_is_no_output_is_never_to_be_removed(phbatch_command: CommandLine, small: Path, command: str) -> None:
    before = files(small)
    assert phbatch_command(command, small) == 3
    assert "no output of" in phbatch_command.err
    assert "remove" not in phbatch_command.err
    assert phbatch_command(command, small.parent / "mistyped.zarr") == 3
    assert "does not exist" in phbatch_command.err
    assert files(small) == before


def test_computing_again_counts_from_0_to_all(source: Path, tmp_path: Path) -> None:
    output = phbatch.run(source, tmp_path / "out.zarr", model="none").output
    shown = io.StringIO()
    phbatch.verify(output, deep=4, listener=ProgressReport(Console(file=shown, width=80)))
    assert "4/4 frames" in shown.getvalue()
    events: list[Event] = []
    phbatch.verify(output, deep=4, listener=events.append)
    started = [event for event in events if isinstance(event, RunStarted)]
    assert [(event.units, event.frames, event.frames_done) for event in started] == [(4, 4, 0)]
    assert sum(event.frames for event in events if isinstance(event, UnitFinished)) == 4


@pytest.mark.parametrize("extra", [(), ("--debug",)])
def test_json_is_all_that_stands_on_standard_output(
    phbatch_command: CommandLine, small: Path, tmp_path: Path, extra: Sequence[str]
) -> None:
    out, model = tmp_path / "out.zarr", write_model(tmp_path / "model", unet_n_depth=1)
    lines: list[tuple[Any, ...]] = [
        ("run", small, out, "--model", "none", "--profile", "--downscale", 2),
        ("plan", small, out, "--model", "none", "--downscale", 2),
        ("stats", small),
        ("stats", small, "-o", tmp_path / "t.csv"),
        ("compare", small, "-o", tmp_path / "page.html"),
        ("illumination", small, "--method", "gaussian", "-o", tmp_path / "light.zarr"),
        ("verify", out, "--deep", 1),
        ("repair", out),
        ("info", small),
        ("info", out),
        ("info", model),
    ]
    for line in lines:
        assert phbatch_command(*line, "--json", *extra) == 0, phbatch_command.err
        json.loads(phbatch_command.out)
    for line, code in (
        (("run", small, "--sigma", "x"), 2),
        (("run", small, "--no-such-option"), 2),
        (("run", tmp_path / "nowhere.zarr"), 3),
        (("verify", small), 3),
        (("compare",), 2),
        (("verify", out, "--workers", 0), 2),
        (("repair", out, "--workers", -3), 2),
    ):
        assert phbatch_command(*line, "--json", *extra) == code
        assert json.loads(phbatch_command.out)["exit_code"] == code
        assert "rror: " in phbatch_command.err


def test_quiet_is_quiet_and_still_warns(phbatch_command: CommandLine, small: Path, tmp_path: Path) -> None:
    model, output = write_model(tmp_path / "model", unet_n_depth=1), tmp_path / "out.zarr"
    for line in (
        ("run", small, output, "--model", model),
        ("stats", small),
        ("verify", output, "--deep", 1),
        ("repair", output),
    ):
        assert phbatch_command(*line, "--quiet") == 0, phbatch_command.err
        left = [text for text in phbatch_command.err.splitlines() if not text.startswith("warning: ")]
        assert [text for text in left if "frames/s" in text or text.startswith(("network:", "precision:"))] == []
    assert phbatch_command("demo", "--help") == 0
    assert "--quiet" in phbatch_command.out


def test_info_is_one_screen(phbatch_command: CommandLine, small: Path, tmp_path: Path) -> None:
    model = write_model(tmp_path / "model", unet_n_depth=1)
    output = phbatch.run(small, tmp_path / "out.zarr", model=model).output
    for path in (small, output, model, "phase-2d"):
        assert phbatch_command("info", path) == 0
        lines = phbatch_command.out.splitlines()
        assert len(lines) <= 24
        assert max(map(len, lines)) < 260
    assert phbatch_command("info", output) == 0
    for word in ("1 of 1 units", "complete", "percentile", "tyx"):
        assert word in phbatch_command.out


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("3", [3]),
        (3, [3]),
        ("-1", [5]),
        ("-3:", [3, 4, 5]),
        (":-4", [0, 1]),
        ("-4:-1:2", [2, 4]),
        ("0", [0]),
        (" 1:3 ", [1, 2]),
        ("::4", [0, 4]),
        ("6", []),
        ("-7", []),
        ("99999999999999999999:", []),
        (":99999999999999999999", [0, 1, 2, 3, 4, 5]),
    ],
)
def test_frames_are_chosen_as_in_python(given: Any, expected: list[int]) -> None:
    assert list(phbatch.RunSettings(frames=given).select_frames(6)) == expected


@pytest.mark.parametrize("given", ["", "3-4", "1,2", "::0", "::-1", "1:2:3:4", "a", "--1", "1.5", "\u0663", True])
def test_other_frames_are_refused(small: Path, given: Any) -> None:
    with pytest.raises(UsageError, match="frames"):
        phbatch.plan(small, model="none", frames=given)


def test_one_frame_and_the_last_ones_in_every_command(
    phbatch_command: CommandLine, small: Path, frames: np.ndarray, tmp_path: Path
) -> None:
    assert phbatch_command("stats", small, "--frames", "1", "--json") == 0
    assert [row["t"] for row in json.loads(phbatch_command.out)] == [1]
    assert phbatch_command("run", small, tmp_path / "out.zarr", "--model", "none", "--frames", "-2:", "--json") == 0
    assert zarr.open_array(tmp_path / "out.zarr" / "0")[:].shape[0] == 2
    record = phbatch.statistics(small, frames=-1)
    assert [row["t"] for row in record] == [2]
    assert record[0]["mean"] == pytest.approx(frames[2].mean())
    assert phbatch_command("run", small, tmp_path / "o.zarr", "--model", "none", "--frames", "3") == 3
    assert "selects none of the 3 frames" in phbatch_command.err


@pytest.mark.parametrize("columns", ["1", "20"])
def test_a_terminal_without_room_or_signs_breaks_nothing(
    monkeypatch: pytest.MonkeyPatch, small: Path, tmp_path: Path, columns: str
) -> None:
    zarr.open_array(small).attrs["_ARRAY_DIMENSIONS"] = ["t", "y", "x"]
    odd = small.rename(tmp_path / "µ → \U0001f600.zarr")
    monkeypatch.setenv("COLUMNS", columns)
    for line in (
        ("run", odd, tmp_path / "out.zarr", "--model", "none"),
        ("stats", odd),
        ("compare", odd),
        ("info", odd),
        ("run", tmp_path / "µ.zarr"),
    ):
        out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
        err = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
        monkeypatch.setattr(out, "isatty", lambda: True, raising=False)
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", err)
        monkeypatch.setattr(sys, "argv", ["phbatch", *map(str, line)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        err.flush()
        assert stopped.value.code == (3 if line[1] != odd else 0), err.buffer.getvalue()  # type: ignore[attr-defined]


def test_a_bar_on_a_narrow_terminal_without_unicode(small: Path, tmp_path: Path) -> None:
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="backslashreplace")
    with ProgressReport(Console(file=file, width=8, force_terminal=True)) as listener:
        phbatch.run(small, tmp_path / "out.zarr", model="none", listener=listener)
