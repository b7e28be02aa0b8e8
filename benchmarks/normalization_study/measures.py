"""What a network did to frames whose truth is known: in counts, or in percent of the light of the background."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, gaussian_filter

from phbatch.tools.scores import FrameScores, score_frame

from .cells import LEVEL
from .frames import DENSITIES, ELECTRONS, HeldFrames, Sample

_HALO = 4
_BLOBS = 2.0  # standard deviation of a Gaussian beyond which an error is no noise of pixels

Image = NDArray[np.float32]
Measures = dict[str, Any]

SCORED = ("psnr", "ssim", "si_psnr", "psnr_cells", "ssim_cells", "psnr_background", "ssim_background")


def measure(test: HeldFrames, cells: Sequence[Image], empty: Sequence[Image], dim: Sequence[Image],
            colony: Sequence[Image], seen: Sequence[Image]) -> Measures:  # fmt: skip
    """All measures of the restored test frames; PSNR in dB of the range of each frame's truth.

    `seen` is the colony as the network is given it.
    """
    scores = [_score(image, sample) for image, sample in zip(cells, test.cells, strict=True)]
    found: Measures = {name: _mean(scores, name) for name in SCORED}
    found["input_psnr"] = _mean(scores, "input_psnr")
    for group in ("sparse", "dense"):
        chosen = [s for s, asked in zip(scores, test.asked, strict=True) if asked in DENSITIES[group]]
        found |= {f"{name}_{group}": _mean(chosen, name) for name in ("psnr", "psnr_cells", "psnr_background")}
    for number, electrons in enumerate(ELECTRONS):
        chosen = [s for s, sample in zip(scores, test.cells, strict=True) if sample.electrons == electrons]
        found[f"psnr_noise_{number}"] = _mean(chosen, "psnr")
    found["psnr_dim"] = _mean([_score(image, sample) for image, sample in zip(dim, test.dim, strict=True)], "psnr")
    return found | _on_empty(empty, test.empty) | _on_colony(colony, test.colony) | _as_seen(seen, test.colony)


def _score(image: Image, sample: Sample) -> FrameScores:
    cells = binary_dilation(sample.cells, iterations=_HALO)
    found = score_frame((0, 0, 0), image, sample.truth, np.asarray(sample.noisy, np.float32), cells)
    if found is None:
        raise ValueError("a truth without a range")
    return found


def _mean(scores: Sequence[FrameScores], name: str) -> float:
    values = [getattr(score, name) for score in scores]
    return fmean(value for value in values if value is not None)


def _on_empty(images: Sequence[Image], samples: Sequence[Sample]) -> Measures:
    """Percent of the light: what is wrong on empty frames, what of it is larger than noise, and the offset."""
    errors = [image - sample.truth for image, sample in zip(images, samples, strict=True)]
    return {
        "empty_error": 100 * fmean(float(error.std()) for error in errors) / LEVEL,
        "empty_blobs": 100 * fmean(float(gaussian_filter(error, _BLOBS).std()) for error in errors) / LEVEL,
        "empty_offset": 100 * fmean(abs(float(error.mean())) for error in errors) / LEVEL,
        "empty_std_ratio": fmean(
            float(image.std() / sample.truth.std()) for image, sample in zip(images, samples, strict=True)
        ),
    }


def _on_colony(images: Sequence[Image], samples: Sequence[Sample]) -> Measures:
    """Percent of the light: the level of the background less its truth over time, and the noise left there."""
    levels, noises = [], []
    for image, sample in zip(images, samples, strict=True):
        background = ~binary_dilation(sample.cells, iterations=_HALO)
        error = (image - sample.truth)[background]
        levels.append(100 * float(error.mean()) / LEVEL)
        noises.append(100 * float(error.std()) / LEVEL)
    return {
        "drift": float(np.ptp(levels)),
        "drift_levels": [round(level, 4) for level in levels],
        "drift_errors": [round(noise, 4) for noise in noises],
        "drift_covered": [round(sample.covered, 3) for sample in samples],
    }


def _as_seen(images: Sequence[Image], samples: Sequence[Sample]) -> Measures:
    """What the rule does to the background: its level, in units of the contrast, and its noise, largest to smallest."""
    levels, noises, contrasts = [], [], []
    for image, sample in zip(images, samples, strict=True):
        background = ~binary_dilation(sample.cells, iterations=_HALO)
        scale = float(image.std() / sample.noisy.std())
        levels.append(float(image[background].mean()))
        noises.append(scale * float((sample.noisy - sample.truth)[background].std()))
        contrasts.append(float(np.ptp(np.percentile(gaussian_filter(image, _BLOBS), (0.2, 99.8)))))
    return {"seen_drift": float(np.ptp(levels)) / fmean(contrasts), "seen_stretch": max(noises) / min(noises)}
