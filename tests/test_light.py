"""Uneven light is corrected or said not to be: frames by themselves, and profiles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import zarr

import phbatch
from phbatch.kernels.background import gaussian_background, polynomial_background
from phbatch.kernels.illumination import MAX_GAIN, Correction

SIZE = 192
METHODS = ("gaussian", "polynomial")


def distance(centre: tuple[float, float] = (0, 0)) -> np.ndarray:
    y, x = np.meshgrid(*(np.linspace(-1, 1, SIZE),) * 2, indexing="ij")
    return np.hypot(y - centre[0], x - centre[1])


LIGHTS = {
    "a fifth in the corners": np.exp(-0.83 * distance() ** 2),
    "cosine to the fourth, off the axis": np.cos(np.arctan(0.6 * distance((0, 0.2)))) ** 4,
    "flat, then steep": np.exp(-0.42 * distance() ** 4),
    "flat, then steep, off the axis": np.exp(-0.25 * distance((0.1, 0.2)) ** 4),
}


def cells(frames: int = 3, seed: int = 0) -> np.ndarray:
    """A flat background of 2000 counts with dark cells in bright halos."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIZE, :SIZE]
    image = 2000 + rng.normal(0, 40, (frames, SIZE, SIZE))
    for frame in image:
        for _ in range(6):
            d = np.hypot(y - rng.uniform(28, SIZE - 28), x - rng.uniform(28, SIZE - 28))
            frame += 2000 * (0.25 * np.exp(-((d - 10) ** 2) / 12) - 0.3 * np.exp(-(d**2) / 40))
    return image


def store(folder: Path, image: np.ndarray, name: str = "in.zarr") -> str:
    zarr.create_array(folder / name, data=image, chunks=(1, *image.shape[1:]))
    return str(folder / name)


def pixels(result: phbatch.RunResult) -> np.ndarray:
    return zarr.open_array(result.output, path="0", mode="r")[:]


@pytest.mark.parametrize("light", LIGHTS)
@pytest.mark.parametrize("method", METHODS)
def test_dark_corners_become_as_bright_as_the_middle(tmp_path: Path, method: str, light: str) -> None:
    raw = (cells() * LIGHTS[light]).round().astype(np.uint16)
    result = phbatch.run(store(tmp_path, raw), model="none", normalize="none", illumination=method)
    frames = pixels(result)
    middle = np.median(frames[:, 80:112, 80:112], axis=(1, 2))
    for corner in (frames[:, :9, :9], frames[:, :9, -9:], frames[:, -9:, :9], frames[:, -9:, -9:]):
        np.testing.assert_allclose(np.median(corner, axis=(1, 2)) / middle, 1, atol=0.04)
    assert (frames.max(axis=(1, 2)) / middle).max() < 1.6  # 1.5 in truth
    assert result.flagged == {}


@pytest.mark.parametrize("estimate", [gaussian_background, polynomial_background])
@pytest.mark.parametrize("light", [1.0, *LIGHTS.values()], ids=["even", *LIGHTS])
def test_an_object_in_a_corner_is_no_vignette(estimate: Any, light: Any) -> None:
    image = 2000 + np.random.default_rng(0).normal(0, 60, (SIZE, SIZE))
    image[distance((-1, -1)) < 0.8] *= 0.5
    found = estimate(image * light) / (2000 * light)
    assert np.abs(found / np.median(found) - 1).max() < 0.06


def test_no_gain_is_above_ten() -> None:
    background = np.full((8, 8), 1000, np.float32)
    background[0, 0] = 1
    assert Correction.divide(background).gain.max() == MAX_GAIN == 10


@pytest.mark.parametrize("downscale", [1, 2])
@pytest.mark.parametrize("method", METHODS)
def test_frames_that_cannot_be_divided_are_flagged_normalized_and_said(
    tmp_path: Path, method: str, downscale: int
) -> None:
    image = cells(4).astype(np.float32)
    image[1] -= 2200  # its background was subtracted
    source = store(tmp_path, image)
    options: dict[str, Any] = {"model": "none", "normalize": "percentile", "downscale": downscale}
    heard: list[str] = []

    def listen(event: phbatch.events.Event) -> None:
        if isinstance(event, phbatch.events.Notice):
            heard.append(event.text)

    one = phbatch.run(source, tmp_path / "one.zarr", illumination=method, listener=listen, **options)
    assert one.flagged == {"t1/c0/z0": ["uncorrected"]}
    assert any("1 of 4 frames (t1/c0/z0)" in text for text in heard)
    assert any("uncorrected" in text for text in one.notices)
    plain = phbatch.run(source, tmp_path / "plain.zarr", **options)
    np.testing.assert_array_equal(pixels(one)[1], pixels(plain)[1])
    assert not np.array_equal(pixels(one)[0], pixels(plain)[0])
    two = phbatch.run(source, tmp_path / "two.zarr", illumination=method, smooth_time=3, **options)
    assert two.flagged == one.flagged
    np.testing.assert_array_equal(pixels(two), pixels(one))
    rows = phbatch.statistics(source, illumination=method, downscale=downscale)
    assert [row["flags"] for row in rows] == [[], ["uncorrected"], [], []]


def test_a_lazy_array_warns_of_frames_that_cannot_be_divided() -> None:
    image = cells(1)[:, :64, :64].astype(np.float32) - 2200
    options: dict[str, Any] = {"model": "phase-2d", "normalize": "percentile"}
    lazy = phbatch.restore(da.from_array(image), "tyx", illumination="gaussian", **options)
    with pytest.warns(UserWarning, match="1 of 1 frames of a block is not corrected"):
        found = lazy.compute(scheduler="synchronous")
    plain = phbatch.restore(da.from_array(image), "tyx", **options).compute(scheduler="synchronous")
    np.testing.assert_array_equal(found, plain)


@pytest.mark.parametrize("method", METHODS)
def test_subtraction_needs_no_light(tmp_path: Path, method: str) -> None:
    slope = np.linspace(-200, 200, SIZE)
    source = store(tmp_path, (cells(2) - 2000 + slope).astype(np.float32))
    options: dict[str, Any] = {"illumination": method, "illumination_mode": "subtract"}
    result = phbatch.run(source, model="none", normalize="none", **options)
    assert result.flagged == {}
    columns = np.median(pixels(result), axis=(0, 1))
    assert np.ptp(columns) < 60 < np.ptp(slope)
