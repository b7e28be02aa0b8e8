"""A table of statistics in other libraries: pandas, and whatever takes Arrow's streams."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import zarr

import phbatch
from phbatch import StatisticsTable
from phbatch.words.axes import FrameGrid


@pytest.fixture
def table(tmp_path: Path, frames: np.ndarray) -> StatisticsTable:
    image = frames.astype("float32")
    image[1] = 7
    image[2, 0, 0] = np.nan
    zarr.create_array(tmp_path / "a.zarr", data=image)
    return phbatch.statistics(tmp_path / "a.zarr", workers=1)


def test_a_table_becomes_a_data_frame(table: StatisticsTable) -> None:
    pandas = pytest.importorskip("pandas")
    found = table.to_pandas()
    assert list(found.columns) == list(table.names)
    assert found["t"].tolist() == [0, 1, 2]
    for name in table.names[3:-1]:
        np.testing.assert_array_equal(found[name].to_numpy(), table.column(name))
        assert found[name].dtype == np.float64
    assert found["flags"].tolist() == [" ".join(row["flags"]) for row in table]
    assert found[found["flags"] == ""]["t"].tolist() == [0]
    assert found["median"].isna().tolist() == [row["median"] is None for row in table]
    assert isinstance(found, pandas.DataFrame)


def test_a_table_is_a_stream_of_arrow(table: StatisticsTable) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    found = pyarrow.table(table)
    assert found.column_names == list(table.names)
    np.testing.assert_array_equal(found["mean"].to_numpy(), table.column("mean"))
    assert found["flags"].to_pylist() == [" ".join(row["flags"]) for row in table]


def test_volumes_have_no_plane() -> None:
    table = StatisticsTable(FrameGrid(range(2), (0,), None))
    table.put({"t": 1, "c": 0, "z": None, "median": 7.0, "flags": ["black"]})
    found = pytest.importorskip("pyarrow").table(table)
    assert np.isnan(found["z"].to_numpy()).all()
    assert found["median"].to_pylist()[1] == 7.0


@pytest.mark.parametrize("library", ["pandas", "pyarrow"])
def test_a_library_that_is_missing_is_said(
    table: StatisticsTable, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(phbatch.UsageError, match=f"pip install 'phbatch.*column|needs the library {library}"):
        table.to_pandas() if library == "pandas" else table.__arrow_c_stream__()
