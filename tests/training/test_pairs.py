"""Pairs are frames of one grid and scene, normalized whole by what a run normalizes with."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from scipy.ndimage import gaussian_filter
from scipy.ndimage import shift as shift_spline

import phbatch
from phbatch.frames.light import Preparation
from phbatch.kernels.shift import find_shift, undo_shift
from phbatch.training.degrade import Camera, degrade_scenes, make_worse, measure_camera
from phbatch.training.opening import open_clean, open_pairs
from phbatch.training.pairs import FrameAt, Pairs, Rule, split
from phbatch.training.scenes import Scene
from phbatch.training.simulated import simulated_scenes
from phbatch.words.axes import FrameKey
from phbatch.words.events import Event, Notice, ignore
from phbatch.words.normalization import Normalization
from phbatch.words.settings import parse_settings
from phbatch.words.training import parse_training


def draw_movie(count: int = 4, side: int = 96, seed: int = 0) -> np.ndarray:
    """Smooth cells on a background, no two frames alike."""
    random = np.random.default_rng(seed)
    return np.stack(
        [5000 + 3000 * gaussian_filter(random.normal(0, 1, (side, side)), 2.5) for _ in range(count)]
    ).astype("float32")


def write(folder: Path, name: str, image: np.ndarray, **options: Any) -> Path:
    zarr.create_array(folder / name, data=image, chunks=(1, *image.shape[1:]), **options)
    return folder / name


def noisy(image: np.ndarray, sigma: float = 60.0, seed: int = 9) -> np.ndarray:
    found = image + np.random.default_rng(seed).normal(0, sigma, image.shape)
    return np.clip(np.rint(found), 0, 65535).astype("uint16")


@pytest.fixture
def high(tmp_path: Path) -> np.ndarray:
    image = np.rint(draw_movie()).astype("uint16")
    write(tmp_path, "high.zarr", image)
    write(tmp_path, "low.zarr", noisy(image))
    return image


def opened(
    folder: Path, low: str = "low.zarr", high: str = "high.zarr", said: list[Event] | None = None, **options: Any
) -> AbstractContextManager[list[Scene]]:
    training = {name: options.pop(name) for name in ("register", "together", "dims", "patch_depth") if name in options}
    listener = ignore if said is None else said.append
    return open_pairs([(folder / low, folder / high)], parse_settings(options), parse_training(training), listener)


@pytest.mark.parametrize(("y", "x"), [(0.0, 0.0), (3.0, -2.0), (0.4, 1.7), (-11.3, 6.25)])
def test_a_shift_is_found_to_a_fraction_of_a_pixel_in_noise_and_undone(y: float, x: float) -> None:
    scene = draw_movie(1, 128)[0]
    moved = shift_spline(scene, (y, x), mode="mirror")
    found = find_shift(noisy(scene), noisy(moved, seed=8))
    assert (found.y, found.x) == (pytest.approx(y, abs=0.15), pytest.approx(x, abs=0.15))
    inner = (slice(16, -16),) * 2
    assert np.abs(undo_shift(moved, found) - scene)[inner].mean() < 0.2 * scene.std()


def test_pairs_of_other_grids_channels_and_scenes_are_refused(tmp_path: Path, high: np.ndarray) -> None:
    write(tmp_path, "wide.zarr", np.ones((4, 96, 98), "uint16"))
    write(tmp_path, "other.zarr", np.rint(draw_movie(seed=5)).astype("uint16"))
    write(tmp_path, "empty.zarr", np.random.default_rng(1).integers(4900, 5100, (4, 96, 96), "uint16"))
    for name, words in {
        "wide.zarr": "96 and 98 along x",
        "other.zarr": "same cells",
        "empty.zarr": "same cells",
    }.items():
        with pytest.raises(phbatch.InputError, match=words), opened(tmp_path, high=name):
            pass
    with pytest.raises(phbatch.InputError, match="has 1 planes along z"), opened(tmp_path, dims=3):
        pass


def test_a_shift_is_named_and_registration_undoes_it(tmp_path: Path, high: np.ndarray) -> None:
    moved = np.stack([shift_spline(frame.astype("float32"), (2.5, -4.0), mode="nearest") for frame in high])
    write(tmp_path, "moved.zarr", np.rint(moved).astype("uint16"))
    said: list[Event] = []
    with opened(tmp_path, high="moved.zarr", said=said) as scenes:
        assert scenes[0].shift is None
    assert [event for event in said if isinstance(event, Notice) and event.warning and "register" in event.text]
    rule = Rule(Normalization(), Preparation())
    with opened(tmp_path, high="moved.zarr", register=True) as scenes, opened(tmp_path) as plain:
        found = Pairs(scenes, rule).read(FrameAt(0, FrameKey(1, 0, 0)))
        truth = Pairs(plain, rule).read(FrameAt(0, FrameKey(1, 0, 0)))
    assert found is not None
    assert truth is not None
    assert found.margin == (3, 4)
    inner = (slice(5, -5),) * 2
    assert np.abs(found.high - truth.high)[inner].mean() < 0.05 * np.abs(truth.high - 1).mean()
    np.testing.assert_array_equal(found.low, truth.low)


@pytest.mark.parametrize("options", [{}, {"illumination": "gaussian"}, {"downscale": 2}, {"normalize": "percentile"}])
def test_the_network_is_given_what_a_run_gives_it(tmp_path: Path, high: np.ndarray, options: dict[str, Any]) -> None:
    """To the bit what `phbatch.restore` without a network makes of the whole frame."""
    preparation = Preparation(options.get("downscale", 1), options.get("illumination", "none"))
    rule = Rule(Normalization(method=options.get("normalize", "median")), preparation, "own")
    with opened(tmp_path) as scenes:
        pairs = Pairs(scenes, rule)
        found = pairs.read(FrameAt(0, FrameKey(2, 0, 0)))
        lengths = pairs.lengths(FrameAt(0, FrameKey(2, 0, 0)))
    assert found is not None
    assert found.low.shape == (*lengths, 1)
    for ours, name in ((found.low, "low"), (found.high, "high")):
        asked: Any = {"normalize": "median"} | options
        result = phbatch.run(tmp_path / f"{name}.zarr", tmp_path / "out.zarr", model="none", overwrite=True, **asked)
        np.testing.assert_array_equal(ours[..., 0], zarr.open_array(f"{result.output}/0", mode="r")[2])


def test_the_target_keeps_counts_or_takes_its_own_scale(tmp_path: Path, high: np.ndarray) -> None:
    write(tmp_path, "bright.zarr", high * 3)
    scales = {}
    for target in ("low", "own"):
        with opened(tmp_path, high="bright.zarr") as scenes:
            found = Pairs(scenes, Rule(Normalization(), Preparation(), target)).read(FrameAt(0, FrameKey(0, 0, 0)))  # type: ignore[arg-type]
        assert found is not None
        scales[target] = float(np.median(found.high))
    assert scales["low"] == pytest.approx(3, rel=0.02)
    assert scales["own"] == pytest.approx(1, rel=0.02)


def test_volumes_and_channels_together_are_frames_of_the_network(tmp_path: Path) -> None:
    image = np.rint(1000 + np.stack([draw_movie(8, 64, seed) for seed in range(2)])[np.newaxis]).astype("uint16")
    for name in ("low.zarr", "high.zarr"):
        zarr.create_array(tmp_path / name, data=np.concatenate([image] * 2), dimension_names=list("tczyx"))
    rule = Rule(Normalization(), Preparation())
    with opened(tmp_path, dims=3, together=True, patch_depth=8) as scenes:
        pairs = Pairs(scenes, rule)
        assert [frame.key for frame in pairs.frames] == [FrameKey(0, 0), FrameKey(1, 0)]
        found = pairs.read(pairs.frames[1])
        assert found is not None
        assert found.low.shape == (8, 64, 64, 2) == (*pairs.lengths(pairs.frames[0]), 2)
    with opened(tmp_path) as scenes:
        assert len(scenes[0].keys) == 2 * 2 * 8


def test_validation_is_a_block_of_time_or_whole_positions() -> None:
    frames = [FrameAt(scene, FrameKey(t, c, 0)) for scene in range(3) for t in range(10) for c in range(2)]
    train, held = split(frames, 0.1)
    assert {(frame.key.t, frame.key.c) for frame in held} == {(9, 0), (9, 1)}
    assert sorted(map(hash, train + held)) == sorted(map(hash, frames))
    many = [FrameAt(scene, FrameKey(t, 0, 0)) for scene in range(20) for t in range(3)]
    train, held = split(many, 0.1)
    assert not {frame.scene for frame in train} & {frame.scene for frame in held}
    assert len(held) == 6
    assert split([FrameAt(0, FrameKey(0, 0, 0))], 0.5)[1] == []


def test_the_camera_of_good_frames_is_measured_and_exposed_shorter(tmp_path: Path) -> None:
    random = np.random.default_rng(4)
    light = gaussian_filter(random.uniform(0, 1, (3, 256, 256)), (0, 12, 12))
    light = 100 + 900 * (light - light.min()) / np.ptp(light)
    image = 2.5 * random.poisson(light) + random.normal(0, 12, light.shape)
    write(tmp_path, "clean.zarr", np.rint(image).clip(0).astype("uint16"))
    with open_clean(tmp_path / "clean.zarr", parse_settings({}), parse_training({}), ignore) as scenes:
        camera = measure_camera(scenes)
        assert camera.gain == pytest.approx(2.5, rel=0.15)
        worse, _ = degrade_scenes(scenes, ("noise", "defocus", "downscale", "flicker"), ignore)
        low, high = worse[0].read(FrameKey(0, 0, 0), np.random.default_rng(1))
    assert low.dtype == high.dtype == np.uint16
    assert np.median(low) == pytest.approx(np.median(high), rel=0.05)
    flat = np.full((1, 1, 1, 300, 300), 1000, "uint16")
    (low, truth), shorter = make_worse(flat, ("noise",), Camera(2.0, 0.0), np.random.default_rng(0)), 4.0
    assert np.array_equal(truth, flat)
    assert low.mean() == pytest.approx(1000, rel=0.01)
    assert low.std() > np.sqrt(shorter * 2.0 * 1000) * 0.95


def test_simulated_pairs_are_noisy_frames_and_their_truth() -> None:
    scene = simulated_scenes(3, 64, 1)[2]
    low, high = scene.read(scene.keys[0], np.random.default_rng(0))
    again, _ = scene.read(scene.keys[0], np.random.default_rng(7))
    assert np.array_equal(low, again)
    assert low.shape == high.shape == (1, 1, 1, 64, 64)
    assert find_shift(low[0, 0, 0], high[0, 0, 0]).length < 0.5
