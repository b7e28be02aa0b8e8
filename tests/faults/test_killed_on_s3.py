"""A kill without and with shards, and a cluster that loses a worker, on S3; `make soak` tries twenty and three."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.s3_kills import kill_on_s3, lose_a_worker_on_s3
from tests.faults.stores import Bucket


@pytest.mark.parametrize("seed", [0, 1], ids=["plain", "sharded"])
def test_killed_at_any_request_and_resumed(bucket: Bucket, tmp_path: Path, seed: int) -> None:
    kill_on_s3(tmp_path, bucket, seed)


def test_a_worker_of_a_cluster_is_killed(bucket: Bucket, tmp_path: Path) -> None:
    lose_a_worker_on_s3(tmp_path, bucket, seed=0)
