"""Uneven light is corrected or said not to be: frames by themselves, and profiles."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import zarr

import phbatch
from phbatch.frames.light import Preparation, Profile
from phbatch.kernels.background import gaussian_background, polynomial_background
from phbatch.kernels.flatfield import fine_structure
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
    """A flat background of 2000 counts with dark cells in bright halos, to be changed at will."""
    return _cells(frames, seed).copy()


@cache
def _cells(frames: int, seed: int) -> np.ndarray:
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

    def listen(event: phbatch.words.events.Event) -> None:
        if isinstance(event, phbatch.words.events.Notice):
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


def test_a_lazy_array_warns_of_frames_that_cannot_be_divided(caplog: pytest.LogCaptureFixture) -> None:
    image = cells(1)[:, :64, :64].astype(np.float32) - 2200
    options: dict[str, Any] = {"model": "phase-2d", "normalize": "percentile"}
    lazy = phbatch.restore(da.from_array(image), "tyx", illumination="gaussian", **options)
    found = lazy.compute(scheduler="synchronous")
    said = caplog.records[-1].getMessage()
    assert "t0/c0/z0: their uneven light is left" in said
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


def files_of(folder: str) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def with_dead_pixels(folder: Path) -> str:
    image = cells(10)
    image[:, 40, 50] = image[:, 90:93, 120:122] = 0
    return store(folder, image.round().astype(np.uint16))


@pytest.mark.parametrize("downscale", [1, 2])
def test_dead_pixels_of_a_profile_take_the_light_about_them(tmp_path: Path, downscale: int) -> None:
    source = with_dead_pixels(tmp_path)
    found = phbatch.illumination(source, tmp_path / "profile.zarr")
    assert any("7 dead pixels" in text for text in found.notices)
    options: dict[str, Any] = {"model": "none", "normalize": "none", "downscale": downscale}
    given = {"illumination": tmp_path / "profile.zarr"}
    assert any("7 dead pixels" in text for text in phbatch.plan(source, **given, **options).notices)
    result = phbatch.run(source, tmp_path / "given.zarr", **given, **options)
    assert any("7 dead pixels" in text for text in result.notices)
    estimated = phbatch.run(source, tmp_path / "estimated.zarr", illumination="temporal", **options)
    assert any("7 dead pixels" in text for text in estimated.notices)
    np.testing.assert_array_equal(pixels(estimated), pixels(result))
    raw = zarr.open_array(source)[:].astype(np.float32)
    gain = pixels(result)[0, 2 // downscale, 3 // downscale] / raw[0, 2 : 2 + downscale, 3 : 3 + downscale].mean()
    assert 0.8 < gain < 1.2
    assert np.isfinite(pixels(result)).all()
    rows = phbatch.statistics(source, downscale=downscale, **given)
    assert all(row["flags"] == [] for row in rows)


@pytest.mark.parametrize("value", [0, -5, np.nan, np.inf])
def test_the_gain_of_a_dead_pixel_is_that_of_its_neighbours(value: float) -> None:
    light = np.linspace(900, 1100, 40 * 50, dtype=np.float32).reshape(40, 50)
    background = light.copy()
    background[0, 0] = background[17, 20] = background[30:, 40:] = value
    dark = np.full_like(light, 100)
    dark[17, 21] = np.nan
    profile = Profile(background[np.newaxis, np.newaxis], dark[np.newaxis, np.newaxis])
    found = profile.correction(Preparation(illumination="p", mode="divide"), 0, 0)
    expected = Correction.divide(light, 100)
    np.testing.assert_allclose(found.gain, expected.gain, rtol=0.1)
    np.testing.assert_allclose(found.bias, expected.bias, rtol=0.1)


@pytest.mark.parametrize("background", ["dead", "negative"])
def test_a_refused_profile_leaves_the_old_output(tmp_path: Path, background: str) -> None:
    image = cells(10)
    image[:, : SIZE // 2 + 5] = 0
    source = store(tmp_path, image.round().astype(np.uint16))
    if background == "dead":
        zarr.create_array(tmp_path / "profile.zarr", data=image[0].astype(np.float32))
    else:
        zarr.create_array(tmp_path / "profile.zarr", data=-cells(1)[0].astype(np.float32))
    output = phbatch.run(source, tmp_path / "out.zarr", model="none", normalize="fixed", value=1000).output
    before = files_of(output)
    options: dict[str, Any] = {"model": "none", "overwrite": True, "illumination": tmp_path / "profile.zarr"}
    for call in (phbatch.plan, phbatch.run):
        with pytest.raises(phbatch.InputError, match="half"):
            call(source, output, **options)
    with pytest.raises(phbatch.InputError, match="half"):
        phbatch.run(source, output, **options | {"illumination": "temporal"})
    assert files_of(output) == before


@pytest.mark.parametrize("frames", [1, 2])
def test_a_median_of_one_or_two_frames_is_refused(tmp_path: Path, frames: int) -> None:
    source = store(tmp_path, cells(frames).round().astype(np.uint16))
    output = phbatch.run(source, tmp_path / "out.zarr", model="none").output
    before = files_of(output)
    options: dict[str, Any] = {"model": "none", "overwrite": True, "illumination": "temporal"}
    words = f"at least 3 frames over t and has {frames}.*gaussian"
    for call in (phbatch.plan, phbatch.run):
        with pytest.raises(phbatch.InputError, match=words):
            call(source, output, **options)
    with pytest.raises(phbatch.InputError, match=words):
        phbatch.statistics(source, illumination="temporal")
    with pytest.raises(phbatch.InputError, match=words):
        phbatch.illumination(source, tmp_path / "profile.zarr")
    assert not (tmp_path / "profile.zarr").exists()
    assert files_of(output) == before
    found = phbatch.illumination(source, tmp_path / "profile.zarr", method="gaussian")
    assert found.notices == ()
    old = zarr.open_group(tmp_path / "profile.zarr", mode="r+")
    old.attrs["method"] = "temporal"  # as earlier versions wrote it
    with pytest.raises(phbatch.InputError, match=words):
        phbatch.plan(source, output, model="none", overwrite=True, illumination=tmp_path / "profile.zarr")


def test_profiles_with_cells_in_them_are_said(tmp_path: Path) -> None:
    still = np.repeat(cells(1), 12, axis=0)
    source = store(tmp_path, still.round().astype(np.uint16))
    found = phbatch.illumination(source, tmp_path / "profile.zarr")
    assert any("fine structure" in text and "method='gaussian'" in text for text in found.notices)
    notices = phbatch.plan(source, model="none", illumination=tmp_path / "profile.zarr").notices
    assert any("fine structure" in text for text in notices)
    assert phbatch.illumination(source, method="gaussian").notices == ()
    few = store(tmp_path, cells(5).round().astype(np.uint16), "few.zarr")
    assert any("5 frames" in text for text in phbatch.illumination(few).notices)
    moving = store(tmp_path, cells(20).round().astype(np.uint16), "moving.zarr")
    assert phbatch.illumination(moving).notices == ()


@pytest.mark.parametrize("light", LIGHTS)
def test_no_vignette_has_fine_structure(light: str) -> None:
    noise = np.random.default_rng(0).normal(1, 0.02, (SIZE, SIZE))
    assert fine_structure(LIGHTS[light] * noise) < 0.02


def test_a_profile_that_does_nothing_or_too_much_is_said(tmp_path: Path) -> None:
    image = np.stack([cells(4), cells(4, seed=1)], axis=1).round().astype(np.uint16)
    source = store(tmp_path, image)
    options: dict[str, Any] = {"axes": "tcyx"}
    phbatch.illumination(source, tmp_path / "one.zarr", method="gaussian", channel=0, **options)
    options |= {"model": "none", "illumination": tmp_path / "one.zarr"}
    assert any("even in channel 1" in text for text in phbatch.plan(source, **options).notices)
    assert phbatch.plan(source, channel=0, **options).notices == ()
    zarr.create_array(tmp_path / "zeros.zarr", data=np.zeros((SIZE, SIZE), np.float32))
    options |= {"illumination": tmp_path / "zeros.zarr", "illumination_mode": "subtract"}
    assert any("nothing is corrected" in text for text in phbatch.plan(source, **options).notices)
    dim = np.full((SIZE, SIZE), 1000, np.float32)
    dim[:2] = 3
    zarr.create_array(tmp_path / "dim.zarr", data=dim)
    options |= {"illumination": tmp_path / "dim.zarr", "illumination_mode": "divide"}
    assert any(f"{2 * SIZE} pixels" in text and "10 times" in text for text in phbatch.plan(source, **options).notices)


def test_what_measuring_refuses_leaves_the_old_output(tmp_path: Path) -> None:
    source = store(tmp_path, cells(6).round().astype(np.uint16))
    output = phbatch.run(source, tmp_path / "out.zarr", model="none").output
    before = files_of(output)
    (tmp_path / "in.zarr" / "c" / "3" / "0" / "0").write_bytes(b"damaged")
    with pytest.raises(phbatch.InputError, match="cannot be"):
        phbatch.run(source, output, model="none", smooth_time=3, overwrite=True)
    assert files_of(output) == before


def test_measured_first_or_after_is_the_same(tmp_path: Path) -> None:
    source = with_dead_pixels(tmp_path)
    options: dict[str, Any] = {"model": "none", "illumination": "temporal", "scope": "position"}
    first = phbatch.run(source, tmp_path / "first.zarr", **options)
    phbatch.run(source, tmp_path / "second.zarr", model="none")
    second = phbatch.run(source, tmp_path / "second.zarr", overwrite=True, **options)
    np.testing.assert_array_equal(pixels(first), pixels(second))
    again = phbatch.run(source, tmp_path / "second.zarr", **options)
    assert (again.units_done, again.units_skipped) == (0, second.units)


def test_a_mode_without_light_is_refused() -> None:
    with pytest.raises(phbatch.UsageError, match="illumination_mode needs an illumination"):
        phbatch.plan("in.zarr", illumination_mode="subtract")
