"""The measuring stage: every frame of a block to its statistics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phbatch.axes import frame_indices
from phbatch.kernels.stats import DEFAULT_PERCENTILES, FrameStatistics, measure_frame
from phbatch.kernels.timeseries import flag_bad_frames, running_median
from phbatch.stages.table import StatisticsTable


def judge_series(table: StatisticsTable, smooth_time: int) -> None:
    """Flag the bad frames of every series over time, and smooth the statistics of the others over it.

    Parameters
    ----------
    table : StatisticsTable
        Of a whole run, changed in place; a series is the frames of one channel and plane. Bad frames do not enter their
        neighbours' running median, and get it themselves.
    smooth_time : int
        Odd number of frames of the running median; 1 leaves the statistics as they are.
    """
    for positions in table.series():
        usable = table.flag_bits[positions] == 0
        for word, found in flag_bad_frames(table.series_statistics(positions), usable).items():
            table.flag(positions[found], word)
    if smooth_time > 1:
        for positions in table.series():
            good = table.flag_bits[positions] == 0
            for name in ("median", "mode"):
                values = table.column(name)[positions]
                smoothed = running_median(values, good, smooth_time)
                # where no frame of the series is good, each keeps its own
                table.assign(f"{name}_smooth", positions, np.where(np.isfinite(smoothed), smoothed, values))


def percentiles_for(pmin: float, pmax: float, more: Sequence[float] = ()) -> tuple[float, ...]:
    """Percentiles of the table: CSBDeep's, those of the rule where they differ, and those that were asked for."""
    return tuple(sorted({*DEFAULT_PERCENTILES, pmin, pmax, *more}))


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
