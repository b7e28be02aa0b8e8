"""Where a run goes without being told, and whose memory and cores it plans with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dask
import numpy as np
import pytest
import zarr
from distributed import Client, LocalCluster, get_task_stream

import phbatch
from phbatch.computing.machine import Machine, active_client, machine_of
from tests.clusters import open_cluster
from tests.faults.inputs import files

LIMIT = 3 << 30


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    """Two workers of two threads in this process."""
    with open_cluster(2, 2, memory_limit=LIMIT) as found:
        yield found


@pytest.fixture
def source(tmp_path: Path) -> Path:
    frames = np.random.default_rng(2).normal(900, 30, (6, 40, 40)).astype("uint16")
    zarr.create_array(tmp_path / "in.zarr", data=frames, chunks=(1, 40, 40))
    return tmp_path / "in.zarr"


def test_a_cluster_plans_with_its_workers(cluster: LocalCluster, source: Path) -> None:
    found = machine_of(cluster.scheduler_address)
    assert found == Machine(int(1.6 * LIMIT), 2)
    plan = phbatch.plan(source, model="none", scheduler=cluster.scheduler_address)
    assert plan.allowed_mem == found.available_bytes // 2
    assert plan.allowed_mem <= 0.8 * LIMIT


def test_the_active_client_is_used_unless_dask_is_told_otherwise(cluster: LocalCluster, source: Path) -> None:
    folder = source.parent
    assert active_client() is None
    alone = phbatch.run(source, folder / "alone.zarr", model="none", workers=1, command="same")
    with Client(cluster) as client:
        with get_task_stream(client) as stream:
            there = phbatch.run(source, folder / "there.zarr", model="none", command="same")
        with get_task_stream(client) as silent, dask.config.set(scheduler="threads"):
            phbatch.run(source, folder / "here.zarr", model="none", command="same")
        assert client.submit(sum, [1, 2]).result() == 3
    assert any(task["key"].startswith("restore-t") for task in stream.data)
    assert silent.data == []
    assert there.units_done == alone.units_done
    for name in ("there.zarr", "here.zarr"):
        assert files(folder / name / "0") == files(folder / "alone.zarr" / "0")


def where(_: int) -> tuple[Machine, bool]:
    return machine_of(None), active_client() is None


def test_a_task_of_the_host_has_its_slot(cluster: LocalCluster, source: Path) -> None:
    with Client(cluster) as client:
        machine, without_client = client.submit(where, 0, pure=False).result()
        outputs = [str(source.parent / f"out{index}.zarr") for index in range(3)]
        results = client.gather(client.map(run_within, [str(source)] * 3, outputs, pure=False))
    assert (machine, without_client) == (Machine(int(1.6 * LIMIT) // 2, 1), True)
    assert [(result.units_done, result.workers) for result in results] == [(results[0].units, 1)] * 3


def run_within(source: str, output: str) -> phbatch.RunResult:
    return phbatch.run(source, output, model="none")
