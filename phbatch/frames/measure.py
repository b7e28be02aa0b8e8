"""The measuring stage: every frame of a block to its statistics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phbatch.frames.light import Corrections, Preparation, prepare_frame
from phbatch.frames.table import StatisticsTable
from phbatch.kernels.glance import glance_at
from phbatch.kernels.stats import DEFAULT_PERCENTILES, FrameStatistics
from phbatch.kernels.timeseries import flag_bad_frames, running_median
from phbatch.words.axes import frame_indices


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
            table.flag(positions, word, found)
    if smooth_time > 1:
        for positions in table.series():
            good = table.flag_bits[positions] == 0
            for name in ("median", "mode"):
                values = np.array(table.column(name)[positions])
                smoothed = running_median(values, good, smooth_time)
                # where no frame of the series is good, each keeps its own
                table.assign(f"{name}_smooth", positions, np.where(np.isfinite(smoothed), smoothed, values))


def percentiles_for(pmin: float, pmax: float, more: Sequence[float] = ()) -> tuple[float, ...]:
    """Percentiles of the table: CSBDeep's, those of the rule where they differ, and those that were asked for."""
    return tuple(sorted({*DEFAULT_PERCENTILES, pmin, pmax, *more}))


def measure_block(
    block: NDArray[Any],
    preparation: Preparation,
    sigma: float,
    percentiles: tuple[float, ...],
    *,
    volumes: bool,
    corrections: Corrections | None = None,
    copied: frozenset[int] = frozenset(),
) -> dict[tuple[int, int, int | None], FrameStatistics]:
    """Measure every frame of a block.

    Parameters
    ----------
    block : (t, c, z, y, x) ndarray
        Whole frames.
    preparation : Preparation
        What is done to a frame before it is measured.
    sigma : float
        Standard deviation of the Gaussian in pixels of the prepared frame.
    percentiles : tuple of float
        Of the unsmoothed frame, 0 to 100.
    volumes : bool
        Whether a frame is a ``zyx`` volume; else it is one plane.
    corrections : callable, or None
        Of a given profile of uneven light.
    copied : frozenset of int
        Channels of the block of which little is measured.

    Returns
    -------
    dict of (t, c, z) to FrameStatistics
        Indices within the block; z is None for volumes.
    """
    return {
        index: glance_at(prepare_frame(block, index, Preparation(), None).pixels, percentiles)
        if index[1] in copied
        else prepare_frame(block, index, preparation, corrections).measure(sigma, percentiles)
        for index in frame_indices(np.shape(block), volumes=volumes)
    }
