"""Real frames without truth: noise that a rule stretches, drift, and whether what is removed looks like noise."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

import phbatch
from phbatch.tools.residual import ResidualChecker

from .cells import RULES, Cell
from .restore import options_of, restore

SETS = ("t98g", "caulobacter", "yeast", "brightness-jump")
"""Below PHBATCH_DATA: series of TIFFs, whose sources are in benchmarks/held_out.py."""

_SIDE, _FRAMES = 384, 4
_WINDOW, _FLAT, _SIGMA = 32, 0.1, 2.0

Image = NDArray[Any]
Windows = list[tuple[slice, slice]]


@lru_cache(maxsize=1)
def real_series() -> dict[str, list[Image]]:
    """Middles of some frames of each set; empty where there are no data."""
    data = os.environ.get("PHBATCH_DATA")
    return {} if data is None else {name: _series(Path(data) / name) for name in SETS if (Path(data) / name).is_dir()}


def _series(folder: Path) -> list[Image]:
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".tif")
    picked = np.unique(np.linspace(0, len(files) - 1, _FRAMES).round().astype(int))
    return [_middle(tifffile.imread(files[index])) for index in picked]


def _middle(frame: Image) -> Image:
    y, x = (max(0, (length - _SIDE) // 2) for length in frame.shape)
    return frame[y : y + _SIDE, x : x + _SIDE]


def measure_real(cell: Cell, folder: Path) -> dict[str, dict[str, float]]:
    """By set, see `_measure`; a fixed divisor is given the level of the set's first frame."""
    found = {}
    for name, frames in real_series().items():
        rule = RULES[cell.rule]
        if rule.method == "fixed":
            rule = rule.model_copy(update={"value": float(np.median(frames[0]))})
        training = cell.training
        made = restore(frames, folder, rule, light=training.light, downscale=training.downscale)
        seen = phbatch.normalize(np.stack(frames), "tyx", **options_of(rule))
        found[name] = _measure(frames, list(seen), made)
    return found


def _measure(frames: Sequence[Image], seen: Sequence[Image], made: Sequence[Image]) -> dict[str, float]:
    """Of what the network sees and what it makes: stretch and drift on the flattest tenth of each frame; the residual.

    The stretch is the largest noise over the smallest; the drift of what is seen is in units of its contrast, that of
    what is made in percent of the frame's own background.
    """
    windows = [_flat_windows(frame) for frame in frames]
    noise, level, contrast, left, kept = [], [], [], [], []
    checker = ResidualChecker()
    for at, (frame, before, after, flat) in enumerate(zip(frames, seen, made, windows, strict=True)):
        noise.append(_median(before, flat, np.std))
        level.append(_median(before, flat, np.mean))
        contrast.append(float(np.ptp(np.percentile(gaussian_filter(before, _SIGMA), (0.2, 99.8)))))
        own = _median(frame, flat, np.mean)
        left.append(_median(after, flat, np.std) / own)
        kept.append(100 * (_median(after, flat, np.mean) / own - 1))
        checker.add(str(at), np.asarray(frame, np.float32), after)
    check = checker.result()
    if check is None:
        raise ValueError("no frame is large enough to be checked")
    return {
        "stretch_seen": max(noise) / min(noise),
        "drift_seen": float(np.ptp(level)) / fmean(contrast),
        "stretch": max(left) / min(left),
        "noise_left": 100 * fmean(left),
        "drift": float(np.ptp(kept)),
        "removed": check.removed,
        "lag_1": check.lag_1,
        "structured": check.structured / check.windows,
    }


def _median(image: Image, windows: Windows, function: Any) -> float:
    return float(np.median([float(function(np.asarray(image[window], np.float64))) for window in windows]))


def _flat_windows(frame: Image) -> Windows:
    """The tenth that is flattest after smoothing."""
    smooth = gaussian_filter(np.asarray(frame, np.float32), _SIGMA)
    windows = [
        (slice(y, y + _WINDOW), slice(x, x + _WINDOW))
        for y in range(0, frame.shape[0] - _WINDOW + 1, _WINDOW)
        for x in range(0, frame.shape[1] - _WINDOW + 1, _WINDOW)
    ]
    windows.sort(key=lambda window: float(smooth[window].std()))
    return windows[: max(1, int(len(windows) * _FLAT))]
