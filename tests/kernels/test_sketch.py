"""Sketches: the same bits for any order of merging, quantiles within the stated error of NumPy."""

from __future__ import annotations

import random
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from phbatch.kernels import sketch
from phbatch.kernels.float_state import Moments
from phbatch.kernels.sketch import Sketch

QUANTILES = np.array([0.0, 0.02, 0.173, 0.25, 0.5, 0.998, 1.0])
DTYPES = ("float16", "float32", "float64", "int32", "uint32", "int64", "uint64")


def numbers(dtype: np.dtype[np.generic]) -> st.SearchStrategy[object]:
    if dtype.kind != "f":
        return hnp.from_dtype(dtype)
    width = 8 * dtype.itemsize
    bound = float(np.finfo(dtype).max) if width < 64 else 1e150
    anything = st.floats(-bound, bound, width=width)  # type: ignore[arg-type]
    return anything | st.floats(0.5, 64, width=width) | st.floats(-2, 2, width=width)  # type: ignore[arg-type]


def arrays(most: int) -> st.SearchStrategy[np.ndarray]:
    dtypes = st.sampled_from([np.dtype(name) for name in DTYPES])
    # `fill` is no repeated value: a sketch is put to the test by many different ones.
    return dtypes.flatmap(lambda d: hnp.arrays(d, st.integers(1, most), elements=numbers(d), fill=st.nothing()))


def merged(parts: list[Sketch], order: random.Random) -> Sketch:
    while len(parts) > 1:  # a random tree
        order.shuffle(parts)
        parts.append(parts.pop().merge(parts.pop()))
    return parts[0]


def bits(one: Sketch) -> tuple[object, ...]:
    extremes = np.array([one.low, one.high]).tobytes()
    return one.level, one.keys.dtype, one.keys.tolist(), one.counts.dtype, one.counts.tolist(), extremes


def plain_keys(values: np.ndarray, level: int) -> np.ndarray:
    """Keys by their definition: sign and magnitude of the float64, made monotone, without the trailing bits."""
    whole = (values.astype(np.float64) + 0.0).view(np.int64).astype(object)
    mask = (1 << 63) - 1
    monotone = np.array([(1 << 63) + v if v >= 0 else mask - (v & mask) for v in whole], object)
    return monotone >> level


@settings(max_examples=50, deadline=None)
@given(
    arrays(90),
    st.sampled_from([9, 64, 1 << 15]),
    st.lists(st.floats(0, 1), max_size=6),
    st.randoms(use_true_random=False),
)
def test_any_cutting_and_any_order_of_merging_have_the_same_bits(
    values: np.ndarray, most: int, cuts: list[float], order: random.Random
) -> None:
    with patch.object(sketch, "MAX_BUCKETS", most):
        whole = Sketch.from_values(values)
        edges = sorted(int(cut * values.size) for cut in cuts)
        parts = [Sketch.from_values(part) for part in np.split(values, edges) if part.size]
        assert bits(merged(parts, order)) == bits(whole)


@settings(max_examples=50, deadline=None)
@given(arrays(90), st.sampled_from([9, 64, 1 << 15]))
def test_keys_are_the_leading_bits_at_the_finest_level_that_fits(values: np.ndarray, most: int) -> None:
    with patch.object(sketch, "MAX_BUCKETS", most):
        found = Sketch.from_values(values)
    keys, counts = np.unique(plain_keys(values, found.level), return_counts=True)
    assert found.keys.tolist() == keys.tolist()
    assert found.counts.tolist() == counts.tolist()
    assert found.keys.size <= most
    assert found.level == 0 or np.unique(plain_keys(values, found.level - 1)).size > most


@settings(max_examples=50, deadline=None)
@given(arrays(100), st.sampled_from([1 << 13, 64]))
def test_every_value_is_within_the_stated_error(values: np.ndarray, most: int) -> None:
    with patch.object(sketch, "MAX_BUCKETS", most):
        found = Sketch.from_values(values)
    kept, ordered = np.repeat(found.values, found.counts), np.sort(values.astype(np.float64))
    if found.level <= 52:  # more never happens with 2**15 buckets
        assert (np.abs(kept - ordered) <= found.relative_error * np.abs(ordered) + 2.0**-1022).all()
    if found.level == 0:
        np.testing.assert_array_equal(kept, ordered)
    np.testing.assert_array_equal(found.quantiles(QUANTILES), np.quantile(kept, QUANTILES))


@pytest.mark.parametrize("spread", ["one octave", "about zero", "all octaves"])
def test_many_different_values(spread: str) -> None:
    draw = np.random.default_rng(3)
    normal = draw.standard_normal(400_000)
    values = {
        "one octave": 750 + 60 * normal,
        "about zero": normal,
        "all octaves": np.sign(normal) * 10.0 ** (300 * draw.random(normal.size) - 150),
    }[spread]
    found = Sketch.from_values(values)
    assert 2**13 < found.keys.size <= 2**15
    assert found.keys.nbytes + found.counts.nbytes <= 2**19
    assert found.relative_error <= {"one octave": 2.0**-16, "about zero": 2.0**-11, "all octaves": 2.0**-4}[spread]
    expected = np.quantile(values, QUANTILES)
    np.testing.assert_allclose(found.quantiles(QUANTILES), expected, rtol=found.relative_error)
    median = np.median(values)
    mad = np.median(np.abs(values - median))
    assert abs(found.deviation(median) - mad) <= found.relative_error * (2 * abs(median) + mad)
    assert bits(merged([Sketch.from_values(part) for part in np.split(values, 8)], random.Random(1))) == bits(found)


def test_as_many_buckets_as_fit_are_kept_exactly_and_one_more_is_not() -> None:
    values = np.arange(10.0)
    with patch.object(sketch, "MAX_BUCKETS", 10):
        whole = Sketch.from_values(values[:4]).merge(Sketch.from_values(values[4:]))
        assert (whole.level, whole.values.tolist()) == (0, values.tolist())
        assert bits(whole) == bits(Sketch.from_values(values))
        assert whole.merge(Sketch.from_values(np.array([10.0]))).level > 0


def test_zeros_of_both_signs_are_one_value() -> None:
    found = Sketch.from_values(np.array([-0.0, 0.0, -0.0]))
    assert (found.values.tolist(), found.counts.tolist(), np.signbit([found.low, found.high]).any()) == (
        [0],
        [3],
        False,
    )


def test_counts_are_64_bit_and_do_not_wrap() -> None:
    one = Sketch.from_values(np.array([2.5, 7.0]))
    many = one
    for _ in range(40):
        many = many.merge(many)
    assert (many.counts.dtype, many.size) == (np.int64, 2**41)


def test_fraction_counts_both_ends() -> None:
    found = Sketch.from_values(np.arange(10))
    assert [found.fraction(*span) for span in [(2, 4), (0, 9), (2.5, 2.7), (-5, 0), (9, 20)]] == [0.3, 1, 0, 0.1, 0.1]


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(np.float64, st.integers(1, 60), elements=st.floats(-1e6, 1e6)),
    st.lists(st.floats(0, 1), max_size=6),
    st.randoms(use_true_random=False),
)
def test_moments_are_numpys(values: np.ndarray, cuts: list[float], order: random.Random) -> None:
    edges = sorted(int(cut * values.size) for cut in cuts)
    parts = [Moments.from_values(part) for part in np.split(values, edges) if part.size]
    while len(parts) > 1:
        order.shuffle(parts)
        first, second = parts.pop(), parts.pop()
        assert first.merge(second) == second.merge(first)
        parts.append(first.merge(second))
    largest = np.abs(values).max()
    assert parts[0].n == values.size
    assert abs(parts[0].mean - values.mean()) <= 1e-12 * largest
    assert abs(parts[0].variance - values.var()) <= 1e-12 * largest**2
