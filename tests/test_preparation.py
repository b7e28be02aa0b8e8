"""Area averages and uneven light: the numbers of the whole image, in one pass or two, tiled or whole."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import tifffile
import zarr
from scipy import ndimage

import phbatch
from phbatch.inputs.light_profile import read_profile
from phbatch.kernels.downsample import area_average, upscale
from phbatch.kernels.illumination import Correction, apply
from phbatch.kernels.smoothing import smooth_float
from phbatch.places.place import Place
from tests.faults.inputs import make_input
from tests.handmade import write_model
from tests.movies import frames_of
from tests.outputs import statistics_of

FRAMES = 8


def movie(**options: Any) -> phbatch.PhaseContrast:
    return phbatch.PhaseContrast(**{"shape": (121, 150), "n_frames": FRAMES, "seed": 11, "flicker": 0.05} | options)


def series(dtype: str = "uint16") -> np.ndarray:
    frames = frames_of(movie())
    if dtype == "uint8":
        return np.clip(frames * (90 / np.median(frames)), 0, 255).astype(np.uint8)
    return frames.astype(dtype)


def store(folder: Path, image: np.ndarray, **options: Any) -> str:
    zarr.create_array(folder / "in.zarr", data=image, **({"chunks": (3, *image.shape[1:])} | options))
    return str(folder / "in.zarr")


def pixels(result: phbatch.RunResult) -> np.ndarray:
    return zarr.open_array(result.output, path="0", mode="r")[:]


def columns(result: phbatch.RunResult) -> dict[str, list[Any]]:
    return statistics_of(result.output)


@pytest.mark.parametrize("dtype", ["uint16", "uint8", "int16", "float32"])
@pytest.mark.parametrize("factor", [2, 4])
def test_downscaled_frames_are_area_averages_over_their_statistic(tmp_path: Path, dtype: str, factor: int) -> None:
    image = series(dtype)
    result = phbatch.run(store(tmp_path, image), model="none", downscale=factor, workers=2)
    averaged = area_average(image, factor)
    divisor = np.array(columns(result)["divisor"], np.float32)
    np.testing.assert_array_equal(pixels(result), averaged / divisor[:, np.newaxis, np.newaxis])
    for t in range(FRAMES):
        expected = float(np.median(smooth_float(averaged[t], 2.0)))
        assert abs(divisor[t] - expected) < {"float32": 1e-4 * expected, "uint8": 0.01}.get(dtype, 0.5)
        assert columns(result)["saturated"][t] == (image[t] == 255).mean() * (dtype == "uint8")
        wanted = np.percentile(averaged[t], 99.8)
        assert abs(columns(result)["p99.8"][t] - wanted) <= {"uint8": 1 / 256, "float32": 1e-3}.get(dtype, 0.5)


@pytest.mark.parametrize(
    "options",
    [
        {"downscale": 2},
        {"downscale": 2, "upscale_back": True, "rescale": True, "dtype": "uint16"},
        {"illumination": "gaussian"},
        {"illumination": "polynomial", "illumination_mode": "subtract", "downscale": 2},
        {"illumination": "temporal", "rescale": True},
    ],
    ids=str,
)
def test_one_pass_two_passes_tiled_whole_and_any_chunks_agree(tmp_path: Path, options: dict[str, Any]) -> None:
    image = series()
    source = store(tmp_path, image)
    zarr.create_array(tmp_path / "other.zarr", data=image, chunks=(1, 50, 64))
    options = options | {"model": write_model(tmp_path / "model"), "normalize": "median"}
    one = phbatch.run(source, tmp_path / "one.zarr", **options)
    two = phbatch.run(source, tmp_path / "two.zarr", bad_frames="copy", workers=2, **options)
    other = phbatch.run(tmp_path / "other.zarr", tmp_path / "three.zarr", **options)
    tiled = phbatch.run(source, tmp_path / "tiled.zarr", tile=64, **options)
    assert one.failed == {}
    np.testing.assert_array_equal(pixels(one), pixels(two))
    np.testing.assert_array_equal(pixels(one), pixels(other))
    found, whole = pixels(tiled).astype(float), pixels(one).astype(float)
    assert np.abs(found - whole).max() <= (1 if options.get("dtype") == "uint16" else 1e-4 * whole.std())
    assert columns(one) == columns(two) == columns(other)
    assert phbatch.plan(source, tmp_path / "plan.zarr", **options).output_shape[3:] == whole.shape[1:]


def test_downscaled_metadata_follow(tmp_path: Path) -> None:
    phbatch.write_time_lapse(str(tmp_path / "in.zarr"), movie(n_frames=2))
    before = phbatch.info(tmp_path / "in.zarr")["scale"]
    result = phbatch.run(tmp_path / "in.zarr", tmp_path / "o.zarr", model="none", downscale=2)
    assert phbatch.info(result.output)["scale"] == before | {axis: 2 * before[axis] for axis in "yx"}
    attributes = zarr.open_group(result.output, mode="r").attrs.asdict()
    transforms = attributes["ome"]["multiscales"][0]["datasets"][0]["coordinateTransformations"]
    assert transforms[1]["translation"] == [0.0, before["y"] / 2, before["x"] / 2]
    back = phbatch.run(tmp_path / "in.zarr", tmp_path / "b.zarr", model="none", downscale=2, upscale_back=True)
    assert phbatch.info(back.output)["scale"] == before
    assert phbatch.info(back.output)["shape"] == phbatch.info(tmp_path / "in.zarr")["shape"]


def test_upscale_back_interpolates_the_downscaled_result(tmp_path: Path) -> None:
    source = store(tmp_path, series())
    model = write_model(tmp_path / "model")
    small = pixels(phbatch.run(source, tmp_path / "s.zarr", model=model, downscale=4))
    back = pixels(phbatch.run(source, tmp_path / "b.zarr", model=model, downscale=4, upscale_back=True))
    np.testing.assert_array_equal(back, upscale(small, 4, (121, 150)))


def test_lazy_restoration_prepares_too(tmp_path: Path) -> None:
    image = series()
    options: dict[str, Any] = {"downscale": 2, "illumination": "gaussian", "normalize": "mode"}
    expected = pixels(phbatch.run(store(tmp_path, image), **options))
    lazy = phbatch.restore(da.from_array(image, chunks=(2, 60, 150)), "tyx", **options)
    assert lazy.shape == expected.shape
    np.testing.assert_array_equal(lazy.compute(scheduler="synchronous"), expected)
    with pytest.raises(phbatch.UsageError, match="lazy array does not allow"):
        phbatch.restore(da.from_array(image), "tyx", illumination="temporal")


@pytest.mark.parametrize("method", ["temporal", "gaussian", "polynomial"])
def test_a_known_vignette_is_recovered(tmp_path: Path, method: str) -> None:
    still = {"debris_per_mm2": 0.0, "roughness_rad": 0.0}  # what does not move belongs to the temporal background
    scene = movie(shape=(256, 300), n_frames=40, background_electrons=3000.0, speed_um=4.5, density=0.05, **still)
    image = frames_of(scene)
    found = phbatch.illumination(store(tmp_path, image), tmp_path / "profile.zarr", method=method)
    light = scene.light_field
    seen = found.profile.background[0, 0] - scene.offset
    relative = seen / seen.mean() / (light / light.mean())
    assert np.sqrt(((relative - 1) ** 2).mean()) < 0.01
    assert len(found.facts["frames"]) == 32
    background, dark = read_profile(Place.at(tmp_path / "profile.zarr"))
    np.testing.assert_array_equal(background, found.profile.background)
    assert dark is None


@pytest.mark.parametrize("mode", ["divide", "subtract"])
def test_a_given_profile_is_applied_before_anything_is_measured(tmp_path: Path, mode: str) -> None:
    image = series()
    light = (1000 * movie().light_field).astype(np.float32)
    dark = np.full_like(light, 20) + np.arange(150, dtype=np.float32)
    group = zarr.create_group(tmp_path / "profile.zarr")
    group.create_array("flat", data=light)
    group.create_array("dark", data=dark)
    source = store(tmp_path, image)
    result = phbatch.run(source, model="none", illumination=tmp_path / "profile.zarr", illumination_mode=mode)
    correction = Correction.divide(light, dark) if mode == "divide" else Correction.subtract(light - dark)
    corrected = apply(image, correction)
    divisor = np.array(columns(result)["divisor"], np.float32)
    np.testing.assert_array_equal(pixels(result), corrected / divisor[:, np.newaxis, np.newaxis])
    for t in range(FRAMES):
        assert abs(divisor[t] - np.median(smooth_float(corrected[t], 2.0))) < 0.5
    rows = phbatch.statistics(source, illumination=tmp_path / "profile.zarr", illumination_mode=mode, workers=2)
    assert [row["median"] for row in rows] == columns(result)["median"]
    group["flat"][0, 0] = 999.0
    with pytest.raises(phbatch.OutputError, match="illumination was"):
        phbatch.run(source, model="none", illumination=tmp_path / "profile.zarr", illumination_mode=mode)


def test_a_tiff_is_a_profile(tmp_path: Path) -> None:
    image = series()
    tifffile.imwrite(tmp_path / "flat.tif", movie().light_field)
    result = phbatch.run(store(tmp_path, image), model="none", illumination=tmp_path / "flat.tif", rescale=True)
    np.testing.assert_allclose(pixels(result), apply(image, Correction.divide(movie().light_field)), rtol=1e-6)


def test_the_background_gets_flatter(tmp_path: Path) -> None:
    scene = movie(shape=(256, 256), n_frames=3, illumination=0.3)
    image = frames_of(scene)
    source = store(tmp_path, image)

    def unevenness(**options: Any) -> float:
        frame = pixels(phbatch.run(source, tmp_path / f"{len(options)}{options}.zarr", model="none", **options))[1]
        return float(np.std(ndimage.median_filter(area_average(frame, 8), 9)))

    plain = unevenness()
    for method in ("gaussian", "polynomial"):
        assert unevenness(illumination=method) < 0.5 * plain


def test_an_interrupted_run_keeps_its_estimated_profile(tmp_path: Path) -> None:
    source = store(tmp_path, series(), chunks=(1, 121, 150))
    options: dict[str, Any] = {"model": "none", "illumination": "temporal", "scope": "position"}
    first = pixels(phbatch.run(source, tmp_path / "o.zarr", **options))
    for file in (tmp_path / "o.zarr" / ".phbatch" / "ledger").glob("*.jsonl"):
        file.unlink()
    chunks = [file for file in (tmp_path / "o.zarr" / "0" / "c").rglob("*") if file.is_file()]
    chunks[0].unlink()
    profile = zarr.open_group(tmp_path / "o.zarr" / "illumination", mode="r+")
    profile["background"][...] = 2 * profile["background"][...]
    again = phbatch.run(source, tmp_path / "o.zarr", **options)
    np.testing.assert_array_equal(pixels(again), first)  # twice the background divides by the same flat field
    levels = np.median(series(), axis=(1, 2))
    even = series() * (np.median(levels) / levels)[:, np.newaxis, np.newaxis]
    np.testing.assert_allclose(profile["background"][0, 0], 2 * np.median(even, axis=0), rtol=1e-6)


def test_an_estimated_profile_is_of_the_format_of_its_output(tmp_path: Path) -> None:
    """Else the groups above it were made again in another, and the output was none any more."""
    source = make_input(tmp_path / "in.zarr", (4, 24, 20), (1, 24, 20), zarr_format=2)
    options: dict[str, Any] = {"model": "none", "illumination": "temporal", "workers": 1}
    result = phbatch.run(source, **options)
    assert not [*Path(result.output).rglob("zarr.json")]
    assert phbatch.verify(result.output, deep=1).damages == ()
    bare = phbatch.run(source / "0", tmp_path / "bare.zarr", axes="tyx", **options)
    np.testing.assert_array_equal(pixels(result), pixels(bare))


def test_basic_gives_what_basicpy_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class BaSiC:
        """The library's interface, with a fit that is known."""

        def __init__(self, get_darkfield: bool) -> None:
            assert get_darkfield

        def fit(self, stack: np.ndarray) -> None:
            assert stack.shape == (FRAMES, 121, 150)
            self.flatfield = movie().light_field
            self.darkfield = np.full((121, 150), 100.0)

    monkeypatch.setitem(sys.modules, "basicpy", types.SimpleNamespace(BaSiC=BaSiC))
    result = phbatch.run(store(tmp_path, series()), model="none", illumination="basic", rescale=True)
    corrected = (series() - 100.0) / (movie().light_field / movie().light_field.mean(dtype=float))
    np.testing.assert_allclose(pixels(result), corrected, rtol=1e-5)
    monkeypatch.setitem(sys.modules, "basicpy", None)
    with pytest.raises(phbatch.UsageError, match="needs the library BaSiCPy"):
        phbatch.illumination(tmp_path / "in.zarr", method="basic")


def test_frames_without_light_are_passed_through(tmp_path: Path) -> None:
    image = series()
    image[2] = 0
    image[3, :, 60:] = 0
    result = phbatch.run(store(tmp_path, image), model="none", illumination="polynomial")
    assert result.failed == {}
    assert "t2/c0/z0" in result.flagged
    np.testing.assert_array_equal(pixels(result)[2], image[2])
    assert np.isfinite(pixels(result)).all()


def test_profiles_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    source = store(tmp_path, series())
    zarr.create_array(tmp_path / "small.zarr", data=np.ones((50, 50), np.float32))
    zarr.create_group(tmp_path / "empty.zarr")
    for name, words in (
        ("small.zarr", "1x1x50x50"),
        ("empty.zarr", "without an array"),
        ("none.zarr", "cannot be read"),
    ):
        with pytest.raises(phbatch.InputError, match=words):
            phbatch.run(source, tmp_path / "o.zarr", model="none", illumination=tmp_path / name)
        assert not (tmp_path / "o.zarr").exists()
    with pytest.raises(phbatch.MemoryLimitError, match="raise memory"):
        phbatch.illumination(source, memory="500MB")
    with pytest.raises(phbatch.UsageError, match="is none of"):
        phbatch.illumination(source, method="odd")
    with pytest.raises(phbatch.OutputError, match="lies inside the input"):
        phbatch.illumination(source, tmp_path / "in.zarr")
    with pytest.raises(phbatch.UsageError, match="upscale_back=True needs"):
        phbatch.run(source, model="none", upscale_back=True)
