"""Statistics smoothed over time and bad frames: two passes, the same bits as one where nothing is bad."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from scipy import ndimage

import phbatch
from tests.movies import frames_of
from tests.outputs import statistics_of


def series() -> np.ndarray:
    return frames_of(phbatch.PhaseContrast(shape=(96, 90), n_frames=16, seed=9, flicker=0.0, jump=0.0))


def bad_kinds() -> dict[str, Any]:
    return {
        "black": lambda frame, before: (frame // 50).astype(np.uint16),
        "saturated": lambda frame, before: np.where(np.arange(90) < 30, 65535, frame).astype(np.uint16),
        "duplicate": lambda frame, before: before,
        "out-of-focus": lambda frame, before: ndimage.gaussian_filter(frame, 12.0),
        "constant": lambda frame, before: np.full_like(frame, 300),
    }


def run(
    folder: Path, image: np.ndarray, name: str, **options: Any
) -> tuple[np.ndarray, dict[str, list[Any]], phbatch.RunResult]:
    if not (folder / f"{name}.zarr").exists():
        zarr.create_array(folder / f"{name}.zarr", data=image, chunks=(1, 96, 90))
    output = folder / f"{name}-{len(list(folder.iterdir()))}.out.zarr"
    result = phbatch.run(folder / f"{name}.zarr", output, model=options.pop("model", "none"), **options)
    return zarr.open_array(result.output, path="0", mode="r")[:], statistics_of(result.output), result


def test_two_passes_have_the_bits_of_one_where_no_frame_is_bad(tmp_path: Path) -> None:
    image = series()
    one, statistics, _ = run(tmp_path, image, "in", model="phase-2d")
    two, again, result = run(tmp_path, image, "in", model="phase-2d", bad_frames="copy", workers=3)
    np.testing.assert_array_equal(one, two)
    assert again == statistics
    assert result.flagged == {}
    assert phbatch.plan(tmp_path / "in.zarr", model="none", bad_frames="copy").passes == 2
    assert phbatch.plan(tmp_path / "in.zarr", model="none").passes == 1


@pytest.mark.parametrize("kind", list(bad_kinds()))
@pytest.mark.parametrize("treatment", ["normalize", "copy", "skip"])
def test_bad_frames_are_flagged_and_move_no_neighbour(tmp_path: Path, kind: str, treatment: str) -> None:
    clean = series()
    damaged = clean.copy()
    damaged[8] = bad_kinds()[kind](clean[8], clean[7])
    good, statistics, _ = run(tmp_path, clean, "good", smooth_time=5, bad_frames=treatment)
    found, again, result = run(tmp_path, damaged, "bad", smooth_time=5, bad_frames=treatment)
    assert result.flagged == {"t8/c0/z0": [kind]}
    # The running median over five frames loses one member: neighbours move by no more than members differ.
    spread = np.ptp(statistics["median"])
    for t in {*range(16)} - {8}:
        assert abs(again["median_smooth"][t] - statistics["median_smooth"][t]) <= spread
        if abs(t - 8) > 2:
            np.testing.assert_array_equal(found[t], good[t])
    if treatment == "skip":
        assert not found[8].any()
    elif treatment == "copy" or kind == "constant":
        np.testing.assert_array_equal(found[8], damaged[8])
    else:
        np.testing.assert_array_equal(found[8], damaged[8] / np.float32(again["median_smooth"][8]))


def test_flicker_spikes_do_not_move_the_statistic(tmp_path: Path) -> None:
    image = series()
    spiked = image.copy()
    spiked[6] = (image[6] * 1.3).astype(np.uint16)
    _, statistics, _ = run(tmp_path, spiked, "spiked", smooth_time=5)
    medians = np.array(statistics["median"])
    smooth = np.array(statistics["median_smooth"])
    assert medians[6] > 1.2 * np.median(medians)
    assert np.abs(smooth / np.median(medians) - 1).max() < 0.02
    assert statistics["divisor"] == [float(np.float32(value)) for value in smooth]


def test_statistics_command_smooths_too(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "in.zarr", data=series(), chunks=(1, 96, 90))
    rows = phbatch.statistics(tmp_path / "in.zarr", smooth_time=3)
    medians = [row["median"] for row in rows]
    assert rows[4]["median_smooth"] == np.median(medians[3:6])


def test_an_even_window_is_refused(tmp_path: Path) -> None:
    with pytest.raises(phbatch.UsageError, match="must be odd"):
        phbatch.run(tmp_path / "in.zarr", smooth_time=4)


def test_zscore(tmp_path: Path) -> None:
    image = series()
    found, statistics, _ = run(tmp_path, image, "in", normalize="zscore")
    expected = (image[3] - np.float32(statistics["median"][3])) / np.float32(1.4826 * statistics["mad"][3])
    np.testing.assert_array_equal(found[3], expected.astype(np.float32))
    back, _, _ = run(tmp_path, image, "in", normalize="zscore", rescale=True, dtype="uint16")
    np.testing.assert_array_equal(back, image)
