"""Samples of the tables of concurrency and memory, and a cluster that loses a worker."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.faults.workers import concurrency_cases, lose_a_worker, lose_nothing, measure_memory

CASES = random.Random(1).sample(concurrency_cases(), 9)


@pytest.mark.parametrize("case", CASES, ids=", ".join)
def test_sixteen_workers_lose_nothing(tmp_path: Path, case: tuple[str, str, str, str]) -> None:
    lose_nothing(tmp_path, case)


@pytest.mark.parametrize("name", ["uint16 2048 x 2048, normalized", "uint16 640 x 640, phase-2d, tiles of 256"])
def test_memory_stays_within_its_projection(tmp_path: Path, name: str) -> None:
    peak, projected = measure_memory(tmp_path, name)
    assert peak <= projected


def test_a_cluster_that_loses_a_worker_loses_nothing(tmp_path: Path) -> None:
    lose_a_worker(tmp_path, {"model": "none"})
