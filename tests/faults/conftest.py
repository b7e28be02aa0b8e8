"""An S3 server on loopback, and a bucket of its own for every test."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from urllib.request import Request, urlopen

import numpy as np
import pytest
import zarr
from moto.server import ThreadedMotoServer

from phbatch.config import parse_storage_options
from phbatch.storage.remote import write_object

SECRET = "CANARY-wJalrXUtnFEMI"
"""Stands for every credential: it must never be seen."""

_COUNT = count()


@dataclass(frozen=True)
class Bucket:
    """A bucket of the server.

    Attributes
    ----------
    port : int
        Of the server.
    name : str
        Of the bucket.
    """

    port: int
    name: str

    def url(self, key: str) -> str:
        """As a user would name it."""
        return f"s3://{self.name}/{key}"

    def options(self, port: int = 0) -> dict[str, object]:
        """Storage options, for the server or for a proxy in front of it."""
        return {
            "key": f"{SECRET}-KEY",
            "secret": SECRET,
            "endpoint_url": f"http://127.0.0.1:{port or self.port}",
            "region": "us-east-1",
            "max_retries": 10,
        }


@pytest.fixture(scope="session")
def s3_server() -> Iterator[int]:
    """Port of the server."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield server.get_host_and_port()[1]
    server.stop()


@pytest.fixture
def bucket(s3_server: int, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """A new bucket; what the machine's environment says of S3 is not seen."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    name = f"bucket-{next(_COUNT)}"
    with urlopen(Request(f"http://127.0.0.1:{s3_server}/{name}", method="PUT"), timeout=10) as answer:
        assert answer.status == 200
    return Bucket(s3_server, name)


def upload(folder: Path, bucket: Bucket, key: str) -> str:
    """Copy a folder into a bucket; returns its URL."""
    options = parse_storage_options(bucket.options())
    for file in folder.rglob("*"):
        if file.is_file():
            write_object(bucket.url(key), file.relative_to(folder).as_posix(), file.read_bytes(), options)
    return bucket.url(key)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """Four frames of 1040 x 1030, of which each is a unit of its own: a time-lapse on the local disk."""
    draw = np.random.default_rng(3)
    frames = draw.integers(400, 600, (4, 1040, 1030), dtype="uint16")
    zarr.create_array(tmp_path / "in.zarr", data=frames, chunks=(1, 520, 1030))
    return tmp_path / "in.zarr"
