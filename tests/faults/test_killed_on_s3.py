"""Runs from S3 to S3 through a bad network, killed at any request: resumed, they end with the bytes of a local run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random
from typing import Any

import pytest

import phbatch
from phbatch.config import parse_storage_options
from phbatch.events import UnitFinished
from phbatch.storage.ledger import METADATA, Ledger
from tests.faults.conftest import Bucket, upload
from tests.faults.proxy import KINDS, FaultProxy, run_proxy
from tests.faults.test_object_stores import local_bytes, remote_bytes

SOAK = bool(os.environ.get("PHBATCH_SOAK"))
BAD_NETWORK = {"latency": 0.2} | dict.fromkeys(KINDS[1:], 0.02)


def start(source: str, output: str, options: dict[str, Any]) -> subprocess.Popen[str]:
    """A process of its own that runs phbatch."""
    given = ["--model", "none", "--workers", "2", "--json", "--storage-options", json.dumps(options)]
    command = [sys.executable, "-m", "phbatch.cli", "run", source, output, *given]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("seed", range(20 if SOAK else 1))
def test_killed_at_any_request_and_resumed(bucket: Bucket, image: Path, tmp_path: Path, seed: int) -> None:
    draw = Random(seed)
    local = phbatch.run(image, tmp_path / "local.zarr", model="none")
    source, output = upload(image, bucket, "in.zarr"), bucket.url("out.zarr")
    direct = parse_storage_options(bucket.options())
    kills = 0
    with run_proxy(FaultProxy(bucket.port, BAD_NETWORK, seed=seed)) as proxy:
        for _ in range(2 if SOAK else 1):
            moment = len(proxy.requests) + draw.randrange(1, 400)  # of about 410 requests of a whole run
            process = start(source, output, bucket.options(proxy.port))
            while process.poll() is None and len(proxy.requests) < moment:
                time.sleep(0.001)
            process.kill()
            process.communicate()
            kills += process.returncode == -signal.SIGKILL
        committed = len(Ledger(output, direct).records().keys() - {METADATA})
        process = start(source, output, bucket.options(proxy.port))
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        record = json.loads(out.splitlines()[-1])
        assert sum(proxy.faults.values()) >= 5
    print(f"killed {kills} times")
    assert kills >= 1
    assert record["failed"] == {}
    assert (record["units_skipped"], record["units_done"]) == (committed, local.units - committed)
    assert remote_bytes(output, bucket.options()) == local_bytes(local.output)


@pytest.mark.parametrize("seed", range(3 if SOAK else 1))
def test_a_worker_of_a_cluster_is_killed(bucket: Bucket, image: Path, tmp_path: Path, seed: int) -> None:
    from distributed import LocalCluster

    local = phbatch.run(image, tmp_path / "local.zarr", model="none")
    source, output = upload(image, bucket, "in.zarr"), bucket.url("out.zarr")
    killed: list[int] = []
    with (
        run_proxy(FaultProxy(bucket.port, BAD_NETWORK, seed=seed)) as proxy,
        LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0", host="127.0.0.1", silence_logs=50
        ) as cluster,
    ):

        def kill(event: object) -> None:
            if isinstance(event, UnitFinished) and not killed:
                killed.append(next(iter(cluster.workers.values())).pid)
                os.kill(killed[0], signal.SIGKILL)

        run = {"scheduler": cluster.scheduler_address, "storage_options": bucket.options(proxy.port), "model": "none"}
        result = phbatch.run(source, output, listener=kill, **run)
        if result.failed:
            result = phbatch.run(source, output, **run)
    assert killed
    assert result.failed == {}
    assert remote_bytes(output, bucket.options()) == local_bytes(local.output)
