"""Smoothing equals SciPy in float64, and its bits do not depend on how the image was cut."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from phbatch.kernels.smoothing import gaussian_radius, half_weights, smooth_fixed_point, smooth_float

DTYPES = ("uint8", "int8", "uint16", "int16")


@st.composite
def images(draw: st.DrawFn, dtypes: tuple[str, ...] = DTYPES) -> np.ndarray:
    dtype = np.dtype(draw(st.sampled_from(dtypes)))
    shape = draw(st.tuples(st.integers(1, 60), st.integers(1, 60)))
    seed = draw(st.integers(0, 2**32 - 1))
    if draw(st.booleans()):
        info = np.iinfo(dtype)
        return np.random.default_rng(seed).integers(info.min, info.max, shape, dtype=dtype, endpoint=True)
    return draw(hnp.arrays(dtype, shape))


def allowed(dtype: np.dtype, sigma: float, per_unit: int) -> float:
    """Half a step, and what `smooth_fixed_point` says of its roundings."""
    info = np.iinfo(dtype)
    return 0.5 / per_unit + max(info.max, -info.min) * (2.0**-20 if sigma <= 5 else 2.0**-18)


@settings(max_examples=80, deadline=None)
@given(images(), st.sampled_from([0.0, 0.3, 1.0, 2.0, 4.7]), st.sampled_from([3, 256]))
def test_fixed_point_is_scipy_within_its_roundings(image: np.ndarray, sigma: float, per_unit: int) -> None:
    expected = ndimage.gaussian_filter(image.astype(np.float64), sigma, mode="reflect", truncate=4.0)
    error = np.abs(smooth_fixed_point(image, sigma, per_unit) / per_unit - expected).max()
    assert error <= allowed(image.dtype, sigma, per_unit)


@pytest.mark.parametrize("sigma", [0.125, 0.5, 2.0, 5.0, 20.0, 50.0, 100.0])
def test_fixed_point_holds_its_bound_for_wide_filters_and_bright_images(sigma: float) -> None:
    draw = np.random.default_rng(3)
    steps = np.zeros((300, 301), np.uint16)
    steps[::2] = 65535
    steps[:150] = 65535 - steps[:150]
    bright = draw.integers(63000, 65535, (300, 301), dtype=np.uint16, endpoint=True)
    ramp = np.linspace(0, 65535, 300 * 301).reshape(300, 301).astype(np.uint16)
    for image in (steps, bright, ramp, np.full((9, 8), 65535, np.uint16), np.full((9, 8), -32768, np.int16)):
        expected = ndimage.gaussian_filter(image.astype(np.float64), sigma)
        error = np.abs(smooth_fixed_point(image, sigma, 256) / 256 - expected).max()
        assert error <= allowed(image.dtype, sigma, 256)


def worst_rounding(sigma: float) -> float:
    """Sum of all roundings of both passes at their worst, for pixels up to 1: running error analysis."""
    unit, weights = 2.0**-24, half_weights(sigma).astype(np.float64)
    exact = np.array([1.0, *(math.exp(-0.5 * (k / sigma) ** 2) for k in range(1, gaussian_radius(sigma) + 1))])
    exact = np.pad(exact / (2 * exact.sum() - 1), (0, weights.size - exact.size))
    error = weights[0] * unit + abs(weights - exact)[0] + 2 * abs(weights - exact)[1:].sum()
    partial = weights[0]
    for k in range(weights.size - 4, 0, -4):
        group = 2 * weights[k : k + 4].sum()
        partial += group
        error += unit * (4 * group + partial)  # pair, product, two sums of the tree, and the sum so far
    return float(2 * error + 2 * unit)


def test_roundings_at_their_worst_are_within_what_is_stated() -> None:
    assert max(worst_rounding(sigma) for sigma in np.arange(0.125, 5.01, 0.125)) <= 2.0**-20
    assert max(worst_rounding(sigma) for sigma in np.arange(5.5, 100.1, 0.5)) <= 2.0**-18


@settings(max_examples=60, deadline=None)
@given(images(), st.sampled_from([0.5, 1.0, 2.0]), st.data())
def test_a_block_with_its_halo_has_the_bits_of_the_whole(image: np.ndarray, sigma: float, data: st.DataObject) -> None:
    radius = gaussian_radius(sigma)
    whole = smooth_fixed_point(image, sigma, 3)
    inner, outer = [], []
    for size in image.shape:
        start = data.draw(st.integers(0, size - 1))
        stop = data.draw(st.integers(start + 1, size))
        before = min(radius, start)
        inner.append((start, stop, before))
        outer.append(slice(start - before, min(stop + radius, size)))
    block = smooth_fixed_point(np.ascontiguousarray(image[tuple(outer)]), sigma, 3)
    cropped = block[tuple(slice(before, before + stop - start) for start, stop, before in inner)]
    # The reflect border of a block is right only where the frame ends too: elsewhere the halo covers it.
    np.testing.assert_array_equal(cropped, whole[tuple(slice(start, stop) for start, stop, _ in inner)])


@pytest.mark.parametrize("dtype", ["float32", "float64", "uint32", "int64", "float16"])
def test_other_dtypes_are_scipys_own(dtype: str) -> None:
    image = (np.random.default_rng(1).random((40, 31)) * 1000).astype(dtype)
    expected = ndimage.gaussian_filter(image.astype(np.float64), 2.0)
    np.testing.assert_array_equal(smooth_float(image, 2.0), expected)


def test_radius_is_scipys() -> None:
    impulse = np.zeros(201)
    impulse[100] = 1
    for sigma in (0.2, 0.5, 1.0, 2.0, 3.3, 10.0):
        reach = np.flatnonzero(ndimage.gaussian_filter(impulse, sigma)).max() - 100
        assert gaussian_radius(sigma) == reach
