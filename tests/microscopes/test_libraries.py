"""Formats that are read by libraries: each on a small file that another program wrote, or as its test's name says."""

from __future__ import annotations

import gzip
import json
import struct
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import tifffile

import phbatch
from phbatch.microscopes.opening import open_recording
from phbatch.microscopes.recording import Position
from tests.microscopes.test_tiff import read_all

FRAMES = np.random.default_rng(0).integers(0, 4096, (3, 2, 2, 16, 24)).astype("uint16")
NAMES = ("PH", "GFP")


def said(position: Position) -> tuple[Any, ...]:
    return position.pixel_size, position.interval, position.channel_names


# CZI: written by pylibCZIrw 6.1: two scenes of two tiles for each plane, Zstandard with low bytes first.


@pytest.fixture
def czi(tmp_path: Path) -> Path:
    packed = Path(__file__).parent / "data" / "tiles.czi.gz"
    (tmp_path / "tiles.czi").write_bytes(gzip.decompress(packed.read_bytes()))
    return tmp_path / "tiles.czi"


def test_czi_of_pylibczirw(czi: Path) -> None:
    recording = open_recording(czi)
    assert recording.kind == "CZI"
    assert [position.name for position in recording.positions] == ["scene 0", "scene 1"]
    assert recording.positions[0].axes == "tczyx"
    assert said(recording.positions[0]) == ((2.0, 0.325, 0.325), None, NAMES)
    np.testing.assert_array_equal(read_all(recording), FRAMES)
    np.testing.assert_array_equal(read_all(recording, 1)[:1], FRAMES[:1])
    assert recording.file_of(1, 2, 0, 0) is None  # the second scene has one time


def test_czi_that_was_cut(czi: Path) -> None:
    czi.write_bytes(czi.read_bytes()[:5000])
    with pytest.raises(phbatch.InputError, match="cannot be read as CZI"):
        open_recording(czi)


# LIF: written here, after Leica's description of the format.

_LIF_IMAGE = """<Element Name="cells" UniqueID="a"><Data><Image><ImageDescription><Channels>{channels}</Channels>
<Dimensions>{dimensions}</Dimensions></ImageDescription></Image></Data>
<Memory Size="{size}" MemoryBlockID="MemBlock_1"/></Element>"""


def write_lif(path: Path, frames: np.ndarray[Any, Any]) -> None:
    size = frames.nbytes
    n_t, n_c, n_z, n_y, n_x = frames.shape
    plane = n_y * n_x * 2
    steps = {  # number in the format, length, bytes to the next, distance from the first to the last in metres
        1: (n_x, 2, 0.325e-6 * (n_x - 1), "m"),
        2: (n_y, 2 * n_x, 0.325e-6 * (n_y - 1), "m"),
        3: (n_z, plane, 2e-6 * (n_z - 1), "m"),
        4: (n_t, plane * n_z * n_c, 300.0 * (n_t - 1), "s"),
    }
    dimensions = "".join(
        f'<DimensionDescription DimID="{number}" NumberOfElements="{count}" Origin="0" Length="{length}" Unit="{unit}"'
        f' BytesInc="{step}" BitInc="0"/>'
        for number, (count, step, length, unit) in steps.items()
    )
    channels = "".join(
        f'<ChannelDescription DataType="0" ChannelTag="0" Resolution="16" NameOfMeasuredQuantity="" Min="0" Max="1"'
        f' Unit="" LUTName="Gray" IsLUTInverted="0" BytesInc="{c * plane * n_z}" BitInc="0"/>'
        for c in range(n_c)
    )
    image = _LIF_IMAGE.format(channels=channels, dimensions=dimensions, size=size)
    text = (
        '<LMSDataContainerHeader Version="2"><Element Name="project"><Children>'
        f"{image}</Children></Element></LMSDataContainerHeader>"
    )
    name = "MemBlock_1"
    head = struct.pack("<IIBI", 0x70, 2 * len(text) + 5, 0x2A, len(text)) + text.encode("utf-16-le")
    block = struct.pack("<IIBQBI", 0x70, 2 * len(name) + 14, 0x2A, size, 0x2A, len(name)) + name.encode("utf-16-le")
    path.write_bytes(head + block + frames.tobytes())


def test_lif_written_by_hand(tmp_path: Path) -> None:
    write_lif(tmp_path / "a.lif", FRAMES)
    recording = open_recording(tmp_path / "a.lif")
    (position,) = recording.positions
    assert (recording.kind, position.name, position.axes) == ("LIF", "cells", "tczyx")
    assert said(position) == ((2.0, 0.325, 0.325), 300.0, ())
    np.testing.assert_array_equal(read_all(recording), FRAMES)
    (tmp_path / "a.lif").write_bytes(b"no LIF")
    with pytest.raises(phbatch.InputError, match="cannot be read as LIF"):
        open_recording(tmp_path / "a.lif")


# OIF: written here: the main file and a TIFF for each plane.


def write_oif(path: Path, frames: np.ndarray[Any, Any]) -> None:
    lengths = {"X": 24, "Y": 16, "C": 2, "Z": 2, "T": 3}
    ends = {"X": (7.8, "um"), "Y": (5.2, "um"), "C": (1, "ch"), "Z": (2000, "nm"), "T": (600_000, "ms")}
    lines = ["[Axis Parameter Common]", 'AxisCount="5"', 'AxisOrder="XYCZT"']
    for number in range(8):
        axis = [*lengths, "L", "A", "P"][number]
        end, unit = ends.get(axis, (0, ""))
        lines += [
            f"[Axis {number} Parameters Common]",
            f'AxisCode="{axis}"',
            f"MaxSize={lengths.get(axis, 0)}",
            "StartPosition=0",
            f"EndPosition={end}",
            f'UnitName="{unit}"',
        ]
    for number, name in enumerate(NAMES, 1):
        lines += [f"[GUI Channel {number} Parameters]", f'DyeName="{name}"']
    lines += ["[Reference Image Parameter]", "ValidBitCounts=12", "[ProfileSaveInfo]", 'Name="a"', 'Version="1"']
    folder = path.with_name(f"{path.name}.files")
    folder.mkdir()
    for t, c, z in np.ndindex(*frames.shape[:3]):
        name = f"s_C{c + 1:03}Z{z + 1:03}T{t + 1:03}.tif"
        tifffile.imwrite(folder / name, frames[t, c, z], photometric="minisblack")
        at = f"{len(list(folder.iterdir())) - 1:05}"
        lines.insert(len(lines), f'IniFileName{at}="{folder.name}/{name}"')
    path.write_text("\r\n".join(lines) + "\r\n", encoding="utf-16")


def test_oif_written_by_hand(tmp_path: Path) -> None:
    write_oif(tmp_path / "a.oif", FRAMES)
    recording = open_recording(tmp_path / "a.oif")
    (position,) = recording.positions
    assert (recording.kind, position.axes) == ("OIF", "tczyx")
    assert said(position) == ((2.0, 0.325, 0.325), 300.0, NAMES)
    np.testing.assert_array_equal(read_all(recording), FRAMES)


def test_oir_is_refused_with_a_way_out(tmp_path: Path) -> None:
    (tmp_path / "a.oir").write_bytes(b"OLYMPUSRAWFORMAT")
    with pytest.raises(phbatch.InputError, match="export it as OME-TIFF or as OIB"):
        open_recording(tmp_path / "a.oir")


# ND2: no program that is free writes it.


class FakeNd2:
    """What `nd2.ND2File` says, of two positions, with a frame for each position, time and plane."""

    sizes: ClassVar = {"T": 3, "P": 2, "Z": 2, "C": 2, "Y": 16, "X": 24}
    dtype = FRAMES.dtype
    loop_indices = tuple({"T": t, "P": p, "Z": z} for t in range(3) for p in range(2) for z in range(2))
    metadata = SimpleNamespace(channels=[SimpleNamespace(channel=SimpleNamespace(name=name)) for name in NAMES])

    def __init__(self, path: Path) -> None:
        pass

    @property
    def experiment(self) -> list[Any]:
        from nd2 import structures

        points = [structures.Position(structures.StagePosition(0, 0, 0), name=name) for name in ("left", "right")]
        return [
            SimpleNamespace(type="TimeLoop", parameters=SimpleNamespace(periodMs=300_000.0, periodDiff=None)),
            SimpleNamespace(type="XYPosLoop", parameters=SimpleNamespace(points=points)),
        ]

    def voxel_size(self) -> Any:
        return SimpleNamespace(x=0.325, y=0.325, z=2.0)

    def read_frame(self, number: int) -> np.ndarray[Any, Any]:
        at = self.loop_indices[number]
        return FRAMES[at["T"], :, at["Z"]] + np.uint16(10_000 * at["P"])

    def close(self) -> None:
        pass


def test_nd2_mapping_on_a_fake_of_its_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nd2 = pytest.importorskip("nd2")
    for name in ("sizes", "loop_indices", "dtype", "metadata", "experiment", "voxel_size", "read_frame", "close"):
        assert hasattr(nd2.ND2File, name)
    (tmp_path / "a.nd2").write_bytes(b"no ND2")
    with pytest.raises(phbatch.InputError, match="cannot be read as ND2"):
        open_recording(tmp_path / "a.nd2")
    monkeypatch.setattr(nd2, "ND2File", FakeNd2)
    recording = open_recording(tmp_path / "a.nd2")
    assert [position.name for position in recording.positions] == ["left", "right"]
    assert said(recording.positions[1]) == ((2.0, 0.325, 0.325), 300.0, NAMES)
    np.testing.assert_array_equal(read_all(recording, 0), FRAMES)
    np.testing.assert_array_equal(read_all(recording, 1), FRAMES + 10_000)


# Micro-Manager


def write_ndtiff(folder: Path, frames: np.ndarray[Any, Any]) -> None:
    """After the description of NDTiff 3: a TIFF with a head of its own, and the index."""
    summary = json.dumps({"PixelSize_um": 0.325, "Interval_ms": 300_000, "z-step_um": 2}).encode()
    head = struct.pack("<IIIII", 483729, 3, 0, 2355492, len(summary)) + summary
    start = 8 + len(head)
    entries = {256: 24, 257: 16, 258: 16, 259: 1, 262: 1, 273: start, 277: 1, 278: 16, 279: 768}
    directory = struct.pack("<H", len(entries)) + b"".join(
        struct.pack("<HHII", tag, 4 if tag in (273, 279) else 3, 1, value) for tag, value in entries.items()
    )
    end = start + frames.nbytes
    folder.mkdir()
    name = b"small_NDTiffStack.tif"
    (folder / name.decode()).write_bytes(
        b"II*\0" + struct.pack("<I", end) + head + frames.tobytes() + directory + struct.pack("<I", 0)
    )
    index = b""
    for number, (t, c, z) in enumerate(np.ndindex(*frames.shape[:3])):
        axes = json.dumps({"time": t, "channel": NAMES[c], "z": z - 1}).encode()  # planes from below the focus on
        index += struct.pack("<I", len(axes)) + axes + struct.pack("<I", len(name)) + name
        index += struct.pack("<8I", start + number * 768, 24, 16, 1, 0, 0, 0, 0)
    (folder / "NDTiff.index").write_bytes(index)


def write_stack(folder: Path, frames: np.ndarray[Any, Any]) -> None:
    folder.mkdir()
    metadata = {
        "axes": "TCZYX",
        "PhysicalSizeX": 0.325,
        "PhysicalSizeY": 0.325,
        "PhysicalSizeZ": 2,
        "TimeIncrement": 300,
        "Channel": {"Name": [*NAMES]},
    }
    tifffile.imwrite(folder / "a_MMStack_Pos0.ome.tif", frames, ome=True, metadata=metadata)


def write_images(folder: Path, frames: np.ndarray[Any, Any]) -> None:
    folder.mkdir()
    for t, c, z in np.ndindex(*frames.shape[:3]):
        name = f"img_channel{c:03}_position000_time{t:09}_z{z:03}.tif"
        tifffile.imwrite(folder / name, frames[t, c, z], photometric="minisblack")
    summary = {"PixelSize_um": 0.325, "z-step_um": 2, "Interval_ms": 300_000, "ChNames": NAMES}
    (folder / "metadata.txt").write_text(json.dumps({"Summary": summary, "Coords-0": {}}))


@pytest.mark.parametrize("write", [write_ndtiff, write_stack, write_images])
def test_micromanager_written_by_hand(tmp_path: Path, write: Any) -> None:
    write(tmp_path / "a", FRAMES)
    recording = open_recording(tmp_path / "a")
    (position,) = recording.positions
    assert position.axes == "tczyx"
    assert said(position) == ((2.0, 0.325, 0.325), 300.0, NAMES)
    np.testing.assert_array_equal(read_all(recording), FRAMES)
    assert all(path.is_file() for path in recording.files)


def test_ndtiff_that_was_cut_is_refused(tmp_path: Path) -> None:
    write_ndtiff(tmp_path / "a", FRAMES)
    stack = tmp_path / "a" / "small_NDTiffStack.tif"
    recording = open_recording(tmp_path / "a")
    stack.write_bytes(stack.read_bytes()[:4000])
    with pytest.raises(phbatch.InputError, match="ends before the plane of t=2, c=1, z=1"):
        recording.read(0, 2, 1, 1)


@pytest.mark.parametrize(("suffix", "extra"), [("nd2", "nd2"), ("lif", "lif"), ("czi", "czi"), ("oib", "oif")])
def test_a_library_that_lacks_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, extra: str
) -> None:
    for name in ("nd2", "liffile", "czifile", "oiffile"):
        monkeypatch.setitem(sys.modules, name, None)
    (tmp_path / f"a.{suffix}").write_bytes(b"")
    with pytest.raises(phbatch.InputError, match=rf"needs a library; install it .*'phbatch\[{extra}\]'"):
        open_recording(tmp_path / f"a.{suffix}")
