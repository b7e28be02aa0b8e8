"""Levels are means, or modes, of squares of the image itself, whatever its lengths and dtype."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from phbatch.kernels.pyramid import make_levels
from phbatch.words.choices import LevelMethod


def level_by_squares(image: NDArray[np.generic], level: int, method: LevelMethod = "mean") -> NDArray[np.generic]:
    """One square after the other."""
    factor = 2**level
    *leading, height, width = image.shape
    found = np.empty((*leading, -(-height // factor), -(-width // factor)), image.dtype)
    for index in np.ndindex(found.shape):
        *plane, i, j = index
        square = image[(*plane, slice(i * factor, (i + 1) * factor), slice(j * factor, (j + 1) * factor))]
        if method == "mode":
            counts = Counter(square.ravel().tolist())
            found[index] = min(counts, key=lambda value: (-counts[value], value))
        elif image.dtype.kind in "iu":
            found[index] = round(Fraction(sum(square.ravel().tolist()), square.size))
        else:
            found[index] = square.mean(dtype=np.float64)
    return found


@settings(max_examples=40, deadline=None)
@given(
    dtype=st.sampled_from(
        ["uint8", "uint16", "int16", "uint32", "int32", "int64", "uint64", "float16", "float32", ">u2"]
    ),
    shape=st.tuples(st.integers(1, 2), st.integers(1, 40), st.integers(1, 40)),
    seed=st.integers(0, 99),
    count=st.integers(0, 6),
)
def test_levels_are_the_means_of_the_image(dtype: str, shape: tuple[int, ...], seed: int, count: int) -> None:
    kind, rng = np.dtype(dtype), np.random.default_rng(seed)
    if kind.kind == "f":
        image = rng.normal(0, 1000, shape).astype(kind)
    else:
        image = rng.integers(np.iinfo(kind).min, np.iinfo(kind).max, shape, kind.newbyteorder("="), endpoint=True)
        image = image.astype(kind)
    levels = make_levels(image, count)
    assert len(levels) == count
    for level, pixels in enumerate(levels, 1):
        assert pixels.dtype == kind
        np.testing.assert_array_equal(pixels, level_by_squares(image, level))


@pytest.mark.parametrize("value", [2**63 - 1, 2**53 + 1, -(2**63)])
def test_a_constant_of_64_bits_stays_what_it_is(value: int) -> None:
    for pixels in make_levels(np.full((9, 7), value, np.int64), 3):
        assert (pixels == value).all()


def test_float64_is_added_in_float64() -> None:
    image = np.random.default_rng(0).normal(size=(21, 34))
    for level, pixels in enumerate(make_levels(image, 5), 1):
        np.testing.assert_allclose(pixels, level_by_squares(image, level), rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("dtype", ["uint32", ">i2"])
def test_modes_are_the_most_frequent_labels(dtype: str) -> None:
    labels = np.random.default_rng(1).integers(0, 4, (2, 19, 30)).astype(dtype)
    for level, pixels in enumerate(make_levels(labels, 4, "mode"), 1):
        assert pixels.dtype == labels.dtype
        np.testing.assert_array_equal(pixels, level_by_squares(labels, level, "mode"))


def test_large_sums_of_16_bits_are_exact() -> None:
    image = np.full((1025, 513), 65535, np.uint16)
    image[0, 0] = 0
    np.testing.assert_array_equal(make_levels(image, 10)[-1], [[65535], [65535]])
    assert [level[0, 0] for level in make_levels(image, 10)][:3] == [49151, 61439, 64511]


def test_a_mean_that_holds_nan_is_nan() -> None:
    image = np.zeros((4, 4), np.float32)
    image[0, 0], image[3, 3] = np.nan, np.inf
    np.testing.assert_array_equal(make_levels(image, 1)[0], [[np.nan, 0], [0, np.inf]])
