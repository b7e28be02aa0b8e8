"""xarray opens an output by itself: names of dimensions on every array, and one length of each in every group."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import phbatch
from tests.ome_inputs import write_ome

xarray = pytest.importorskip("xarray")


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_xarray_opens_every_group(tmp_path: Path, version: Any) -> None:
    frames = np.random.default_rng(0).normal(1000, 30, (3, 2, 37, 50)).astype("uint16")
    write_ome(tmp_path / "in.zarr", frames, "tcyx", version)
    options: dict[str, Any] = {"model": "none", "levels": 3, "illumination": "temporal"}
    output = phbatch.run(tmp_path / "in.zarr", tmp_path / "out.zarr", **options).output
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of consolidated metadata, which there are none of, and of our ledger
        image = xarray.open_zarr(output)["0"]
        with pytest.raises(ValueError, match="not aligned"):
            xarray.open_datatree(output, engine="zarr")
        coarser = xarray.open_datatree(output, engine="zarr", drop_variables="0")
        tree = xarray.open_groups(output, engine="zarr")  # a DataTree's groups must be aligned, and levels are not
        assert "image" not in xarray.open_datatree(
            phbatch.run(tmp_path / "in.zarr", model="none").output, engine="zarr"
        )
    assert image.sizes == {"t": 3, "c": 2, "y": 37, "x": 50}
    np.testing.assert_array_equal(image, zarr.open_array(output, path="0")[:])
    assert tree["/2"]["image"].sizes == {"t": 3, "c": 2, "y": 10, "x": 13}
    assert tree["/statistics"]["median"].sizes == {"frame": 6}
    assert set(tree["/illumination"]["background"].dims) == set("czyx")
    for level in "12":
        xarray.testing.assert_equal(coarser[level]["image"], tree[f"/{level}"]["image"])
    np.testing.assert_array_equal(tree["/1"]["image"], zarr.open_array(output, path="1/image")[:])
