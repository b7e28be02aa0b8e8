"""Floats at the ends of float32 and beyond: refused, flagged or right, never infinite pixels without a word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import phbatch
from phbatch.frames.light import Preparation, Profile
from phbatch.frames.light_checks import judge_profile
from phbatch.kernels.background import temporal_background
from phbatch.kernels.intensity import Packing, cast, make_affine
from phbatch.kernels.stats import finalize, frame_state, measure_frame
from phbatch.running.illumination import _even_levels
from phbatch.tools.compare import compare_rules
from phbatch.words.errors import InputError
from phbatch.words.normalization import Normalization

LARGEST = float(np.finfo(np.float32).max)


def noise(level: float, n: int = 3) -> np.ndarray:
    return level * (1 + 0.1 * np.random.default_rng(0).normal(size=(n, 40, 52)))


def with_object(level: float, value: float, n: int = 3) -> np.ndarray:
    frames = noise(level, n)
    frames[:, 3:9, 4:9] = value
    return frames


def write(path: Path, frames: np.ndarray) -> str:
    zarr.create_array(path, data=frames, chunks=(1, *frames.shape[1:]), dimension_names=("t", "y", "x"))
    return str(path)


@pytest.mark.parametrize("level", [1e300, 1e39, -1e39, 1.2e308])
def test_pixels_beyond_float32_are_infinite(tmp_path: Path, level: float) -> None:
    frames = noise(1)
    frames[1] = noise(level)[1]
    assert measure_frame(frames[1], 2.0).flags == finalize(frame_state(frames[1], 2.0)).flags == ("nonfinite",)
    source = write(tmp_path / "in.zarr", frames)
    with pytest.raises(InputError, match="t1/c0/z0 holds NaN or infinity"):
        phbatch.run(source, tmp_path / "out.zarr", model="none")
    result = phbatch.run(source, tmp_path / "out.zarr", model="none", nan="skip")
    assert (result.failed, result.flagged) == ({}, {"t1/c0/z0": ["nonfinite"]})
    assert np.isinf(zarr.open_array(f"{result.output}/0")[1]).all()
    assert np.median(zarr.open_array(f"{result.output}/0")[0]) == pytest.approx(1, rel=0.01)


@pytest.mark.parametrize(
    ("frame", "rule", "scaled"),
    [
        (with_object(1, 3e38)[0], Normalization(method="zscore"), False),  # 3e38 / 0.02
        (with_object(1e-6, 3e35)[0], Normalization(method="median"), False),
        (with_object(1e-3, 3e35)[0], Normalization(method="median"), True),
        (with_object(-3e38, 3e38)[0], Normalization(method="minmax"), False),  # a range beyond float32
        (noise(1e38)[0], Normalization(method="median", factor=10.0), False),  # a divisor beyond float32
        (noise(3e37)[0], Normalization(method="percentile"), True),
        (noise(1e-37)[0], Normalization(method="median"), True),
    ],
)
def test_a_frame_that_would_become_infinite_has_no_scale(frame: np.ndarray, rule: Normalization, scaled: bool) -> None:
    affine = make_affine(measure_frame(frame.clip(-LARGEST, LARGEST), 2.0), rule)
    assert (affine is not None) is scaled
    if affine is not None:
        assert np.isfinite(affine.apply(frame)).all()


@pytest.mark.parametrize(
    ("dtype", "reach"), [("int32", 2e9), ("int64", 9e18), ("float16", 6e4), ("float32", 3e38), ("uint32", 4e9)]
)
def test_percentiles_of_a_range_that_the_dtype_does_not_hold(dtype: str, reach: float) -> None:
    frame = np.linspace(0 if dtype == "uint32" else -reach, reach, 40 * 50).reshape(40, 50).astype(dtype)
    found = measure_frame(frame, 2.0, (10.0, 30.0, 99.8)).percentiles
    expected = np.percentile(frame.astype(np.float64), (10, 30, 99.8))
    assert list(found.values()) == pytest.approx(expected.tolist(), rel=1e-6)


@pytest.mark.parametrize(
    ("light", "dark"), [(3e38, 0.0), (3e38, 1e38), (1e-42, 0.0), (1.0, 0.0), (1e38, -3e38)], ids=str
)
@pytest.mark.parametrize("mode", ["divide", "subtract"])
def test_a_profile_of_extremes_is_used_or_refused(light: float, dark: float, mode: Any) -> None:
    background = np.full((1, 1, 64, 64), light, np.float32)
    background[..., :5] *= np.float32(0.01)
    background[..., 30, 30:40] = 0
    profile = Profile(background, np.full_like(background, dark) if dark else None)
    try:
        judge_profile(profile, {}, mode, [(0, 0)], "the profile")
        correction = profile.correction(Preparation(1, "profile", mode), 0, 0)
    except InputError:
        assert dark
        return
    assert correction.gain is None or (correction.gain.min() > 0 and correction.gain.max() <= 10)


@pytest.mark.parametrize("level", [1e-310, 1e-42, 1e-30, 1e30, 3e37])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_frame_of_another_brightness_is_evened_or_left(level: float, dtype: str) -> None:
    frames = np.broadcast_to(np.float64([1, level, 1, 1, 1])[:, None, None], (5, 9, 9)).astype(dtype)
    background = temporal_background(_even_levels(frames))
    np.testing.assert_allclose(background, 1, rtol=1e-6)


def test_integers_saturate_where_float32_overflows() -> None:
    values = np.array([3e38, -3e38, 1, np.inf, np.nan], np.float32)
    stored, clipped = cast(values, np.dtype("uint16"), Packing(gain=1e4))
    assert (stored.tolist(), clipped) == ([65535, 0, 10000, 65535, 0], 4)


def test_what_is_compared_does_not_overflow(tmp_path: Path) -> None:
    found = compare_rules(write(tmp_path / "in.zarr", with_object(1, 3e38, 4).astype(np.float32)))
    assert all(np.isfinite([entry.level, entry.noise, entry.contrast]).all() for entry in found)
    assert "zscore" in found.notices[0]


def test_frames_of_which_each_has_a_scale_by_another_rule_or_none_are_not_compared(tmp_path: Path) -> None:
    frames = np.zeros((3, 40, 52))
    frames[:, 3:9, 4:9] = 1e-42
    with pytest.raises(InputError, match="can be normalized"):
        compare_rules(write(tmp_path / "in.zarr", frames))
