"""The part of Google's XML interface that an object store needs, in memory on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import md5
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

_DATE = "Tue, 24 Nov 2026 12:00:00 GMT"


class Handler(BaseHTTPRequestHandler):
    """PUT, GET, HEAD and DELETE of ``/bucket/key``, and the list of a bucket."""

    objects: dict[str, bytes]
    generations: dict[str, int]
    putting: Lock

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_PUT(self) -> None:
        key, data = self._key(), self.rfile.read(int(self.headers["Content-Length"]))
        wanted = self.headers.get("x-goog-if-generation-match")
        with self.putting:
            if wanted is not None and int(wanted) != (self.generations[key] if key in self.objects else 0):
                self._answer(412)
                return
            self.objects[key] = data
            self.generations[key] = self.generations.get(key, 0) + 1
        self._answer(200, data)

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        if "list-type" in parts.query:
            asked = parse_qs(parts.query)
            self._list(asked.get("prefix", [""])[0], asked.get("delimiter", [""])[0])
            return
        data = self.objects.get(self._key())
        self._answer(404 if data is None else 200, data or b"", send=True)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_DELETE(self) -> None:
        self._answer(204 if self.objects.pop(self._key(), None) is not None else 404)

    def _key(self) -> str:
        return "".join(unquote(urlsplit(self.path).path).split("/", 2)[2:])

    def _list(self, prefix: str, delimiter: str) -> None:
        rows, folders = "", set()
        for key, data in sorted(self.objects.items()):
            inner = key.removeprefix(prefix)
            if not key.startswith(prefix):
                continue
            if delimiter and delimiter in inner:
                folders.add(f"{prefix}{inner.partition(delimiter)[0]}{delimiter}")
                continue
            rows += (
                f"<Contents><Key>{escape(key)}</Key><LastModified>2026-11-24T12:00:00.000Z</LastModified>"
                f'<ETag>"{md5(data).hexdigest()}"</ETag><Size>{len(data)}</Size></Contents>'
            )
        for folder in sorted(folders):
            rows += f"<CommonPrefixes><Prefix>{escape(folder)}</Prefix></CommonPrefixes>"
        text = f"<ListBucketResult><IsTruncated>false</IsTruncated>{rows}</ListBucketResult>"
        self._answer(200, text.encode(), send=True)

    def _answer(self, status: int, data: bytes = b"", *, send: bool = False) -> None:
        self.send_response(status)
        self.send_header("ETag", f'"{md5(data).hexdigest()}"')
        self.send_header("x-goog-generation", str(self.generations.get(self._key(), 0)))
        self.send_header("Last-Modified", _DATE)
        self.send_header("Content-Length", str(len(data) if send else 0))
        self.end_headers()
        if send and self.command != "HEAD":
            self.wfile.write(data)


@contextmanager
def run_google_store() -> Iterator[str]:
    """While inside, a store serves; its URL."""
    handler = type("Own", (Handler,), {"objects": {}, "generations": {}, "putting": Lock()})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()
