"""What is no image: a sentence that says what it is and what to do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import zarr

import phbatch
from phbatch.inputs.image import open_source
from phbatch.places.place import Place
from phbatch.words.errors import InputError
from tests.handmade import CommandLine
from tests.ome_inputs import write_ome

IMAGE = np.random.default_rng(0).integers(900, 1100, (2, 16, 16), dtype="uint16")


def said(path: object) -> str:
    with pytest.raises(InputError) as refused:
        open_source(Place.at(path))
    assert str(refused.value).endswith(".")
    return str(refused.value)


def group(path: Path, attributes: dict[str, Any], zarr_format: int = 2) -> Path:
    zarr.open_group(path, mode="w", zarr_format=zarr_format, attributes=attributes)  # type: ignore[arg-type]
    return path


def test_a_mistyped_path_does_not_exist(tmp_path: Path) -> None:
    assert "nowhere.zarr does not exist" in said(tmp_path / "nowhere.zarr")
    assert "does not exist" in said(f"memory://{tmp_path.name}/nowhere.zarr")


def test_zips_and_other_files(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "in.zarr", data=IMAGE)
    zipped = shutil.make_archive(str(tmp_path / "in.zarr"), "zip", tmp_path / "in.zarr")
    renamed = shutil.copy(zipped, tmp_path / "in.ozx")
    for path in (zipped, renamed, "memory://somewhere/in.zarr.zip"):
        assert "is a zip" in said(path)
        assert "unpack it" in said(path)
    (tmp_path / "in.tif").write_bytes(b"II*\0")
    assert "in.tif cannot be read as TIFF" in said(tmp_path / "in.tif")


def test_plates_and_wells(tmp_path: Path) -> None:
    plate = {"plate": {"wells": [{"path": "B/3"}, {"path": "B/4"}]}}
    path = group(tmp_path / "plate.zarr", plate)
    well = group(path / "B" / "3", {"well": {"images": [{"path": "f1"}, {"path": "f2"}]}})
    write_ome(well / "f1", IMAGE, "tyx")
    assert "plate of 2 wells: give the path of one field of a well, such as INPUT/B/3/f1." in said(path)
    assert "such as INPUT/f1, INPUT/f2." in said(well)
    assert phbatch.run(well / "f1", tmp_path / "out.zarr", model="none", workers=1).frames == 2


def test_collections(tmp_path: Path) -> None:
    path = group(tmp_path / "many.zarr", {"bioformats2raw.layout": 3})
    write_ome(path / "0", IMAGE, "tyx")
    assert "bioformats2raw collection: give the path of one image, such as INPUT/0." in said(path)
    group(path / "OME", {"series": ["0", "1"]})
    assert "such as INPUT/0, INPUT/1." in said(path)
    path = group(tmp_path / "newer.zarr", {"ome": {"version": "0.5", "bioformats2raw.layout": 3}}, 3)
    group(path / "OME", {"ome": {"version": "0.5", "series": ["a"]}}, 3)
    assert "such as INPUT/a." in said(path)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_groups_of_arrays_and_of_groups(tmp_path: Path, zarr_format: int) -> None:
    path = group(tmp_path / "in.zarr", {}, zarr_format)
    assert "holds no array" in said(path)
    group(path / "raw", {}, zarr_format)
    assert "holds the groups raw: give the path of an image, such as INPUT/raw." in said(path)
    zarr.create_array(path / "a", data=IMAGE, zarr_format=zarr_format)  # type: ignore[arg-type]
    assert "holds the arrays a: give the path of one with axes, such as INPUT/a." in said(path)


def test_labels(tmp_path: Path) -> None:
    path = write_ome(tmp_path / "in.zarr", IMAGE, "tyx")
    labels = group(path / "labels", {"labels": ["cells"]})
    cells = write_ome(labels / "cells", IMAGE, "tyx", attributes={"image-label": {"version": "0.4"}})
    assert "list of labels" in said(labels)
    assert "is a label image" in said(cells)


@pytest.mark.parametrize("remote", [False, True])
@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_codec_that_is_missing_is_named(tmp_path: Path, zarr_format: int, inside: bool, remote: bool) -> None:
    version = "0.4" if zarr_format == 2 else "0.5"
    path = write_ome(tmp_path / "in.zarr", IMAGE, "tyx", version)
    file = path / "0" / (".zarray" if zarr_format == 2 else "zarr.json")
    document = json.loads(file.read_text())
    if zarr_format == 2:
        document["compressor"] = {"id": "imagecodecs_new", "level": 3}
    elif inside:
        inner = [{"name": "bytes"}, {"name": "imagecodecs_new"}]
        sharding = {"chunk_shape": [1, 16, 16], "codecs": inner, "index_codecs": [{"name": "bytes"}]}
        document["codecs"] = [{"name": "sharding_indexed", "configuration": sharding}]
    else:
        document["codecs"].append({"name": "imagecodecs_new", "configuration": {}})
    file.write_text(json.dumps(document))
    place: object = path if inside else path / "0"
    if remote:
        memory = fsspec.filesystem("memory")
        memory.put(str(path), f"/{tmp_path.name}/in.zarr", recursive=True)
        place = f"memory://{tmp_path.name}/in.zarr" + ("" if inside else "/0")
    assert "codec 'imagecodecs_new', which is not installed" in said(place)


def test_level_0_that_is_missing(tmp_path: Path) -> None:
    path = write_ome(tmp_path / "in.zarr", IMAGE, "tyx")
    shutil.rmtree(path / "0")
    assert "that array is missing" in said(path)


def test_the_default_output_of_a_link_lies_beside_it(phbatch_command: CommandLine, tmp_path: Path) -> None:
    archive, mine = tmp_path / "archive", tmp_path / "mine"
    mine.mkdir()
    zarr.create_array(archive / "in.zarr", data=IMAGE)
    (mine / "link.zarr").symlink_to(archive / "in.zarr")
    (mine / "folder").symlink_to(archive)
    for given, expected in (
        (mine / "link.zarr", mine / "link.phbatch.zarr"),
        (f"{archive}/../mine/link.zarr", mine / "link.phbatch.zarr"),
        (f"file://{mine}/link.zarr/", mine / "link.phbatch.zarr"),
        (mine / "folder" / "in.zarr", archive / "in.phbatch.zarr"),
        (mine / "folder" / ".." / "archive" / "in.zarr", archive / "in.phbatch.zarr"),
    ):
        assert phbatch_command("plan", given, "--model", "none", "--json") == 0
        assert json.loads(phbatch_command.out.splitlines()[-1])["output"] == str(expected)
    before = sorted(archive.iterdir())
    assert phbatch.run(mine / "link.zarr", model="none", workers=1).output == str(mine / "link.phbatch.zarr")
    assert sorted(archive.iterdir()) == before


def test_the_default_output_of_an_image_in_a_linked_collection(phbatch_command: CommandLine, tmp_path: Path) -> None:
    path = group(tmp_path / "archive" / "many.zarr", {"bioformats2raw.layout": 3})
    write_ome(path / "0", IMAGE, "tyx")
    (tmp_path / "link.zarr").symlink_to(path)
    assert phbatch_command("plan", tmp_path / "link.zarr" / "0", "--model", "none", "--json") == 0
    output = json.loads(phbatch_command.out.splitlines()[-1])["output"]
    assert output == str(tmp_path / "link.0.phbatch.zarr")
