"""Statistics equal NumPy and SciPy on the whole frame, for any blocks merged in any order."""

from __future__ import annotations

import hashlib
import inspect
import os
import random
import subprocess
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from phbatch.kernels.counting import halo_of_counting
from phbatch.kernels.frame_state import FrameState
from phbatch.kernels.histogram import Histogram, deviation_of, kernel_mode, mode_bandwidth, quantiles_of
from phbatch.kernels.smoothing import smooth_fixed_point, smooth_float
from phbatch.kernels.stats import finalize, frame_state, from_block, measure_frame, merge
from phbatch.words.errors import InputError

DTYPES = ("uint8", "int8", "uint16", "int16")
PERCENTILES = (0.0, 2.0, 17.3, 50.0, 99.8, 100.0)


def cell_image(dtype: str, shape: tuple[int, int], seed: int) -> np.ndarray:
    """Background with noise and a gradient, dark and bright objects: what a mode is made for."""
    draw = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]]
    image = 100 + 4 * draw.standard_normal(shape) + 3 * y / shape[0] - 2 * x / shape[1]
    image[(y // 7 + x // 9) % 5 == 0] *= 0.8
    image *= 1.2 if np.dtype(dtype).itemsize == 1 else 28.3
    info = np.iinfo(dtype) if np.dtype(dtype).kind in "ui" else None
    return (image.clip(info.min, info.max) if info else image).astype(dtype)


def reference_mode(smooth: np.ndarray) -> float:
    """The mode by its definition on unbinned values: a Gaussian kernel density estimate on a very fine grid."""
    lower, upper = np.percentile(smooth, (25, 75))
    bandwidth = mode_bandwidth(smooth.size, smooth.std(), upper - lower)
    step = bandwidth / 200
    start = smooth.min() - 5 * bandwidth
    counts = np.bincount(np.round((smooth.ravel() - start) / step).astype(int), minlength=2000)
    density = ndimage.gaussian_filter1d(np.pad(counts, 1000).astype(float), 200.0, mode="constant", truncate=5)
    return float(start + step * (int(np.argmax(density)) - 1000))


def split(size: int, cuts: Sequence[float]) -> list[tuple[int, int]]:
    edges = sorted({0, size, *(int(cut * size) for cut in cuts)})
    return list(pairwise(edges))


def states_of_blocks(
    image: np.ndarray, sigma: float, rows: Sequence[float], columns: Sequence[float]
) -> list[FrameState]:
    radius = halo_of_counting(sigma)
    states = []
    for y0, y1 in split(image.shape[0], rows):
        for x0, x1 in split(image.shape[1], columns):
            spans = [(y0, y1, image.shape[0]), (x0, x1, image.shape[1])]
            halo = [(min(radius, start), min(radius, size - stop)) for start, stop, size in spans]
            window = tuple(slice(a - h[0], b + h[1]) for (a, b, _), h in zip(spans, halo, strict=True))
            states.append(from_block(np.ascontiguousarray(image[window]), sigma, halo))
    return states


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(st.sampled_from([np.dtype(name) for name in DTYPES]), st.tuples(st.integers(1, 40), st.integers(1, 40))),
    st.lists(st.floats(0, 1), max_size=3),
    st.lists(st.floats(0, 1), max_size=3),
    st.randoms(use_true_random=False),
)
def test_blocks_merge_to_the_whole_frame_bit_for_bit(
    image: np.ndarray, rows: list[float], columns: list[float], order: random.Random
) -> None:
    whole = finalize(from_block(image, 1.0), PERCENTILES)
    states = states_of_blocks(image, 1.0, rows, columns)
    while len(states) > 1:  # a random tree
        order.shuffle(states)
        states.append(merge(states.pop(), states.pop()))
    assert finalize(states[0], PERCENTILES) == whole


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(st.sampled_from([np.dtype(n) for n in DTYPES]), st.tuples(st.integers(1, 40), st.integers(1, 40))))
def test_raw_statistics_are_numpys(image: np.ndarray) -> None:
    row = measure_frame(image, 2.0, PERCENTILES)
    # NumPy subtracts signed integers in their own dtype and may overflow: hence int32.
    wide = image.astype(np.int32) if image.dtype.kind == "i" else image
    assert tuple(row.percentiles.values()) == tuple(np.percentile(wide, PERCENTILES).tolist())
    assert (row.min, row.max) == (image.min(), image.max())
    assert row.mean == pytest.approx(image.mean(dtype=np.float64), abs=1e-9)
    assert row.std == pytest.approx(image.std(dtype=np.float64), abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(
    hnp.arrays(st.sampled_from([np.dtype(n) for n in DTYPES]), st.tuples(st.integers(1, 50), st.integers(1, 50))),
    st.sampled_from([0.0, 1.0, 2.0]),
)
def test_median_is_within_a_quarter_count_of_scipy_and_numpy(image: np.ndarray, sigma: float) -> None:
    expected = np.median(ndimage.gaussian_filter(image.astype(np.float64), sigma))
    assert abs(measure_frame(image, sigma).median - expected) <= 0.23


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16"])
def test_mode_is_within_half_a_count_of_its_definition(dtype: str, seed: int) -> None:
    image = cell_image(dtype, (300, 290), seed)
    smooth = ndimage.gaussian_filter(image.astype(np.float64), 2.0)
    assert abs(measure_frame(image, 2.0).mode - reference_mode(smooth)) <= 0.5


def mode_of_all_bins(counts: np.ndarray, bandwidth: float) -> float:
    """The mode from all bins smoothed, where `kernel_mode` smooths those that can be its peak; none are joined."""
    density = ndimage.gaussian_filter1d(np.pad(counts.astype(float), 1), bandwidth, mode="constant")
    peak = int(np.argmax(density[1:-1]))
    left, top, right = density[peak : peak + 3]
    curvature = left - 2 * top + right
    shift = 0.5 * (left - right) / curvature if curvature < 0 and bandwidth >= 0.5 else 0.0
    return float(min(max(peak + shift, 0.0), counts.size - 1.0))


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.integers(0, 9) | st.sampled_from([50, 1000]), min_size=2, max_size=300),
    st.integers(0, 60),
    st.floats(0.1, 7.9),
)
def test_mode_is_that_of_all_bins_smoothed(counts: list[int], empty: int, bandwidth: float) -> None:
    found = np.array([*counts, *[0] * empty, 1, *reversed(counts)])
    assert kernel_mode(found, 0.0, 1.0, bandwidth) == mode_of_all_bins(found, bandwidth)


@pytest.mark.parametrize("dtype", ["float32", "float64", "uint32", "int32"])
def test_floats_and_wide_integers_are_within_1e_4(dtype: str) -> None:
    image = cell_image("float64", (200, 210), 7).astype(dtype)
    smooth = ndimage.gaussian_filter(image.astype(np.float64), 2.0)
    row = measure_frame(image, 2.0, PERCENTILES)
    assert row.median == pytest.approx(np.median(smooth), rel=1e-12)
    assert row.mode == pytest.approx(reference_mode(smooth), rel=1e-4)
    assert tuple(row.percentiles.values()) == tuple(np.percentile(image, PERCENTILES).tolist())


def test_float_mode_survives_a_hot_pixel() -> None:
    image = cell_image("float64", (200, 210), 7)
    hot = image.copy()
    hot[50, 60] = 1e9
    assert measure_frame(hot, 0.0).mode == pytest.approx(measure_frame(image, 0.0).mode, rel=1e-3)


def test_volume_pools_planes_smoothed_one_by_one() -> None:
    volume = np.stack([cell_image("uint16", (60, 50), seed) + 100 * seed for seed in range(3)]).astype(np.uint16)
    smooth = np.stack([ndimage.gaussian_filter(plane.astype(float), 2.0) for plane in volume])
    assert abs(measure_frame(volume, 2.0).median - np.median(smooth)) <= 0.23
    assert measure_frame(volume.astype(float), 2.0).median == np.median(smooth)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32", "uint32"])
def test_flags(dtype: str) -> None:
    assert measure_frame(np.zeros((9, 8), dtype), 2.0).flags == ("zero", "constant")
    constant = measure_frame(np.full((9, 8), 7, dtype), 2.0)
    assert (constant.flags, constant.std) == (("constant",), 0)
    assert (constant.median, constant.mode) == pytest.approx((7, 7), rel=1e-12)
    assert measure_frame(np.arange(72).reshape(9, 8).astype(dtype), 2.0).flags == ()


@pytest.mark.parametrize("dtype", ["int16", "float32"])
def test_a_constant_below_zero_is_not_zero(dtype: str) -> None:
    assert measure_frame(np.full((9, 8), -7, dtype), 2.0).flags == ("constant",)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nonfinite_frames_have_no_statistics(bad: float) -> None:
    image = np.ones((9, 8), np.float32)
    image[3, 4] = bad
    row = measure_frame(image, 2.0)
    assert row.flags == ("nonfinite",)
    assert np.isnan(row.median)


def test_moments_of_a_huge_histogram_do_not_overflow() -> None:
    half = 30_000 * 30_000 // 2
    counts = np.zeros(262_144, np.int64)
    counts[0] = counts[-1] = half
    mean, std = Histogram(0, counts, 4).mean_and_std()
    assert (mean, std) == (262_143 / 8, 262_143 / 8)


def test_mode_takes_the_lowest_of_equal_peaks() -> None:
    counts = np.zeros(1001, np.int64)
    counts[[200, 800]] = 50
    assert kernel_mode(counts, 0.0, 1.0, 10.0) == pytest.approx(200, abs=0.6)


def test_state_is_at_most_one_mebibyte_for_the_widest_image() -> None:
    image = np.array([[0, 65535], [65535, 0]], np.uint16)
    state = from_block(image, 0.0)
    assert state.raw.counts.nbytes + state.smooth.counts.nbytes <= 2**20


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(st.sampled_from([np.dtype(n) for n in DTYPES]), st.tuples(st.integers(1, 40), st.integers(1, 40))),
    st.sampled_from([0.0, 0.7, 2.0]),
)
def test_compiled_counting_has_the_bits_of_the_plain_smoothing(image: np.ndarray, sigma: float) -> None:
    state = from_block(image, sigma)
    per_unit = state.smooth.per_unit
    bins = smooth_fixed_point(image, sigma, per_unit).astype(np.int64)
    expected = np.bincount((bins - state.smooth.first).ravel())
    np.testing.assert_array_equal(state.smooth.counts, expected)
    assert state.raw.first == image.min()
    laplacian = ndimage.laplace(bins, mode="reflect")
    assert state.laplacian == (laplacian.sum(), (laplacian.astype(object) ** 2).sum())


def digest() -> str:
    found = hashlib.sha256()
    image = np.random.default_rng(0).integers(0, 65535, (61, 157), np.uint16, endpoint=True)
    for sigma in (0.0, 0.7, 2.0, 4.3, 30.0):
        state = from_block(image, sigma)
        found.update(state.raw.counts.tobytes() + state.smooth.counts.tobytes() + repr(state.laplacian).encode())
    return found.hexdigest()


def test_the_bits_do_not_depend_on_the_processor(tmp_path: Path) -> None:
    plain = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": "", "NUMBA_CACHE_DIR": str(tmp_path)}
    code = f"import hashlib, numpy as np\nfrom phbatch.kernels.stats import from_block\n{inspect.getsource(digest)}"
    command = [sys.executable, "-c", f"{code}\nprint(digest())"]
    # Without wide vectors and fused operations, and, here, with what this processor has.
    assert subprocess.check_output(command, env=os.environ | plain, text=True).strip() == digest()


def test_a_deviation_is_the_mean_of_the_two_in_the_middle() -> None:
    assert deviation_of(np.array([0.0, 1, 3, 7]), np.ones(4, np.int64), 2.0) == 1.5


def test_a_quantile_halfway_between_two_values_has_numpys_bits() -> None:
    pairs = np.sort(np.random.default_rng(0).normal(0, 100, (200, 2)), axis=1)
    q, counts = np.array([0.5]), np.ones(2, np.int64)
    assert [quantiles_of(pair, counts, q)[0] for pair in pairs] == [np.quantile(pair, 0.5) for pair in pairs]


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float64"])
def test_spread_fractions_and_focus_are_numpys(dtype: str) -> None:
    image = cell_image(dtype, (90, 81), 3)
    image[:4, :7] = 0
    image[60, 10:30] = np.iinfo(dtype).max if dtype != "float64" else 5000
    smooth = ndimage.gaussian_filter(image.astype(float), 2.0)
    row = measure_frame(image, 2.0)
    assert row.mad == pytest.approx(np.median(np.abs(smooth - np.median(smooth))), abs=0.4)
    assert row.zero == (image == 0).mean()
    assert row.saturated == (0 if dtype == "float64" else (image == np.iinfo(dtype).max).mean())
    assert row.focus == pytest.approx(ndimage.laplace(smooth, mode="reflect").var(), rel=0.03)
    assert row.background == pytest.approx((np.abs(smooth / row.mode - 1) <= 0.05).mean(), abs=0.01)


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(DTYPES).flatmap(
        lambda name: st.lists(
            hnp.arrays(name, st.tuples(st.integers(1, 3), st.integers(1, 20), st.integers(1, 20))),
            min_size=1,
            max_size=4,
        )
    ),
    st.randoms(use_true_random=False),
)
def test_pooled_frames_have_the_statistics_of_all_their_pixels(frames: list[np.ndarray], order: random.Random) -> None:
    states = [frame_state(frame, 1.0) for frame in frames]
    while len(states) > 1:
        order.shuffle(states)
        states.append(merge(states.pop(), states.pop()))
    row = finalize(states[0], PERCENTILES)
    raw = np.concatenate([frame.ravel() for frame in frames])
    wide = raw.astype(np.int32) if raw.dtype.kind == "i" else raw
    planes = [plane for frame in frames for plane in frame]
    smooth = np.concatenate([smooth_float(plane, 1.0).ravel() for plane in planes])
    assert tuple(row.percentiles.values()) == tuple(np.percentile(wide, PERCENTILES).tolist())
    assert (row.min, row.max, row.zero) == (raw.min(), raw.max(), (raw == 0).mean())
    assert row.mean == pytest.approx(raw.mean(dtype=np.float64), abs=1e-9)
    assert row.std == pytest.approx(raw.std(dtype=np.float64), abs=1e-6)
    assert abs(row.median - np.median(smooth)) <= 0.23
    assert row == finalize(states[0], PERCENTILES)


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_pooled_frames_equal_a_volume_of_them(dtype: str) -> None:
    volume = np.stack([cell_image(dtype, (90, 80), seed) + np.array(100 * seed, dtype) for seed in range(3)])
    first, second, third = (frame_state(plane, 2.0) for plane in volume)
    found, expected = finalize(merge(third, merge(first, second))), measure_frame(volume, 2.0)
    if dtype == "uint16":
        assert found == expected
    assert found.median == pytest.approx(expected.median, rel=2.0**-16)
    assert found.mode == pytest.approx(expected.mode, rel=1e-4)
    assert found.focus == pytest.approx(expected.focus, rel=1e-9)


def test_frames_of_different_dtypes_are_not_pooled() -> None:
    states = [frame_state(np.ones((4, 4), dtype), 1.0) for dtype in ("uint8", "uint16", "float32")]
    for first, second in [(0, 1), (1, 2), (2, 0)]:
        with pytest.raises(InputError, match="different dtypes"):
            merge(states[first], states[second])


def test_pooling_ten_thousand_large_frames_does_not_overflow() -> None:
    state = frame_state(np.array([[0, 65535], [65535, 0]], np.uint16), 0.0)
    for _ in range(42):  # 4 x 2**42 pixels, as 10,000 frames of 42,000 x 42,000
        state = merge(state, state)
    row = finalize(state)
    assert state.raw.counts.dtype == state.smooth.counts.dtype == np.int64
    assert (state.raw.size, row.mean, row.std, row.mad) == (2**44, 32767.5, 32767.5, 32767.5)
    assert row.focus == finalize(frame_state(np.array([[0, 65535], [65535, 0]], np.uint16), 0.0)).focus


def test_merging_more_than_32_bits_of_pixels_does_not_wrap() -> None:
    half = Histogram(5, np.array([2**32 - 1], np.uint32), 1)
    assert half.merge(half).size == 2**33 - 2
