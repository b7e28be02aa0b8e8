"""Smoothing equals SciPy in float64, and its bits do not depend on how the image was cut."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from phbatch.kernels.smoothing import gaussian_radius, smooth_fixed_point, smooth_float

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


@settings(max_examples=80, deadline=None)
@given(images(), st.sampled_from([0.0, 0.3, 1.0, 2.0, 4.7]))
def test_fixed_point_is_scipy_within_a_hundredth_of_a_count(image: np.ndarray, sigma: float) -> None:
    expected = ndimage.gaussian_filter(image.astype(np.float64), sigma, mode="reflect", truncate=4.0)
    assert np.abs(smooth_fixed_point(image, sigma) - expected).max() <= 0.01


def test_fixed_point_holds_its_bound_for_wide_filters_and_the_worst_image() -> None:
    image = np.zeros((300, 301), np.uint16)
    image[::2] = 65535
    image[:150] = 65535 - image[:150]
    for sigma, bound in ((5.0, 0.01), (20.0, 0.1), (50.0, 0.1)):
        expected = ndimage.gaussian_filter(image.astype(np.float64), sigma)
        assert np.abs(smooth_fixed_point(image, sigma) - expected).max() <= bound


@settings(max_examples=60, deadline=None)
@given(images(), st.sampled_from([0.5, 1.0, 2.0]), st.data())
def test_a_block_with_its_halo_has_the_bits_of_the_whole(image: np.ndarray, sigma: float, data: st.DataObject) -> None:
    radius = gaussian_radius(sigma)
    whole = smooth_fixed_point(image, sigma)
    inner, outer = [], []
    for size in image.shape:
        start = data.draw(st.integers(0, size - 1))
        stop = data.draw(st.integers(start + 1, size))
        before = min(radius, start)
        inner.append((start, stop, before))
        outer.append(slice(start - before, min(stop + radius, size)))
    block = smooth_fixed_point(np.ascontiguousarray(image[tuple(outer)]), sigma)
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
