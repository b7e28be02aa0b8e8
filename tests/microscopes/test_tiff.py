"""TIFFs as people have them: what is read is what tifffile reads, axes and calibration are those of the file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from phbatch.microscopes.opening import open_recording
from phbatch.microscopes.recording import Position, Recording

FRAMES = np.random.default_rng(0).integers(0, 4096, (3, 2, 4, 16, 24)).astype("uint16")
STACK = FRAMES[:, 0, 0]
OME = {
    "axes": "TCZYX",
    "PhysicalSizeX": 325,
    "PhysicalSizeXUnit": "nm",
    "TimeIncrement": 5,
    "TimeIncrementUnit": "min",
    "Channel": {"Name": ["PH", "GFP"]},
}
PLAIN = {"photometric": "minisblack"}


def read_all(recording: Recording, number: int = 0) -> np.ndarray[Any, Any]:
    position = recording.positions[number]
    found = np.zeros(position.shape, position.dtype)
    for index in position.planes:
        if recording.file_of(number, *index) is not None:
            found[index] = recording.read(number, *index)
    return found


def write(path: Path, data: Any = STACK, **options: Any) -> None:
    tifffile.imwrite(path, data, **options)


def imagej(path: Path) -> None:
    metadata = {"axes": "TZCYX", "finterval": 300, "unit": "um", "spacing": 0.5}
    write(path, FRAMES.transpose(0, 2, 1, 3, 4), imagej=True, metadata=metadata, resolution=(1 / 0.325, 1 / 0.325))


def cut_imagej(path: Path) -> None:
    imagej(path)
    with tifffile.TiffFile(path) as file:
        end = int(file.series[0].dataoffset or 0) + 12 * FRAMES[0, 0, 0].nbytes
    path.write_bytes(path.read_bytes()[:end])


def cut_ome(path: Path) -> None:
    write(path, FRAMES, ome=True, metadata=OME)
    with tifffile.TiffFile(path) as file:
        text = str(file.ome_metadata)
    with tifffile.TiffWriter(path) as file:
        for index, plane in enumerate(FRAMES.reshape(24, 16, 24)[:12]):
            file.write(plane, description=text.encode() if index == 0 else None, metadata=None, contiguous=False)


def wrote(data: Any = STACK, **options: Any) -> Callable[[Path], None]:
    return lambda path: write(path, data, **options)


RGB = np.arange(2 * 16 * 24 * 3, dtype="uint8").reshape(2, 16, 24, 3)
HALF = FRAMES[:2].copy()
HALF[1, 1] = 0  # the second frame ends after its first channel
AS_T = STACK[:, None, None]
RAMP = np.tile(np.arange(256, dtype="uint16") * 257, (3, 1))

TABLE: dict[str, tuple[Callable[[Path], None], np.ndarray[Any, Any], str]] = {
    "pages": (wrote(metadata=None, **PLAIN), AS_T, "tyx"),
    "one-page": (wrote(STACK[0]), STACK[None, None, None, 0], "yx"),
    "big-endian": (wrote(byteorder=">", **PLAIN), AS_T, "tyx"),
    "bigtiff": (wrote(bigtiff=True, **PLAIN), AS_T, "tyx"),
    "tiled": (wrote(tile=(16, 16), **PLAIN), AS_T, "tyx"),
    "deflate": (wrote(compression="zlib", predictor=True, **PLAIN), AS_T, "tyx"),
    "rows-per-strip": (wrote(rowsperstrip=3, metadata=None, **PLAIN), AS_T, "tyx"),
    "volume-pages": (wrote(FRAMES[:, 0], metadata={"axes": "TZYX"}, volumetric=True, **PLAIN), FRAMES[:, :1], "tzyx"),
    "float": (wrote(STACK.astype("float32"), **PLAIN), AS_T.astype("float32"), "tyx"),
    "signed": (wrote(STACK.astype("int16"), **PLAIN), AS_T.astype("int16"), "tyx"),
    "one-bit": (wrote(STACK[0] > 2000, **PLAIN), (STACK[None, None, None, 0] > 2000).astype("uint8"), "yx"),
    "palette": (wrote(RGB[0, ..., 0], photometric="palette", colormap=RAMP), RGB[None, None, :1, ..., 0], "yx"),
    "white-is-zero": (wrote(STACK[0], photometric="miniswhite"), STACK[None, None, None, 0], "yx"),
    "rgb": (wrote(RGB, photometric="rgb"), RGB.transpose(0, 3, 1, 2)[:, :, None], "tcyx"),
    "rgb-deflate": (wrote(RGB, photometric="rgb", compression="zlib"), RGB.transpose(0, 3, 1, 2)[:, :, None], "tcyx"),
    "rgb-planes": (
        wrote(RGB[0].transpose(2, 0, 1), photometric="rgb", planarconfig="separate"),
        RGB[:1].transpose(0, 3, 1, 2)[:, :, None],
        "cyx",
    ),
    "ome": (wrote(FRAMES, ome=True, metadata=OME), FRAMES, "tczyx"),
    "ome-tiled": (wrote(FRAMES, ome=True, metadata=OME, tile=(16, 16), compression="zlib"), FRAMES, "tczyx"),
    "ome-cut": (cut_ome, HALF, "tczyx"),
    "imagej": (imagej, FRAMES, "tczyx"),
    "imagej-cut": (cut_imagej, HALF, "tczyx"),
}
"""How it is written, what is in it along tczyx, and its axes."""

SAID = {
    "palette": "palette",
    "white-is-zero": "0 is white",
    "rgb": "samples",
    "pages": "--axes zyx",
    "ome-cut": "declares 3 frames and ends after 2",
    "imagej-cut": "declares 3 frames and ends after 2",
}


@pytest.mark.parametrize("name", TABLE)
def test_forms_of_tiff(tmp_path: Path, name: str) -> None:
    make, expected, axes = TABLE[name]
    path = tmp_path / "a.TIF"
    make(path)
    recording = open_recording(path)
    (position,) = recording.positions
    assert position.axes == axes
    found = read_all(recording)
    assert found.dtype == expected.dtype
    if name == "imagej-cut":  # ImageJ writes z before c, so that its second frame ends after two planes of both
        expected = FRAMES[:2].copy()
        expected[1, :, 2:] = 0
    np.testing.assert_array_equal(found, expected)
    said = SAID.get(name)
    assert said is None or any(said in notice for notice in position.notices)


def test_what_ome_and_imagej_say(tmp_path: Path) -> None:
    write(tmp_path / "a.ome.tif", FRAMES, ome=True, metadata=OME)
    imagej(tmp_path / "b.tif")
    ome, ij = (open_recording(tmp_path / name) for name in ("a.ome.tif", "b.tif"))
    assert (ome.kind, ij.kind) == ("OME-TIFF", "ImageJ TIFF")
    assert ome.positions[0].channel_names == ("PH", "GFP")
    assert ome.positions[0].pixel_size == (None, None, 0.325)
    assert ome.positions[0].interval == ij.positions[0].interval == 300
    z, y, x = ij.positions[0].pixel_size
    assert z == 0.5
    assert y == pytest.approx(0.325, rel=1e-3)
    assert x == pytest.approx(0.325, rel=1e-3)


def position_of(path: Path, **options: Any) -> Position:
    return open_recording(path, **options).positions[0]
