"""S3 as moto emulates it, on loopback: what the tests' own server is held against, and what the campaign runs on."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from moto.s3.responses import S3Response
from moto.server import create_backend_app
from werkzeug.serving import make_server

_PUTTING = threading.Lock()
_put_object = S3Response.put_object


def _put_one_at_once(self: S3Response) -> Any:
    """S3 promises that of conditional writes one wins; this server looks first and writes then."""
    with _PUTTING:
        return _put_object(self)


S3Response.put_object = _put_one_at_once


@contextmanager
def run_moto() -> Iterator[int]:
    """While inside, a server runs; its port."""
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # a line for every request takes as long as the request
    # Without the dispatcher among all services of AWS, which takes a third of the time of a request.
    server = make_server("127.0.0.1", 0, create_backend_app("s3"), threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
