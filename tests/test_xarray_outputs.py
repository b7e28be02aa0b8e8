"""xarray opens an output by itself: names of dimensions on every array, and one length of each in every group."""

from __future__ import annotations

import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import phbatch
from phbatch.places import own
from tests.handmade import write_model
from tests.ome_inputs import write_ome

xarray = pytest.importorskip("xarray")
xarray_engine = pytest.importorskip("phbatch.running.xarray_engine")


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
            xarray.open_datatree(output, engine="zarr")  # a DataTree's groups must be aligned, and levels are not
        tree = xarray.open_groups(output, engine="zarr")
        assert "image" not in xarray.open_datatree(
            phbatch.run(tmp_path / "in.zarr", model="none").output, engine="zarr"
        )
    assert image.sizes == {"t": 3, "c": 2, "y": 37, "x": 50}
    np.testing.assert_array_equal(image, zarr.open_array(output, path="0")[:])
    assert tree["/2"]["image"].sizes == {"t": 3, "c": 2, "y": 10, "x": 13}
    assert tree["/statistics"]["median"].sizes == {"frame": 6}
    assert set(tree["/illumination"]["background"].dims) == set("czyx")
    np.testing.assert_array_equal(tree["/1"]["image"], zarr.open_array(output, path="1/image")[:])


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_the_engine_opens_what_xarray_finds_to_be_an_output(tmp_path: Path, version: Any) -> None:
    frames = np.random.default_rng(0).normal(1000, 30, (3, 2, 37, 50)).astype("uint16")
    write_ome(tmp_path / "in.zarr", frames, "tcyx", version)
    options: dict[str, Any] = {"normalize": "median", "dtype": "uint16", "range": (0, 4)}
    options |= {"model": "none", "levels": 3, "illumination": "temporal"}
    output = phbatch.run(tmp_path / "in.zarr", tmp_path / "out.zarr", **options).output
    tree, lazy = xarray.open_datatree(output), phbatch.open_datatree(output)
    stored = xarray.open_datatree(output, mask_and_scale=False)
    assert [*tree.children] == ["0", "1", "2", "statistics", "illumination"]
    for level, name in enumerate(("0", "1/image", "2/image")):
        pixels, array = lazy[f"{level}/image"], zarr.open_array(output, path=name)
        np.testing.assert_array_equal(pixels, array[:])
        xarray.testing.assert_identical(stored[f"{level}/image"], pixels)
        values = tree[f"{level}/image"]  # as xarray has integers that stand for other numbers
        np.testing.assert_allclose(values, pixels * array.attrs["scale_factor"] + array.attrs["add_offset"], rtol=1e-6)
        assert "units" not in values["t"].attrs
        assert xarray.open_datatree(output, chunks={})[f"{level}/image"].chunks == pixels.chunks
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        groups = xarray.open_groups(output, engine="zarr", mask_and_scale=False)  # of 0.4 it takes zeros for missing
        level_0 = xarray.open_zarr(output, mask_and_scale=False)["0"]
    for name in ("statistics", "illumination"):
        xarray.testing.assert_equal(tree[name].to_dataset(), groups[f"/{name}"][[*tree[name]]])
    np.testing.assert_array_equal(xarray.open_dataset(output, mask_and_scale=False)["0"], level_0)
    xarray.testing.assert_identical(xarray.open_dataset(output, group="1"), tree["1"].to_dataset())
    assert {*xarray.open_groups(output)} == {"/", *groups, "/0"} - {"/.phbatch", "/.phbatch/ledger", "/.phbatch/log"}
    assert "image" not in xarray.open_datatree(output, drop_variables="image")["0"]
    np.testing.assert_array_equal(xarray.open_datatree(tmp_path / "in.zarr", engine="phbatch")["0/image"], frames)


def test_a_plate_is_a_tree_of_its_fields(tmp_path: Path) -> None:
    movie = phbatch.PhaseContrast(shape=(48, 64), n_frames=2, seed=3)
    phbatch.write_plate(tmp_path / "plate.zarr", movie, wells=2, fields=2)
    output = phbatch.run(tmp_path / "plate.zarr", model="none", levels=2, workers=1).output
    tree = xarray.open_datatree(output)
    assert {*tree.children} == {"A", "statistics"}
    for field in ("A/1/0", "A/1/1", "A/2/0", "A/2/1"):
        for level, array in enumerate(("0", "1/image")):
            found = tree[f"{field}/{level}/image"]
            np.testing.assert_array_equal(found, zarr.open_array(output, path=f"{field}/{array}")[:])
            xarray.testing.assert_identical(found, phbatch.open(Path(output, field), level=level).rename("image"))
        assert {*xarray.open_datatree(Path(output, field)).children} == {"0", "1"}


def test_what_is_loaded_is_kept(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(400, 600, (2, 40, 36)).astype("uint16")
    output = phbatch.run(write_ome(tmp_path / "in.zarr", frames, "tyx"), model="none", levels=2).output
    opened = [xarray.open_dataset(output).load(), xarray.load_dataset(output), xarray.open_datatree(output).load()["0"]]
    part = xarray.open_dataset(output)["0"].isel(t=1, y=slice(30, 3, -4), x=[5, 2, 2]).compute()
    expected = phbatch.open(output).compute()
    shutil.rmtree(output)
    for found in opened:
        (pixels,) = found.data_vars.values()
        assert isinstance(pixels.data, np.ndarray)
        np.testing.assert_array_equal(pixels, expected)
    np.testing.assert_array_equal(part, expected.values[1, 30:3:-4][:, [5, 2, 2]])


@pytest.mark.parametrize(
    "options",
    [
        {"decode_cf": False},
        {"decode_times": False, "decode_coords": "all"},
        {"concat_characters": False, "decode_timedelta": False, "consolidated": False},
    ],
    ids=str,
)
def test_the_usual_options_are_taken(tmp_path: Path, options: dict[str, Any]) -> None:
    frames = np.full((2, 40, 36), 500, "uint16")
    output = phbatch.run(write_ome(tmp_path / "in.zarr", frames, "tyx"), model="none", normalize="none").output
    assert (xarray.open_dataset(output, **options)["0"] == 500).all()
    assert (xarray.open_datatree(output, **options)["0/image"] == 500).all()
    assert (xarray.open_groups(output, **options)["/0"]["image"] == 500).all()
    assert (xarray.open_dataset(f"file://{output}", engine="phbatch", **options)["0"] == 500).all()


def test_uncertainty_is_in_the_tree_and_labels_are_left_out(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(1, 9, (2, 24, 24)).astype("uint16")
    path = write_ome(tmp_path / "a.zarr", frames, "tyx", "0.5")
    write_ome(path / "labels/cells", frames, "tyx", "0.5", attributes={"image-label": {}})
    attributes = {"ome": {"version": "0.5", "labels": ["cells"]}}
    zarr.open_group(path / "labels", mode="a").attrs.update(attributes)
    np.testing.assert_array_equal(phbatch.open_datatree(path)["0/image"], frames)
    model = write_model(tmp_path / "model", probabilistic=True)
    output = phbatch.run(path, model=model, uncertainty=True, levels=2).output
    tree = xarray.open_datatree(output)
    assert {*tree.children} == {"0", "1", "uncertainty", "statistics"}
    for level, array in (("0", "0"), ("1", "1/image")):
        stored = zarr.open_array(output, path=f"uncertainty/{array}")
        np.testing.assert_array_equal(tree[f"uncertainty/{level}/image"], stored[:])


def test_a_group_is_opened_alone(tmp_path: Path) -> None:
    movie = phbatch.PhaseContrast(shape=(48, 64), n_frames=2, seed=3)
    phbatch.write_plate(tmp_path / "plate.zarr", movie, wells=2, fields=2)
    output = phbatch.run(tmp_path / "plate.zarr", model="none", levels=2, workers=1).output
    whole = phbatch.open_datatree(output)
    Path(output, "A/2/1/zarr.json").write_text("{")
    with pytest.raises(phbatch.InputError, match="A/2/1"):
        xarray.open_datatree(output)
    assert xarray.open_dataset(output, group="A/1/0/1").identical(whole["A/1/0/1"].to_dataset())
    assert xarray.open_dataset(output, group="/statistics/").identical(whole["statistics"].to_dataset())
    assert {node.path for node in xarray.open_datatree(output, group="A/1").subtree} == {
        "/", *(f"/{field}{level}" for field in "01" for level in ("", "/0", "/1"))
    }  # fmt: skip
    assert {*xarray.open_groups(output, group="A/2/0")} == {"/", "/0", "/1"}
    for group, said in (("B", "no group 'B'; give one of A, or"), ("A/1/0", "A/1/0/0, A/1/0/1")):
        with pytest.raises(phbatch.InputError, match=said):
            xarray.open_dataset(output, group=group)


def test_what_phbatch_did_not_write_is_left_to_others(tmp_path: Path) -> None:
    frames = np.full((2, 20, 20), 7, np.uint16)
    write_ome(tmp_path / "a.zarr", frames, "tyx", "0.5")
    guess = xarray.backends.list_engines()["phbatch"].guess_can_open
    output = phbatch.run(tmp_path / "a.zarr", model="none").output
    others = (
        tmp_path / "a.zarr",
        tmp_path / "none",
        "s3://bucket/a.zarr",
        f"{output}/0",
        f"{output}/zarr.json",
        b"",
        None,
    )
    assert [guess(path) for path in others] == [False] * len(others)
    assert guess(output)
    assert guess(Path(output))


def test_xarray_asks_the_engine_without_loading_phbatch() -> None:
    assert xarray_engine.PRIVATE == own.PRIVATE
    code = (
        "import sys, xarray; xarray.backends.list_engines()['phbatch'].guess_can_open('a.zarr');"
        "print({'dask.array', 'numba', 'pydantic'} & sys.modules.keys(), 'phbatch' in sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "set() True"
