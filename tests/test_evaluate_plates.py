"""Many images are scored as each of them alone is."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import phbatch
from tests.handmade import CommandLine

FIELDS = ("A/1/0", "A/1/1", "A/2/0", "A/2/1")


@pytest.fixture(scope="module")
def plates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A noisy plate, its truth, and what a run made of it."""
    folder = tmp_path_factory.mktemp("plates")
    movie = phbatch.PhaseContrast(shape=(48, 64), n_frames=2, seed=3)
    for name in ("noisy", "clean"):
        phbatch.write_plate(folder / f"{name}.zarr", movie, wells=2, fields=2, clean=name == "clean")
    phbatch.run(folder / "noisy.zarr", folder / "out.zarr", model="none", normalize="median", workers=2)
    return folder


@pytest.mark.parametrize("restored", ["noisy", "out"])
def test_a_plate_is_scored_as_each_of_its_fields_alone(plates: Path, restored: str) -> None:
    whole = phbatch.evaluate(plates / f"{restored}.zarr", plates / "clean.zarr")
    assert tuple(whole.positions) == FIELDS
    for path in FIELDS:
        alone = phbatch.evaluate(plates / f"{restored}.zarr" / path, plates / "clean.zarr" / path)
        assert whole.positions[path] == tuple(replace(row, position=path) for row in alone.rows)
        assert whole.mean("psnr", path) == alone.mean("psnr")
        assert whole.gain_of(path) == alone.gain
    assert len(whole.rows) == 8
    assert whole.worst.psnr == min(row.psnr for row in whole.rows)
    assert whole.example.frame == whole.worst.key
    assert whole.worst.key.startswith(whole.worst.position)
    assert (whole.gain is None) == (restored == "noisy")


def test_wells_fields_and_patterns_choose(plates: Path) -> None:
    chosen = phbatch.evaluate(plates / "out.zarr", plates / "clean.zarr", wells="A2", fields=1, samples=1)
    assert [row.key for row in chosen.rows] == ["A/2/1/t0/c0/z0"]
    phbatch.run(plates / "noisy.zarr", plates / "some.zarr", model="none", wells="A2", workers=2)
    assert [*phbatch.evaluate(plates / "some.zarr", plates / "clean.zarr").positions] == ["A/2/0", "A/2/1"]
    matched = phbatch.evaluate(f"{plates}/noisy.zarr/*/1/*", f"{plates}/clean.zarr/*/*/*")
    assert [*matched.positions] == ["A/1/0", "A/1/1"]
    with pytest.raises(phbatch.UsageError, match="wells='A2' chooses of a plate"):
        phbatch.evaluate(plates / "out.zarr/A/1/0", plates / "clean.zarr/A/1/0", wells="A2")


def test_the_input_and_the_mask_are_plates_too(plates: Path, tmp_path: Path) -> None:
    before = phbatch.evaluate(plates / "clean.zarr", plates / "clean.zarr", input=plates / "noisy.zarr")
    plain = phbatch.evaluate(plates / "noisy.zarr", plates / "clean.zarr")
    assert [row.input_psnr for row in before.rows] == [row.psnr for row in plain.rows]
    shutil.copytree(plates / "noisy.zarr", tmp_path / "moved.zarr")
    moved = phbatch.evaluate(plates / "out.zarr", plates / "clean.zarr", input=tmp_path / "moved.zarr")
    assert moved.rows == phbatch.evaluate(plates / "out.zarr", plates / "clean.zarr").rows
    masked = phbatch.evaluate(plates / "out.zarr", plates / "clean.zarr", cells=plates / "noisy.zarr")
    assert {row.cells for row in masked.rows} == {1.0}


def test_positions_that_are_not_finished_are_left_out_and_named(plates: Path, tmp_path: Path) -> None:
    asked = iter([False] * 3)
    with pytest.raises(phbatch.InterruptedRunError):
        phbatch.run(
            plates / "noisy.zarr", tmp_path / "out.zarr", model="none", workers=1, stop=lambda: next(asked, True)
        )
    found = phbatch.evaluate(tmp_path / "out.zarr", plates / "clean.zarr")
    assert 0 < len(found.positions) < 4
    assert all(path in found.notices[0] for path in FIELDS if path not in found.positions)


def test_positions_without_truth_are_named(plates: Path) -> None:
    phbatch.run(plates / "noisy.zarr", plates / "few.zarr", model="none", wells="A2", workers=2)
    with pytest.raises(phbatch.InputError, match=r"the truth .*few.zarr has no A/1/0, which .*out.zarr has"):
        phbatch.evaluate(plates / "out.zarr", plates / "few.zarr")
    with pytest.raises(
        phbatch.InputError, match=r"out.zarr holds 4 \(A/1/0, ...\) and .*/A/1/0 is one image; give the truth of one"
    ):
        phbatch.evaluate(plates / "out.zarr", plates / "clean.zarr/A/1/0")
    with pytest.raises(phbatch.InputError, match=r"A/1/0 is one image and .*clean.zarr holds 4"):
        phbatch.evaluate(plates / "out.zarr/A/1/0", plates / "clean.zarr")


def test_command_table_csv_and_picture(plates: Path, tmp_path: Path, phbatch_command: CommandLine) -> None:
    asked = ("evaluate", plates / "out.zarr", plates / "clean.zarr")
    table, picture = tmp_path / "scores.csv", tmp_path / "scores.png"
    assert phbatch_command(*asked, "-o", table, "-o", picture) == 0
    assert "8 frames of 4 positions, +0.00 dB over the input; worst A/" in phbatch_command.out
    assert all(f"\n{path} " in phbatch_command.out for path in FIELDS)
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["position"] for row in rows] == [path for path in FIELDS for _ in range(2)]
    assert picture.read_bytes()[:4] == b"\x89PNG"
    assert phbatch_command(*asked, "--json", "--fields", "0") == 0
    record = json.loads(phbatch_command.out)
    assert [*record["positions"]] == ["A/1/0", "A/2/0"]
    assert record["positions"]["A/1/0"]["frames"] == 2
    assert record["rows"][0]["position"] == "A/1/0"
    parquet = pytest.importorskip("pyarrow.parquet")
    assert phbatch_command(*asked, "-o", tmp_path / "scores.parquet") == 0
    assert parquet.read_table(tmp_path / "scores.parquet")["position"].to_pylist()[::2] == list(FIELDS)
