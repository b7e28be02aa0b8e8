"""An S3 server on loopback, and a bucket of its own for every test."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.faults.faults import small_frames
from tests.faults.inputs import make_time_lapse
from tests.faults.s3_server import run_s3
from tests.faults.stores import VARIABLES, Bucket, new_bucket


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
def image(tmp_path: Path) -> Iterator[Path]:
    """A time-lapse on the local disk, each of whose four frames is a unit of its own, of several chunks."""
    with small_frames():
        yield make_time_lapse(tmp_path)


@pytest.fixture
def web_server(tmp_path: Path) -> Iterator[str]:
    """URL of a web server of the folder ``served``; it lists nothing that a client could parse."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    (tmp_path / "served").mkdir(exist_ok=True)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "served"))) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()
