"""The command line: exit codes, records, configuration files, and what it does not load."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import zarr

from tests.handmade import CommandLine, write_model


@pytest.fixture
def source(tmp_path: Path, frames: np.ndarray) -> Path:
    zarr.create_array(tmp_path / "in.zarr", data=frames, chunks=(1, 40, 36))
    return tmp_path / "in.zarr"


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (("--colour", "red"), "No such option"),
        (("--dtype", "uint16", "--model", "none"), "--rescale"),
        (("--frames", "a:b", "--model", "none"), "START:STOP"),
        (("--pmin", "90", "--pmax", "10", "--model", "none"), "below pmax"),
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
        *("saturated", "zero", "focus", "background", "flags"),
    ]
    assert rows[0]["flags"] == []
    assert phbatch_command("stats", source, "-o", tmp_path / "rows.csv", "--sigma", "0") == 0
    table = list(csv.DictReader(io.StringIO((tmp_path / "rows.csv").read_text())))
    assert [float(row["p99.8"]) for row in table] == [row["p99.8"] for row in rows]
    assert phbatch_command("stats", source) == 0
    assert len(list(csv.DictReader(io.StringIO(phbatch_command.out)))) == 3
    assert phbatch_command("stats", source, "-o", tmp_path / "rows.xlsx") == 2


def test_plan_touches_no_pixel(phbatch_command: CommandLine, source: Path) -> None:
    before = phbatch_command("plan", source), phbatch_command.out
    for chunk in (source / "c").rglob("*"):
        if chunk.is_file():
            chunk.write_bytes(b"broken")
    assert (phbatch_command("plan", source), phbatch_command.out) == before
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


def test_a_failing_unit_is_set_aside(phbatch_command: CommandLine, tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    image = draw.integers(400, 600, (3, 1100, 1000), dtype="uint16")
    source = tmp_path / "in.zarr"
    zarr.create_array(source, data=image, chunks=(1, 1100, 1000))
    chunk = source / "c" / "1" / "0" / "0"
    good = chunk.read_bytes()
    chunk.write_bytes(good[:50])
    assert phbatch_command("run", source, "--model", "none", "--json") == 4
    record = json.loads(phbatch_command.out.splitlines()[-1])
    assert list(record["failed"]) == ["t1/c0"]
    assert (record["units_done"], record["exit_code"]) == (2, 4)
    assert "unit t1/c0 failed" in phbatch_command.err
    chunk.write_bytes(good)  # another file is another input
    assert phbatch_command("run", source, "--model", "none") == 3
    assert "was begun differently" in phbatch_command.err
    assert phbatch_command("run", source, "--model", "none", "--overwrite") == 0


def test_help_is_quick_and_loads_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['phbatch', '--help']\n"
        "import phbatch.cli\n"
        "try: phbatch.cli.main()\n"
        "except SystemExit: print([m for m in ('tensorflow', 'keras', 'dask', 'zarr', 'numpy') if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.splitlines()[-1] == "[]"
    times = []
    for _ in range(5):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "phbatch.cli", "--help"], capture_output=True, check=True)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.5


def test_normalizing_loads_no_network_library(source: Path) -> None:
    code = (
        "import sys, phbatch; phbatch.run(sys.argv[1], model='none');"
        "print([m for m in ('tensorflow', 'keras', 'jax') if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code, str(source)], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


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
    assert phbatch_command("plan", source) == 0
    assert "model: phase-2d, bundled" in phbatch_command.out


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
