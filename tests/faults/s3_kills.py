"""Runs from S3 to S3 through a bad network, killed at any request: resumed, they end with the bytes of a local run."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from random import Random
from typing import Any

from distributed import LocalCluster

import phbatch
from phbatch.outputs.ledger import METADATA, Ledger
from phbatch.places.place import Place
from phbatch.words.events import UnitFinished
from phbatch.words.given import parse_storage_options
from tests.faults.faults import SMALL, small_frames
from tests.faults.inputs import make_time_lapse
from tests.faults.proxy import KINDS, FaultProxy, run_proxy
from tests.faults.stores import Bucket, local_bytes, remote_bytes, upload
from tests.forks import Forked, forked_workers

BAD_NETWORK = {"latency": 0.2} | dict.fromkeys(KINDS[1:], 0.02)

SHARD_BYTES = 50_000
"""One frame, which is one unit, in a shard of two chunks."""

REQUESTS = {False: 175, True: 155}
"""Less than a whole run needs, without shards and with them."""


def kill_on_s3(folder: Path, bucket: Bucket, seed: int, *, kills: int = 1) -> int:
    """Kill a run at random requests, then let it end and compare; raises where anything is lost.

    Parameters
    ----------
    folder : Path
        For the input and the run that it is compared with.
    bucket : Bucket
        Where input and output lie.
    seed : int
        Of the network's faults and of the moments; where it is odd, the output is sharded.
    kills : int
        How often it is tried to kill the run.

    Returns
    -------
    int
        How often it was killed.
    """
    draw, shards = Random(seed), {"shard": SHARD_BYTES} if seed % 2 else {}
    image = make_time_lapse(folder)
    with small_frames():
        local = phbatch.run(image, folder / "local.zarr", model="none", **shards)
    source, output = upload(image, bucket, "in.zarr"), bucket.url("out.zarr")
    direct = parse_storage_options(bucket.options())
    killed = 0
    with run_proxy(FaultProxy(bucket.port, BAD_NETWORK, seed=seed)) as proxy:
        for _ in range(kills):
            moment = len(proxy.requests) + draw.randrange(1, REQUESTS[bool(shards)])
            process = _start(source, output, bucket.options(proxy.port), shards)
            while process.poll() is None and len(proxy.requests) < moment:
                time.sleep(0.001)
            process.kill()
            process.communicate()
            killed += process.returncode == -signal.SIGKILL
        committed = len(Ledger(Place.at(output, direct)).records().keys() - {METADATA})
        process = _start(source, output, bucket.options(proxy.port), shards)
        out, err = process.communicate(timeout=180)
        assert process.returncode == 0, err
        record = json.loads(out.splitlines()[-1])
        assert sum(proxy.faults.values()) >= 5
    assert killed >= 1
    assert record["failed"] == {}
    assert (record["units_skipped"], record["units_done"]) == (committed, local.units - committed)
    assert remote_bytes(output, bucket.options()) == local_bytes(local.output)
    return killed


def lose_a_worker_on_s3(folder: Path, bucket: Bucket, seed: int) -> None:
    """A cluster through a bad network, one worker of which is killed; raises where anything is lost."""
    image = make_time_lapse(folder)
    with small_frames():
        local = phbatch.run(image, folder / "local.zarr", model="none")
    source, output = upload(image, bucket, "in.zarr"), bucket.url("out.zarr")
    lost: list[int] = []
    with (
        small_frames(),
        forked_workers(),
        run_proxy(FaultProxy(bucket.port, BAD_NETWORK, seed=seed)) as proxy,
        LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0", host="127.0.0.1", silence_logs=50
        ) as cluster,
    ):

        def kill_one(event: object) -> None:
            if isinstance(event, UnitFinished) and not lost:
                lost.append(next(iter(cluster.workers.values())).pid)
                os.kill(lost[0], signal.SIGKILL)

        run = {"scheduler": cluster.scheduler_address, "storage_options": bucket.options(proxy.port), "model": "none"}
        result = phbatch.run(source, output, listener=kill_one, **run)
        if result.failed:
            result = phbatch.run(source, output, **run)
    assert lost
    assert result.failed == {}
    assert remote_bytes(output, bucket.options()) == local_bytes(local.output)


def _start(source: str, output: str, options: dict[str, Any], shards: dict[str, int]) -> Forked:
    """A process of its own that runs phbatch."""
    given = ["--model", "none", "--workers", "2", "--json", "--storage-options", json.dumps(options)]
    given += [argument for name, size in shards.items() for argument in (f"--{name}", str(size))]
    return Forked(SMALL, ["run", source, output, *given])
