"""Images without a positive background: judged by their series, normalized where a rule can, else refused in time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import phbatch
from phbatch.computing import measuring
from phbatch.computing.tasks import Job
from phbatch.csbdeep import MedianNormalizer, patch_normalization
from phbatch.places.table_file import write_rows
from phbatch.planning.unit import Unit
from tests.movies import frames_of


def subtracted() -> np.ndarray:
    """Frames less their background: the median of every one is below zero."""
    movie = phbatch.PhaseContrast(shape=(64, 70), n_frames=8, seed=4)
    frames = frames_of(movie).astype(np.float32)
    return frames - np.float32(1.3 * np.median(frames))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    zarr.create_array(tmp_path / "in.zarr", data=subtracted(), chunks=(1, 64, 70))
    return tmp_path / "in.zarr"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"normalize": "mode"},
        {"smooth_time": 3},
        {"scope": "series"},
        {"bad_frames": "skip"},
        {"illumination": "temporal", "illumination_mode": "subtract"},
    ],
    ids=str,
)
def test_a_run_that_scales_no_frame_is_refused_before_it_touches_anything(
    tmp_path: Path, source: Path, options: dict[str, Any]
) -> None:
    phbatch.run(source, tmp_path / "out.zarr", model="none", normalize="zscore")
    before = contents(tmp_path / "out.zarr")
    with pytest.raises(phbatch.InputError, match="percentile or zscore"):
        phbatch.run(source, tmp_path / "out.zarr", model="none", overwrite=True, workers=2, **options)
    assert contents(tmp_path / "out.zarr") == before
    with pytest.raises(phbatch.InputError, match="percentile or zscore"):
        phbatch.run(source, tmp_path / "new.zarr", model="none", **options)
    assert not (tmp_path / "new.zarr").exists()


@pytest.mark.parametrize("rule", ["zscore", "percentile"])
def test_the_remedy_normalizes_every_frame_and_skips_none(tmp_path: Path, source: Path, rule: str) -> None:
    result = phbatch.run(source, tmp_path / "o.zarr", model="none", normalize=rule, bad_frames="skip")
    assert result.flagged == {}
    written = zarr.open_array(result.output, path="0")[:]
    assert (written.std(axis=(1, 2)) > 0.05).all()


def test_one_frame_with_a_scale_is_enough_and_the_others_are_flagged(tmp_path: Path, source: Path) -> None:
    zarr.open_array(source)[6] = subtracted()[6] + 500
    result = phbatch.run(source, tmp_path / "o.zarr", model="none")
    assert set(result.flagged) == {f"t{t}/c0/z0" for t in range(8) if t != 6}
    assert set(map(tuple, result.flagged.values())) == {("unscaled",)}


@pytest.mark.parametrize(("scaled", "read"), [(0, [1]), (5, [1, 8])], ids=["first", "another"])
def test_the_search_for_a_scale_reads_the_first_frame_alone_where_that_has_one(
    scaled: int, read: list[int], tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zarr.open_array(source)[scaled] = subtracted()[scaled] + 500
    found, original = list[int](), measuring.read_unit

    def note(job: Job, unit: Unit) -> tuple[np.ndarray, str]:
        block, digest = original(job, unit)
        found.append(len(block))
        return block, digest

    monkeypatch.setattr(measuring, "read_unit", note)
    phbatch.run(source, tmp_path / "o.zarr", model="none", workers=1, nan="skip")  # else all are searched for NaN
    assert found == read


def test_a_given_table_is_judged_when_it_is_read(tmp_path: Path, source: Path) -> None:
    phbatch.report.save_statistics(str(tmp_path / "t.csv"), phbatch.statistics(source))
    for call in (phbatch.plan, phbatch.run):
        with pytest.raises(phbatch.InputError, match="percentile or zscore"):
            call(source, tmp_path / "o.zarr", model="none", stats=tmp_path / "t.csv")


def test_no_good_frame_is_left(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "in.zarr", data=np.full((6, 40, 40), 7, np.uint16), chunks=(1, 40, 40))
    with pytest.raises(phbatch.InputError, match="every one of the 6 frames is flagged"):
        phbatch.run(tmp_path / "in.zarr", tmp_path / "o.zarr", model="none", bad_frames="skip")
    assert not (tmp_path / "o.zarr").exists()


def test_a_pool_of_no_good_frame_is_said(tmp_path: Path) -> None:
    movie = phbatch.PhaseContrast(shape=(40, 40), n_frames=6, seed=4)
    frames = np.stack([[frame, np.full((40, 40), 9, np.uint16)] for frame in frames_of(movie)])
    zarr.create_array(tmp_path / "in.zarr", data=frames, chunks=(1, 2, 40, 40), dimension_names=list("tcyx"))
    result = phbatch.run(tmp_path / "in.zarr", model="none", scope="series")
    assert any("no frame of channel 1 is good" in text for text in result.notices)
    heard: list[Any] = []
    phbatch.statistics(tmp_path / "in.zarr", scope="series", listener=heard.append)
    assert any("no frame of channel 1 is good" in getattr(event, "text", "") for event in heard)


def test_csbdeep_refuses_what_it_cannot_scale() -> None:
    frame = subtracted()[0]
    with pytest.raises(phbatch.InputError, match="normalize by percentiles"):
        MedianNormalizer().before(frame, "YX")
    with pytest.raises(phbatch.InputError, match="normalize by percentiles"):
        patch_normalization("median")(frame[np.newaxis], frame[np.newaxis], frame, frame, None, None)


def test_padding_is_a_column_of_every_table_and_old_tables_lack_it(tmp_path: Path) -> None:
    movie = phbatch.PhaseContrast(shape=(64, 80), n_frames=6, seed=4)
    frames = frames_of(movie)
    frames[3, :16] = 0
    zarr.create_array(tmp_path / "in.zarr", data=frames, chunks=(1, 64, 80))
    rows = phbatch.statistics(tmp_path / "in.zarr")
    assert rows.plain_column("padding") == [0, 0, 0, 0.25, 0, 0]
    one = phbatch.run(tmp_path / "in.zarr", tmp_path / "one.zarr", model="none")
    two = phbatch.run(tmp_path / "in.zarr", tmp_path / "two.zarr", model="none", bad_frames="copy")
    expected = zarr.open_array(one.output, path="0")[:]
    np.testing.assert_array_equal(zarr.open_array(two.output, path="0")[:], expected)
    assert zarr.open_array(one.output, path="statistics/padding")[:].tolist() == [0, 0, 0, 0.25, 0, 0]
    for suffix in ("csv", "json", "parquet"):
        old = [{name: value for name, value in row.items() if name != "padding"} for row in rows]
        for name, table in (("new", list(rows)), ("old", old)):
            path = str(tmp_path / f"{name}.{suffix}")
            write_rows(path, list(table[0]), table)
            given = phbatch.run(tmp_path / "in.zarr", tmp_path / f"{name}_{suffix}.zarr", model="none", stats=path)
            np.testing.assert_array_equal(zarr.open_array(given.output, path="0")[:], expected)
