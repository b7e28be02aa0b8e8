"""Frames of many images are measured as those of each alone."""

from __future__ import annotations

import csv
import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import phbatch
from phbatch.words.events import Event, RunStarted, UnitFinished
from tests.handmade import CommandLine
from tests.test_plates import make_plate, make_uneven_plate

OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "smooth": {"smooth_time": 3, "percentiles": "1,50"},
    "pooled": {"scope": "position"},
    "light": {"illumination": "gaussian", "downscale": 2},
    "one channel": {"channel": 1},
}


@pytest.fixture(scope="module")
def plate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_plate(tmp_path_factory.mktemp("statistics") / "p.zarr", size=64)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_plate_is_measured_as_each_of_its_fields_alone(plate: Path, options: dict[str, Any]) -> None:
    heard: list[Event] = []
    found = phbatch.statistics(plate, workers=2, listener=heard.append, **options)
    assert isinstance(found, phbatch.PositionStatistics)
    assert [*found.tables] == ["A/1/0", "A/1/1", "A/2/0", "A/2/1", "B/1/0", "B/1/1"]
    for path, table in found.tables.items():
        alone = phbatch.statistics(plate / path, workers=2, **options)
        assert [*table] == [*alone]
        assert next(alone.as_written()[1])["measured"] == table.measured
    rows = [*found]
    assert [row["position"] for row in rows[: len(alone)]] == ["A/1/0"] * len(alone)
    assert rows == [found[at] for at in range(len(found))] == found[:]
    assert found.names == (*rows[0],)
    started = [event for event in heard if isinstance(event, RunStarted)]
    assert [event.frames for event in started] == [len(rows)]
    finished = [event.unit for event in heard if isinstance(event, UnitFinished)]
    assert len(finished) == started[0].units
    assert sorted(finished)[0].startswith("A/1/0/")
    assert found.exit_code == 0


def test_columns_are_of_all_images(plate: Path) -> None:
    found = phbatch.statistics(plate, workers=2, wells="A1,B1", fields="1")
    assert found.column("position").tolist() == ["A/1/1"] * 4 + ["B/1/1"] * 4
    assert found.column("median").tolist() == [row["median"] for row in found]
    frame = pytest.importorskip("pandas") and found.to_pandas()
    assert [*frame.columns] == [*found.names]
    assert frame["position"].tolist() == found.column("position").tolist()
    table = pytest.importorskip("pyarrow").table(found)
    assert table["median"].to_pylist() == found.column("median").tolist()


def test_what_cannot_be_measured_is_left_out_and_named(tmp_path: Path, phbatch_command: CommandLine) -> None:
    plate, table = make_plate(tmp_path / "p.zarr", fields=1), tmp_path / "t.csv"
    (plate / "A/2/0/0/c/0/0/0/0").write_bytes(b"torn")
    (plate / "B/1/0/0/zarr.json").write_bytes(b"{")
    found = phbatch.statistics(plate, workers=2, retries=0)
    assert isinstance(found, phbatch.PositionStatistics)
    assert [*found.tables] == ["A/1/0"]
    assert "A/2/0/t0-1/c0 cannot be read" in found.left_out["A/2/0"]
    assert found.left_out.keys() == {"A/2/0", "B/1/0"}
    assert phbatch_command("stats", plate, "--retries", "0", "-o", table) == 4
    assert "A/2/0 is left out: unit A/2/0/t0" in phbatch_command.err
    with table.open() as file:
        assert [row["position"] for row in csv.DictReader(file)] == ["A/1/0"] * 4
    assert phbatch_command("stats", plate, "--wells", "A1", "--json") == 0
    assert [row["position"] for row in json.loads(phbatch_command.out)] == ["A/1/0"] * 4
    with pytest.raises(phbatch.InputError, match="cannot be read"):
        phbatch.statistics(plate, wells="A2,B1", retries=0)
    with pytest.raises(phbatch.InputError, match=r"t.csv is a table of many images \(position A/1/0\)"):
        phbatch.run(plate / "A/1/0", tmp_path / "o.zarr", model="none", stats=table)


def test_a_stop_is_heard(plate: Path) -> None:
    asked = iter([False] * 5)
    with pytest.raises(phbatch.InterruptedRunError, match="stopped before all frames of"):
        phbatch.statistics(plate, workers=1, stop=lambda: next(asked, True))


def test_light_is_estimated_of_each_and_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plate = make_uneven_plate(tmp_path / "p.zarr")
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    found = phbatch.statistics(plate, workers=1, illumination="temporal")
    alone = phbatch.statistics(plate / "B/2/0", workers=1, illumination="temporal")
    assert isinstance(found, phbatch.PositionStatistics)
    assert [*found.tables["B/2/0"]] == [*alone]
    assert [*(tmp_path / "scratch").iterdir()] == []


def test_memory_does_not_grow_with_positions(tmp_path: Path) -> None:
    """Pixels of a group of positions at once: eight times the fields take hardly more than their rows."""
    peaks = []
    for wells in (4, 32):
        plate = tmp_path / f"{wells}.zarr"
        phbatch.write_plate(plate, phbatch.PhaseContrast(shape=(256, 256), n_frames=1), wells=wells)
        phbatch.statistics(plate, workers=1)  # what is loaded once
        tracemalloc.start()
        found = phbatch.statistics(plate, workers=1)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert len(found) == wells
        assert np.isfinite(found.column("median")).all()
    frame = 256 * 256 * 2
    assert peaks[1] - peaks[0] < 28 * frame / 4
