"""The same numbers in a plain loop, in threads and on a Dask cluster, for any chunks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import zarr
from distributed import LocalCluster

import phbatch
from phbatch.computing.engine import Outcome, execute
from phbatch.computing.tasks import NOWHERE, Job
from phbatch.frames.recipe import Recipe
from phbatch.planning.unit import Unit
from phbatch.planning.units import Geometry
from phbatch.words.normalization import Normalization
from tests.outputs import statistics_of


def frames(shape: tuple[int, ...] = (7, 70, 61), dtype: str = "uint16") -> np.ndarray:
    draw = np.random.default_rng(3)
    return (1000 + 40 * draw.standard_normal(shape) + 200 * (draw.random(shape) > 0.97)).astype(dtype)


def make_input(folder: Path, image: np.ndarray, chunks: tuple[int, ...], name: str = "in.zarr") -> Path:
    zarr.create_array(folder / name, data=image, chunks=chunks)
    return folder / name


def contents(output: str) -> tuple[np.ndarray, dict[str, object]]:
    return zarr.open_array(output, path="0", mode="r")[:], statistics_of(output)


@pytest.mark.parametrize("dtype", ["uint16", "uint8", "float32"])
def test_chunks_and_workers_change_no_bit(tmp_path: Path, dtype: str) -> None:
    image = (frames() / 8).astype("uint8") if dtype == "uint8" else frames(dtype=dtype)
    expected = None
    for index, chunks in enumerate([(1, 70, 61), (3, 20, 61), (7, 13, 9), (2, 70, 17)]):
        path = make_input(tmp_path, image, chunks, f"in{index}.zarr")
        for workers in ((1, 3), (1,), (3,), (1,))[index]:
            result = phbatch.run(
                path, tmp_path / f"out{index}-{workers}.zarr", model="phase-2d", workers=workers, tile=56
            )
            found = contents(result.output)
            expected = expected or found
            np.testing.assert_array_equal(found[0], expected[0])
            assert found[1] == expected[1]


def test_a_dask_cluster_gives_the_same_bits(tmp_path: Path) -> None:
    path = make_input(tmp_path, frames(), (1, 70, 61))
    alone = phbatch.run(path, tmp_path / "alone.zarr", model="none", workers=1)
    with LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=False,
        dashboard_address="127.0.0.1:0",
        protocol="tcp",
        host="127.0.0.1",
    ) as cluster:
        there = phbatch.run(path, tmp_path / "there.zarr", model="none", scheduler=cluster.scheduler_address)
    np.testing.assert_array_equal(contents(there.output)[0], contents(alone.output)[0])
    assert contents(there.output)[1] == contents(alone.output)[1]


def test_no_scheduler_there_is_a_usage_error(tmp_path: Path) -> None:
    path = make_input(tmp_path, frames(), (1, 70, 61))
    with pytest.raises(phbatch.UsageError, match="no Dask scheduler answers"):
        phbatch.run(path, model="none", scheduler="tcp://127.0.0.1:9")
    assert not (tmp_path / "in.phbatch.zarr").exists()


def fail_on_odd(job: Job, unit: Unit) -> int:
    t = unit.source[0].start
    if t % 2:
        raise RuntimeError(f"unit {t} is odd")
    return int(t)


@pytest.mark.parametrize("workers", [1, 3])
def test_failing_units_are_outcomes_and_the_others_go_on(workers: int) -> None:
    units = Geometry((9, 1, 1, 2048, 2048), (1, 1, 1, 2048, 2048), range(9), (0,)).units
    job = Job(NOWHERE, None, Recipe(Normalization()))
    outcomes: list[Outcome[int]] = list(execute(fail_on_odd, job, units, workers=workers))
    assert sorted(outcome.result for outcome in outcomes if outcome.result is not None) == [0, 2, 4, 6, 8]
    assert {str(outcome.error) for outcome in outcomes if outcome.error} == {f"unit {t} is odd" for t in (1, 3, 5, 7)}


@pytest.mark.parametrize("workers", [1, 2])
def test_stopping_finishes_what_runs_and_starts_no_more(workers: int) -> None:
    units = Geometry((300, 1, 1, 2048, 2048), (1, 1, 1, 2048, 2048), range(300), (0,)).units
    begun: list[str] = []

    def begin(job: Job, unit: Unit) -> None:
        begun.append(unit.key)

    job = Job(NOWHERE, None, Recipe(Normalization()))
    ended = [each.unit.key for each in execute(begin, job, units, workers=workers, stop=lambda: len(begun) >= 5)]
    assert sorted(ended) == sorted(begun)
    assert 5 <= len(begun) <= 5 + workers


def test_one_worker_takes_units_in_their_order_and_holds_a_window_of_them() -> None:
    units = Geometry((5000, 1, 1, 2048, 2048), (1, 1, 1, 2048, 2048), range(5000), (0,)).units
    taken: list[str] = []
    ended: list[str] = []
    ahead = 0

    def take() -> Iterator[Unit]:
        for unit in units:
            taken.append(unit.key)
            yield unit

    def measure(job: Job, unit: Unit) -> str:
        return unit.key

    for outcome in execute(measure, Job(NOWHERE, None, Recipe(Normalization())), take(), workers=1):
        assert outcome.result == outcome.unit.key
        ended.append(outcome.unit.key)
        ahead = max(ahead, len(taken) - len(ended))
    assert ended[:64] == taken[:64]
    assert sorted(ended) == sorted(unit.key for unit in units)
    assert ahead <= 64 * 64
