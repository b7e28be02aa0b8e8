"""Windows of the output: the medians over frames of their percentiles, as a loop over the written pixels finds them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaozarrs
import zarr

import phbatch
from phbatch.kernels.display import percentiles_of
from phbatch.outputs.ledger import Ledger
from phbatch.places.place import Place
from phbatch.words.events import Event, RunStarted
from tests.handmade import write_model
from tests.ome_inputs import write_ome
from tests.test_plates import make_plate

WELLS = ("A/1", "B/2")
NAMES = {"min": 0, "start": 2, "end": 99.8, "max": 100}
WINDOW = {"min": 0.0, "start": 10.0, "end": 900.0, "max": 4095.0}


def two_channels() -> np.ndarray:
    """Seven frames of two channels of other levels and spreads; the fifth of the second channel is constant."""
    draw = np.random.default_rng(4)
    levels, spreads = draw.uniform(500, 900, (7, 2, 1, 1)), draw.uniform(5, 60, (7, 2, 1, 1))
    frames = np.rint(levels + spreads * draw.standard_normal((7, 2, 40, 36))).astype("uint16")
    frames[4, 1] = 700
    return frames


def written(output: str) -> tuple[np.ndarray, list[dict[str, Any]]]:
    group = zarr.open_group(output, mode="r")
    attributes: dict[str, Any] = group.attrs.asdict()
    array = group["0"]
    assert isinstance(array, zarr.Array)
    return np.asarray(array[...]), attributes.get("ome", attributes)["omero"]["channels"]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"normalize": "percentile"},
        {"dtype": "uint16", "range": "0:2"},
        {"dtype": "uint16", "scale": 1000},
        {"rescale": True},
        {"bad_frames": "copy"},
        {"downscale": 2},
        {"illumination": "gaussian", "illumination_mode": "subtract"},
    ],
    ids=str,
)
def test_windows_are_the_medians_of_what_the_frames_hold(tmp_path: Path, options: dict[str, Any]) -> None:
    frames, hints = two_channels(), {"omero": {"channels": [{"label": "PH"}, {"label": "GFP"}]}}
    write_ome(tmp_path / "in.zarr", frames, "tcyx", "0.5", attributes=hints)
    result = phbatch.run(tmp_path / "in.zarr", model="none", workers=1, **options)
    pixels, channels = written(result.output)
    for c, channel in enumerate(channels):
        good = [t for t in range(7) if (t, c) != (4, 1)]
        for name, percentile in NAMES.items():
            expected = np.median([np.percentile(pixels[t, c].astype(float), percentile) for t in good])
            assert channel["window"][name] == pytest.approx(expected, rel=1e-5, abs=1.0 if "dtype" in options else 1e-5)


def test_windows_are_measured_where_a_given_table_does_not_say_percentiles(tmp_path: Path) -> None:
    write_ome(tmp_path / "in.zarr", two_channels(), "tcyx", "0.5")
    lines = [f"{row['t']},{row['c']},{row['median'] / 2}" for row in phbatch.statistics(tmp_path / "in.zarr")]
    table = tmp_path / "table.csv"
    table.write_text("\n".join(["t,c,median", *lines]))
    pixels, channels = written(phbatch.run(tmp_path / "in.zarr", model="none", stats=table).output)
    for c, channel in enumerate(channels):
        for name, percentile in NAMES.items():
            expected = np.median([np.percentile(frame.astype(float), percentile) for frame in pixels[:, c]])
            assert channel["window"][name] == pytest.approx(expected, rel=1e-5)


def test_windows_of_the_input_stay_in_its_counts_alone(tmp_path: Path) -> None:
    hints = {"omero": {"channels": [{"label": "PH", "color": "FFFFFF", "window": WINDOW}, {"label": "GFP"}]}}
    write_ome(tmp_path / "in.zarr", two_channels(), "tcyx", "0.5", attributes=hints)
    found = [
        written(phbatch.run(tmp_path / "in.zarr", tmp_path / f"{rescale}.zarr", model="none", rescale=rescale).output)
        for rescale in (True, False)
    ]
    assert found[0][1][0]["window"] == WINDOW
    assert 400 < found[0][1][1]["window"]["start"] < 1000
    assert 0.5 < found[1][1][0]["window"]["start"] < found[1][1][0]["window"]["end"] < 2


def test_a_channel_without_a_usable_frame_shows_zero_to_one(tmp_path: Path) -> None:
    hints = {"omero": {"channels": [{"label": "PH"}, {"label": "GFP"}]}}
    frames = two_channels()
    frames[:, 1] = 700
    write_ome(tmp_path / "in.zarr", frames, "tcyx", "0.5", attributes=hints)
    _, channels = written(phbatch.run(tmp_path / "in.zarr", model="none").output)
    assert channels[1]["window"] == {"min": 0.0, "start": 0.0, "end": 1.0, "max": 1.0}
    assert channels[0]["window"]["max"] > 1


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "float16", ">f4", "int32", "float64"])
def test_percentiles_are_those_of_numpy(dtype: str) -> None:
    draw = np.random.default_rng(2)
    for shape in ((50, 3), (150, 150)):
        spread = draw.normal(0, 40, shape) if np.dtype(dtype).kind != "u" else draw.uniform(0, 200, shape)
        for pixels in (spread.astype(dtype), np.full(shape, 7, dtype)):
            asked = (0, 2, 37.5, 99.8, 100)
            expected = np.percentile(pixels.astype(np.float64), asked)
            np.testing.assert_array_equal(percentiles_of(pixels, asked), expected)


def expected_window(frames: Sequence[np.ndarray]) -> dict[str, float]:
    each = [np.percentile(frame.astype(np.float64), list(NAMES.values())) for frame in frames]
    return dict(zip(NAMES, np.median(each, axis=0).tolist(), strict=True))


def test_windows_of_a_network_are_those_of_what_it_made(tmp_path: Path) -> None:
    hints = {"omero": {"channels": [{"label": "PH", "color": "00FF00"}, {"label": "GFP"}]}}
    write_ome(tmp_path / "in.zarr", two_channels(), "tcyx", "0.5", attributes=hints)
    write_model(tmp_path / "model", unet_n_depth=1, unet_residual=True)
    options: dict[str, Any] = {"model": tmp_path / "model", "workers": 1}
    asked = iter(range(3))
    cut = tmp_path / "cut.zarr"
    with pytest.raises(phbatch.InterruptedRunError):
        phbatch.run(tmp_path / "in.zarr", cut, stop=lambda: next(asked, None) is None, **options)
    phbatch.run(tmp_path / "in.zarr", cut, **options)
    pixels, channels = written(str(cut))
    for c, channel in enumerate(channels):
        good = [pixels[t, c] for t in range(7) if (t, c) != (4, 1)]
        assert channel["window"] == expected_window(good)
    assert [(channel["label"], channel["color"]) for channel in channels] == [("PH", "00FF00"), ("GFP", "FFFFFF")]
    record = next(record for record in Ledger(Place.at(cut)).current() if record["unit"] != "metadata")
    (cut / next(iter(record["objects"]))).unlink()
    before = (cut / "zarr.json").read_bytes()
    phbatch.repair(cut)
    assert (cut / "zarr.json").read_bytes() == before
    assert phbatch.verify(cut, deep=2).damages == ()


def test_windows_of_copies_are_those_of_the_input_or_of_all_pixels(tmp_path: Path) -> None:
    hints = {"omero": {"channels": [{"label": "PH", "window": WINDOW}, {"label": "GFP"}]}}
    frames = two_channels()
    write_ome(tmp_path / "in.zarr", frames, "tcyx", "0.5", attributes=hints)
    _, channels = written(phbatch.convert(tmp_path / "in.zarr", workers=1).output)
    assert channels[0]["window"] == WINDOW
    assert channels[1]["window"] == expected_window(np.delete(frames[:, 1], 4, axis=0))  # one is constant


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("axes", ["tcyx", "tyx", "yx"])
@pytest.mark.parametrize("options", [{}, {"rescale": True}, {"dtype": "uint16", "range": "0:2"}, {"copies": True}])
def test_channels_that_nobody_named_have_windows_too(
    tmp_path: Path, version: str, axes: str, options: dict[str, Any]
) -> None:
    frames = {"tcyx": two_channels(), "tyx": two_channels()[:, 0], "yx": two_channels()[0, 0]}[axes]
    write_ome(tmp_path / "in.zarr", frames, axes, version)
    if "copies" in options:
        output = phbatch.convert(tmp_path / "in.zarr", tmp_path / "out.zarr", workers=1).output
    else:
        output = phbatch.run(tmp_path / "in.zarr", tmp_path / "out.zarr", model="none", workers=1, **options).output
    yaozarrs.validate_zarr_store(output)
    pixels, channels = written(output)
    pixels = pixels.reshape(-1, len(channels), 40, 36)
    expected = ["channel 0", "channel 1"] if axes == "tcyx" else ["img"]
    assert [channel["label"] for channel in channels] == expected
    assert [channel["color"] for channel in channels] == (["FF0000", "00FF00"] if axes == "tcyx" else ["FFFFFF"])
    for c, channel in enumerate(channels):
        window = expected_window([frame for t, frame in enumerate(pixels[:, c]) if (t, c) != (4, 1)])
        assert channel["window"] == pytest.approx(window, rel=1e-5, abs=1.0 if "dtype" in options else 1e-5)


def test_labels_that_were_made_up_are_no_names(tmp_path: Path) -> None:
    write_ome(tmp_path / "in.zarr", two_channels(), "tcyx")
    output = phbatch.run(tmp_path / "in.zarr", model="none", workers=1).output
    assert phbatch.open(output)["c"].values.tolist() == [0, 1]
    assert phbatch.info(output)["channels"] == []
    for asked in ("1", "channel 1"):
        one = phbatch.run(output, tmp_path / "one.zarr", model="none", channel=asked, overwrite=True, workers=1).output
        assert [channel["label"] for channel in written(one)[1]] == ["channel 1"]
        np.testing.assert_array_equal(written(one)[0][:, 0] > 0, written(output)[0][:, 1] > 0)


def test_channels_that_a_network_makes_of_others_have_windows(tmp_path: Path) -> None:
    write_ome(tmp_path / "in.zarr", two_channels(), "tcyx")
    for channels in ((2, 1), (2, 3), (2, 2), (1, 2)):
        outside = dict(zip(("n_channel_in", "n_channel_out"), channels, strict=True))
        write_model(tmp_path / f"model{channels}", unet_n_depth=1, **outside)
        source = {"channel": 0} if channels[0] == 1 else {}
        output = phbatch.run(
            tmp_path / "in.zarr", tmp_path / "out.zarr", model=tmp_path / f"model{channels}", overwrite=True, **source
        ).output
        pixels, found = written(output)
        assert len(found) == pixels.shape[1] == channels[1]
        for c, channel in enumerate(found):
            good = [t for t in range(7) if (channels, t, c) != ((2, 2), 4, 1)]  # whose own channel is constant
            assert channel["window"] == expected_window([pixels[t, c] for t in good]), channels
        assert phbatch.verify(output, deep=2).damages == ()


def forget(*groups: Path) -> None:
    """Take the channels out of images, and out of what an output says of itself."""
    for path in groups:
        document = json.loads((path / "zarr.json").read_text())
        document["attributes"].get("phbatch", {}).pop("labelled", None)
        document["attributes"].get("ome", {}).pop("omero", None)
        (path / "zarr.json").write_text(json.dumps(document))


@pytest.mark.parametrize("positions", [False, True])
def test_an_output_of_before_goes_on_without_windows(tmp_path: Path, positions: bool) -> None:
    """It says nothing of labels, and has none."""
    source, output = tmp_path / "in.zarr", tmp_path / "out.zarr"
    images = ["A/1/0", "B/2/0"] if positions else [""]
    if positions:
        make_plate(source, WELLS, fields=1)
        forget(*(source / image for image in images))
    else:
        write_ome(source, two_channels(), "tcyx", "0.5")
    options: dict[str, Any] = {"model": "none", "workers": 1}
    seen: list[Event] = []
    with pytest.raises(phbatch.InterruptedRunError):
        phbatch.run(
            source,
            output,
            stop=lambda: any(isinstance(event, RunStarted) for event in seen),
            listener=seen.append,
            **options,
        )
    forget(output, *(output / image for image in images))
    phbatch.run(source, output, **options)
    assert phbatch.verify(output, deep=2).damages == ()
    Path(next(output.glob("**/c/0/0/0/0"))).unlink()
    phbatch.repair(output)
    assert phbatch.verify(output).damages == ()
    for image in images:
        assert "omero" not in json.loads((output / image / "zarr.json").read_text())["attributes"]["ome"]
