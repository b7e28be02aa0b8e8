"""A table whose columns are on disk is the table that is in memory."""

from __future__ import annotations

import errno
import json
import pickle
import tracemalloc
from io import FileIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import zarr

import phbatch
from phbatch.frames import columns
from phbatch.frames.measure import judge_series
from phbatch.frames.table import StatisticsTable
from phbatch.outputs import completing
from phbatch.words.axes import FrameGrid, FrameKey
from tests.handmade import CommandLine


def filled(grid: FrameGrid) -> StatisticsTable:
    table, draw = StatisticsTable(grid), np.random.default_rng(3)
    names = ("median", "mode", "mad", "mean", "std", "min", "max", "p2", "saturated", "zero", "focus", "background")
    for at in draw.permutation(len(grid)):
        key = grid.key(int(at))
        values = dict(zip(names, draw.normal(100, 3, len(names)).tolist(), strict=True))
        values["median"] = 3.0 if key.t == 8 else values["median"]
        flags = ["constant"] if key.t == 5 else []
        table.put({"t": key.t, "c": key.c, "z": key.z, **values, "padding": None, "flags": flags})
    judge_series(table, 3)
    return table


@pytest.mark.parametrize("grid", [FrameGrid(range(2, 42, 2), (0, 3), 2), FrameGrid(range(30), (0,), None)])
def test_columns_on_disk_are_those_in_memory(monkeypatch: pytest.MonkeyPatch, grid: FrameGrid) -> None:
    expected = filled(grid)
    monkeypatch.setattr(columns, "FRAMES_IN_MEMORY", 0)
    monkeypatch.setattr(columns, "_FRAMES_AT_ONCE", 7)
    monkeypatch.setattr(columns, "_COLUMNS_OF_A_FILE", 3)
    monkeypatch.setattr("phbatch.frames.table._RELEASED_AFTER", 1)
    found = filled(grid)
    assert [*found] == [*expected]
    assert "black" in {word for row in found for word in row["flags"]}
    assert found.digest() == expected.digest()
    assert (found.known, found.first_unknown()) == (len(grid), None)
    travelled = pickle.loads(pickle.dumps(found))
    assert [*travelled] == [*expected]
    travelled.assign("more", slice(1, 3), 2.0)
    assert np.nansum(travelled.column("more")) == 4


def test_the_first_frame_that_is_not_known_is_found() -> None:
    table = StatisticsTable(FrameGrid(range(4), (0,), None))
    for t in (0, 1, 3, 1):
        table.put({"t": t, "c": 0, "z": None, "median": 1.0, "flags": []})
    assert (table.known, str(table.first_unknown()), table.knows(FrameKey(2, 0))) == (3, "t2/c0", False)


def files(output: Path) -> dict[str, bytes]:
    paths = (path for path in output.rglob("*") if path.is_file() and ".phbatch" not in path.parts)
    return {str(path.relative_to(output)): path.read_bytes() for path in paths}


@pytest.mark.parametrize("options", [{}, {"smooth_time": 3, "bad_frames": "skip"}, {"scope": "series"}], ids=str)
def test_a_run_with_columns_on_disk_writes_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    frames = np.random.default_rng(0).normal(1000, 30, (7, 2, 50, 60)).astype("uint16")
    zarr.create_array(tmp_path / "in.zarr", data=frames, chunks=(1, 1, 50, 60))
    for kept in (True, False):
        if not kept:
            monkeypatch.setattr(columns, "FRAMES_IN_MEMORY", 0)
        phbatch.run(tmp_path / "in.zarr", tmp_path / "out.zarr", axes="tcyx", model="none", command="-", **options)
        (tmp_path / "out.zarr").rename(tmp_path / f"{kept}.zarr")
    written = files(tmp_path / "True.zarr")
    assert files(tmp_path / "False.zarr") == written
    assert len(written) > 20
    assert phbatch.verify(tmp_path / "False.zarr", deep=2).damages == ()


def test_windows_of_a_long_table_are_of_every_channel(monkeypatch: pytest.MonkeyPatch) -> None:
    table = StatisticsTable(FrameGrid(range(12), (0, 1), None))
    for key in table.grid:
        row = dict.fromkeys(("min", "p2", "p99.8", "max"), 100.0 + key.c)
        table.put({"t": key.t, "c": key.c, "z": None, **row, "divisor": 1.0, "offset": 0.0, "flags": []})
    monkeypatch.setattr(completing, "_ROWS_OF_WINDOWS", 12)
    image: Any = SimpleNamespace(metadata=SimpleNamespace(channels=({}, {})), rescaled=True, packing=None)
    windows = [channel["window"]["start"] for channel in completing.display_windows(image, table)]
    assert windows == [100.0, 101.0]


def test_a_table_of_many_frames_takes_little_memory() -> None:
    """Of 300,000 frames and 12 columns: 29 MB in memory."""
    count = columns.FRAMES_IN_MEMORY + 40_000
    tracemalloc.start()
    try:
        table = StatisticsTable(FrameGrid(range(count), (0,), None))
        row = dict.fromkeys("ABCDEFGHIJKL", 1.0)
        for t in (0, count - 1):
            table.put({"t": t, "c": 0, "z": None, **row, "flags": []})
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()
    assert (table[count - 1]["L"], table[5]["L"]) == (1.0, None)


class Full(FileIO):
    """A file on a disk that is full after its first column."""

    def write(self, data: Any) -> int:
        if self.tell() > 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(data)


def test_no_room_for_columns_says_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "FRAMES_IN_MEMORY", 0)
    monkeypatch.setattr(columns, "TemporaryFile", lambda **_: Full(tmp_path / "columns", "w+"))
    table = StatisticsTable(FrameGrid(range(4), (0,), None))
    with pytest.raises(phbatch.OutputError, match=r"statistics of 4 frames .*No space left.* set TMPDIR"):
        table.put({"t": 0, "c": 0, "z": None, "median": 1.0, "flags": []})


def test_a_table_is_printed_as_one_list(tmp_path: Path, phbatch_command: CommandLine) -> None:
    frames = np.random.default_rng(0).normal(1000, 30, (3, 40, 50)).astype("uint16")
    zarr.create_array(tmp_path / "in.zarr", data=frames, chunks=(1, 40, 50))
    assert phbatch_command("stats", tmp_path / "in.zarr", "--axes", "tyx", "--json") == 0
    assert phbatch_command.out == json.dumps([*phbatch.statistics(tmp_path / "in.zarr", axes="tyx")]) + "\n"
