"""The table of statistics: pooled over frames, written, edited, read back, and normalizations that packages add."""

from __future__ import annotations

import csv
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

import phbatch
from phbatch.csbdeep import patch_normalization
from phbatch.frames.table import StatisticsRow, StatisticsTable
from phbatch.kernels.intensity import find_normalizer
from phbatch.kernels.smoothing import smooth_float
from phbatch.kernels.stats import FLAG_NAMES, FrameStatistics
from phbatch.words.axes import FrameGrid, FrameKey
from tests.movies import frames_of


def series(planes: int = 1) -> np.ndarray:
    movie = phbatch.PhaseContrast(shape=(60, 70), n_frames=8 * planes, seed=4, flicker=0.1)
    return frames_of(movie).reshape(8, planes, 60, 70)


@pytest.fixture
def source(tmp_path: Path) -> str:
    zarr.create_array(tmp_path / "in.zarr", data=series()[:, 0], chunks=(3, 60, 70))
    return str(tmp_path / "in.zarr")


def pixels(result: phbatch.RunResult) -> np.ndarray:
    return zarr.open_array(result.output, path="0", mode="r")[:]


def test_plain_columns_are_the_rows_turned(source: str) -> None:
    table = phbatch.statistics(source)
    table.assign("mode", np.array([2]), np.nan)
    table.flag(np.array([1, 2]), "black")
    for one in (table, StatisticsTable(FrameGrid(range(2), (0, 1), None))):
        assert {name: one.plain_column(name) for name in one.names} == {
            name: [row[name] for row in one] for name in one.names
        }


number = st.floats(allow_nan=False, allow_infinity=False, width=32)


@given(
    st.lists(number, min_size=7, max_size=7),
    st.dictionaries(st.floats(0, 100).map(lambda p: round(p, 3)), number, max_size=3),
    st.lists(st.sampled_from(FLAG_NAMES), unique=True),
    st.none() | number,
    st.booleans(),
)
def test_a_row_survives_its_plain_values(
    values: list[float], percentiles: dict[float, float], flags: list[str], smooth: float | None, pooled: bool
) -> None:
    one = FrameStatistics(*values[:6], percentiles, mad=values[6], median_smooth=smooth, mode_smooth=smooth)
    two = FrameStatistics(*values[:6], percentiles, mad=values[6], saturated=np.nan)
    row = StatisticsRow(
        FrameKey(3, 1, None),
        FrameStatistics(**(vars(one) | {"flags": tuple(flags), "pooled": two if pooled else None})),
    )
    again = StatisticsRow.from_dict(row.as_dict())
    assert again.as_dict() == row.as_dict()
    assert again.key == row.key
    assert (again.statistics.pooled is not None) == pooled


def test_a_row_of_the_table_takes_few_bytes() -> None:
    row = StatisticsRow(FrameKey(0, 0, 0), FrameStatistics(*range(6), {2.0: 1.0, 99.8: 2.0})).as_dict()
    tracemalloc.start()
    table = StatisticsTable(FrameGrid(range(50_000), (0,), 1))
    for t in range(0, 50_000, 7):
        table.put(row | {"t": t})
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size / 50_000 < 150
    assert table[7]["median"] == 0.0
    assert table[8]["median"] is None


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("scope", ["position", "series"])
def test_pooled_statistics_are_those_of_the_pooled_pixels(tmp_path: Path, scope: str, workers: int) -> None:
    image = series(planes=2)
    image[5, 1] = 40  # constant: flagged, and not pooled
    zarr.create_array(tmp_path / "in.zarr", data=image, chunks=(3, 1, 60, 70), dimension_names=["t", "z", "y", "x"])
    rows = phbatch.statistics(tmp_path / "in.zarr", scope=scope, percentiles="50", workers=workers)
    smooth = np.stack([[smooth_float(plane, 2.0) for plane in planes] for planes in image])
    good = np.array([not row["flags"] for row in rows]).reshape(8, 2)
    assert good.sum() == 15
    for z in range(2):
        own = np.zeros_like(good)
        own[:, z if scope == "position" else slice(None)] = True
        row = rows[2 * 3 + z]
        for p in (2.0, 50.0, 99.8):
            assert row[f"pooled_p{p:g}"] == np.percentile(image[good & own], p)
        assert abs(row["pooled_median"] - np.median(smooth[good & own])) < 0.2
        assert row["pooled_min"] == image[good & own].min()
    result = phbatch.run(tmp_path / "in.zarr", model="none", scope=scope, workers=workers)
    divisor = np.float32(rows[1]["pooled_median"])
    np.testing.assert_array_equal(pixels(result)[0, 1], image[0, 1] / divisor)
    np.testing.assert_array_equal(pixels(result)[7, 1], image[7, 1] / divisor)
    assert phbatch.plan(tmp_path / "in.zarr", model="none", scope=scope).passes == 3


def test_floats_and_frames_beyond_memory_are_pooled_too(tmp_path: Path) -> None:
    image = series()[:, 0].astype(np.float32) * 1.37
    zarr.create_array(tmp_path / "in.zarr", data=image, chunks=(3, 60, 70))
    row = phbatch.statistics(tmp_path / "in.zarr", scope="position")[0]
    smooth = np.stack([smooth_float(frame, 2.0) for frame in image])
    assert row["pooled_median"] == pytest.approx(np.median(smooth), rel=2.0**-13)
    assert row["pooled_p99.8"] == pytest.approx(np.percentile(image, 99.8), rel=2.0**-13)
    large = np.tile(series()[:3, 0], (1, 90, 80))
    large[1] = 7
    zarr.create_array(tmp_path / "large.zarr", data=large, chunks=(1, 512, 512))
    whole = list(phbatch.statistics(tmp_path / "large.zarr", scope="series", workers=1))
    pieces = list(phbatch.statistics(tmp_path / "large.zarr", scope="series", workers=2, memory="600MB"))
    assert whole == pieces
    assert whole[0]["pooled_p2"] == np.percentile(large[[0, 2]], 2)


def test_scope_contradicts_smoothing_over_time(source: str) -> None:
    with pytest.raises(phbatch.UsageError, match="leave smooth_time or scope out"):
        phbatch.statistics(source, scope="series", smooth_time=3)


@pytest.mark.parametrize("suffix", ["csv", "json", "parquet", "zarr"])
@pytest.mark.parametrize("options", [{}, {"smooth_time": 3}, {"scope": "position"}])
def test_a_run_from_a_table_has_the_bits_of_a_run_that_measures(
    tmp_path: Path, source: str, suffix: str, options: dict[str, Any]
) -> None:
    rule = {"model": "none", "normalize": "percentile"} if suffix == "json" else {"model": "none"}
    measured = phbatch.run(source, tmp_path / "table.zarr", **rule, **options)
    if suffix != "zarr":
        phbatch.report.save_statistics(str(tmp_path / f"table.{suffix}"), phbatch.statistics(source, **options))
    given = phbatch.run(source, tmp_path / "given.zarr", stats=tmp_path / f"table.{suffix}", **rule)
    np.testing.assert_array_equal(pixels(given), pixels(measured))


def write_csv(path: Path, rows: list[dict[str, Any]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_a_person_may_edit_the_table(tmp_path: Path, source: str) -> None:
    rows = [{"t": row["t"], "median": row["median"], "flags": ""} for row in phbatch.statistics(source)]
    rows[2]["median"] = 50.0
    rows[4] |= {"median": "", "flags": "black"}
    table = write_csv(tmp_path / "edited.csv", rows)
    plain = pixels(phbatch.run(source, tmp_path / "plain.zarr", model="none"))
    edited = phbatch.run(source, tmp_path / "edited.zarr", model="none", stats=table, bad_frames="copy")
    found = pixels(edited)
    np.testing.assert_array_equal(found[2], series()[2, 0] / np.float32(50))
    np.testing.assert_array_equal(found[4], series()[4, 0])
    others = [0, 1, 3, 5, 6, 7]
    np.testing.assert_array_equal(found[others], plain[others])
    assert edited.flagged == {"t4/c0/z0": ["black"]}
    rows[2]["median"] = 51.0
    write_csv(table, rows)
    with pytest.raises(phbatch.OutputError, match=r"statistics \(stats\) was"):
        phbatch.run(source, tmp_path / "edited.zarr", model="none", stats=table, bad_frames="copy")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rows: rows.pop(3), "no row of frame t3/c0/z0"),
        (lambda rows: rows[3].pop("median"), "no median of frame t3/c0/z0"),
        (lambda rows: rows[3].update(median="many"), "is no number"),
        (lambda rows: rows[3].update(flags="odd"), "'odd' is no flag"),
        (lambda rows: rows[3].update(t=""), "no row of statistics"),
    ],
)
def test_what_a_table_lacks_is_named(tmp_path: Path, source: str, change: Any, words: str) -> None:
    rows = [{"t": row["t"], "median": row["median"], "flags": ""} for row in phbatch.statistics(source)]
    change(rows)
    with pytest.raises(phbatch.InputError, match=words):
        phbatch.run(source, tmp_path / "o.zarr", model="none", stats=write_csv(tmp_path / "table.csv", rows))
    assert not (tmp_path / "o.zarr").exists()


def test_tables_that_are_none(tmp_path: Path, source: str) -> None:
    for name in ("missing.csv", "missing.parquet", "in.zarr"):
        with pytest.raises(phbatch.InputError):
            phbatch.run(source, tmp_path / "o.zarr", model="none", stats=tmp_path / name)
    with pytest.raises(phbatch.UsageError, match=r"\.csv, \.json or \.parquet"):
        phbatch.run(source, tmp_path / "o.zarr", model="none", stats=tmp_path / "table.xls")
    with pytest.raises(phbatch.UsageError, match=r"phbatch\.statistics"):
        phbatch.run(source, tmp_path / "o.zarr", model="none", stats=tmp_path / "table.csv", smooth_time=3)


def test_any_percentiles(source: str) -> None:
    rows = phbatch.statistics(source, percentiles=(0.5, 50, 97.5))
    for frame, row in zip(series()[:, 0], rows, strict=True):
        for p in (0.5, 2.0, 50.0, 97.5, 99.8):
            assert row[f"p{p:g}"] == np.percentile(frame, p)
    with pytest.raises(phbatch.UsageError, match="give 100 or less"):
        phbatch.statistics(source, percentiles="101")


NORMALIZER = """
from phbatch.kernels.intensity import Affine

def halfway(statistics, rule):
    divisor = rule.factor * (statistics.min + statistics.max) / 2
    return Affine(0.0, divisor, divisor)
"""


def test_a_package_adds_a_normalization(tmp_path: Path, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "site"
    information = site / "halfway_phbatch-1.2.dist-info"
    information.mkdir(parents=True)
    (site / "halfway_phbatch.py").write_text(NORMALIZER)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: halfway-phbatch\nVersion: 1.2\n")
    (information / "entry_points.txt").write_text(
        "[phbatch.normalizers]\nhalfway = halfway_phbatch:halfway\nbroken = halfway_phbatch:missing\n"
    )
    with pytest.raises(phbatch.UsageError, match="the normalizations are median, mode"):
        phbatch.run(source, model="none", normalize="halfway")
    monkeypatch.syspath_prepend(str(site))
    frames = series()[:, 0]
    divisor = ((frames.min((1, 2)).astype(float) + frames.max((1, 2))) * 2 / 2).astype(np.float32)
    expected = frames / divisor[:, np.newaxis, np.newaxis]
    result = phbatch.run(source, tmp_path / "o.zarr", model="none", normalize="halfway", factor=2)
    np.testing.assert_array_equal(pixels(result), expected)
    facts = zarr.open_group(result.output, mode="r").attrs.asdict()["phbatch"]["fingerprint"]
    assert facts["normalizer"] == "halfway_phbatch:halfway of halfway-phbatch 1.2"
    lazy = phbatch.normalize(da.from_array(frames, chunks=(2, 30, 70)), "tyx", normalize="halfway", factor=2)
    np.testing.assert_array_equal(lazy.compute(), expected)
    patches = frames[:1, np.newaxis]
    rule = patch_normalization("halfway", factor=2)
    np.testing.assert_array_equal(rule(patches, patches, frames[0], frames[0], None, None)[0][0, 0], expected[0])
    with pytest.raises(phbatch.UsageError, match="cannot be loaded from halfway_phbatch:missing"):
        phbatch.run(source, tmp_path / "o2.zarr", model="none", normalize="broken")
    find_normalizer.cache_clear()
    del sys.modules["halfway_phbatch"]
