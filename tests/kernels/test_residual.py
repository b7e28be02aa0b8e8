"""What is removed from a frame: noise passes, planted structure is found where it was planted."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from phbatch.kernels.residual import judge_residual

SIDE = 192


def truth() -> np.ndarray:
    """Even background of 400, and lines two pixels wide in one quarter."""
    image = np.full((SIDE, SIDE), 400.0)
    for x in range(100, 188, 11):
        image[100:188, x : x + 2] += 160
    return gaussian_filter(image, 0.7)


def noisy(image: np.ndarray, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).poisson(image) + np.random.default_rng(seed + 1).normal(0, 6, image.shape)


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_removed_noise_passes(share: float) -> None:
    clean = truth()
    frame = noisy(clean)
    found = judge_residual(frame, frame + share * (clean - frame))
    assert found.places == ()
    assert abs(found.lags[1:] / found.lags[0]).max() < 0.02
    assert abs(found.structure) < 0.2
    np.testing.assert_allclose(found.removed / found.noise, share**2, rtol=0.25)


def test_the_photon_curve_is_that_of_the_camera() -> None:
    clean = np.repeat(np.linspace(100, 1500, 256)[np.newaxis], 256, axis=0)
    found = judge_residual(noisy(clean), clean)
    offset, slope = found.curve
    assert slope == pytest.approx(1, rel=0.1)
    assert offset + slope * 100 == pytest.approx(36 + 100, rel=0.25)


@pytest.mark.parametrize("sigma", [1.0, 2.0])
def test_planted_over_smoothing_is_found_where_it_is(sigma: float) -> None:
    clean = truth()
    found = judge_residual(noisy(clean), gaussian_filter(clean, sigma))
    assert found.structure > 0.5
    planted = {(y, x) for y in (96, 128, 160) for x in (96, 128, 160)}
    assert {(place.y, place.x) for place in found.places} == planted


def test_an_even_frame_that_is_smoothed_too_little_passes() -> None:
    frame = noisy(np.full((SIDE, SIDE), 400.0))
    for sigma in (0.5, 1.0):
        assert judge_residual(frame, gaussian_filter(frame, sigma)).places == ()


def test_pixels_that_are_not_finite_are_left_out() -> None:
    clean = truth()
    frame = noisy(clean)
    frame[:32] = np.nan
    found = judge_residual(frame, clean)
    assert (found.windows, found.places) == (30, ())
    assert judge_residual(np.full((64, 64), np.nan), np.zeros((64, 64))) is None
    assert judge_residual(np.zeros((8, 90)), np.zeros((8, 90))) is None


def test_nothing_removed_is_no_structure() -> None:
    found = judge_residual(noisy(truth()), noisy(truth()))
    assert found.places == ()
    assert found.lags[0] == 0
