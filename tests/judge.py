"""Readers of OME-Zarr that did not write it: what each says of an image, and of a plate.

This file imports NumPy and the library that it asks, so that it runs in environments where phbatch is not:

    python tests/judge.py READER FOLDER PATH...

leaves in FOLDER what the reader says of every path, as `FOLDER/0.json` and the pixels as `FOLDER/0.npy`.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


class Seen(NamedTuple):
    """What a library says of an image, along tcyx; None where it has no word for it."""

    pixels: Any
    scale: tuple[float, ...] | None
    names: list[str] | None
    levels: int | None


def with_ngff_zarr(path: Path) -> Seen:
    import ngff_zarr

    found = ngff_zarr.from_ngff_zarr(str(path))
    image = found.images[0]
    assert tuple(image.dims) == ("t", "c", "y", "x")
    omero = found.metadata.omero
    names = [channel.label for channel in omero.channels] if omero else None
    scale = tuple(image.scale.get(axis, 1.0) for axis in "tcyx")
    return Seen(np.asarray(image.data), scale, names, len(found.images))


def with_bioio(path: Path) -> Seen:
    from bioio import BioImage
    from bioio_ome_zarr import Reader

    image = BioImage(path, reader=Reader)  # by itself it takes what ends in .zarr
    assert image.dims.order == "TCZYX"
    size = image.physical_pixel_sizes
    step = image.time_interval
    seconds = step.total_seconds() if hasattr(step, "total_seconds") else float(step)
    levels = len(image.resolution_levels)
    return Seen(image.data[:, :, 0], (seconds, 1.0, size.Y, size.X), list(map(str, image.channel_names)), levels)


def with_ome_zarr_models(path: Path) -> Seen:
    import zarr
    from ome_zarr_models import open_ome_zarr

    group = zarr.open_group(path, mode="r")
    image: Any = open_ome_zarr(group)
    attributes = image.ome_attributes if hasattr(image, "ome_attributes") else image.attributes
    multiscale = attributes.multiscales[0]
    assert [axis.name for axis in multiscale.axes] == ["t", "c", "y", "x"]
    (transform, *_) = multiscale.datasets[0].coordinateTransformations
    omero = attributes.omero  # of 0.5 they are plain values
    channels = omero["channels"] if isinstance(omero, dict) else [{"label": each.label} for each in omero.channels]
    names = [channel["label"] for channel in channels]
    pixels: Any = group[multiscale.datasets[0].path]
    return Seen(pixels[:], tuple(transform.scale), names, len(multiscale.datasets))


def with_ome_zarr(path: Path) -> Seen:
    from ome_zarr.io import parse_url
    from ome_zarr.reader import Reader

    location = parse_url(str(path))
    assert location is not None
    (node, *_) = list(Reader(location)())
    (transform, *_) = node.metadata["coordinateTransformations"][0]
    names = list(node.metadata["channel_names"])
    return Seen(np.asarray(node.data[0]), tuple(transform["scale"]), names, len(node.data))


def with_napari(path: Path) -> Seen:
    from napari_ome_zarr import napari_get_reader

    read = napari_get_reader(str(path))
    assert read is not None
    layers = read(str(path))
    ((data, facts, *_), *_) = layers
    levels = data if isinstance(data, list | tuple) else [data]
    scale, pixels, names = list(facts["scale"]), np.asarray(levels[0]), facts["name"]
    scale.insert(facts.get("channel_axis", 1), 1.0)
    if isinstance(names, str):  # from 0.11 on, a layer is a channel
        names = [layer[1]["name"] for layer in layers]
        pixels = np.stack([np.asarray(layer[0][0]) for layer in layers], 1)
    return Seen(pixels, tuple(scale), [name.rpartition(": ")[2] for name in names], len(levels))


def with_iohub(path: Path) -> Seen:
    from iohub import open_ome_zarr

    with open_ome_zarr(path, mode="r") as image:
        return Seen(np.asarray(image.data), tuple(image.scale), list(image.channel_names), None)


def wells_with_ome_zarr_models(path: Path) -> list[str]:
    import zarr
    from ome_zarr_models import open_ome_zarr

    plate: Any = open_ome_zarr(zarr.open_group(path, mode="r"))
    attributes = plate.ome_attributes if hasattr(plate, "ome_attributes") else plate.attributes
    return [well.path for well in attributes.plate.wells]


def wells_with_iohub(path: Path) -> list[str]:
    from iohub import open_ome_zarr

    with open_ome_zarr(path, mode="r") as plate:
        return [name for name, _ in plate.wells()]


def wells_with_ngff_zarr(path: Path) -> list[str]:
    import ngff_zarr

    return [well.path for well in ngff_zarr.from_hcs_zarr(str(path)).wells]


READERS: dict[str, tuple[Callable[[Path], Seen], tuple[str, ...]]] = {
    "ngff-zarr": (with_ngff_zarr, ("ngff_zarr",)),
    "bioio": (with_bioio, ("bioio", "bioio_ome_zarr")),
    "ome-zarr-models": (with_ome_zarr_models, ("ome_zarr_models",)),
    "ome-zarr": (with_ome_zarr, ("ome_zarr",)),
    "napari-ome-zarr": (with_napari, ("napari_ome_zarr",)),
    "iohub": (with_iohub, ("iohub",)),
}
"""How each reads an image, and the modules that this takes."""

OF_PLATES = {
    "ngff-zarr": wells_with_ngff_zarr,
    "ome-zarr-models": wells_with_ome_zarr_models,
    "iohub": wells_with_iohub,
}
"""How some read the wells of a plate."""


def is_plate(path: Path) -> bool:
    """Whether the attributes of a group are those of a plate."""
    if (path / ".zattrs").exists():
        return "plate" in json.loads((path / ".zattrs").read_text(encoding="utf-8"))
    return "plate" in json.loads((path / "zarr.json").read_text(encoding="utf-8"))["attributes"]["ome"]


def judge(name: str, folder: Path, paths: list[Path]) -> None:
    """Leave in a folder what a reader says of every path."""
    read, _ = READERS[name]
    warnings.simplefilter("ignore")  # of their own coming versions
    for index, path in enumerate(paths):
        found: dict[str, Any] = {}
        if not is_plate(path):
            seen = read(path)
            np.save(folder / f"{index}.npy", np.asarray(seen.pixels))
            found = seen._asdict() | {"pixels": None}
        elif name in OF_PLATES:
            found = {"wells": OF_PLATES[name](path)}
        (folder / f"{index}.json").write_text(json.dumps(found, default=float), encoding="utf-8")


if __name__ == "__main__":
    judge(sys.argv[1], Path(sys.argv[2]), list(map(Path, sys.argv[3:])))
