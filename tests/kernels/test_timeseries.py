"""Running medians ignore bad frames; each kind of bad frame is recognized, and good ones are not."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from phbatch.axes import FrameGrid, FrameKey
from phbatch.kernels.stats import FrameStatistics, measure_frame
from phbatch.kernels.timeseries import running_median
from phbatch.simulate import PhaseContrast
from phbatch.stages.statistics import judge_series
from phbatch.stages.table import StatisticsRow, StatisticsTable


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30), st.sampled_from([1, 3, 5, 9]))
def test_running_median_of_good_frames_is_scipys_inside(values: list[float], window: int) -> None:
    array = np.array(values)
    found = running_median(array, np.ones(len(array), bool), window)
    expected = ndimage.median_filter(array, window, mode="reflect")
    inside = slice(window // 2, max(window // 2, len(array) - window // 2))
    np.testing.assert_array_equal(found[inside], expected[inside])
    assert found.min() >= array.min()
    assert found.max() <= array.max()


@given(st.lists(st.tuples(st.floats(1, 1e6), st.booleans()), min_size=1, max_size=30), st.sampled_from([3, 7]))
def test_bad_values_move_nothing(rows: list[tuple[float, bool]], window: int) -> None:
    values, good = (np.array(column) for column in zip(*rows, strict=True))
    found = running_median(values, good, window)
    other = running_median(np.where(good, values, 1e12), good, window)
    np.testing.assert_array_equal(found, other)
    assert np.isnan(found).all() == (not good.any())


def flags_of(rows: list[FrameStatistics]) -> list[list[str]]:
    table = StatisticsTable(FrameGrid(range(len(rows)), (0,), 1))
    for t, row in enumerate(rows):
        table.put(StatisticsRow(FrameKey(t, 0, 0), row).as_dict())
    judge_series(table, 1)
    return [row["flags"] for row in table]


def test_a_good_series_has_no_flags() -> None:
    movie = PhaseContrast(shape=(128, 128), n_frames=40, seed=3, flicker=0.05, jump=0.3, jump_probability=0.1)
    rows = [measure_frame(movie.frame(t), 2.0) for t in range(40)]
    assert flags_of(rows) == [[]] * 40


def test_each_kind_is_recognized() -> None:
    movie = PhaseContrast(shape=(128, 128), n_frames=24, seed=3)
    frames = [movie.frame(t) for t in range(24)]
    frames[4] = (frames[4] // 40).astype(np.uint16)
    frames[9] = frames[8]
    frames[14] = np.where(np.arange(128) < 40, 65535, frames[14]).astype(np.uint16)
    frames[19] = ndimage.gaussian_filter(frames[19], 12.0)
    frames[22] = np.full_like(frames[22], 7)
    flags = flags_of([measure_frame(frame, 2.0) for frame in frames])
    found = {t: words for t, words in enumerate(flags) if words}
    assert found == {4: ["black"], 9: ["duplicate"], 14: ["saturated"], 19: ["out-of-focus"], 22: ["constant"]}


def test_short_series_tell_only_duplicates() -> None:
    frame = PhaseContrast(shape=(64, 64), n_frames=3, seed=3).frame(0)
    rows = [measure_frame(image, 2.0) for image in (frame, frame, frame // 50)]
    assert flags_of(rows) == [[], ["duplicate"], []]
