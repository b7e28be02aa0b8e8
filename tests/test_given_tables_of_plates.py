"""A table of statistics of many images is given to a run of them: each is restored as with its own table alone."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import zarr

import phbatch
from tests.handmade import CommandLine
from tests.test_parts_of_plates import contents, do_all
from tests.test_plates import make_plate, objects

FIELDS = ("A/1/0", "A/1/1", "A/2/0", "A/2/1", "B/1/0", "B/1/1")
OPTIONS: dict[str, Any] = {"model": "none", "normalize": "median", "workers": 2}


@pytest.fixture
def plate(tmp_path: Path) -> Path:
    return make_plate(tmp_path / "p.zarr")


def edit(table: Path, change: Any) -> None:
    """Rewrite rows of a table; those that become None are left out."""
    with table.open(newline="") as file:
        rows = [row for row in map(change, csv.DictReader(file)) if row is not None]
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)


def require_same_pixels(output: Path, other: Path, fields: tuple[str, ...] = FIELDS) -> None:
    for field in fields:
        assert objects(output / field / "0") == objects(other / field / "0")


@pytest.mark.parametrize("name", ["t.csv", "t.json", "t.parquet"])
@pytest.mark.parametrize("scope", ["image", "position"])
def test_what_stats_wrote_restores_as_a_run_that_measures(
    tmp_path: Path, plate: Path, phbatch_command: CommandLine, name: str, scope: str
) -> None:
    assert phbatch_command("stats", plate, "--scope", scope, "-o", tmp_path / name) == 0
    arguments = ("run", plate, tmp_path / "o.zarr", "--model", "none", "--normalize", "median", "--no-report")
    assert phbatch_command(*arguments, "--stats", tmp_path / name, "--workers", "2") == 0
    phbatch.run(plate, tmp_path / "measured.zarr", **OPTIONS | {"scope": scope})
    require_same_pixels(tmp_path / "o.zarr", tmp_path / "measured.zarr")
    assert phbatch.verify(tmp_path / "o.zarr", deep=9).damages == ()
    assert phbatch_command("plan", plate, "--model", "none", "--stats", tmp_path / name) == 0


def test_an_output_is_a_table_of_its_images(tmp_path: Path, plate: Path) -> None:
    phbatch.run(plate, tmp_path / "first.zarr", **OPTIONS)
    result = phbatch.run(plate, tmp_path / "o.zarr", stats=tmp_path / "first.zarr", **OPTIONS)
    assert not any("make sure" in notice for notice in result.notices)
    require_same_pixels(tmp_path / "o.zarr", tmp_path / "first.zarr")
    with pytest.raises(phbatch.InputError, match="measured with sigma"):
        phbatch.run(plate, tmp_path / "n.zarr", stats=tmp_path / "first.zarr", sigma=5, **OPTIONS)


def test_edited_rows_act_on_their_image_alone(tmp_path: Path, plate: Path, phbatch_command: CommandLine) -> None:
    table = tmp_path / "t.csv"
    assert phbatch_command("stats", plate, "-o", table) == 0
    phbatch.run(plate, tmp_path / "measured.zarr", **OPTIONS)
    edit(table, lambda row: row | ({"median": "500"} if row["position"] == "A/2/0" else {}))
    phbatch.run(plate, tmp_path / "o.zarr", stats=table, **OPTIONS)
    require_same_pixels(tmp_path / "o.zarr", tmp_path / "measured.zarr", tuple({*FIELDS} - {"A/2/0"}))
    assert phbatch_command("stats", plate / "A/2/0", "-o", tmp_path / "one.csv") == 0
    edit(tmp_path / "one.csv", lambda row: row | {"median": "500"})
    phbatch.run(plate / "A/2/0", tmp_path / "one.zarr", stats=tmp_path / "one.csv", **OPTIONS)
    assert objects(tmp_path / "o.zarr/A/2/0/0") == objects(tmp_path / "one.zarr/0")
    edit(table, lambda row: row | ({"median": "600"} if row["position"] == "B/1/1" else {}))
    for stats in (table, None):
        with pytest.raises(phbatch.OutputError, match="begun differently"):
            phbatch.run(plate, tmp_path / "o.zarr", stats=stats, **OPTIONS)


def test_stopped_and_continued_and_wells_added(tmp_path: Path, plate: Path, phbatch_command: CommandLine) -> None:
    table = tmp_path / "t.csv"
    assert phbatch_command("stats", plate, "-o", table) == 0
    asked = iter([False] * 6)
    with pytest.raises(phbatch.InterruptedRunError, match="call the same command again"):
        phbatch.run(plate, tmp_path / "o.zarr", stats=table, wells="A1-A2", stop=lambda: next(asked, True), **OPTIONS)
    assert phbatch.run(plate, tmp_path / "o.zarr", stats=table, wells="A1-A2", **OPTIONS).units_skipped > 0
    assert phbatch.run(plate, tmp_path / "o.zarr", stats=table, **OPTIONS).units_done == 4
    phbatch.run(plate, tmp_path / "whole.zarr", stats=table, **OPTIONS)
    require_same_pixels(tmp_path / "o.zarr", tmp_path / "whole.zarr")
    (tmp_path / "o.zarr/B/1/0/0/c/0/0/0/0").write_bytes(b"torn")
    assert phbatch.repair(tmp_path / "o.zarr").units_done == 1
    require_same_pixels(tmp_path / "o.zarr", tmp_path / "whole.zarr")


def test_tasks_share_it(tmp_path: Path, plate: Path, phbatch_command: CommandLine) -> None:
    assert phbatch_command("stats", plate, "-o", tmp_path / "t.csv") == 0
    options = OPTIONS | {"stats": tmp_path / "t.csv"}
    phbatch.run(plate, tmp_path / "one.zarr", **options)
    phbatch.begin_parts(plate, tmp_path / "parts.zarr", parts=3, **options)
    do_all(str(tmp_path / "parts.zarr"), 3)
    assert contents(tmp_path / "parts.zarr") == contents(tmp_path / "one.zarr")


def test_an_image_that_the_table_lacks_is_left_out_and_named(
    tmp_path: Path, plate: Path, phbatch_command: CommandLine
) -> None:
    table = tmp_path / "t.csv"
    assert phbatch_command("stats", plate, "-o", table) == 0
    edit(table, lambda row: None if row["position"] == "A/1/0" and row["t"] == "1" else row)
    edit(table, lambda row: row | ({"median": ""} if row["position"] == "B/1/1" else {}))
    arguments = ("run", plate, tmp_path / "o.zarr", "--model", "none", "--normalize", "median", "--stats", table)
    assert phbatch_command(*arguments, "--no-report") == 4
    assert "A/1/0 is left out" in phbatch_command.err
    assert "has no row of frame t1/c0" in phbatch_command.err
    assert "B/1/1 is left out" in phbatch_command.err
    assert {*zarr.open_group(tmp_path / "o.zarr/statistics").attrs["positions"]} == {*FIELDS} - {"A/1/0", "B/1/1"}  # type: ignore[misc]
    edit(table, lambda row: row | {"position": "C/1/0"})
    with pytest.raises(phbatch.InputError, match="has no row of frame"):
        phbatch.run(plate, tmp_path / "n.zarr", stats=table, **OPTIONS)


def test_a_table_of_one_image_is_not_that_of_many(tmp_path: Path, plate: Path, phbatch_command: CommandLine) -> None:
    assert phbatch_command("stats", plate / "A/1/0", "-o", tmp_path / "t.csv") == 0
    assert phbatch_command("run", plate, "--model", "none", "--stats", tmp_path / "t.csv") == 3
    assert "is a table of one image" in phbatch_command.err
    assert not (tmp_path / "p.phbatch.zarr").exists()
