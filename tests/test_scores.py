"""Scores of a frame are scikit-image's and CSBDeep's, and tell cells from background."""

from __future__ import annotations

import numpy as np
import pytest
from csbdeep.utils import normalize_mi_ma
from csbdeep.utils.utils import normalize_minmse
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from phbatch.tools.scores import COLUMNS, find_cells, score_frame

AT = (3, 1, 0)


def truth(shape: tuple[int, int] = (96, 80)) -> np.ndarray:
    """Even background, and lines in the upper left quarter."""
    image = np.full(shape, 400.0)
    image[8:40, 8:40:4] += 160
    return image


def noisy(seed: int, sigma: float = 9.0) -> np.ndarray:
    clean = truth()
    return clean + np.random.default_rng(seed).normal(0, sigma, clean.shape)


def test_scores_are_those_of_scikit_image() -> None:
    restored, wanted = noisy(0), noisy(1, 2.0)
    found = score_frame(AT, restored, wanted)
    span = float(np.ptp(np.percentile(wanted, (0.1, 99.9))))
    assert (found.t, found.c, found.z, found.key) == (3, 1, 0, "t3/c1/z0")
    assert found.psnr == pytest.approx(peak_signal_noise_ratio(wanted, restored, data_range=span))
    assert found.ssim == pytest.approx(structural_similarity(wanted, restored, data_range=span))
    assert found.nrmse == pytest.approx(np.sqrt(np.mean((wanted - restored) ** 2)) / span)
    assert tuple(found.as_dict()) == COLUMNS


def test_the_form_that_is_free_of_scale_is_that_of_csbdeep() -> None:
    wanted = noisy(1, 2.0)
    restored = 0.02 * noisy(0) - 3
    low, high = np.percentile(wanted, (0.1, 99.9))
    reference = normalize_mi_ma(wanted, low, high, dtype=np.float64)
    error = float(np.sqrt(np.mean((normalize_minmse(restored, reference) - reference) ** 2)))
    found = score_frame(AT, restored, wanted)
    assert found.si_nrmse == pytest.approx(error, rel=1e-6)
    assert found.si_psnr == pytest.approx(-20 * np.log10(error), rel=1e-6)
    other = score_frame(AT, noisy(0), wanted)
    assert (other.si_nrmse, other.si_ssim) == pytest.approx((found.si_nrmse, found.si_ssim))
    assert other.nrmse != pytest.approx(found.nrmse)


def test_cells_and_background_are_scored_apart() -> None:
    clean = truth()
    cells = find_cells(clean, 160.0)
    assert cells[12:36, 12:36].all()
    assert not cells[52:].any()
    assert not cells[:, 52:].any()
    restored = clean + np.where(cells, 16.0, 1.6)
    found = score_frame(AT, restored, clean)
    assert found.cells == pytest.approx(cells.mean())
    assert found.nrmse_cells == pytest.approx(0.1)
    assert found.nrmse_background == pytest.approx(0.01)
    assert found.psnr_background - found.psnr_cells == pytest.approx(20)
    assert found.ssim_background > found.ssim_cells
    squares = found.cells * found.nrmse_cells**2 + (1 - found.cells) * found.nrmse_background**2
    assert found.nrmse**2 == pytest.approx(squares)
    half = np.zeros(clean.shape, bool)
    half[:, :40] = True
    assert score_frame(AT, restored, clean, cells=half).cells == 0.5
    assert score_frame(AT, restored, clean, cells=~np.zeros_like(half)).psnr_background is None


def test_noise_is_no_cell() -> None:
    empty = np.random.default_rng(0).normal(400, 9, (96, 80))
    assert find_cells(empty, float(np.ptp(np.percentile(empty, (0.1, 99.9))))).mean() < 0.01


def test_the_input_is_scored_beside() -> None:
    before, wanted = noisy(0, 30.0), truth()
    found = score_frame(AT, noisy(1), wanted, before)
    alone = score_frame(AT, before, wanted)
    assert (found.input_psnr, found.input_ssim, found.input_nrmse) == (alone.psnr, alone.ssim, alone.nrmse)
    assert alone.input_psnr is None


def test_pixels_that_are_not_finite_are_left_out() -> None:
    restored, wanted = noisy(0), noisy(1, 2.0)
    broken = restored.copy()
    broken[:20] = np.nan
    found, rest = score_frame(AT, broken, wanted), score_frame(AT, restored[20:], wanted[20:])
    assert found.nrmse == pytest.approx(rest.nrmse, rel=1e-3)
    assert np.isfinite([found.ssim, found.si_ssim, found.si_psnr]).all()
    assert score_frame(AT, np.full_like(wanted, np.nan), wanted) is None


def test_what_equals_its_truth_is_perfect_and_an_even_truth_has_no_score() -> None:
    found = score_frame(AT, truth(), truth())
    assert (found.psnr, found.ssim, found.nrmse) == (np.inf, 1, 0)
    assert score_frame(AT, truth(), np.full((96, 80), 5.0)) is None
