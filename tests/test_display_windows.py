"""Windows of the output: the medians over frames of their percentiles, as a loop over the written pixels finds them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import phbatch
from tests.ome_inputs import write_ome

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
    return np.asarray(array[...]), attributes["ome"]["omero"]["channels"]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"normalize": "percentile"},
        {"dtype": "uint16", "range": "0:2"},
        {"dtype": "uint16", "scale": 1000},
        {"rescale": True},
        {"bad_frames": "copy"},
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
