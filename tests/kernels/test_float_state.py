"""States of floats and wide integers: the statistics of the whole frame within the stated error, for any cutting."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from phbatch.kernels.float_state import FloatState
from phbatch.kernels.smoothing import smooth_float
from phbatch.kernels.stats import FrameStatistics, finalize, frame_state, from_block, measure_frame, merge
from tests.kernels.test_sketch import bits
from tests.kernels.test_stats import cell_image, states_of_blocks

PERCENTILES = (0.0, 2.0, 17.3, 50.0, 99.8, 100.0)
DTYPES = ("float32", "float64", "uint32", "int32", "uint64")


def merged(states: list[FloatState], order: random.Random) -> FloatState:
    while len(states) > 1:  # a random tree
        order.shuffle(states)
        states.append(merge(states.pop(), states.pop()))
    return states[0]


def assert_within_the_stated_error(state: FloatState, expected: FrameStatistics, *, rounding: float) -> None:
    """As the docstring of `finalize` has it; `rounding` is that of NumPy's percentiles in the frame's own dtype."""
    found = finalize(state, tuple(expected.percentiles))
    raw, smooth = state.raw.relative_error + rounding, state.smooth.relative_error + 1e-12
    largest = max(abs(expected.min), abs(expected.max))
    assert (found.min, found.max, found.zero, found.saturated, found.flags) == (
        expected.min,
        expected.max,
        expected.zero,
        expected.saturated,
        expected.flags,
    )
    assert found.median == pytest.approx(expected.median, rel=smooth, abs=smooth * 1e-3)
    assert abs(found.mad - expected.mad) <= smooth * (2 * abs(expected.median) + expected.mad) + 1e-12
    assert tuple(found.percentiles.values()) == pytest.approx(tuple(expected.percentiles.values()), rel=raw, abs=1e-12)
    assert found.mean == pytest.approx(expected.mean, abs=1e-12 * largest)
    assert found.std == pytest.approx(expected.std, abs=1e-7 * largest)
    assert found.focus == pytest.approx(expected.focus, rel=1e-9, abs=1e-12 * largest**2)


def images() -> st.SearchStrategy[np.ndarray]:
    shapes = st.tuples(st.integers(1, 40), st.integers(1, 40))
    whole = hnp.from_dtype(np.dtype("int32"), min_value=-(10**6), max_value=10**6)
    return hnp.arrays(np.int64, shapes, elements=whole)


@settings(max_examples=60, deadline=None)
@given(
    images(),
    st.sampled_from(DTYPES),
    st.sampled_from([0.0, 1.0]),
    st.lists(st.floats(0, 1), max_size=3),
    st.lists(st.floats(0, 1), max_size=3),
    st.randoms(use_true_random=False),
)
def test_blocks_merge_to_the_whole_frame(
    image: np.ndarray, dtype: str, sigma: float, rows: list[float], columns: list[float], order: random.Random
) -> None:
    frame = np.abs(image).astype(dtype) if dtype.startswith("u") else (image / 7).astype(dtype)
    whole = from_block(frame, sigma)
    state = merged(states_of_blocks(frame, sigma, rows, columns), order)
    assert (bits(state.raw), bits(state.smooth)) == (bits(whole.raw), bits(whole.smooth))
    wide = frame.astype(np.float64)  # NumPy subtracts integers in their own dtype and may overflow
    assert_within_the_stated_error(state, measure_frame(wide, sigma, PERCENTILES), rounding=0.0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_zeros_of_all_blocks_are_counted(dtype: str) -> None:
    frame = cell_image("float64", (40, 36), 5).astype(dtype)
    frame[::2] = 0
    state = merged(states_of_blocks(frame, 1.0, [0.3, 0.7], [0.5]), random.Random(3))
    assert finalize(state).zero == measure_frame(frame, 1.0).zero == np.mean(frame == 0) >= 0.5


@pytest.mark.parametrize("dtype", DTYPES)
def test_frames_with_more_values_than_buckets(dtype: str) -> None:
    scale = 1e5 if dtype[0] in "ui" else 1.0
    frame = (cell_image("float64", (400, 410), 7) * scale).astype(dtype)
    state = merged(states_of_blocks(frame, 2.0, [0.3, 0.6], [0.5]), random.Random(4))
    expected = measure_frame(frame.astype(np.float64), 2.0, PERCENTILES)
    assert 0 < state.raw.relative_error <= 2.0**-14
    assert 0 < state.smooth.relative_error <= 2.0**-14
    assert_within_the_stated_error(state, expected, rounding=0.0)
    found = finalize(state)
    assert found.mode == pytest.approx(expected.mode, rel=1e-4)
    limits = np.array([0.95, 1.05]) * found.mode
    smooth = smooth_float(frame, 2.0)
    near = np.abs(smooth[..., np.newaxis] / limits - 1) <= 2 * state.smooth.relative_error
    inside = (smooth >= limits[0]) & (smooth <= limits[1])
    assert abs(found.background - inside.mean()) <= near.any(axis=-1).mean()
    held = [one for sketch in (state.raw, state.smooth) for one in (sketch.keys, sketch.counts)]
    assert sum(one.nbytes for one in held) <= 2**20


def test_zero_mean_frames() -> None:
    frame = np.random.default_rng(2).standard_normal((500, 400)).astype(np.float32)
    state = frame_state(frame, 2.0)
    expected = measure_frame(frame.astype(np.float64), 2.0, PERCENTILES)
    assert_within_the_stated_error(state, expected, rounding=0.0)
    assert finalize(state).mode == pytest.approx(expected.mode, abs=1e-3 * smooth_float(frame, 2.0).std())


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from([0.7, 2.0, 3.3]),
    st.lists(st.floats(0, 1), max_size=3),
    st.lists(st.floats(0, 1), max_size=3),
    st.sampled_from(["float32", "float64"]),
)
def test_smoothing_and_laplacian_of_blocks_have_the_bits_of_scipy_on_the_frame(
    sigma: float, rows: list[float], columns: list[float], dtype: str
) -> None:
    frame = np.random.default_rng(8).normal(900, 60, (70, 61)).astype(dtype)
    smooth = ndimage.gaussian_filter(frame.astype(np.float64), sigma)
    laplacian = ndimage.laplace(smooth, mode="reflect")
    state = merged(states_of_blocks(frame, sigma, rows, columns), random.Random(3))
    assert state.smooth.level == 0
    np.testing.assert_array_equal(np.repeat(state.smooth.values, state.smooth.counts), np.sort(smooth, axis=None))
    assert state.laplacian.mean == pytest.approx(laplacian.mean(), abs=1e-12)
    assert state.laplacian.variance == pytest.approx(laplacian.var(), rel=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "uint32", "float64"])
def test_flags(dtype: str) -> None:
    assert finalize(frame_state(np.zeros((9, 8), dtype), 2.0)).flags == ("zero", "constant")
    constant = finalize(frame_state(np.full((2, 9, 8), 7, dtype), 2.0))
    assert (constant.flags, constant.std, constant.mad) == (("constant",), 0, 0)
    assert (constant.median, constant.mode) == pytest.approx((7, 7), rel=1e-12)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_pixel_that_is_not_finite_spoils_the_frame_in_any_order(bad: float) -> None:
    frame = np.ones((60, 50), np.float32)
    frame[3, 4] = bad
    for seed in range(4):
        state = merged(states_of_blocks(frame, 2.0, [0.2, 0.5], [0.4]), random.Random(seed))
        row = finalize(state)
        assert row.flags == ("nonfinite",)
        assert np.isnan([row.median, row.mean, row.focus, *row.percentiles.values()]).all()
