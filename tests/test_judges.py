"""Outputs as libraries read them that did not write them: pixels, scale, names; each skips where it is not installed.

The extra ``judges`` has those that install beside phbatch. The others ask for other versions of its libraries:
ome-zarr and ome-zarr-models for an older pydantic, iohub (on Python 3.11) for an older zarr, bioio-ome-zarr for an
older botocore; napari brings a desktop. In an environment of their own the same tests run.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import phbatch
from tests.ome_inputs import AXES, scale_of, write_ome

SCALE = (30.0, 1.0, 0.65, 0.325)
NAMES = ["PH", "GFP"]


class Seen(NamedTuple):
    """What a library says of an image, along tcyx; None where it has no word for it."""

    pixels: Any
    scale: tuple[float, ...] | None
    names: list[str] | None


@pytest.fixture(scope="module", params=["0.4", "0.5", "0.5 sharded"])
def output(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    version, _, sharded = request.param.partition(" ")
    folder = tmp_path_factory.mktemp("judges")
    image = np.random.default_rng(1).integers(400, 900, (3, 2, 40, 36), dtype="uint16")
    units = {"t": "second", "y": "micrometer", "x": "micrometer"}
    axes = [AXES[axis] | ({"unit": units[axis]} if axis in units else {}) for axis in "tcyx"]
    window = {"min": 0, "max": 4, "start": 0, "end": 2}
    channels = [{"label": name, "color": "FFFFFF", "window": window} for name in NAMES]
    source = write_ome(
        folder / "in.zarr",
        image,
        axes,
        version,
        transforms=[scale_of(*SCALE)],
        attributes={"omero": {"channels": channels}},
    )
    options: dict[str, Any] = {"shard": "100kB"} if sharded else {}
    phbatch.run(source, folder / "out.zarr", model="none", normalize="median", **options)
    if sharded:
        assert "sharding_indexed" in (folder / "out.zarr/0/zarr.json").read_text(encoding="utf-8")
    return folder / "out.zarr"


def ome(path: Path) -> Any:
    """The metadata as they are written."""
    if (path / ".zattrs").exists():
        return json.loads((path / ".zattrs").read_text(encoding="utf-8"))
    return json.loads((path / "zarr.json").read_text(encoding="utf-8"))["attributes"]["ome"]


def with_xarray(path: Path) -> Seen:
    """Without dimension names xarray opens no group; the array itself, through phbatch, has them."""
    found = phbatch.open(path)
    steps = [float(found[axis][1] - found[axis][0]) if axis != "c" else 1.0 for axis in found.dims]
    return Seen(found.values, tuple(steps), found["c"].values.tolist())


def with_ngff_zarr(path: Path) -> Seen:
    import ngff_zarr

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = ngff_zarr.from_ngff_zarr(str(path))
    image = found.images[0]
    assert tuple(image.dims) == ("t", "c", "y", "x")
    omero = found.metadata.omero
    names = [channel.label for channel in omero.channels] if omero else None
    return Seen(np.asarray(image.data), tuple(image.scale.get(axis, 1.0) for axis in "tcyx"), names)


def with_bioio(path: Path) -> Seen:
    from bioio import BioImage

    image = BioImage(path)
    assert image.dims.order == "TCZYX"
    size = image.physical_pixel_sizes
    step = image.time_interval
    seconds = step.total_seconds() if hasattr(step, "total_seconds") else float(step)
    return Seen(image.data[:, :, 0], (seconds, 1.0, size.Y, size.X), list(image.channel_names))


def with_ome_zarr_models(path: Path) -> Seen:
    import zarr
    from ome_zarr_models import open_ome_zarr

    group = zarr.open_group(path, mode="r")
    image = open_ome_zarr(group)
    attributes = image.ome_attributes if hasattr(image, "ome_attributes") else image.attributes
    multiscale = attributes.multiscales[0]
    assert [axis.name for axis in multiscale.axes] == ["t", "c", "y", "x"]
    (transform, *_) = multiscale.datasets[0].coordinateTransformations
    omero = attributes.omero  # of 0.5 they are plain values
    channels = omero["channels"] if isinstance(omero, dict) else [{"label": each.label} for each in omero.channels]
    names = [channel["label"] for channel in channels]
    return Seen(group[multiscale.datasets[0].path][:], tuple(transform.scale), names)


def with_ome_zarr(path: Path) -> Seen:
    from ome_zarr.io import parse_url
    from ome_zarr.reader import Reader

    location = parse_url(str(path))
    assert location is not None
    (node, *_) = list(Reader(location)())
    (transform, *_) = node.metadata["coordinateTransformations"][0]
    return Seen(np.asarray(node.data[0]), tuple(transform["scale"]), list(node.metadata["channel_names"]))


def with_napari(path: Path) -> Seen:
    from napari_ome_zarr import napari_get_reader

    read = napari_get_reader(str(path))
    assert read is not None
    ((data, facts, *_), *_) = read(str(path))
    levels = data if isinstance(data, list | tuple) else [data]
    scale = list(facts["scale"])
    scale.insert(facts.get("channel_axis", 1), 1.0)
    return Seen(np.asarray(levels[0]), tuple(scale), [name.removeprefix("img: ") for name in facts["name"]])


def with_iohub(path: Path) -> Seen:
    from iohub import open_ome_zarr

    with open_ome_zarr(path, mode="r") as image:
        return Seen(np.asarray(image.data), tuple(image.scale), list(image.channel_names))


JUDGES: dict[str, tuple[Callable[[Path], Seen], tuple[str, ...]]] = {
    "xarray": (with_xarray, ("xarray",)),
    "ngff-zarr": (with_ngff_zarr, ("ngff_zarr",)),
    "bioio": (with_bioio, ("bioio", "bioio_ome_zarr")),
    "ome-zarr-models": (with_ome_zarr_models, ("ome_zarr_models",)),
    "ome-zarr": (with_ome_zarr, ("ome_zarr",)),
    "napari-ome-zarr": (with_napari, ("napari_ome_zarr",)),
    "iohub": (with_iohub, ("iohub",)),
}


@pytest.mark.parametrize("name", JUDGES)
# Libraries warn of their own coming versions.
@pytest.mark.filterwarnings("default")
def test_an_output_is_what_its_judge_reads(name: str, output: Path) -> None:
    read, needs = JUDGES[name]
    missing = [module for module in needs if find_spec(module) is None]
    if missing:
        pytest.skip(f"{missing[0]} is not installed: the heading of this file says how it gets beside phbatch")
    found = read(output)
    expected = np.asarray(phbatch.open(output))
    assert found.pixels.dtype == np.float32
    np.testing.assert_array_equal(found.pixels, expected)
    assert ome(output)["omero"]["channels"][1]["label"] == "GFP"
    if found.scale is not None:
        assert found.scale == pytest.approx(SCALE)
    if found.names is not None:
        assert found.names == NAMES
