"""An S3 server on loopback, and a bucket of its own for every test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.inputs import make_time_lapse
from tests.faults.stores import VARIABLES, Bucket, new_bucket, run_s3


@pytest.fixture(scope="session")
def s3_server() -> Iterator[int]:
    """Port of the server."""
    with run_s3() as port:
        yield port


@pytest.fixture
def bucket(s3_server: int, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """A new bucket; what the machine's environment says of S3 is not seen."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    return new_bucket(s3_server)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """Four frames of 1040 x 1030, of which each is a unit of its own: a time-lapse on the local disk."""
    return make_time_lapse(tmp_path)
