"""The fused correction has the bits of the plain formula; what it makes is flat."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phbatch.kernels.background import gaussian_background
from phbatch.kernels.downsample import area_average
from phbatch.kernels.illumination import Correction, apply, apply_normalized
from phbatch.kernels.intensity import Affine
from phbatch.simulate import PhaseContrast
from phbatch.words.errors import InputError

DTYPES = ("bool", "uint8", "int8", "uint16", "int16", "int32", "uint32", "float16", "float32", "float64", ">u2")


def bits(image: np.ndarray) -> np.ndarray:
    assert image.dtype == np.float32
    return image.view(np.uint32)


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.ndarray, Correction]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    height, width = draw(st.tuples(st.integers(1, 30), st.integers(1, 70)))
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    shape = (*draw(st.sampled_from([(), (3,), (2, 2)])), height, width)
    raw = rng.integers(0, 2 if dtype.kind == "b" else 120 if dtype.itemsize == 1 else 30000, shape).astype(dtype)
    background = (rng.random((height, width)) * 500 + 300).astype(np.float32)
    dark = draw(st.sampled_from([0.0, 99.7, rng.random((height, width)).astype(np.float32) * 100]))
    mode = draw(st.sampled_from(["divide", "subtract"]))
    return raw, Correction.divide(background, dark) if mode == "divide" else Correction.subtract(background)


def plain(raw: np.ndarray, correction: Correction) -> np.ndarray:
    gain = np.float32(1) if correction.gain is None else correction.gain
    bias = np.float32(0) if correction.bias is None else correction.bias
    return raw.astype(np.float32) * gain + bias


@settings(max_examples=150, deadline=None)
@given(cases(), st.floats(-1000, 1000), st.floats(0.01, 5000))
def test_one_pass_has_the_bits_of_two(case: tuple[np.ndarray, Correction], offset: float, divisor: float) -> None:
    raw, correction = case
    corrected = plain(raw, correction)
    np.testing.assert_array_equal(bits(apply(raw, correction)), bits(corrected))
    found = apply_normalized(raw, correction, offset, divisor)
    np.testing.assert_array_equal(bits(found), bits(Affine(offset, divisor, divisor).apply(corrected)))
    np.testing.assert_array_equal(bits(found), bits((corrected - np.float32(offset)) / np.float32(divisor)))


def test_products_are_rounded_before_they_are_added() -> None:
    # A fused multiplication and addition would keep the product's lower half.
    one = np.float32(1) + np.float32(2.0**-12)
    raw = np.full((5, 64), one, np.float32)
    correction = Correction(np.full((5, 64), one, np.float32), np.full((5, 64), -(one * one), np.float32))
    np.testing.assert_array_equal(apply(raw, correction), np.zeros((5, 64), np.float32))


def test_definitions() -> None:
    rng = np.random.default_rng(1)
    raw = rng.integers(100, 4000, (40, 51)).astype(np.uint16)
    background = (rng.random((40, 51)) * 500 + 300).astype(np.float32)
    dark = (rng.random((40, 51)) * 100).astype(np.float32)
    wide, light = raw.astype(np.float64), background.astype(np.float64) - dark
    divided = apply(raw, Correction.divide(background, dark))
    np.testing.assert_allclose(divided, (wide - dark) * light.mean() / light, rtol=3e-6)
    subtracted = apply(raw, Correction.subtract(background))
    np.testing.assert_allclose(subtracted, wide - (background - background.mean(dtype=float)), atol=1e-3)


def test_the_background_itself_becomes_flat() -> None:
    background = np.linspace(200, 900, 77 * 31, dtype=np.float32).reshape(77, 31)
    for correction in (Correction.divide(background, 100.0), Correction.subtract(background)):
        flat = apply(background, correction)
        np.testing.assert_allclose(flat, flat.mean(), rtol=2e-6)


def test_an_even_background_changes_nothing() -> None:
    raw = np.random.default_rng(2).integers(0, 65535, (33, 64)).astype(np.uint16)
    even = np.full(raw.shape, 777.7, np.float32)
    for correction in (Correction.divide(even), Correction.subtract(even)):
        np.testing.assert_array_equal(apply(raw, correction), raw.astype(np.float32))


def test_planes_of_a_stack_and_views() -> None:
    stack = np.random.default_rng(3).integers(0, 4000, (3, 20, 21)).astype(np.uint16)
    correction = Correction.divide(np.linspace(1, 2, 420, dtype=np.float32).reshape(20, 21), 0.5)
    found = apply_normalized(stack[::-1], correction, 3.0, 7.0)
    for plane, expected in zip(found, stack[::-1], strict=True):
        np.testing.assert_array_equal(plane, apply_normalized(expected, correction, 3.0, 7.0))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_background_that_is_not_finite_is_refused(value: float) -> None:
    background = np.full((4, 4), 5, np.float32)
    background[1, 2] = value
    for make in (Correction.divide, Correction.subtract):
        with pytest.raises(InputError, match=r"1 pixels .* finite, so fill"):
            make(background)


def test_a_background_not_above_the_dark_is_refused() -> None:
    background = np.full((4, 4), 5, np.float32)
    background[3, 3] = 2
    with pytest.raises(InputError, match=r"0 counts at its lowest; it must be above 0 .* subtract"):
        Correction.divide(background, dark=2)
    with pytest.raises(InputError, match="nan counts"):
        Correction.divide(background, dark=np.full((4, 4), np.nan, np.float32))
    Correction.subtract(background)


def test_a_correction_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="correction is for"):
        apply(np.zeros((4, 5), np.uint8), Correction.divide(np.ones((4, 4), np.float32)))


@pytest.mark.parametrize("mode", ["divide", "subtract"])
def test_corrected_frames_have_a_flatter_background_than_raw_ones(mode: str) -> None:
    movie = PhaseContrast(shape=(384, 385), n_frames=4, seed=3, density=0.03, illumination=0.2)
    raw = movie.frame(1)
    background = gaussian_background(raw)
    divides = mode == "divide"
    correction = Correction.divide(background, movie.offset) if divides else Correction.subtract(background)

    def unevenness(image: np.ndarray, dark: float) -> float:
        coarse = np.sort(area_average(image, 16).ravel()) - dark
        inner = coarse[coarse.size // 10 : -coarse.size // 10]  # without cells and halos
        return float(inner.std() / inner.mean())

    corrected = apply(raw, correction)
    assert unevenness(corrected, 0 if divides else movie.offset) < 0.5 * unevenness(raw, movie.offset)
