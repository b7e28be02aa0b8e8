"""Workers that end in peace: what they compute is finished, what they hold is handed over, nothing is done twice."""

from __future__ import annotations

import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from distributed import Client

from phbatch.computing.drain import drain
from tests.cluster.dask_processes import open_processes, wait_until
from tests.clusters import open_cluster

BEGUN: Counter[int] = Counter()


def work(number: int) -> int:
    BEGUN[number] += 1
    time.sleep(0.3)
    return number


def test_a_worker_that_drains_finishes_what_it_computes_and_leaves_the_rest() -> None:
    BEGUN.clear()
    with open_cluster(2) as cluster, Client(cluster, set_as_default=False) as client:
        futures = client.map(work, range(8), pure=False)
        wait_until(lambda: len(BEGUN) >= 2)
        first, other = cluster.workers.values()
        cluster.sync(drain, first)
        assert first.status.name == "closed"
        assert other.status.name == "running"
        assert client.gather(futures) == list(range(8))
    assert set(BEGUN.values()) == {1}


def test_the_last_worker_that_drains_waits_until_its_results_are_fetched() -> None:
    BEGUN.clear()
    with open_cluster(1) as cluster, Client(cluster, set_as_default=False) as client:
        (future,) = client.map(work, [5], pure=False)
        wait_until(lambda: BEGUN)
        (worker,) = cluster.workers.values()
        cluster.loop.add_callback(drain, worker)
        assert future.result(timeout=60) == 5
        future.release()
        wait_until(lambda: worker.status.name == "closed")
    assert BEGUN == {5: 1}


@pytest.mark.parametrize("nanny", [False, True])
def test_a_worker_process_drains_on_sigterm(tmp_path: Path, nanny: bool) -> None:
    both = ("--preload", "phbatch.computing.drain", "--preload-nanny", "phbatch.computing.drain")
    with open_processes(tmp_path) as processes, Client(processes.address, set_as_default=False) as client:
        worker = processes.add(*(both if nanny else both[:2]), nanny=nanny)
        client.wait_for_workers(1, timeout=180)
        future = client.submit(time.sleep, 1.5, pure=False)
        wait_until(lambda: any(client.processing().values()))
        time.sleep(0.3)  # until it is begun
        worker.send_signal(signal.SIGTERM)
        assert future.result(timeout=60) is None
        future.release()
        assert worker.wait(120) == 0
        assert "phbatch drained" in processes.log(worker)


def test_a_worker_process_drains_at_its_time(tmp_path: Path) -> None:
    with open_processes(tmp_path) as processes, Client(processes.address, set_as_default=False) as client:
        worker = processes.add(
            "--preload", "phbatch.computing.drain", environment={"DASK_PHBATCH__DRAIN__AFTER": "0.5"}
        )
        assert worker.wait(180) == 0
        assert "0.5 s are over" in processes.log(worker)
        assert client.scheduler_info()["workers"] == {}
