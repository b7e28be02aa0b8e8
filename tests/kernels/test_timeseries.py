"""Running medians ignore bad frames; each kind of bad frame is recognized, and good ones are not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from phbatch.frames.measure import judge_series
from phbatch.frames.table import StatisticsRow, StatisticsTable
from phbatch.kernels.stats import FrameStatistics, finalize, from_block, measure_frame, merge
from phbatch.kernels.timeseries import flag_bad_frames, running_median
from phbatch.simulate import PhaseContrast
from phbatch.words.axes import FrameGrid, FrameKey
from tests.movies import frames_of


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


@given(st.integers(6, 30), st.integers(0, 29), st.sampled_from([3, 5, 9]))
def test_a_spike_moves_nobody_else_and_a_jump_stays(n: int, at: int, window: int) -> None:
    at %= n
    every = np.ones(n, bool)
    spike = np.where(np.arange(n) == at, 9000.0, 1000.0)
    found = running_median(spike, every, window)
    np.testing.assert_array_equal(np.delete(found, at), 1000.0)
    jump = np.where(np.arange(n) < at, 1000.0, 1500.0)
    np.testing.assert_array_equal(running_median(jump, every, window), jump)


def test_a_bad_frame_does_not_average_two_of_its_neighbours() -> None:
    values = np.array([1000.0, 1000, 0, 1500, 1500, 1500])
    good = values > 0
    np.testing.assert_array_equal(running_median(values, good, 3), [1000, 1000, 1000, 1500, 1500, 1500])


def flags_of(rows: list[FrameStatistics]) -> list[list[str]]:
    table = StatisticsTable(FrameGrid(range(len(rows)), (0,), 1))
    for t, row in enumerate(rows):
        table.put(StatisticsRow(FrameKey(t, 0, 0), row).as_dict())
    judge_series(table, 1)
    return [row["flags"] for row in table]


def test_a_good_series_has_no_flags() -> None:
    movie = PhaseContrast(shape=(128, 128), n_frames=40, seed=3, flicker=0.05, jump=0.3, jump_probability=0.1)
    rows = [measure_frame(frame, 2.0) for frame in frames_of(movie)]
    assert flags_of(rows) == [[]] * 40


def test_each_kind_is_recognized() -> None:
    movie = PhaseContrast(shape=(128, 128), n_frames=24, seed=3)
    frames = frames_of(movie)
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


def counts(offset: float, seed: int = 3) -> list[np.ndarray]:
    movie = PhaseContrast(shape=(96, 96), n_frames=16, seed=seed, flicker=0.05)
    return [frame.astype(np.float32) - np.float32(offset) for frame in frames_of(movie)]


def test_frames_about_zero_are_judged_by_their_series_and_not_by_their_sign() -> None:
    level = float(np.median(counts(0)[0]))
    for offset in (level, 1.02 * level, 5 * level):
        assert flags_of([measure_frame(frame, 2.0) for frame in counts(offset)]) == [[]] * 16
    subtracted = [frame - np.median(frame) for frame in counts(0)]
    assert flags_of([measure_frame(frame, 2.0) for frame in subtracted]) == [[]] * 16
    subtracted[5] = np.random.default_rng(0).normal(-level, 2, (96, 96)).astype(np.float32)
    flags = flags_of([measure_frame(frame, 2.0) for frame in subtracted])
    assert {t: words for t, words in enumerate(flags) if words} == {5: ["black"]}


def test_a_frame_not_above_zero_is_black_where_the_series_is_lit() -> None:
    frames = counts(0)
    frames[4] = np.random.default_rng(0).normal(-3, 2, (96, 96)).astype(np.float32)
    flags = flags_of([measure_frame(frame, 2.0) for frame in frames])
    assert {t: words for t, words in enumerate(flags) if words} == {4: ["black"]}


@pytest.mark.parametrize("dtype", ["uint16", "int32", "float32"])
@pytest.mark.parametrize("top", [1023, 4095, 16383, 65535, 3000.5])
def test_saturation_is_that_of_the_camera(top: float, dtype: str) -> None:
    if dtype != "float32" and top % 1:
        top = 3000
    movie = PhaseContrast(shape=(96, 96), n_frames=10, seed=3)
    frames = frames_of(movie)
    frames = frames * (top / 2.2 / float(np.median(frames[0])))
    frames[6][:40] = 9e4
    clipped = [frame.clip(0, top).astype(dtype) for frame in frames]
    rows = [measure_frame(frame, 2.0) for frame in clipped]
    assert rows[6].saturated == (clipped[6] == clipped[6].max()).mean() > 0.4
    assert rows[5].saturated < 0.01
    assert finalize(merge(from_block(clipped[6][:37], 2.0), from_block(clipped[6][37:], 2.0))).saturated == (
        rows[6].saturated
    )
    flags = flags_of(rows)
    assert {t: words for t, words in enumerate(flags) if words} == {6: ["saturated"]}


def test_many_pixels_below_the_top_of_the_series_are_not_saturated() -> None:
    movie = PhaseContrast(shape=(96, 96), n_frames=10, seed=3)
    frames = frames_of(movie)
    frames[3] = np.minimum(frames[3], np.percentile(frames[3], 40)).astype(np.uint16)
    assert "saturated" not in flags_of([measure_frame(frame, 2.0) for frame in frames])[3]


def test_a_frame_at_five_deviations_is_usual_and_one_at_ten_is_black() -> None:
    for deviations, expected in ((5, False), (10, True)):
        median = np.append(np.linspace(-2, 2, 41), -deviations * 1.4826)
        rising = np.arange(42.0)
        columns = {"median": median, "std": np.ones(42), "max": rising, "focus": rising + 50, "saturated": 0 * rising}
        assert flag_bad_frames(columns, np.ones(42, bool))["black"][-1] == expected


def test_a_frame_that_is_flagged_already_is_no_duplicate() -> None:
    columns = {name: np.zeros(4) for name in ("median", "std", "max", "focus", "saturated")}
    usable = np.array([True, True, False, True])
    assert flag_bad_frames(columns, usable)["duplicate"].tolist() == [False, True, False, True]


def test_a_black_frame_is_not_out_of_focus_too_and_makes_no_other_look_sharp() -> None:
    rising = np.arange(24.0)
    columns = {"median": 100 + rising, "std": 10 + 0 * rising, "max": rising, "saturated": 0 * rising}
    columns["focus"] = columns["median"] ** 2
    columns["focus"][7] /= 100
    columns["median"][8:16], columns["focus"][8:16] = 1 + rising[8:16] / 100, 1e-9
    flags = flag_bad_frames(columns, np.ones(24, bool))
    assert np.flatnonzero(flags["black"]).tolist() == list(range(8, 16))
    assert np.flatnonzero(flags["out-of-focus"]).tolist() == [7]
