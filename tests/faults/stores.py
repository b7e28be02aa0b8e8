"""An S3 server on loopback, buckets of it, and what an output holds in numbers, there and on a disk."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from phbatch.places.place import Place
from phbatch.words.given import parse_storage_options

SECRET = "CANARY-wJalrXUtnFEMI"
"""Stands for every credential: it must never be seen."""

VARIABLES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_REGION")
"""What the machine's environment may say of S3, and a test must not see."""

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


def new_bucket(port: int) -> Bucket:
    """A bucket that was not there before."""
    name = f"bucket-{next(_COUNT)}"
    with urlopen(Request(f"http://127.0.0.1:{port}/{name}", method="PUT"), timeout=10) as answer:
        assert answer.status == 200
    return Bucket(port, name)


def upload(folder: Path, bucket: Bucket, key: str) -> str:
    """Copy a folder into a bucket; returns its URL."""
    place = Place.at(bucket.url(key), parse_storage_options(bucket.options()))
    for file in folder.rglob("*"):
        if file.is_file():
            place.write(file.relative_to(folder).as_posix(), file.read_bytes())
    return bucket.url(key)


def local_bytes(output: str) -> dict[str, bytes]:
    """Files of a local output that hold numbers: the pixels, the statistics, the metadata of every array."""
    root = Path(output)
    found = {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    return {key: data for key, data in found.items() if not key.startswith(".phbatch") and key != "zarr.json"}


def remote_bytes(url: str, options: dict[str, Any]) -> dict[str, bytes]:
    """The same of an output in S3."""
    place = Place.at(url, parse_storage_options(options))
    keys = [key for key, _, _ in place.files() if not key.startswith(".phbatch") and key != "zarr.json"]
    return dict(zip(keys, place.read_all(keys), strict=True))
