"""Of several channels some are restored, and the others are dropped, or copied as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import phbatch
from tests.handmade import write_model
from tests.test_plates import make_image, make_plate, objects


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """Three times of two channels, PH and GFP; a frame of GFP is constant."""
    pixels = np.random.default_rng(2).normal(1000, 30, (3, 2, 64, 48)).astype("uint16")
    pixels[1, 1] = 7
    make_image(zarr.create_group(tmp_path / "group.zarr"), "in", pixels)
    return tmp_path / "group.zarr/in"


def run(image: Path, name: str, **options: Any) -> Any:
    """Pixels of a new output beside the input."""
    output = image.parent.parent / f"{name}.zarr"
    phbatch.run(image, output, **({"model": "none", "workers": 2} | options))
    return zarr.open_array(output / "0")[:]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"dtype": "input", "rescale": True, "illumination": "gaussian"},
        {"smooth_time": 3, "bad_frames": "skip"},
        {"illumination": "temporal", "scope": "position"},
        {"downscale": 2, "upscale_back": True},
        {"model": "own", "dtype": "float32", "ome_zarr": "0.4"},
    ],
    ids=str,
)
def test_the_chosen_ones_are_as_alone_and_the_others_as_read(image: Path, options: dict[str, Any]) -> None:
    if "model" in options:
        write_model(image.parent.parent / "own")
        options = options | {"model": image.parent.parent / "own", "network": "plain", "tile": 64, "batch": 1}
    source = zarr.open_array(image / "0")[:]
    both, alone = run(image, "both", channel="PH", others="copy", **options), run(image, "alone", channel=0, **options)
    assert both.shape == source.shape
    assert both.dtype == alone.dtype
    assert np.array_equal(both[:, :1], alone)
    assert not np.array_equal(both[:, 0], source[:, 0])
    assert np.array_equal(both[:, 1], source[:, 1])
    assert phbatch.verify(image.parent.parent / "both.zarr", deep=1).damages == ()


def test_what_is_said_of_a_copied_channel(image: Path) -> None:
    run(image, "out", channel="GFP", others="copy", ome_zarr="0.5")
    output = image.parent.parent / "out.zarr"
    attributes: Any = zarr.open_group(output).attrs
    channels = attributes["ome"]["omero"]["channels"]
    assert [channel["label"] for channel in channels] == ["PH", "GFP"]
    source = zarr.open_array(image / "0")[:]
    assert channels[0]["window"]["end"] == np.median(np.percentile(source[:, 0], 99.8, axis=(1, 2)))
    assert channels[1]["window"]["max"] < 2
    table: Any = zarr.open_group(output / "statistics")
    divisor, of_gfp = np.asarray(table["divisor"]), np.asarray(table["c"]) == 1
    assert np.array_equal(np.isfinite(divisor), of_gfp & (np.asarray(table["t"]) != 1))
    assert np.asarray(table["flags"])[~of_gfp].tolist() == [0, 0, 0]
    assert "2 channels of which 1 was copied as read" in phbatch.explain(output).methods
    facts = phbatch.write_report(output, output.with_name("page.html")).facts
    assert facts["looked_at"]["channels"][0]["seams"] is None


def test_several_channels_are_chosen(image: Path) -> None:
    make_image(zarr.open_group(image.parent), "three", np.arange(3 * 64.0).reshape(1, 3, 8, 8) ** 1.5)
    three = image.parent / "three"
    both = run(three, "some", channel=[0, 2])
    everything = run(three, "all")
    assert np.array_equal(both, everything[:, [0, 2]])
    assert np.array_equal(run(three, "text", channel="2,0"), both)
    with pytest.raises(phbatch.InputError, match="channel=3 is not there"):
        run(three, "none", channel="0,3")
    for function in (phbatch.preview, phbatch.compare_rules):
        with pytest.raises(phbatch.UsageError, match="are several and one is looked at here"):
            function(three, model="none", channel="0,2")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"others": "copy"}, "add channel"),
        ({"channel": 0, "others": "copy", "downscale": 2}, "another grid: add upscale_back"),
        ({"channel": 0, "others": "copy", "dtype": "uint8", "range": "0:2"}, "normalized values: choose rescale"),
        ({"channel": 0, "others": "copy", "dtype": "float16"}, "float16 does not hold every uint16"),
        ({"channel": 0, "others": "keep"}, "choose 'copy' or 'drop'"),
    ],
)
def test_what_cannot_be_copied_is_refused(image: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(phbatch.UsageError, match=said):
        run(image, "none", **options)
    assert not (image.parent.parent / "none.zarr").exists()


def test_others_of_a_plate(tmp_path: Path) -> None:
    plate = make_plate(tmp_path / "p.zarr", ("A/1", "B/2"), fields=1)
    output = tmp_path / "o.zarr"
    assert phbatch.run(plate, output, model="none", channel="PH", others="copy", workers=2).failed == {}
    phbatch.run(plate / "B/2/0", tmp_path / "one.zarr", model="none", channel="PH", others="copy", workers=2)
    assert objects(output / "B/2/0/0") == objects(tmp_path / "one.zarr/0")
    source, stored = (zarr.open_array(root / "A/1/0/0")[:] for root in (plate, output))
    assert np.array_equal(source[:, 1], stored[:, 1])  # type: ignore[index]
