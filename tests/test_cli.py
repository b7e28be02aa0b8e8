"""The command line: exit codes, records, configuration files, and what it does not load."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr
from rich.console import Console

import phbatch
from phbatch.planning import units
from phbatch.report import ProgressReport
from tests.handmade import CommandLine, write_model


@pytest.fixture
def source(tmp_path: Path, frames: np.ndarray) -> Path:
    zarr.create_array(tmp_path / "in.zarr", data=frames, chunks=(1, 40, 36))
    return tmp_path / "in.zarr"


@pytest.fixture
def small_units(monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames of ten thousand pixels are units of their own."""
    monkeypatch.setattr(units, "_UNIT_PIXELS", 10_000)


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (("--colour", "red"), "No such option"),
        (("--dtype", "uint16", "--model", "none"), "--rescale"),
        (("--frames", "a:b", "--model", "none"), "START:STOP"),
        (("--pmin", "90", "--pmax", "10", "--model", "none"), "below pmax"),
        (("--pmin", "50", "--pmax", "50", "--model", "none"), "below pmax"),
        (("--frames", "0:3:0", "--model", "none"), "STEP from 1"),
        (("--memory", "plenty", "--model", "none"), "--memory 'plenty'"),
        (("--config", "nowhere.toml"), "cannot be read as TOML"),
        (("--normalize", "fixed", "--model", "none"), "--value"),
        (("--uncertainty",), "probabilistic"),
        (("--tile", "20"), "halo"),
        (("--workers", "0", "--model", "none"), "workers"),
    ],
)
def test_usage_errors(phbatch_command: CommandLine, source: Path, options: tuple[str, ...], part: str) -> None:
    assert phbatch_command("run", source, *options) == 2
    assert part in phbatch_command.err
    assert "Traceback" not in phbatch_command.err
    assert not (source.parent / "in.phbatch.zarr").exists()


def test_configuration_file(phbatch_command: CommandLine, source: Path, tmp_path: Path) -> None:
    config = tmp_path / "run.toml"
    config.write_text('model = "none"\nnormalize = "mode"\nfactor = 10\nframes = "0:2"\n')
    assert phbatch_command("plan", source, "--config", config, "--factor", "5", "--json") == 0
    record = json.loads(phbatch_command.out.splitlines()[-1])
    assert (record["normalization"], record["frames"]) == ("mode, factor 5, sigma 2 px", 2)
    config.write_text("colour = 1\n")
    assert phbatch_command("run", source, "--config", config) == 2
    assert "'colour' is no setting" in phbatch_command.err
    config.write_text("factor = \n")
    assert phbatch_command("run", source, "--config", config) == 2
    assert "cannot be read as TOML" in phbatch_command.err


@pytest.mark.parametrize("key", ["input", "output", "listener", "command", "json", "debug"])
def test_a_configuration_file_holds_settings_alone(
    phbatch_command: CommandLine, source: Path, tmp_path: Path, key: str
) -> None:
    (tmp_path / "run.toml").write_text(f'{key} = "x"\n')
    assert phbatch_command("run", source, "--model", "none", "--config", tmp_path / "run.toml") == 2
    assert f"error: '{key}' is no setting of phbatch" in phbatch_command.err
    assert not (source.parent / "in.phbatch.zarr").exists()


def test_a_configuration_file_that_is_no_text(phbatch_command: CommandLine, source: Path, tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_bytes(b"\xff\xfe")
    assert phbatch_command("run", source, "--config", tmp_path / "run.toml") == 2
    assert "cannot be read as TOML" in phbatch_command.err


@pytest.mark.parametrize(
    ("options", "part"),
    [(("--colour", "red"), "No such option"), (("--pmin", "90", "--pmax", "10"), "below pmax")],
)
def test_usage_errors_have_a_record_too(
    phbatch_command: CommandLine, source: Path, options: tuple[str, ...], part: str
) -> None:
    assert phbatch_command("run", source, *options, "--json") == 2
    record = json.loads(phbatch_command.out)
    assert record["exit_code"] == 2
    assert part in record["error"]


def test_json_records(phbatch_command: CommandLine, source: Path) -> None:
    assert phbatch_command("run", source, "--model", "none", "--json") == 0
    record = json.loads(phbatch_command.out.splitlines()[-1])
    assert (record["frames"], record["units"], record["failed"], record["exit_code"]) == (3, 1, {}, 0)
    assert record["output"] == str(source.parent / "in.phbatch.zarr")
    assert phbatch_command("run", source.parent / "nowhere.zarr", "--json") == 3
    record = json.loads(phbatch_command.out.splitlines()[-1])
    assert record["exit_code"] == 3
    assert "nowhere.zarr" in record["error"]


def test_debug_shows_the_traceback(phbatch_command: CommandLine, source: Path) -> None:
    assert phbatch_command("run", source.parent / "nowhere.zarr", "--debug") == 3
    assert "Traceback" in phbatch_command.err


def test_statistics_table(phbatch_command: CommandLine, source: Path, tmp_path: Path, frames: np.ndarray) -> None:
    assert phbatch_command("stats", source, "-o", tmp_path / "rows.json", "--sigma", "0") == 0
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [row["t"] for row in rows] == [0, 1, 2]
    assert [row["median"] for row in rows] == np.median(frames, axis=(1, 2)).tolist()
    assert list(rows[0]) == [
        *("t", "c", "z", "median", "mode", "mad", "mean", "std", "min", "max", "p2", "p99.8"),
        *("saturated", "zero", "focus", "background", "padding", "flags", "measured"),
    ]
    assert rows[0]["flags"] == []
    assert phbatch_command("stats", source, "-o", tmp_path / "rows.csv", "--sigma", "0") == 0
    table = list(csv.DictReader(io.StringIO((tmp_path / "rows.csv").read_text())))
    assert [float(row["p99.8"]) for row in table] == [row["p99.8"] for row in rows]
    assert phbatch_command("stats", source) == 0
    assert len(list(csv.DictReader(io.StringIO(phbatch_command.out)))) == 3
    assert phbatch_command("stats", source, "-o", tmp_path / "rows.xlsx") == 2


@pytest.mark.parametrize("name", ["nowhere/rows.csv", "in.zarr.csv/rows.csv", "folder.csv"])
def test_a_table_that_cannot_be_written(phbatch_command: CommandLine, source: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "in.zarr.csv").write_text("")
    (tmp_path / "folder.csv").mkdir()
    code = phbatch_command("stats", source, "-o", tmp_path / name)
    assert code == (2 if name == "folder.csv" else 3)  # a folder is refused by click, as an invalid value
    assert "Traceback" not in phbatch_command.err
    assert list((tmp_path / "folder.csv").iterdir()) == []


def test_plan_needs_no_chunk(phbatch_command: CommandLine, source: Path) -> None:
    before = phbatch_command("plan", source, "--memory", "2GB", "--json"), phbatch_command.out
    for chunk in [path for path in (source / "c").rglob("*") if path.is_file()]:
        chunk.unlink()
    assert (phbatch_command("plan", source, "--memory", "2GB", "--json"), phbatch_command.out) == before


def test_default_outputs_lie_beside_the_whole_zarr(phbatch_command: CommandLine, tmp_path: Path) -> None:
    zarr.open_group(tmp_path / "a.b.zarr", mode="w").create_array("well/0", shape=(2, 8, 8), dtype="uint16")
    assert phbatch_command("plan", tmp_path / "a.b.zarr" / "well" / "0", "--model", "none", "--json") == 0
    output = json.loads(phbatch_command.out.splitlines()[-1])["output"]
    assert output == str(tmp_path / "a.b.well.0.phbatch.zarr")


def test_plan_touches_no_pixel(phbatch_command: CommandLine, source: Path) -> None:
    before = phbatch_command("plan", source, "--memory", "2GB"), phbatch_command.out
    for chunk in (source / "c").rglob("*"):
        if chunk.is_file():
            chunk.write_bytes(b"broken")
    assert (phbatch_command("plan", source, "--memory", "2GB"), phbatch_command.out) == before
    assert before[0] == 0
    for word in ("units", "passes", "memory", "tiles", "halo", "read", "written"):
        assert f"\n{word} " in before[1]
    assert not (source.parent / "in.phbatch.zarr").exists()


def test_info(phbatch_command: CommandLine, source: Path, tmp_path: Path) -> None:
    assert phbatch_command("info", source, "--json") == 0
    record = json.loads(phbatch_command.out)
    assert (record["kind"], record["axes"], record["shape"], record["dtype"]) == ("image", "tyx", [3, 40, 36], "uint16")
    assert phbatch_command("run", source, "--model", "none") == 0
    assert phbatch_command("info", source.parent / "in.phbatch.zarr") == 0
    assert "complete" in phbatch_command.out
    model = write_model(tmp_path / "model", unet_n_depth=3)
    assert phbatch_command("info", model) == 0
    assert "halo" in phbatch_command.out
    assert "48" in phbatch_command.out
    assert phbatch_command("info", tmp_path / "nothing") == 3


@pytest.mark.usefixtures("small_units")
def test_a_failing_unit_is_set_aside(phbatch_command: CommandLine, tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    image = draw.integers(400, 600, (3, 110, 100), dtype="uint16")
    source = tmp_path / "in.zarr"
    zarr.create_array(source, data=image, chunks=(1, 110, 100))
    chunk = source / "c" / "1" / "0" / "0"
    good = chunk.read_bytes()
    chunk.write_bytes(good[:50])
    assert phbatch_command("run", source, "--model", "none", "--json") == 4
    record = json.loads(phbatch_command.out.splitlines()[-1])
    assert list(record["failed"]) == ["t1/c0"]
    assert (record["units_done"], record["exit_code"]) == (2, 4)
    assert "unit t1/c0 failed" in phbatch_command.err
    chunk.write_bytes(good)
    assert phbatch_command("run", source, "--model", "none", "--json") == 0
    record = json.loads(phbatch_command.out.splitlines()[-1])
    assert (record["units_done"], record["units_skipped"], record["failed"]) == (1, 2, {})


@pytest.mark.usefixtures("small_units")
@pytest.mark.parametrize("dtype", ["uint16", "float32"])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_unit_that_fails_is_done_by_the_next_call(
    phbatch_command: CommandLine, tmp_path: Path, dtype: str, workers: int
) -> None:
    image = np.random.default_rng(0).integers(400, 600, (3, 110, 100)).astype(dtype)
    source, output = tmp_path / "in.zarr", tmp_path / "in.phbatch.zarr"
    zarr.create_array(source, data=image, chunks=(1, 110, 100))
    arguments = ("run", source, "--model", "none", "--workers", workers, "--json")
    assert phbatch_command(*arguments[:2], tmp_path / "whole.zarr", *arguments[2:]) == 0
    chunk = source / "c" / "1" / "0" / "0"
    good, times = chunk.read_bytes(), chunk.stat()
    chunk.write_bytes(bytes(len(good)))
    os.utime(chunk, ns=(times.st_atime_ns, times.st_mtime_ns))  # as a disk that fails for a while
    assert phbatch_command(*arguments) == 4
    record = json.loads(phbatch_command.out.splitlines()[-1])
    assert list(record["failed"]) == ["t1/c0"]
    assert zarr.open_group(output).attrs.asdict()["phbatch"]["status"] == "running"
    whole = zarr.open_array(tmp_path / "whole.zarr", path="0")[:]
    np.testing.assert_array_equal(zarr.open_array(output, path="0")[:][[0, 2]], whole[[0, 2]])
    chunk.write_bytes(good)
    os.utime(chunk, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert phbatch_command(*arguments) == 0
    record = json.loads(phbatch_command.out.splitlines()[-1])
    assert (record["units_done"], record["units_skipped"], record["failed"]) == (1, 2, {})
    np.testing.assert_array_equal(zarr.open_array(output, path="0")[:], whole)


def test_progress_is_plain_lines_where_it_is_piped(phbatch_command: CommandLine, source: Path) -> None:
    assert phbatch_command("run", source, "--model", "none", "--no-report") == 0
    last = phbatch_command.err.splitlines()[-1]
    for part in ("3/3 frames", " frames/s", " MPx/s", "0 s left"):
        assert part in last
    assert "\x1b" not in phbatch_command.err
    assert phbatch_command("run", source, "--model", "none") == 0
    assert "continuing: 1 of 1 units are finished" in phbatch_command.err
    assert "0 of 1 units" in phbatch_command.out


def test_progress_is_a_bar_on_a_terminal(source: Path) -> None:
    screen = io.StringIO()
    with ProgressReport(Console(file=screen, force_terminal=True, width=120)) as listener:
        phbatch.run(source, model="none", listener=listener)
    assert "3/3" in screen.getvalue()
    assert "MPx/s" in screen.getvalue()
    assert "\x1b[" in screen.getvalue()


def test_help_is_quick_and_loads_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['phbatch', '--help']\n"
        "import phbatch.shell.commands\n"
        "try: phbatch.shell.commands.main()\n"
        "except SystemExit: print([m for m in ('tensorflow', 'keras', 'dask', 'zarr', 'numpy') if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.splitlines()[-1] == "[]"
    spent = []
    while not spent or (min(spent) >= 1 and len(spent) < 5):
        before = os.times()
        subprocess.run([sys.executable, "-m", "phbatch", "--help"], capture_output=True, check=True)
        after = os.times()
        spent.append(after.children_user + after.children_system - before.children_user - before.children_system)
    assert min(spent) < 1  # of a processor: the clock says how busy the machine is, too


def test_normalizing_loads_neither_networks_nor_pictures_nor_clusters(source: Path) -> None:
    code = (
        "import sys, phbatch.shell.commands\n"
        "try: phbatch.shell.commands.main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "print([m for m in ('tensorflow', 'keras', 'jax', 'matplotlib', 'distributed') if m in sys.modules])"
    )
    command = [sys.executable, "-c", code, "run", str(source), "--model", "none"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True)
    assert shown.stdout.splitlines()[-1] == "[]"


def test_a_foreign_model_and_a_contradiction_are_said(
    phbatch_command: CommandLine, source: Path, tmp_path: Path
) -> None:
    model = write_model(tmp_path / "model")
    assert phbatch_command("plan", source, "--model", model) == 0
    assert "percentile 2 to 99.8, CSBDeep's default" in phbatch_command.out
    assert phbatch_command("run", source, "--model", "phase-2d", "--normalize", "mode") == 0
    assert "warning: model phase-2d was trained with median" in phbatch_command.err
    attributes = zarr.open_group(source.parent / "in.phbatch.zarr").attrs.asdict()["phbatch"]
    assert any("was trained with median" in notice for notice in attributes["notices"])
    assert phbatch_command("plan", source, tmp_path / "other.zarr") == 0
    assert "model: phase-2d-real, bundled: Trained on four public" in phbatch_command.out


def test_rescaled_integers_round_saturate_and_count(
    phbatch_command: CommandLine, source: Path, frames: np.ndarray
) -> None:
    output = source.parent / "out.zarr"
    assert phbatch_command("run", source, output, "--model", "none", "--rescale", "--dtype", "uint16") == 0
    np.testing.assert_array_equal(zarr.open_array(output, path="0")[:], frames)
    assert "clipped" not in phbatch_command.out
    assert (
        phbatch_command("run", source, output, "--model", "none", "--rescale", "--dtype", "uint8", "--overwrite") == 0
    )
    np.testing.assert_array_equal(zarr.open_array(output, path="0")[:], frames.clip(0, 255))
    assert f"{np.count_nonzero(frames > 255)} pixels were clipped" in phbatch_command.out


def test_illumination_writes_a_profile_and_a_picture(
    phbatch_command: CommandLine, source: Path, tmp_path: Path
) -> None:
    assert (
        phbatch_command("illumination", source, "--method", "polynomial", "-o", tmp_path / "light.zarr", "--json") == 0
    )
    record = json.loads(phbatch_command.out.splitlines()[-1])
    assert record["method"] == "polynomial"
    assert (tmp_path / "light.png").read_bytes()[:4] == b"\x89PNG"
    assert phbatch_command("run", source, "--model", "none", "--illumination", tmp_path / "light.zarr") == 0
