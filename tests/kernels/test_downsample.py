"""Area averages equal the plain double loop; interpolation knows the true centres of the blocks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phbatch.kernels.downsample import area_average, upscale

DTYPES = (
    "bool",
    "int8",
    "uint8",
    "int16",
    "uint16",
    "int32",
    "uint32",
    "int64",
    "float16",
    "float32",
    "float64",
    ">u2",
)


@st.composite
def images(draw: st.DrawFn) -> np.ndarray:
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    shape = (*draw(st.sampled_from([(), (1,), (2, 3)])), *draw(st.tuples(st.integers(1, 23), st.integers(1, 23))))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        values = rng.integers(info.min, info.max, shape, dtype=dtype.newbyteorder("="), endpoint=True)
        return values.astype(dtype)
    return (rng.random(shape) * 3000 - 1000).astype(dtype)


def plain_average(image: np.ndarray, factor: int) -> np.ndarray:
    height, width = (-(-size // factor) for size in image.shape[-2:])
    result = np.empty((*image.shape[:-2], height, width), np.float32)
    for i in range(height):
        for j in range(width):
            block = image[..., i * factor : (i + 1) * factor, j * factor : (j + 1) * factor]
            count = block.shape[-2] * block.shape[-1]
            result[..., i, j] = block.astype(np.float64).sum((-2, -1)) / count
    return result


def centres(size: int, factor: int) -> np.ndarray:
    return np.array([np.arange(start, min(start + factor, size)).mean() for start in range(0, size, factor)])


@settings(max_examples=200, deadline=None)
@given(images(), st.integers(1, 30))
def test_averages_are_those_of_the_double_loop(image: np.ndarray, factor: int) -> None:
    found, expected = area_average(image, factor), plain_average(image, factor)
    assert (found.dtype, found.shape) == (np.float32, expected.shape)
    if image.dtype.kind in "biu" and image.dtype.itemsize <= 4:  # sums are exact
        np.testing.assert_array_equal(found, expected)
    else:
        scale = float(np.abs(image.astype(np.float64)).max())
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-12 * scale)


@pytest.mark.parametrize(("dtype", "value"), [("uint16", 65535), ("int16", -32768), ("int8", -128)])
@pytest.mark.parametrize("factor", [255, 256, 300])
def test_sums_do_not_overflow(dtype: str, value: int, factor: int) -> None:
    found = area_average(np.full((factor + 1, 2 * factor), value, dtype), factor)
    np.testing.assert_array_equal(found, np.full((2, 2), value, np.float32))


def test_views_are_averaged_as_their_copies() -> None:
    image = np.arange(900, dtype=np.uint16).reshape(30, 30)
    for view in (image[::-1, ::2], image.T):
        np.testing.assert_array_equal(area_average(view, 4), area_average(view.copy(), 4))


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_upscaling_is_numpy_interp_along_both_axes(height: int, width: int, factor: int, seed: int) -> None:
    y, x = centres(height, factor), centres(width, factor)
    blocks = np.random.default_rng(seed).normal(size=(2, y.size, x.size)).astype(np.float32)
    found = upscale(blocks, factor, (height, width))
    rows = np.apply_along_axis(lambda column: np.interp(np.arange(height), y, column), 1, blocks.astype(np.float64))
    expected = np.apply_along_axis(lambda row: np.interp(np.arange(width), x, row), 2, rows)
    assert (found.dtype, found.shape) == (np.float32, (2, height, width))
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 60), st.integers(2, 60), st.sampled_from([1, 2, 3, 4, 7]))
def test_a_ramp_survives_the_way_there_and_back(height: int, width: int, factor: int) -> None:
    ramp = 100 + 3 * np.arange(height, dtype=np.float32)[:, None] + 5 * np.arange(width, dtype=np.float32)
    back = upscale(area_average(ramp, factor), factor, ramp.shape)  # type: ignore[arg-type]
    y, x = centres(height, factor), centres(width, factor)
    inside = np.ix_(
        (np.arange(height) >= y[0]) & (np.arange(height) <= y[-1]),
        (np.arange(width) >= x[0]) & (np.arange(width) <= x[-1]),
    )
    np.testing.assert_allclose(back[inside], ramp[inside], rtol=2e-7)
    if factor in (1, 2, 4) and height % factor == width % factor == 0:
        np.testing.assert_array_equal(back[inside], ramp[inside])


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 9), st.floats(-1e6, 1e6, width=32))
def test_a_constant_comes_back_with_its_bits(height: int, width: int, factor: int, value: float) -> None:
    image = np.full((height, width), value, np.float32)
    np.testing.assert_array_equal(upscale(area_average(image, factor), factor, (height, width)), image)


def test_what_cannot_be_averaged_is_refused() -> None:
    with pytest.raises(ValueError, match="factor is 0"):
        area_average(np.zeros((4, 4)), 0)
    with pytest.raises(ValueError, match="shape"):
        area_average(np.zeros(4), 2)
    with pytest.raises(ValueError, match="shape"):
        area_average(np.zeros((0, 4)), 2)
    with pytest.raises(ValueError, match="shape"):
        upscale(np.zeros((2, 2), np.float32), 2, (5, 4))
