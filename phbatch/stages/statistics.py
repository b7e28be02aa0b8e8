"""The measuring stage: every frame of a block to its statistics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phbatch.axes import FrameKey, frame_indices
from phbatch.kernels.stats import DEFAULT_PERCENTILES, FrameStatistics, measure_frame


@dataclass(frozen=True)
class StatisticsRow:
    """One row of the statistics table: the frame and its statistics."""

    key: FrameKey
    statistics: FrameStatistics

    def as_dict(self) -> dict[str, Any]:
        """The row as plain values, one column each; percentiles as ``p2``, ``p99.8``."""
        s = self.statistics
        return {
            "t": self.key.t,
            "c": self.key.c,
            "z": self.key.z,
            "median": s.median,
            "mode": s.mode,
            "mad": s.mad,
            "mean": s.mean,
            "std": s.std,
            "min": s.min,
            "max": s.max,
            **{f"p{p:g}": value for p, value in s.percentiles.items()},
            "saturated": s.saturated,
            "zero": s.zero,
            "focus": s.focus,
            "background": s.background,
            "flags": list(s.flags),
        }


def percentiles_for(pmin: float, pmax: float) -> tuple[float, ...]:
    """Percentiles of the table: CSBDeep's, and those of the rule where they differ."""
    return tuple(sorted({*DEFAULT_PERCENTILES, pmin, pmax}))


def measure_block(
    block: NDArray[Any], sigma: float, percentiles: tuple[float, ...], *, volumes: bool
) -> dict[tuple[int, int, int | None], FrameStatistics]:
    """Measure every frame of a block.

    Parameters
    ----------
    block : (t, c, z, y, x) ndarray
        Whole frames.
    sigma : float
        Standard deviation of the Gaussian in pixels.
    percentiles : tuple of float
        Of the raw frame, 0 to 100.
    volumes : bool
        Whether a frame is a ``zyx`` volume; else it is one plane.

    Returns
    -------
    dict of (t, c, z) to FrameStatistics
        Indices within the block; z is None for volumes.
    """
    found = {}
    for t, c, z in frame_indices(np.shape(block), volumes=volumes):
        frame = block[t, c] if z is None else block[t, c, z]
        found[t, c, z] = measure_frame(frame, sigma, percentiles)
    return found
