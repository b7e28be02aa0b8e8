"""Images of pairs, and settings of a training that takes seconds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from scipy.ndimage import gaussian_filter

import phbatch

QUICK: dict[str, Any] = {
    "depth": 1,
    "kernel": 3,
    "filters": 8,
    "epochs": 3,
    "steps": 30,
    "batch": 4,
    "patch": 32,
    "rate": 4e-3,
    "seed": 1,
}
"""Of a tiny network, which a second's training makes better than nothing."""

LONG = QUICK | {"epochs": 5, "steps": 6}
"""As many epochs as it takes to interrupt it, kill it and go on."""


def draw_pair(count: int = 6, side: int = 96, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Noisy frames and their truth: smooth cells on a background with as much noise."""
    random = np.random.default_rng(seed)
    high = 8000 + 12000 * gaussian_filter(random.normal(0, 1, (count, side, side)), (0, 4, 4))
    low = high + random.normal(0, 800, high.shape)
    return tuple(np.clip(np.rint(image), 0, 65535).astype("uint16") for image in (low, high))  # type: ignore[return-value]


def write_pair(folder: Path, **options: Any) -> tuple[Path, Path]:
    """Two bare arrays of a time-lapse."""
    paths = folder / "low.zarr", folder / "high.zarr"
    for path, image in zip(paths, draw_pair(**options), strict=True):
        zarr.create_array(path, data=image, chunks=(1, *image.shape[1:]), dimension_names=["t", "y", "x"])
    return paths


def words(options: dict[str, Any]) -> list[str]:
    """Options as they are typed."""
    return [word for name, value in options.items() for word in (f"--{name}", str(value))]


@dataclass(frozen=True)
class Whole:
    """A pair, and a training on it of `LONG`, in one call."""

    low: Path
    high: Path
    model: Path
    result: phbatch.TrainingResult

    @classmethod
    def make(cls, folder: Path) -> Whole:
        low, high = write_pair(folder)
        return cls(low, high, folder / "model", phbatch.train(low, high, folder / "model", **LONG))
