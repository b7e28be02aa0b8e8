"""Integers of normalized values stand for a stated range: equal to NumPy's, had back from the metadata, and counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

import phbatch
from phbatch.words.errors import UsageError
from tests.handmade import CommandLine, write_model
from tests.models import Case, make_model

RANGES: list[dict[str, Any]] = [
    {"dtype": "uint16", "range": "0:4"},
    {"dtype": "uint8", "range": (0.9, 1.1)},
    {"dtype": "uint16", "scale": 10000},
    {"dtype": "uint8", "scale": 200.0},
    {"dtype": "uint16", "range": "-0.5:1.5"},
]


def packed(values: NDArray[np.float32], dtype: str, scale: float | None = None, **options: Any) -> tuple[Any, int]:
    """The same by NumPy, as the documentation says it: pixels, and how many were clipped."""
    largest = np.iinfo(dtype).max
    given = options.get("range", (0, 1))
    low, high = (float(end) for end in (given.split(":") if isinstance(given, str) else given))
    gain = np.float32(scale) if scale is not None else np.float32(largest / (high - low))
    rounded = np.rint((values - np.float32(low)) * gain)
    return np.clip(rounded, 0, largest).astype(dtype), int(((rounded < 0) | (rounded > largest)).sum())


def store(folder: Path, frames: NDArray[Any], *, ome_04: bool = False) -> Path:
    path = folder / "a.zarr"
    if not ome_04:
        zarr.create_array(str(path), data=frames, chunks=(1, *frames.shape[1:]), dimension_names=list("tyx"))
        return path
    group = zarr.create_group(str(path), zarr_format=2)
    group.create_array("0", data=frames, chunks=(1, *frames.shape[1:]))
    axes = [{"name": "t", "type": "time"}, {"name": "y", "type": "space"}, {"name": "x", "type": "space"}]
    transformations = [{"type": "scale", "scale": [1.0, 1.0, 1.0]}]
    datasets = [{"path": "0", "coordinateTransformations": transformations}]
    group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": datasets}]
    group.attrs["omero"] = {"channels": [{"color": "FFFFFF", "window": {"min": 0, "max": 9, "start": 0, "end": 9}}]}
    return path


def frames(count: int = 2) -> NDArray[np.uint16]:
    return np.random.default_rng(0).normal(2000, 90, (count, 72, 80)).round().astype("uint16")


def pixels(output: str) -> NDArray[Any]:
    return np.asarray(zarr.open_array(f"{output}/0", mode="r")[:])


@pytest.mark.parametrize("options", RANGES, ids=str)
def test_normalized_integers_are_those_of_numpy_and_give_the_values_back(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    path = store(tmp_path, frames())
    values = pixels(phbatch.run(path, tmp_path / "float.zarr", model="none").output)
    result = phbatch.run(path, tmp_path / "integer.zarr", model="none", **options)
    expected, clipped = packed(values, **options)
    np.testing.assert_array_equal(pixels(result.output), expected)
    assert result.clipped == clipped
    array = zarr.open_array(f"{result.output}/0", mode="r")
    step, low = float(array.attrs["scale_factor"]), float(array.attrs["add_offset"])  # type: ignore[arg-type]
    inside = (expected > 0) & (expected < np.iinfo(expected.dtype).max)
    back = pixels(result.output) * step + low
    assert np.abs(back - values)[inside].max() <= step * 0.5001 + 1e-6
    assert any(notice.startswith(f"pixels: {options['dtype']} stands for") for notice in result.notices)


def test_a_background_at_10000(tmp_path: Path) -> None:
    image = np.full((1, 64, 64), 777, np.uint16)
    image[:, :9, :9] = 1554
    image[:, 30:33, 30:33] = 60000
    result = phbatch.run(store(tmp_path, image), model="none", dtype="uint16", scale=10000)
    stored = pixels(result.output)
    assert (stored[0, 50, 50], stored[0, 2, 2], stored[0, 31, 31]) == (10000, 20000, 65535)
    assert result.clipped == 9


@pytest.mark.parametrize("more", [{}, {"downscale": 2, "upscale_back": True}, {"illumination": "gaussian"}], ids=str)
def test_the_network_stores_what_numpy_stores_of_its_floats(tmp_path: Path, more: dict[str, Any]) -> None:
    model = tmp_path / "model"
    make_model(model, Case(depth=1))
    path = store(tmp_path, frames())
    options: dict[str, Any] = {"model": model, "normalize": "median", "network": "plain", "workers": 1} | more
    values = pixels(phbatch.run(path, tmp_path / "float.zarr", **options).output)
    low, high = np.quantile(values, [0.2, 0.8]).tolist()
    stored = {"dtype": "uint8", "range": (low, high)}
    result = phbatch.run(path, tmp_path / "integer.zarr", **options, **stored)
    expected, clipped = packed(values, **stored)
    assert np.abs(pixels(result.output).astype(int) - expected).max() <= 1
    assert result.clipped == pytest.approx(clipped, abs=5)
    assert result.clipped > 0.05 * expected.size
    assert phbatch.verify(result.output, deep=2).damages == ()


def test_dask_arrays_get_the_pixels_of_a_run(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model", unet_n_depth=1)
    options: dict[str, Any] = {"model": model, "normalize": "median", "dtype": "uint16", "scale": 10000}
    result = phbatch.run(store(tmp_path, frames()), network="plain", workers=1, **options)
    lazy = phbatch.restore(da.from_array(frames(), chunks=(1, 72, 80)), "tyx", **options)
    assert lazy.dtype == np.uint16
    np.testing.assert_array_equal(lazy.compute(), pixels(result.output))


def test_uncertainty_stays_a_float_of_normalized_values(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model", probabilistic=True, unet_n_depth=1)
    path = store(tmp_path, frames(1))
    options: dict[str, Any] = {"model": model, "normalize": "median", "network": "plain", "uncertainty": True}
    scales = []
    for number, more in enumerate(({}, {"dtype": "uint16", "scale": 5000})):
        output = phbatch.run(path, tmp_path / f"{number}.zarr", workers=1, **options, **more).output
        array = zarr.open_array(f"{output}/uncertainty/0", mode="r")
        assert "scale_factor" not in array.attrs
        scales.append(np.asarray(array[:]))
    np.testing.assert_allclose(scales[0], scales[1], rtol=1e-5)


def test_a_frame_that_is_passed_through_keeps_its_counts(tmp_path: Path) -> None:
    images = frames()
    images[1] = 300
    result = phbatch.run(store(tmp_path, images), model="none", dtype="uint16", range="0:4")
    np.testing.assert_array_equal(pixels(result.output)[1], 300)
    assert list(result.flagged) == ["t1/c0/z0"]


@pytest.mark.parametrize("ome_04", [False, True])
def test_verify_and_repair_keep_the_range_and_how_it_is_recorded(tmp_path: Path, ome_04: bool) -> None:
    path = store(tmp_path, frames(), ome_04=ome_04)
    result = phbatch.run(path, model="none", dtype="uint16", range="0.5:1.5")
    before = pixels(result.output)
    assert phbatch.verify(result.output, deep=2).damages == ()
    recorded: Any = zarr.open_group(result.output, mode="r").attrs["phbatch"]
    assert recorded["settings"]["range"] == [0.5, 1.5]
    assert recorded["fingerprint"]["settings"]["packing"] == {"low": 0.5, "gain": 65535.0}
    chunk = next(file for file in (Path(result.output) / "0").rglob("*") if file.name == "0" and file.is_file())
    chunk.write_bytes(b"damaged")
    described = next((Path(result.output) / "0").glob(".zattrs" if ome_04 else "zarr.json"))
    described.unlink()
    assert len(phbatch.repair(result.output).failed) == 0
    np.testing.assert_array_equal(pixels(result.output), before)
    assert zarr.open_array(f"{result.output}/0", mode="r").attrs["add_offset"] == 0.5
    if ome_04:
        window = zarr.open_group(result.output, mode="r").attrs["omero"]["channels"][0]["window"]  # type: ignore[index, call-overload]
        assert 0 <= window["start"] < 32768 < window["end"] <= 65535


def test_another_range_does_not_continue_an_output(tmp_path: Path, phbatch_command: CommandLine) -> None:
    path = store(tmp_path, frames())
    given = ("run", path, "--model", "none", "--dtype", "uint16")
    assert phbatch_command(*given, "--range", "-0.5:2") == 0
    assert phbatch_command(*given, "--range=-0.5:2", "--json") == 0
    assert json.loads(phbatch_command.out.splitlines()[-1])["units_done"] == 0
    config = tmp_path / "options.toml"
    config.write_text('range = "-0.5:2"')
    assert phbatch_command(*given, "--config", config) == 0
    assert phbatch_command(*given, "--scale", "9000") == 3
    assert "packing" in phbatch_command.err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dtype": "uint16"}, "range LOW:HIGH"),
        ({"dtype": "uint16", "range": "0:4", "scale": 5}, "range and scale"),
        ({"dtype": "uint16", "range": "0:4", "rescale": True}, "rescale and range"),
        ({"range": "0:4"}, "dtype is float32"),
        ({"dtype": "float16", "scale": 3}, "dtype is float16"),
        ({"dtype": "uint16", "range": "4:0"}, "above the first"),
        ({"dtype": "uint16", "range": "1:1"}, "above the first"),
        ({"dtype": "uint16", "range": "0"}, "range"),
        ({"dtype": "uint16", "range": "a:b"}, "range"),
        ({"dtype": "uint16", "range": "0:nan"}, "range"),
        ({"dtype": "uint16", "scale": 0}, "scale"),
    ],
    ids=str,
)
def test_a_range_that_is_missing_twofold_or_idle_is_refused(
    tmp_path: Path, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        phbatch.plan(store(tmp_path, frames()), model="none", **options)
