"""Images as labelled arrays: coordinates, and what the accessor gives is what the functions give."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import xarray
import zarr

import phbatch
import phbatch.xarray
from tests.handmade import write_model
from tests.ome_inputs import AXES, scale_of, write_ome


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(1).integers(400, 900, (3, 2, 40, 36), dtype="uint16")


@pytest.fixture
def path(tmp_path: Path, image: np.ndarray) -> Path:
    """Stored as tcyx with minutes and nanometers, and names of channels."""
    units = {"t": "minute", "y": "nanometer", "x": "nanometer"}
    axes = [AXES[axis] | ({"unit": units[axis]} if axis in units else {}) for axis in "tcyx"]
    shift = {"type": "translation", "translation": [0, 0, 0, 1000]}
    transforms = [scale_of(5, 1, 650, 325), shift]
    channels = [{"label": name, "color": "FFFFFF"} for name in ("PH", "GFP")]
    attributes = {"omero": {"channels": channels}}
    return write_ome(tmp_path / "a.zarr", image, axes, "0.5", transforms=transforms, attributes=attributes)


def test_coordinates_are_times_micrometers_and_names(path: Path, image: np.ndarray) -> None:
    found = phbatch.open(path)
    assert isinstance(found.data, da.Array)
    assert (found.dims, found.dtype, found.name) == (("t", "c", "y", "x"), image.dtype, "img")
    np.testing.assert_array_equal(found, image)
    np.testing.assert_allclose(found["t"], [0, 300, 600])
    np.testing.assert_allclose(found["y"], 0.65 * np.arange(40))
    np.testing.assert_allclose(found["x"], 1 + 0.325 * np.arange(36))
    assert found["c"].values.tolist() == ["PH", "GFP"]
    assert {name: found[name].attrs.get("units") for name in "tcyx"} == {
        "t": "second",
        "c": None,
        "y": "micrometer",
        "x": "micrometer",
    }
    part = found.sel(c="GFP", t=300).sel(x=slice(2, 5))
    np.testing.assert_array_equal(part, image[1, 1][:, np.flatnonzero((found["x"] >= 2) & (found["x"] <= 5))])
    np.testing.assert_array_equal(found[::-1, :, 3:30:4, -1].compute(), image[::-1, :, 3:30:4, -1])
    np.testing.assert_array_equal(found[:, 1, [5, 2]].compute(), image[:, 1, [5, 2]])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(found)), image)


def test_bare_arrays_in_any_order_are_opened_by_axes(tmp_path: Path, image: np.ndarray) -> None:
    zarr.create_array(tmp_path / "a.zarr", data=image.transpose(2, 3, 1, 0), chunks=(16, 16, 1, 2))
    found = phbatch.open(tmp_path / "a.zarr", "yxct")
    assert found.dims == ("t", "c", "y", "x")
    np.testing.assert_array_equal(found, image)
    assert "units" not in found["y"].attrs
    with pytest.raises(phbatch.InputError, match="axes"):
        phbatch.open(tmp_path / "a.zarr")


def test_an_image_that_was_written_anew_is_read_anew(tmp_path: Path, image: np.ndarray) -> None:
    for value in (1, 2):
        zarr.create_array(tmp_path / "a.zarr", data=np.full_like(image, value), overwrite=True)
        assert (phbatch.open(tmp_path / "a.zarr", "tcyx") == value).all()


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_levels_are_opened_with_their_own_coordinates(tmp_path: Path, image: np.ndarray, version: str) -> None:
    write_ome(tmp_path / "a.zarr", image, "tcyx", version, transforms=[scale_of(5, 1, 0.65, 0.325)])
    output = phbatch.run(tmp_path / "a.zarr", model="none", normalize="median", levels=3, workers=1).output
    tree = phbatch.open_datatree(output)
    assert [*tree.children] == ["0", "1", "2", "statistics"]
    for level, name in enumerate(("0", "1/image", "2/image")):
        found = phbatch.open(output, level=level)
        assert isinstance(found.data, da.Array)
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(found)), zarr.open_array(output, path=name)[:])
        np.testing.assert_allclose(found["y"], 0.65 * ((2**level - 1) / 2 + 2**level * np.arange(found.sizes["y"])))
        xarray.testing.assert_identical(tree[f"{level}/image"], found.rename("image"))
        assert found.chunks == tree[f"{level}/image"].chunks
    xarray.testing.assert_identical(phbatch.open(output), phbatch.open(output, level=0))
    assert [*phbatch.open_datatree(tmp_path / "a.zarr").children] == ["0"]


@pytest.mark.parametrize("level", [-1, 3])
def test_a_level_that_is_not_there_is_refused(tmp_path: Path, image: np.ndarray, level: int) -> None:
    write_ome(tmp_path / "a.zarr", image, "tcyx")
    output = phbatch.run(tmp_path / "a.zarr", model="none", levels=3, workers=1).output
    with pytest.raises(phbatch.InputError, match=f"level {level} .* give 0 to 2"):
        phbatch.open(output, level=level)
    zarr.create_array(tmp_path / "bare.zarr", data=image)
    for path, axes in ((tmp_path / "a.zarr", None), (tmp_path / "bare.zarr", "tcyx")):
        with pytest.raises(phbatch.InputError, match=f"level {level} .* give 0"):
            phbatch.open(path, axes, level=level)


@pytest.mark.parametrize("level", ["1", 1.0, True, None])
def test_a_level_that_is_no_number_is_refused(path: Path, level: Any) -> None:
    with pytest.raises(phbatch.UsageError, match="must be a whole number"):
        phbatch.open(path, level=level)


def test_a_damaged_chunk_is_an_error_of_the_input(path: Path) -> None:
    (path / "0/c/0/0/0/0").write_bytes(b"no chunk")
    found = phbatch.open(path)
    with pytest.raises(phbatch.InputError, match="cannot be"):
        found.compute(scheduler="synchronous")


def test_the_accessor_gives_labelled_arrays_with_the_numbers_of_the_functions(path: Path, image: np.ndarray) -> None:
    lazy = phbatch.open(path)
    for labelled, is_lazy in ((lazy, True), (lazy.compute(), False)):
        found = labelled.phbatch.normalize("percentile", pmin=1)
        assert isinstance(found.data, da.Array) is is_lazy
        xarray.testing.assert_equal(found.coords.to_dataset(), labelled.coords.to_dataset())
        np.testing.assert_array_equal(found, phbatch.normalize(image, "tcyx", normalize="percentile", pmin=1))
        rows = labelled.phbatch.statistics(percentiles=[50])
        expected = phbatch.image_statistics(image, "tcyx", percentiles=[50])
        assert isinstance(rows, xarray.Dataset)
        assert (rows["p50"].dims, [*rows.data_vars]) == (("t", "c"), [*expected.dtype.names])
        for name in expected.dtype.names:
            np.testing.assert_array_equal(rows[name], expected[name])
        assert float(rows["mean"].sel(c="PH", t=600)) == image[2, 0].mean()


def test_restored_pixels_keep_their_coordinates(path: Path, tmp_path: Path, image: np.ndarray) -> None:
    model = write_model(tmp_path / "model", n_channel_in=2, n_channel_out=3)
    labelled = phbatch.open(path).transpose("y", "x", "c", "t")
    found = labelled.phbatch.restore(model=model, downscale=2)
    assert (found.dims, found.shape) == (("t", "c", "y", "x"), (3, 3, 20, 18))
    assert "c" not in found.coords  # other channels than those that were named
    np.testing.assert_allclose(found["y"], 0.65 * (0.5 + 2 * np.arange(20)))
    assert found["x"].attrs == {"units": "micrometer"}
    np.testing.assert_array_equal(found, phbatch.restore(image, "tcyx", model=model, downscale=2))


def test_without_xarray_it_is_asked_for(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(phbatch.UsageError, match=r"phbatch\[xarray\]"):
        phbatch.open(path)
