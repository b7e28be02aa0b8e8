"""Backgrounds: known vignettes are recovered, cells and borders do not bend them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from phbatch.kernels.background import gaussian_background, polynomial_background, temporal_background
from phbatch.simulate import PhaseContrast
from phbatch.words.errors import InputError
from tests.movies import frames_of

Estimator = Callable[[np.ndarray], np.ndarray]

estimators = pytest.mark.parametrize("estimate", [gaussian_background, polynomial_background])


def error(found: np.ndarray, true: np.ndarray) -> float:
    """RMS difference of two profiles, each relative to its mean."""
    return float(np.sqrt(np.mean((found / found.mean() - true / true.mean()) ** 2)))


@cache
def moving_cells(seed: int) -> tuple[PhaseContrast, np.ndarray]:
    """A time-lapse without lamp flicker or static debris, long enough for the cells to move away."""
    movie = PhaseContrast(
        shape=(161, 200), n_frames=41, seed=seed, kind="rods", density=0.05, speed_um=2.0, background_electrons=3000.0,
        debris_per_mm2=0.0, roughness_rad=0.0, flicker=0.0, jump=0.0,
    )  # fmt: skip
    return movie, frames_of(movie)


@estimators
@pytest.mark.parametrize("seed", range(4))
def test_the_light_of_a_single_frame_is_recovered_within_a_percent(estimate: Estimator, seed: int) -> None:
    movie = PhaseContrast(shape=(512, 513), n_frames=1, seed=seed)
    found = estimate(frames_of(movie)[0]) - movie.offset
    assert error(found, movie.light_field) < 0.01
    assert error(np.ones_like(found), movie.light_field) > 0.025  # what there is to recover


@pytest.mark.parametrize("seed", range(3))
def test_the_light_of_a_time_lapse_is_recovered_within_a_percent(seed: int) -> None:
    movie, stack = moving_cells(seed)
    median = temporal_background(stack)
    assert error(median - movie.offset, movie.light_field) < 0.01
    assert error(gaussian_background(median) - movie.offset, movie.light_field) < 0.005
    assert error(polynomial_background(median) - movie.offset, movie.light_field) < 0.005


@estimators
@pytest.mark.parametrize("seed", [1, 4])
def test_crowded_frames_are_recovered_better_than_by_a_plain_gaussian(estimate: Estimator, seed: int) -> None:
    movie = PhaseContrast(shape=(512, 512), n_frames=1, seed=seed, density=0.3)
    frame = frames_of(movie)[0]
    found = error(estimate(frame) - movie.offset, movie.light_field)
    assert found < 0.025
    assert found < 0.7 * error(ndimage.gaussian_filter(frame.astype(float), 64) - movie.offset, movie.light_field)


def vignette(shape: tuple[int, int]) -> np.ndarray:
    """Light that no quadratic describes: natural vignetting off the axis, two thirds in a corner."""
    y, x = np.meshgrid(*(np.linspace(-1, 1, size) for size in shape), indexing="ij")
    return 1200 * np.cos(np.arctan(0.3 * np.hypot(x - 0.2, y))) ** 4


@pytest.mark.parametrize("shape", [(300, 401), (512, 512), (33, 64)])
def test_the_gaussian_is_unbiased_at_the_borders_where_the_plain_one_is_not(shape: tuple[int, int]) -> None:
    true = vignette(shape)
    noisy = np.random.default_rng(0).poisson(true)
    plain = ndimage.gaussian_filter(noisy.astype(float), min(shape) / 8)
    edge = np.ones(shape, bool)
    edge[2:-2, 2:-2] = False
    found = gaussian_background(noisy)
    assert np.abs(found / true - 1)[edge].mean() < 0.01
    assert np.abs(found / true - 1)[edge].mean() < 0.4 * np.abs(plain / true - 1)[edge].mean()
    assert error(found, true) < 0.01


@settings(max_examples=30, deadline=None)
@given(st.integers(3, 90), st.integers(3, 90), st.integers(0, 4), st.integers(0, 2**32 - 1), st.booleans())
def test_a_polynomial_is_its_own_background(height: int, width: int, order: int, seed: int, light: bool) -> None:
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    rng = np.random.default_rng(seed)
    true = 1000 + sum(rng.normal(0, 50) * y**i * x**j for i in range(order + 1) for j in range(order + 1 - i))
    if light:
        true = 1000 * np.exp(true / 1000 - 1)
    noisy = true + rng.normal(0, 1e-3, true.shape)
    found = polynomial_background(noisy, order, light=light)
    np.testing.assert_allclose(found, true, atol=0.02)


def test_outliers_over_a_third_of_the_image_do_not_move_the_fit() -> None:
    true = vignette((400, 400))
    image = np.random.default_rng(1).poisson(true).astype(np.float64)
    coordinates = np.arange(400) % 100
    dark = (coordinates[:, None] < 45) & (coordinates < 45)  # 20 % of the area
    bright = (coordinates[:, None] >= 55) & (coordinates < 30)  # 13 %
    image[dark] *= 0.5
    image[bright] *= 1.6
    for estimate in (gaussian_background, polynomial_background):
        assert error(estimate(image), true) < 0.01
    assert error(ndimage.gaussian_filter(image, 50), true) > 0.03


@estimators
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
@pytest.mark.parametrize("shape", [(33, 64), (1, 1), (1, 50), (7, 3), (513, 520), (260, 1100)])
def test_a_constant_image_is_its_own_background(estimate: Estimator, dtype: str, shape: tuple[int, int]) -> None:
    found = estimate(np.full(shape, 111, dtype))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.full(shape, 111, np.float32))


@estimators
@pytest.mark.parametrize("shape", [(33, 64), (200, 301), (513, 600)])
def test_twice_the_image_has_twice_the_background(estimate: Estimator, shape: tuple[int, int]) -> None:
    image = np.random.default_rng(2).poisson(vignette(shape)).astype(np.uint16)
    found = estimate(image)
    np.testing.assert_array_equal(estimate(2 * image), 2 * found)
    np.testing.assert_array_equal(estimate(image), found)
    np.testing.assert_array_equal(estimate(image.astype(np.float32)), found)
    assert found.shape == shape


@estimators
def test_a_turned_image_has_a_turned_background(estimate: Estimator) -> None:
    image = np.random.default_rng(3).poisson(vignette((128, 192)))
    np.testing.assert_allclose(estimate(image.T), estimate(image).T, rtol=1e-4)
    np.testing.assert_allclose(estimate(image[::-1, ::-1]), estimate(image)[::-1, ::-1], rtol=2e-3)


def test_a_wider_gaussian_follows_less() -> None:
    y, x = np.mgrid[:256, :256]
    bump = 1000 + 60 * np.exp(-((y - 100) ** 2 + (x - 130) ** 2) / (2 * 40**2))
    image = bump + np.random.default_rng(4).normal(0, 40, bump.shape)
    assert error(gaussian_background(image, 10), bump) < error(gaussian_background(image, 90), bump)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 9), st.tuples(st.integers(1, 20), st.integers(1, 20)), st.integers(0, 2**32 - 1),
    st.sampled_from(["uint8", "uint16", "int16", "float32"]),
)  # fmt: skip
def test_the_temporal_background_is_the_median(frames: int, shape: tuple[int, int], seed: int, dtype: str) -> None:
    stack = np.random.default_rng(seed).integers(0, 120, (frames, *shape)).astype(dtype)
    before = stack.copy()
    found = temporal_background(stack)
    np.testing.assert_array_equal(found, np.median(stack.astype(np.float64), axis=0).astype(np.float32))
    np.testing.assert_array_equal(stack, before)
    assert found.dtype == np.float32


def test_the_temporal_background_of_many_bands_and_of_a_view() -> None:
    stack = np.random.default_rng(5).integers(0, 65535, (50, 70, 400)).astype(np.uint16)  # more than one band
    np.testing.assert_array_equal(temporal_background(stack), np.median(stack, axis=0).astype(np.float32))
    np.testing.assert_array_equal(temporal_background(stack[::2]), np.median(stack[::2], axis=0).astype(np.float32))


@estimators
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_pixels_that_are_not_finite_are_refused(estimate: Estimator, value: float) -> None:
    image = np.ones((40, 40), np.float32)
    image[3, 4] = value
    with pytest.raises(InputError, match="NaN or infinite"):
        estimate(image)


def test_what_is_no_image_is_refused() -> None:
    with pytest.raises(ValueError, match="shape"):
        polynomial_background(np.ones((2, 3, 4)))
    with pytest.raises(ValueError, match="shape"):
        temporal_background(np.ones((3, 4)))
    with pytest.raises(ValueError, match="order is 7"):
        polynomial_background(np.ones((3, 4)), 7)
    with pytest.raises(ValueError, match="sigma is 0"):
        gaussian_background(np.ones((3, 4)), 0)


@estimators
@pytest.mark.parametrize("unit", [1, 1e-40, 1e35])
def test_a_frame_about_zero_counts_has_a_background_about_zero(estimate: Estimator, unit: float) -> None:
    frame = np.zeros((43, 18), np.float32)  # more than half of it 0: neither a level nor a scale to measure by
    frame[5:12, 3:9] = unit * 744
    frame[-3:] = unit * np.arange(18)
    found = estimate(frame, light=False)
    assert np.abs(found).max() < unit


def test_a_subtracted_background_takes_the_bowl_that_a_background_with_a_level_takes() -> None:
    y, x = np.mgrid[-1:1:128j, -1:1:128j]
    bowl = 4000 * (x**2 + y**2) ** 2 + np.random.default_rng(6).normal(0, 20, x.shape)
    about_zero = polynomial_background(bowl - np.median(bowl), light=False)
    assert np.abs(about_zero + np.median(bowl) - polynomial_background(bowl + 20000, light=False) + 20000).max() < 20
