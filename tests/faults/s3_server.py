"""The part of S3 that phbatch asks for, in memory on loopback: a request takes a tenth of the time of moto's.

`tests/faults/test_s3_server.py` holds its answers against those of moto, an emulator by others. What it does not know
it refuses with 501, which no test expects.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from email.utils import formatdate
from hashlib import md5
from http import HTTPStatus
from socketserver import StreamRequestHandler, ThreadingTCPServer
from time import gmtime, strftime, time
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote
from xml.sax.saxutils import escape, unescape

_PAGE = 1000
"""Keys of one answer to a list."""

_KNOWN = {
    "list-type",
    "prefix",
    "delimiter",
    "continuation-token",
    "start-after",
    "max-keys",
    "delete",
    "encoding-type",
}


HERE = dict[int, "Server"]()
"""Servers of this process, by their ports: a proxy before them asks them without a connection."""


class Object(NamedTuple):
    """What lies under a key."""

    data: bytes
    etag: str
    written: float


class Answer(NamedTuple):
    """Of the server."""

    status: int
    data: bytes = b""
    headers: Mapping[str, str] = {}


class Server(ThreadingTCPServer):
    """Buckets, and a thread for every connection."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        self.buckets: dict[str, dict[str, Object]] = {}
        self.putting = threading.Lock()
        super().__init__(("127.0.0.1", 0), _Connection)

    def answer(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """To one request."""
        path, _, text = target.partition("?")
        name, _, key = unquote(path[1:]).partition("/")
        asked = dict(parse_qsl(text, keep_blank_values=True))
        if asked.keys() - _KNOWN:
            return Answer(501)
        if method == "PUT" and not key:
            self.buckets.setdefault(name, {})
            return Answer(200)
        if (objects := self.buckets.get(name)) is None:
            return _refuse(404, "NoSuchBucket")
        if method == "PUT":
            return self._put(objects, key, headers, body)
        if method == "POST" and "delete" in asked:
            return _delete_many(objects, body)
        if method == "DELETE":
            objects.pop(key, None)
            return Answer(204)
        if method == "GET" and not key:
            return _list(objects, name, asked)
        return _get(objects, key, headers) if method in ("GET", "HEAD") else Answer(501)

    def respond(self, method: str, target: str, headers: Mapping[str, str], body: bytes, *, ends: bool) -> bytes:
        """What goes over the wire in answer to a request, of a connection that ends or stays."""
        found = self.answer(method, target, headers, body)
        rows = {"Content-Length": str(len(found.data)), "Connection": "close" if ends else "keep-alive"}
        rows |= found.headers
        head = "".join(f"{name}: {value}\r\n" for name, value in rows.items())
        said = f"HTTP/1.1 {found.status} {HTTPStatus(found.status).phrase}\r\n{head}\r\n".encode("latin-1")
        return said if method == "HEAD" else said + found.data

    def _put(self, objects: dict[str, Object], key: str, headers: Mapping[str, str], body: bytes) -> Answer:
        if headers.keys() & {"x-amz-copy-source", "x-amz-decoded-content-length"}:
            return Answer(501)
        written = Object(body, f'"{md5(body, usedforsecurity=False).hexdigest()}"', time())
        with self.putting:  # of conditional writes one wins
            there = objects.get(key)
            if "if-none-match" in headers and there is not None:
                return _refuse(412, "PreconditionFailed")
            if (wanted := headers.get("if-match")) is not None and there is None:
                return _refuse(404, "NoSuchKey")
            if wanted is not None and there is not None and wanted.strip('"') != there.etag.strip('"'):
                return _refuse(412, "PreconditionFailed")
            objects[key] = written
        return Answer(200, headers={"ETag": written.etag})


class _Connection(StreamRequestHandler):
    """Requests of one client, one after the other."""

    server: Server
    wbufsize = -1
    disable_nagle_algorithm = True

    def handle(self) -> None:
        with suppress(ConnectionError):
            while self._handle_one():
                pass

    def _handle_one(self) -> bool:
        line = self.rfile.readline().decode("latin-1")
        if not line.strip():
            return False
        method, target, _ = line.split()
        headers = dict[str, str]()
        while (row := self.rfile.readline().decode("latin-1").strip()) != "":
            name, _, value = row.partition(":")
            headers[name.lower()] = value.strip()
        body = self.rfile.read(int(headers.get("content-length", 0)))
        ends = headers.get("connection", "").lower() == "close"
        self.wfile.write(self.server.respond(method, target, headers, body, ends=ends))
        self.wfile.flush()
        return not ends


def _refuse(status: int, code: str) -> Answer:
    return Answer(status, f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode())


def _get(objects: dict[str, Object], key: str, headers: Mapping[str, str]) -> Answer:
    if (found := objects.get(key)) is None:
        return _refuse(404, "NoSuchKey")
    data, size = found.data, len(found.data)
    told = {"ETag": found.etag, "Last-Modified": formatdate(found.written, usegmt=True)}
    if "range" not in headers:
        return Answer(200, data, told)
    first, last = re.fullmatch(r"bytes=(\d*)-(\d*)", headers["range"]).groups()  # type: ignore[union-attr]
    start = int(first) if first else max(0, size - int(last))
    stop = min(size, int(last) + 1) if first and last else size
    if start >= size:
        return _refuse(416, "InvalidRange")
    return Answer(206, data[start:stop], told | {"Content-Range": f"bytes {start}-{stop - 1}/{size}"})


def _delete_many(objects: dict[str, Object], body: bytes) -> Answer:
    keys = [unescape(key, {"&quot;": '"', "&apos;": "'"}) for key in re.findall(r"<Key>(.*?)</Key>", body.decode())]
    for key in keys:
        objects.pop(key, None)
    rows = "".join(f"<Deleted><Key>{escape(key)}</Key></Deleted>" for key in keys)
    return Answer(200, f"<DeleteResult>{rows}</DeleteResult>".encode())


def _list(objects: dict[str, Object], name: str, asked: Mapping[str, Any]) -> Answer:
    prefix, delimiter = asked.get("prefix", ""), asked.get("delimiter", "")
    after = max(asked.get("start-after", ""), asked.get("continuation-token", ""))
    room = min(_PAGE, int(asked.get("max-keys", _PAGE)))
    rows, last, more = list[str](), "", False
    for key in sorted(objects):
        folder, found, _ = key[len(prefix) :].partition(delimiter) if delimiter else (key, "", "")
        said = prefix + folder + delimiter if found else key
        if not key.startswith(prefix) or said <= after or said == last or (there := objects.get(key)) is None:
            continue
        if more := len(rows) == room:
            break
        last = said
        if found:
            rows.append(f"<CommonPrefixes><Prefix>{escape(said)}</Prefix></CommonPrefixes>")
            continue
        date = strftime("%Y-%m-%dT%H:%M:%S.000Z", gmtime(there.written))
        rows.append(
            f"<Contents><Key>{escape(key)}</Key><LastModified>{date}</LastModified><ETag>{escape(there.etag)}</ETag>"
            f"<Size>{len(there.data)}</Size><StorageClass>STANDARD</StorageClass></Contents>"
        )
    token = f"<NextContinuationToken>{escape(last)}</NextContinuationToken>" if more else ""
    told = f"<Name>{name}</Name><KeyCount>{len(rows)}</KeyCount><IsTruncated>{str(more).lower()}</IsTruncated>{token}"
    return Answer(200, f"<ListBucketResult>{told}{''.join(rows)}</ListBucketResult>".encode())


@contextmanager
def run_s3() -> Iterator[int]:
    """While inside, a server runs; its port."""
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
        thread.start()
        port: int = server.server_address[1]
        HERE[port] = server
        try:
            yield port
        finally:
            del HERE[port]
            server.shutdown()
            thread.join()
