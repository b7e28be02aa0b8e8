"""TIFF files of images, read back with tifffile: pixels, axes, calibration, channels, levels; whole or not there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from ome_types import from_xml

import phbatch
from phbatch.kernels.downsample import area_average
from phbatch.tools import tiff_file as exporting
from phbatch.words.events import Event, RunStarted
from tests.handmade import CommandLine
from tests.ome_inputs import AXES, scale_of, write_ome


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(1).integers(400, 900, (3, 2, 2, 40, 37), dtype="uint16")


@pytest.fixture
def path(tmp_path: Path, image: np.ndarray) -> Path:
    """tczyx with minutes and nanometers, two channels with names and colours."""
    units = {"t": "minute", "z": "micrometer", "y": "nanometer", "x": "nanometer"}
    axes = [AXES[axis] | ({"unit": units[axis]} if axis in units else {}) for axis in "tczyx"]
    window = {"min": 0, "max": 1000, "start": 0, "end": 900}
    channels = [
        {"label": label, "color": color, "window": window} for label, color in (("PH", "FFFFFF"), ("GFP", "00FF00"))
    ]
    attributes = {"omero": {"channels": channels}}
    return write_ome(
        tmp_path / "a.zarr", image, axes, "0.5", transforms=[scale_of(5, 1, 2, 650, 325)], attributes=attributes
    )


@pytest.mark.parametrize("tile", [512, 16])
def test_an_ome_tiff_has_the_pixels_and_what_is_said_of_them(
    path: Path, tmp_path: Path, image: np.ndarray, tile: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "TILE", tile)
    found = phbatch.export(path, tmp_path / "a.ome.tif")
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as file:
        assert file.is_bigtiff
        (series,) = file.series
        np.testing.assert_array_equal(series.asarray(squeeze=False).reshape(image.shape), image)
        levels = [level.asarray() for level in series.levels]
        pixels = from_xml(file.ome_metadata or "").images[0].pixels
    assert found["levels"] == len(levels) == (1 if tile == 512 else 3)
    for index, level in enumerate(levels):
        expected = np.rint(area_average(image, 2**index)).astype("uint16")
        np.testing.assert_array_equal(level, expected)
    assert (pixels.size_t, pixels.size_c, pixels.size_z, pixels.size_y, pixels.size_x) == image.shape
    assert (pixels.physical_size_x, pixels.physical_size_y, pixels.physical_size_z) == pytest.approx((0.325, 0.65, 2))
    assert (pixels.physical_size_x_unit.value, pixels.time_increment, pixels.time_increment_unit.value) == (
        "µm",
        300,
        "s",
    )
    assert [channel.name for channel in pixels.channels] == ["PH", "GFP"]
    assert [channel.color.as_rgb_tuple()[:3] for channel in pixels.channels] == [(255, 255, 255), (0, 255, 0)]


def test_the_levels_that_an_image_has_are_taken(tmp_path: Path) -> None:
    image = np.arange(2 * 8 * 8, dtype="uint8").reshape(2, 8, 8)
    levels = [
        {"path": str(level), "coordinateTransformations": [scale_of(1, 2**level, 2**level)]} for level in range(2)
    ]
    path = write_ome(tmp_path / "a.zarr", image, "tyx", multiscale={"datasets": levels})
    zarr.create_array(path / "1", data=np.full((2, 4, 4), 7, "uint8"), zarr_format=2)
    phbatch.export(path, tmp_path / "a.tif")
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert [level.shape for level in file.series[0].levels] == [(2, 8, 8), (2, 4, 4)]
        assert (file.series[0].levels[1].asarray() == 7).all()


def test_a_hyperstack_is_what_imagej_writes(path: Path, tmp_path: Path, image: np.ndarray) -> None:
    phbatch.export(path, tmp_path / "a.tif", imagej=True)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        (series,) = file.series
        metadata, page = file.imagej_metadata or {}, file.pages[0]
        assert series.axes == "TZCYX"
        np.testing.assert_array_equal(series.asarray(), image.transpose(0, 2, 1, 3, 4))
        assert page.tags["XResolution"].value[0] / page.tags["XResolution"].value[1] == pytest.approx(1 / 0.325)
        assert page.tags["YResolution"].value[0] / page.tags["YResolution"].value[1] == pytest.approx(1 / 0.65)
    assert (metadata["unit"], metadata["spacing"], metadata["finterval"]) == ("micron", 2, 300)
    assert (metadata["channels"], metadata["slices"], metadata["frames"]) == (2, 2, 3)
    assert metadata["Labels"][:2] == ["PH", "GFP"]
    assert [table[:, 255].tolist() for table in metadata["LUTs"]] == [[255, 255, 255], [0, 255, 0]]


def test_planes_are_read_one_by_one(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = exporting.Source.read_or_refuse
    sizes = []

    def watch(source: exporting.Source, region: tuple[slice, ...]) -> np.ndarray:
        block = read(source, region)
        sizes.append(block.size)
        return block

    monkeypatch.setattr(exporting.Source, "read_or_refuse", watch)
    phbatch.export(path, tmp_path / "a.tif")
    assert sizes == [40 * 37] * 12


def test_a_file_is_whole_or_not_there(path: Path, tmp_path: Path) -> None:
    target = tmp_path / "out" / "a.tif"
    target.parent.mkdir()
    target.write_bytes(b"theirs")
    with pytest.raises(phbatch.OutputError, match="exists"):
        phbatch.export(path, target)
    (path / "0/c/0/0/0/0/0").write_bytes(b"no chunk")
    with pytest.raises(phbatch.InputError):
        phbatch.export(path, target, overwrite=True)
    assert [(file.name, file.read_bytes()) for file in target.parent.iterdir()] == [("a.tif", b"theirs")]
    with pytest.raises(phbatch.OutputError, match="cannot be written"):
        phbatch.export(path, tmp_path / "nowhere" / "a.tif")


def test_what_a_file_cannot_hold_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for dtype in ("int64", "int16"):
        zarr.create_array(tmp_path / f"{dtype}.zarr", data=np.zeros((2, 8, 8), dtype))
    with pytest.raises(phbatch.InputError, match="int64"):
        phbatch.export(tmp_path / "int64.zarr", tmp_path / "a.tif")
    with pytest.raises(phbatch.InputError, match="int16; leave"):
        phbatch.export(tmp_path / "int16.zarr", tmp_path / "a.tif", imagej=True)
    zarr.create_array(tmp_path / "a.zarr", data=np.zeros((2, 8, 8), "uint8"))
    monkeypatch.setattr(exporting, "_IMAGEJ_BYTES", 100)
    with pytest.raises(phbatch.InputError, match="hyperstacks hold 4"):
        phbatch.export(tmp_path / "a.zarr", tmp_path / "a.tif", imagej=True)
    with pytest.raises(phbatch.UsageError, match=r"\.tif"):
        phbatch.export(tmp_path / "a.zarr", tmp_path / "a.png")


def test_a_run_that_has_not_ended_is_no_image_to_export(tmp_path: Path, phbatch_command: CommandLine) -> None:
    zarr.create_array(tmp_path / "in.zarr", data=np.full((3, 1040, 1030), 9, "uint16"), chunks=(1, 1040, 1030))
    seen: list[Event] = []

    def stop() -> bool:
        return any(isinstance(event, RunStarted) for event in seen)

    with pytest.raises(phbatch.InterruptedRunError):
        phbatch.run(
            tmp_path / "in.zarr", tmp_path / "out.zarr", model="none", workers=1, stop=stop, listener=seen.append
        )
    assert phbatch_command("export", tmp_path / "out.zarr", tmp_path / "a.tif") == 3
    assert "units finished" in phbatch_command.err
    phbatch.run(tmp_path / "in.zarr", tmp_path / "out.zarr", model="none", workers=1)
    assert phbatch_command("export", tmp_path / "out.zarr", tmp_path / "a.tif") == 0
    assert "3 x 1 x 1 x 1040 x 1030 (tczyx) float32, 2 levels" in phbatch_command.out
