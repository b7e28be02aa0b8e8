"""The measuring stage: every frame of a block to its statistics."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phbatch.axes import FrameKey, frame_indices
from phbatch.kernels.stats import DEFAULT_PERCENTILES, FrameStatistics, measure_frame
from phbatch.kernels.timeseries import flag_bad_frames, running_median


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
            **({} if s.median_smooth is None else {"median_smooth": s.median_smooth, "mode_smooth": s.mode_smooth}),
            "flags": list(s.flags),
        }


def judge_series(rows: list[StatisticsRow], smooth_time: int) -> list[StatisticsRow]:
    """Flag the bad frames of every series over time, and smooth the statistics of the others over it.

    Parameters
    ----------
    rows : list of StatisticsRow
        Of a whole run; a series is the frames of one channel and plane.
    smooth_time : int
        Odd number of frames of the running median; 1 leaves the statistics as they are.

    Returns
    -------
    list of StatisticsRow
        In the order of t, c, z. Bad frames do not enter their neighbours' running median, and get it themselves.
    """
    series: dict[tuple[int, int | None], list[StatisticsRow]] = {}
    for row in sorted(rows, key=lambda row: row.key.t):
        series.setdefault((row.key.c, row.key.z), []).append(row)
    judged: list[StatisticsRow] = []
    for members in series.values():
        words = flag_bad_frames([row.statistics for row in members])
        found = [
            replace(row.statistics, flags=(*row.statistics.flags, *more))
            for row, more in zip(members, words, strict=True)
        ]
        if smooth_time > 1:
            found = _smooth_over_time(found, smooth_time)
        judged += [StatisticsRow(row.key, statistics) for row, statistics in zip(members, found, strict=True)]
    return sorted(judged, key=lambda row: (row.key.t, row.key.c, -1 if row.key.z is None else row.key.z))


def _smooth_over_time(rows: list[FrameStatistics], window: int) -> list[FrameStatistics]:
    good = np.array([not row.flags for row in rows])
    medians = running_median(np.array([row.median for row in rows]), good, window)
    modes = running_median(np.array([row.mode for row in rows]), good, window)
    smoothed = []
    for row, median, mode in zip(rows, medians, modes, strict=True):
        known = np.isfinite(median)  # else no frame of the series is good, and each keeps its own
        smoothed.append(
            replace(
                row,
                median_smooth=float(median) if known else row.median,
                mode_smooth=float(mode) if known else row.mode,
            )
        )
    return smoothed


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
