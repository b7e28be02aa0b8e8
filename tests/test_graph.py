"""Lazy Dask arrays: nothing is computed until asked, and the numbers do not depend on chunks."""

from __future__ import annotations

from pathlib import Path

import dask
import dask.array as da
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

import phbatch
from phbatch.frames.recipe import Recipe
from phbatch.inputs.image import open_source
from phbatch.kernels.stats import measure_frame
from phbatch.places.place import Place
from phbatch.planning.memory import UnitMemory
from phbatch.planning.units import Geometry
from phbatch.running.large import LargeFrames
from phbatch.words.normalization import Normalization


def frames(dtype: str = "uint16") -> np.ndarray:
    draw = np.random.default_rng(5)
    image = 900 + 60 * draw.standard_normal((3, 2, 50, 43)) + 300 * (draw.random((3, 2, 50, 43)) > 0.95)
    image[1, 0] = 17
    return image.astype(dtype)


def chunk_lists(sizes: tuple[int, ...]) -> st.SearchStrategy[tuple[tuple[int, ...], ...]]:
    def one(size: int) -> st.SearchStrategy[tuple[int, ...]]:
        cuts = st.sets(st.integers(1, size - 1), max_size=4) if size > 1 else st.just(set())
        return cuts.map(lambda edges: tuple(np.diff([0, *sorted(edges), size]).tolist()))

    return st.tuples(*(one(size) for size in sizes))


@settings(max_examples=25, deadline=None)
@given(chunk_lists((3, 2, 50, 43)), st.sampled_from(["uint16", "uint8", "float32", "int32"]))
def test_statistics_do_not_depend_on_chunks(chunks: tuple[tuple[int, ...], ...], dtype: str) -> None:
    image = (frames() / 8).astype(dtype) if dtype == "uint8" else frames(dtype)
    with dask.config.set(scheduler="synchronous"):
        found = phbatch.image_statistics(da.from_array(image, chunks=chunks), "tcyx").compute()
    rounding = 0.0 if dtype.startswith("uint") else 1e-7
    for t, c in np.ndindex(3, 2):
        expected = measure_frame(image[t, c], 2.0)
        for name in ("median", "mode", "mad", "mean", "std", "min", "max", "zero", "focus", "background"):
            if name == "mode" and rounding and not expected.flags:  # its bins start elsewhere
                assert found[name][t, c] == pytest.approx(expected.mode, abs=0.02 * expected.std)
            else:
                assert found[name][t, c] == pytest.approx(getattr(expected, name), rel=rounding, abs=rounding), name
        assert tuple(found[t, c][["p2", "p99.8"]]) == pytest.approx(tuple(expected.percentiles.values()), rel=rounding)
    assert found["flags"].tolist() == [[0, 0], [2, 0], [0, 0]]


@pytest.mark.parametrize("method", ["median", "mode", "percentile", "minmax", "none"])
@pytest.mark.parametrize("chunks", [(1, 1, 50, 43), (3, 2, 11, 9)])
def test_normalize_is_what_run_computes(tmp_path: Path, method: str, chunks: tuple[int, ...]) -> None:
    image = frames()
    zarr.create_array(tmp_path / "in.zarr", data=image, chunks=(1, 1, 50, 43))
    result = phbatch.run(tmp_path / "in.zarr", model="none", normalize=method, axes="tcyx", workers=1)
    lazy = phbatch.normalize(da.from_array(image, chunks=chunks), "tcyx", normalize=method)
    assert lazy.chunks == da.from_array(image, chunks=chunks).chunks
    np.testing.assert_array_equal(lazy.compute(), zarr.open_array(result.output, path="0")[:])


def test_restore_is_what_run_computes(tmp_path: Path) -> None:
    image = frames()
    zarr.create_array(tmp_path / "in.zarr", data=image, chunks=(1, 1, 50, 43))
    result = phbatch.run(tmp_path / "in.zarr", axes="tcyx", workers=2)
    lazy = phbatch.restore(da.from_array(image, chunks=(2, 1, 20, 43)), "tcyx")
    np.testing.assert_array_equal(lazy.compute(), zarr.open_array(result.output, path="0")[:])


def test_other_axis_orders_and_missing_axes() -> None:
    image = frames()[:, 0]
    moved = da.from_array(image.transpose(1, 2, 0), chunks=(50, 20, 1))
    straight = da.from_array(image, chunks=(1, 50, 43))
    np.testing.assert_array_equal(
        phbatch.image_statistics(moved, "yxt").compute(), phbatch.image_statistics(straight, "tyx").compute()
    )
    np.testing.assert_array_equal(phbatch.restore(moved, "yxt").compute(), phbatch.restore(straight, "tyx").compute())
    assert phbatch.restore(straight[0], "yx").shape == (50, 43)


def test_nothing_is_computed_until_asked() -> None:
    def explode(block: np.ndarray) -> np.ndarray:
        raise AssertionError("computed")

    array = da.zeros((2, 64, 64), chunks=(1, 64, 64), dtype=np.uint16).map_blocks(
        explode, dtype=np.uint16, meta=np.empty((0, 0, 0), np.uint16)
    )
    lazy = [phbatch.image_statistics(array, "tyx"), phbatch.normalize(array, "tyx"), phbatch.restore(array, "tyx")]
    for result in lazy:
        with pytest.raises(AssertionError, match="computed"):
            result.compute(scheduler="synchronous")


@pytest.mark.parametrize("dtype", ["uint16", "float32", "uint32"])
@pytest.mark.parametrize("chunks", [(200, 160), (440, 1720)])
def test_a_frame_too_large_for_one_task_is_measured_over_its_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, chunks: tuple[int, int]
) -> None:
    image = np.tile(frames(dtype)[0, 0], (40, 40))
    monkeypatch.setattr("phbatch.planning.passes._LARGE_CHUNK", 400)
    image += (np.arange(image.shape[0])[:, np.newaxis] / 40).astype(dtype)
    zarr.create_array(tmp_path / "in.zarr", data=image, chunks=chunks)
    (small,) = phbatch.statistics(tmp_path / "in.zarr", workers=1)
    monkeypatch.setattr(
        "phbatch.planning.resolve.measuring_unit_memory", lambda *_, **__: UnitMemory(1, 1 << 50, 1 << 50)
    )
    (large,) = phbatch.statistics(tmp_path / "in.zarr", memory="1GB", workers=2)
    if dtype == "uint16":
        assert large == small
    assert large.pop("flags") == small.pop("flags") == []
    error = {"mode": 1e-3, "background": 5e-3, "mad": 1e-3}  # the background's limits move with the mode
    for name, value in small.items():
        assert large[name] == pytest.approx(value, rel=error.get(name, 2.0**-16), abs=1e-12), name
    with pytest.raises(phbatch.MemoryLimitError):
        phbatch.statistics(tmp_path / "in.zarr", memory="250MB")


@pytest.mark.parametrize("sigma", [0.0, 2.0, 100.0])
def test_rows_of_a_large_frame_reach_as_far_as_the_halo(tmp_path: Path, sigma: float) -> None:
    image = np.tile(frames("uint16")[0, 0, :20, :30], (110, 2))[:2100]
    zarr.create_array(tmp_path / "in.zarr", data=image, chunks=(512, 60))
    source = open_source(Place.at(tmp_path / "in.zarr"), None)
    geometry = Geometry(source.shape, source.chunks, range(1), (0,))
    (row,) = LargeFrames(source, Recipe(Normalization(sigma=sigma)), 2).statistics(geometry.grid)
    assert row.statistics == measure_frame(image, sigma)
