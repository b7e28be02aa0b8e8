"""`plan --graph`: the tasks of a run by their stages and units, as a picture where graphviz is there, else as text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import zarr

import phbatch
from tests.handmade import CommandLine
from tests.test_plates import make_plate


@pytest.fixture
def source(tmp_path: Path) -> Path:
    zarr.create_array(tmp_path / "in.zarr", data=np.ones((7, 2048, 600), "uint16"), chunks=(1, 2048, 600))
    return tmp_path / "in.zarr"


def drawn(source: Path, **options: Any) -> dict[str, list[str]]:
    """Every task of the text form, and those that it waits for."""
    place = source.parent / "graph.txt"
    phbatch.plan(source, model="none", graph=place, **options)
    lines = (line.partition(" <- ") for line in place.read_text().splitlines())
    return {name: [each for each in awaited.split(", ") if each] for name, _, awaited in lines}


def test_tasks_say_stage_and_unit(source: Path) -> None:
    units = [f"t{t}/c0" for t in range(4)]
    assert drawn(source) == {
        "find-scale-t0/c0": [],
        "require-scale": ["find-scale-t0/c0"],
        **{f"restore-{unit}": ["require-scale"] for unit in units},
        "commit": [f"restore-{unit}" for unit in units],
    }
    pooled = drawn(source, scope="series")
    assert pooled["pool-join"] == [f"pool-{unit}" for unit in units]
    assert pooled["pool-t0/c0"] == ["judge-series"]
    assert pooled["restore-t3/c0"] == ["pool-join"]
    assert drawn(source, normalize="none")["restore-t0/c0"] == []


def test_a_picture_is_dasks_or_text_where_graphviz_is_missing(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def visualize(*arguments: Any, **options: Any) -> None:
        asked.append(options)
        if len(asked) > 1:
            raise RuntimeError("No visualization engine detected")

    monkeypatch.setattr(dask, "visualize", visualize)
    picture = source.parent / "graph.svg"
    assert any(str(picture) in notice for notice in phbatch.plan(source, model="none", graph=picture).notices)
    assert (asked[0]["filename"], asked[0]["format"]) == (str(picture.with_suffix("")), "svg")
    notices = phbatch.plan(source, model="none", graph=picture).notices
    assert any("graphviz is missing" in notice and "graph.txt" in notice for notice in notices)
    assert "restore-t0/c0" in picture.with_suffix(".txt").read_text()


def test_a_place_for_no_graph_is_refused(source: Path, phbatch_command: CommandLine) -> None:
    arguments = ("plan", source, "--model", "none", "--graph")
    assert phbatch_command(*arguments, source.parent / "graph.zarr") == 2
    assert "graph.zarr" in phbatch_command.err
    assert phbatch_command(*arguments, source.parent / "nowhere" / "graph.txt") != 0
    assert phbatch_command(*arguments, source / "graph.txt") != 0
    assert phbatch_command(*arguments, source.parent / "graph.txt") == 0
    assert not (source / "graph.txt").exists()


def test_units_of_many_images_join_by_image(tmp_path: Path, phbatch_command: CommandLine) -> None:
    plate = make_plate(tmp_path / "p.zarr")
    units = {path: [f"{path}/t0-1/c{c}" for c in (0, 1)] for path in ("A/1/0", "A/1/1")}
    every = [unit for some in units.values() for unit in some]
    place = tmp_path / "graph.txt"
    assert phbatch_command("plan", plate, "--model", "none", "--graph", place) == 0
    assert f"graph of the first 4 units of A/1/0 and A/1/1: {place}." in phbatch_command.out + phbatch_command.err
    assert drawn(plate) == {
        **{f"restore-position-{unit}": [] for unit in every},
        "commit": [f"restore-position-{unit}" for unit in every],
    }
    pooled = drawn(plate, scope="series")
    for path, some in units.items():
        assert pooled[f"judge-series-{path}"] == [f"measure-{unit}" for unit in some]
        assert pooled[f"pool-join-{path}"] == [f"pool-{unit}" for unit in some]
        assert {awaited for unit in some for awaited in pooled[f"restore-position-{unit}"]} == {f"pool-join-{path}"}
    alone = drawn(plate, wells="A1", fields="1")
    assert alone["commit"] == [f"restore-position-{unit}" for unit in units["A/1/1"]]
    assert phbatch_command("plan", plate, "--model", "none", "--graph", tmp_path / "graph.zarr") == 2
