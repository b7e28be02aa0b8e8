"""Samples of the tables of concurrency and memory, which is flat in frames, and a cluster that loses a worker."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import zarr

from tests.faults.workers import concurrency_cases, lose_a_worker, lose_nothing, measure_runs, prepare_memory

CASES = random.Random(1).sample(concurrency_cases(), 9)


@pytest.mark.parametrize("case", CASES, ids=", ".join)
def test_sixteen_workers_lose_nothing(tmp_path: Path, case: tuple[str, str, str, str]) -> None:
    lose_nothing(tmp_path, case)


def same_frames(folder: Path, count: int) -> Path:
    """So many times one frame of 700 x 800."""
    draw = np.random.default_rng(3)
    frame = (1000 + 40 * draw.standard_normal((700, 800)) + 200 * (draw.random((700, 800)) > 0.97)).astype("uint16")
    zarr.create_array(folder / f"in{count}.zarr", data=np.stack([frame] * count), chunks=(1, 700, 800))
    return folder / f"in{count}.zarr"


def test_memory_stays_within_its_projection_and_is_flat_in_the_number_of_frames(tmp_path: Path) -> None:
    """The peak of a process is that of all its runs: those that take more come later, and a longer one raises none.

    Short runs without a network come first: each brings threads, for which glibc keeps memory in up to eight places a
    core, so that the peak rises with the first few runs of a process, however long they are.
    """
    options = {"model": "none", "workers": 2, "memory": "1GB"}
    short, long = same_frames(tmp_path, 8), same_frames(tmp_path, 64)
    plain = [(short, tmp_path / f"short{index}.zarr", options) for index in range(6)]
    plain.append((long, tmp_path / "long.zarr", options))
    normalized = prepare_memory(tmp_path / "normalized", "uint16 2048 x 2048, normalized")
    restored = prepare_memory(tmp_path / "restored", "uint16 640 x 640, phase-2d, tiles of 256")
    options = {"model": "phase-2d", "workers": 2, "memory": "1800MB"}
    network = [(same_frames(tmp_path, count), tmp_path / f"out{count}.zarr", options) for count in (2, 5)]
    found = measure_runs([*plain, normalized, restored, *network])
    assert len(found) == 11
    for peak, projected, allowed in found:
        assert peak <= projected <= allowed
    peaks = [peak for peak, _, _ in found]
    assert peaks[6] <= peaks[5] * 1.15
    assert peaks[10] <= peaks[9] * 1.15


def test_a_cluster_that_loses_a_worker_loses_nothing(tmp_path: Path) -> None:
    lose_a_worker(tmp_path, {"model": "none"})
