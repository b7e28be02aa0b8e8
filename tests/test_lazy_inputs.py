"""The lazy functions take every kind of array, whatever its shape and chunks, or refuse it in words."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dask.array as da
import numpy as np
import pytest
import zarr

import phbatch

LAZY = {"image_statistics": phbatch.image_statistics, "normalize": phbatch.normalize, "restore": phbatch.restore}


def labelled(array: Any, *dims: str) -> Any:
    """What an xarray.DataArray is to phbatch."""
    return SimpleNamespace(data=array, dims=dims)


@pytest.mark.parametrize("name", LAZY)
def test_numpy_xarray_stores_and_foreign_byte_orders_give_what_dask_gives(
    tmp_path: Path, frames: np.ndarray, name: str
) -> None:
    function = LAZY[name]
    expected = function(da.from_array(frames, chunks=(1, 40, 36)), "tyx").compute()
    store = zarr.create_array(tmp_path / "a.zarr", data=frames)
    swapped = frames.astype(">u2")
    for array in (store, da.from_array(swapped, chunks=(1, 20, 36))):
        np.testing.assert_array_equal(function(array, "tyx").compute(), expected)
    for array in (frames, swapped):
        found = function(array, "tyx")
        assert isinstance(found, np.ndarray)
        np.testing.assert_array_equal(found, expected)
    for array in (labelled(frames, "t", "y", "x"), labelled(da.from_array(frames), "t", "y", "x")):
        np.testing.assert_array_equal(function(array).compute(), expected)
    with pytest.raises(phbatch.InputError, match="contradict"):
        function(labelled(frames, "y", "x", "t"), "tyx")


@pytest.mark.parametrize("name", LAZY)
@pytest.mark.parametrize(
    ("make", "part"),
    [
        (lambda frames: frames.tolist(), "list"),
        (lambda frames: np.ma.masked_greater(frames, 500), "masked"),
        (lambda frames: da.from_array(np.ma.masked_greater(frames, 500)), "masked"),
        (lambda frames: frames[:0], "length zero"),
        (lambda frames: frames[:, :, :0], "length zero"),
        (lambda frames: frames > 500, "bool"),
        (lambda frames: frames.astype("complex64"), "complex64"),
        (lambda frames: frames.astype(str), "no real number"),
        (lambda frames: frames[0], "dimensions"),
        (
            lambda frames: da.from_array(frames, chunks=(1, 40, 36))[da.from_array(np.array([True, False, True]))],
            "unkn",
        ),
    ],
)
def test_what_is_no_array_of_frames_is_refused_at_once(frames: np.ndarray, name: str, make: Any, part: str) -> None:
    with pytest.raises(phbatch.InputError, match=part):
        LAZY[name](make(frames), "tyx")


@pytest.mark.parametrize("name", LAZY)
def test_axes_are_named_or_refused(frames: np.ndarray, name: str) -> None:
    with pytest.raises(phbatch.InputError, match="axes"):
        LAZY[name](frames)
    with pytest.raises(phbatch.InputError, match="axes"):
        LAZY[name](frames, 3)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
@pytest.mark.parametrize("shape", [(2, 1, 50), (2, 40, 1), (2, 1, 1), (2, 3, 3), (1, 17, 200), (2, 19, 19)])
def test_thin_frames_have_the_numbers_of_run_whatever_their_chunks(
    tmp_path: Path, dtype: str, shape: tuple[int, ...]
) -> None:
    image = np.random.default_rng(3).integers(400, 900, shape).astype(dtype)
    zarr.create_array(tmp_path / "a.zarr", data=image)
    expected = phbatch.statistics(tmp_path / "a.zarr", axes="tyx", workers=1)
    for length in (7, 1000):
        array = da.from_array(image, chunks=(1, min(length, shape[1]), min(length, shape[2])))
        found = phbatch.image_statistics(array, "tyx").compute()
        np.testing.assert_allclose(found["median"], expected.column("median"), rtol=1e-4)
        np.testing.assert_allclose(found["mean"], expected.column("mean"), rtol=1e-6)
        assert phbatch.normalize(array, "tyx").compute().shape == shape
        assert phbatch.restore(array, "tyx").shape == shape


@pytest.mark.parametrize("name", ["normalize", "restore"])
def test_frames_without_a_scale_are_told_by_name(
    frames: np.ndarray, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    image = frames.astype("float32")
    image[1, 3, 3], image[2] = np.nan, 7
    with caplog.at_level(logging.WARNING, "phbatch"):
        found = LAZY[name](da.from_array(image, chunks=(1, 40, 36)), "tyx").compute(scheduler="synchronous")
    np.testing.assert_array_equal(found[1:], image[1:])
    told = " ".join(record.getMessage() for record in caplog.records if record.name.startswith("phbatch."))
    assert "t1" in told
    assert "t2" in told
    assert "t0" not in told


def test_one_frame_without_other_axes(frames: np.ndarray) -> None:
    np.testing.assert_array_equal(phbatch.normalize(frames[0], "yx"), phbatch.normalize(frames, "tyx")[0])
