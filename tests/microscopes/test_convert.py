"""Copying what a microscope wrote: pixels, metadata, names of files, and continuing."""

from __future__ import annotations

import json
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr

import phbatch
from phbatch.inputs.image import open_source
from phbatch.inputs.opening import one_path
from phbatch.microscopes.names import compile_pattern, missing_numbers
from phbatch.microscopes.opening import open_recording
from phbatch.microscopes.store import RecordingPlace
from phbatch.places.place import Place

FRAMES = np.random.default_rng(0).integers(100, 4096, (3, 2, 2, 16, 24)).astype("uint16")
"""Along t, c, p, y, x."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files of three times, two channels and two positions, counted from 1."""
    made = tmp_path / "in"
    made.mkdir()
    for t, c, p in np.ndindex(3, 2, 2):
        tifffile.imwrite(made / f"exp1_t{t + 1:04}_c{'PG'[c]}_xy{p + 1}.TIF", FRAMES[t, c, p])
    (made / "notes.txt").write_text("of the evening")
    return made


PATTERN = "*_t{t:04}_c{c}_xy{p}.tif"


def converted(*arguments: Any, **options: Any) -> tuple[np.ndarray[Any, Any], phbatch.RunResult]:
    result = phbatch.convert(*arguments, workers=1, **options)
    assert not result.failed
    return np.asarray(zarr.open_array(f"{result.output}/0")[:]), result


@pytest.mark.parametrize("lacks", [False, True])
def test_a_block_is_what_zarr_reads_of_the_same_planes(folder: Path, lacks: bool) -> None:
    if lacks:
        (folder / "exp1_t0002_cP_xy2.TIF").unlink()
    place = RecordingPlace(str(folder), pattern=PATTERN, position="2")
    array = place.open()
    assert isinstance(array, zarr.Array)
    assert (np.asarray(array[1, 1]).max() == 0) == lacks
    everything = (slice(0, 3), slice(0, 2), slice(0, 16), slice(0, 24))
    one = (slice(1, 2), slice(1, 2), slice(0, 16), slice(0, 24))
    part = (slice(1, 3), slice(1, 2), slice(3, 9), slice(20, 24))
    for selection in (everything, one, part):
        block = place.block(selection)
        assert block.dtype == np.uint16
        np.testing.assert_array_equal(block, np.asarray(array[selection]))


def test_names_by_a_pattern(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(phbatch.UsageError, match=r"holds 2 positions \(1, 2\); choose one, such as position=1"):
        phbatch.convert(folder, tmp_path / "out.zarr", pattern=PATTERN)
    options = {"pattern": PATTERN, "pixel_size": "0.5,0.25", "interval": "5min"}
    found, result = converted(folder, tmp_path / "out.zarr", position=2, **options)
    np.testing.assert_array_equal(found, FRAMES[:, ::-1, 1])  # G comes before P
    metadata = open_source(Place.at(result.output)).metadata
    assert metadata.channel_names == ("G", "P")
    assert metadata.scale == (300, 1, 0.5, 0.25)
    assert metadata.units == ("second", None, "micrometer", "micrometer")
    with pytest.raises(phbatch.OutputError, match=r"settings\.position was 2 and is 1"):
        phbatch.convert(folder, tmp_path / "out.zarr", position=1, **options)
    with pytest.raises(phbatch.OutputError, match=r"input\.metadata"):
        phbatch.convert(folder, tmp_path / "out.zarr", position=2, **(options | {"pixel_size": 1}))


def test_what_is_missing_is_named(folder: Path, tmp_path: Path) -> None:
    (folder / "exp1_t0002_cG_xy1.TIF").unlink()
    found, result = converted(folder, tmp_path / "out.zarr", pattern=PATTERN, position="1")
    expected = FRAMES[:, ::-1, 0].copy()
    expected[1, 0] = 0
    np.testing.assert_array_equal(found, expected)
    said = " ".join(result.notices)
    assert "1 of 12 files by pattern='*_t{t:04}_c{c}_xy{p}.tif' are missing, the first is t2/cG/p1" in said
    assert "all of t1/c0/z0" in said


def test_natural_order(tmp_path: Path) -> None:
    for t, number in enumerate((2, 10, 11)):
        tifffile.imwrite(tmp_path / f"img{number}.tif", FRAMES[t, 0, 0])
    for given in (tmp_path, tmp_path / "img*.tif", sorted(tmp_path.glob("*.tif"))):
        found, result = converted(given, tmp_path / "out.zarr", overwrite=True)
        np.testing.assert_array_equal(found, FRAMES[:, 0, 0])
        assert any("from img2.tif to img11.tif; the numbers 3-9" in text for text in result.notices)
    assert phbatch.statistics(tmp_path, workers=1)[2]["max"] == FRAMES[2, 0, 0].max()
    assert phbatch.info(tmp_path)["shape"] == [3, 16, 24]


def test_two_counting_numbers_need_a_pattern(folder: Path) -> None:
    for path in folder.glob("*_cG_*"):
        path.unlink()
    with pytest.raises(phbatch.InputError, match=r"count in 2 places .* as in pattern='exp1_t\{t\}_cP_xy\{c\}.TIF'"):
        phbatch.plan(folder, model="none")


def test_differing_shapes_are_named(tmp_path: Path) -> None:
    for t in range(3):
        tifffile.imwrite(tmp_path / f"a{t}.tif", FRAMES[0, 0, 0, : 16 - t // 2])
    with pytest.raises(phbatch.InputError, match=r"a2.tif is 15 x 24 uint16 and the first file is 16 x 24 uint16"):
        phbatch.convert(tmp_path)


def test_a_run_reads_a_stack_as_it_lies_and_is_that_of_its_copy(tmp_path: Path) -> None:
    stack = np.random.default_rng(1).normal(1000, 30, (4, 48, 64)).astype("uint16")
    tifffile.imwrite(tmp_path / "a.tif", stack, imagej=True, metadata={"axes": "TYX", "finterval": 60})
    copied = phbatch.convert(tmp_path / "a.tif", workers=1).output
    assert copied == str(tmp_path / "a.ome.zarr")
    lazily, from_copy = (phbatch.run(path, model="none", workers=1) for path in (tmp_path / "a.tif", copied))
    for path in ("0", "statistics/median"):
        pair = [np.asarray(zarr.open_array(f"{each.output}/{path}")[:]) for each in (lazily, from_copy)]
        np.testing.assert_array_equal(*pair)
    assert lazily.notices[0] == "input: ImageJ TIFF, read as it lies."
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "a.ome.phbatch.zarr",
        "a.ome.zarr",
        "a.phbatch.zarr",
        "a.tif",
    ]


@pytest.mark.parametrize("dtype", ["int32", "uint64", "float64"])
def test_every_dtype_is_copied_bit_for_bit(tmp_path: Path, dtype: str) -> None:
    values = np.arange(2 * 8 * 8).reshape(2, 8, 8).astype(dtype)
    if dtype == "uint64":
        values += np.uint64(2**63 + 1)
    elif dtype.startswith("float"):
        values[0, 0, 0] = np.nan
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack")
    found, _ = converted(tmp_path / "a.tif")
    assert found.tobytes() == values.tobytes()
    assert found.dtype == values.dtype


def test_stopped_continued_verified_and_repaired(tmp_path: Path) -> None:
    stack = np.random.default_rng(1).integers(0, 4096, (4, 1100, 1000)).astype("uint16")
    tifffile.imwrite(tmp_path / "a.tif", stack, photometric="minisblack", compression="zlib")
    stop, output = Event(), tmp_path / "out.zarr"

    def once(event: object) -> None:
        if type(event).__name__ == "UnitFinished":
            stop.set()

    with pytest.raises(phbatch.InterruptedRunError):
        phbatch.convert(tmp_path / "a.tif", output, listener=once, stop=stop.is_set, workers=1)
    assert phbatch.verify(output).unfinished
    found, result = converted(tmp_path / "a.tif", output)
    assert 0 < result.units_skipped < 4
    np.testing.assert_array_equal(found, stack)
    assert phbatch.verify(output, deep=2).damages == ()
    victim = next(path for path in (output / "0").rglob("*") if path.is_file() and path.name != "zarr.json")
    victim.write_bytes(victim.read_bytes()[:-1])
    assert len(phbatch.verify(output).damages) == 1
    assert phbatch.repair(output).units_done == 1
    np.testing.assert_array_equal(zarr.open_array(output / "0")[:], stack)
    tifffile.imwrite(tmp_path / "a.tif", stack + 1, photometric="minisblack")
    with pytest.raises(phbatch.OutputError, match="was changed"):
        phbatch.convert(tmp_path / "a.tif", output)


def test_ome_zarr_0_4_and_shards(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", FRAMES[:, 0, 0], photometric="minisblack")
    found, result = converted(tmp_path / "a.tif", tmp_path / "a.zarr", ome_zarr="0.4", channel_names="PH")
    np.testing.assert_array_equal(found, FRAMES[:, 0, 0])
    attributes = json.loads((Path(result.output) / ".zattrs").read_text())
    assert attributes["multiscales"][0]["version"] == "0.4"
    assert attributes["omero"]["channels"][0]["label"] == "PH"
    _, result = converted(tmp_path / "a.tif", tmp_path / "b.zarr", shard="1MB")
    assert zarr.open_array(f"{result.output}/0").shards is not None
    with pytest.raises(phbatch.UsageError, match="shard needs Zarr 3"):
        phbatch.convert(tmp_path / "a.tif", tmp_path / "c.zarr", ome_zarr="0.4", shard="1MB")


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"channel_names": "a,b"}, phbatch.InputError, "names 2 channels and the input has 1"),
        ({"pixel_size": "1,2,3"}, phbatch.UsageError, "names three lengths"),
        ({"axes": "czyx"}, phbatch.InputError, "do not fit .*a.tif"),
        ({"axes": "zyx", "interval": 3}, phbatch.UsageError, "has the axes zyx"),
        ({"pattern": "{t}.tif"}, phbatch.UsageError, "read as TIFF"),
        ({"position": "7"}, phbatch.UsageError, "position=7 is not in"),
        ({"dtype": "uint8"}, phbatch.UsageError, "does nothing in"),
    ],
)
def test_what_does_not_fit_is_refused(
    tmp_path: Path, options: dict[str, Any], error: type[Exception], said: str
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", FRAMES[:, 0, 0], photometric="minisblack", metadata=None)
    with pytest.raises(error, match=said):
        phbatch.convert(tmp_path / "a.tif", **options)
    assert [path.name for path in tmp_path.iterdir()] == ["a.tif"]


def test_axes_that_are_given_win(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", FRAMES[:, 0, 0], photometric="rgb", planarconfig="separate")
    assert open_recording(tmp_path / "a.tif").positions[0].axes == "cyx"
    assert open_recording(tmp_path / "a.tif", axes="zyx").positions[0].shape == (1, 1, 3, 16, 24)
    found, _ = converted(tmp_path / "a.tif", axes="zyx")
    np.testing.assert_array_equal(found, FRAMES[:, 0, 0])


def test_several_inputs_are_one_glob(tmp_path: Path) -> None:
    for name in ("a1.tif", "a2.tif", "b1.tif"):
        (tmp_path / name).touch()
    assert one_path([tmp_path / "a1.tif", tmp_path / "a2.tif"]) == str(tmp_path / "a*.tif")
    with pytest.raises(phbatch.UsageError, match="neither one folder nor one glob"):
        one_path([tmp_path / "a2.tif", tmp_path / "b1.tif"])


@pytest.mark.parametrize("pattern", ["img.tif", "{q}.tif", "{t}_{t}.tif", "{t.tif"])
def test_patterns_that_say_nothing(pattern: str) -> None:
    with pytest.raises(phbatch.UsageError, match="pattern"):
        compile_pattern(pattern)
    assert missing_numbers([5]) == ""


def test_a_codec_that_lacks_is_named(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", FRAMES[0, 0, 0])
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+b") as file:
        file.pages.first.tags["Compression"].overwrite(5)  # LZW
    with pytest.raises(phbatch.InputError, match=r"a\.tif (.*install 'phbatch\[tiff\]'|cannot be read as TIFF)"):
        phbatch.convert(tmp_path / "a.tif")  # the latter where imagecodecs is, since these pixels are no LZW


def test_damaged_files_are_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(b"II*\0" + b"\xff" * 40)
    (tmp_path / "b.tif").write_bytes(b"no TIFF")
    for name in ("a.tif", "b.tif"):
        with pytest.raises(phbatch.InputError, match=f"{name} .*TIFF"):
            phbatch.convert(tmp_path / name)
