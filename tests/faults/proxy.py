"""A proxy on loopback that does to requests what a bad network and a busy object store do, by a seed."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from random import Random

from tests.faults.s3_server import HERE

KINDS = ("latency", "reset", "lost", "503", "slow_down", "truncated")
"""A slow answer; no answer to a request unseen; no answer to one carried out; two refusals; a torn body."""

REFUSALS = {
    "503": (b"503 Service Unavailable", b""),
    "slow_down": (
        b"503 Slow Down",
        b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>",
    ),
}


@dataclass
class FaultProxy:
    """Forwards HTTP/1.1 to a server on loopback, one request per connection; one of its own process it calls.

    Attributes
    ----------
    upstream : int
        Port of the server.
    rates : mapping of str to float
        Probability of each of `KINDS` per request; may be replaced while the proxy runs.
    seed : int
        Of the draw.
    latency_s : float
        Of the fault "latency", at most.
    only : str
        Only requests whose first line holds this text are hurt.
    after : int
        Requests that are left alone at first.
    """

    upstream: int
    rates: Mapping[str, float] = field(default_factory=dict)
    seed: int = 0
    latency_s: float = 0.05
    only: str = ""
    after: int = 0
    port: int = 0
    requests: list[str] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    at_once: int = 0
    most_at_once: int = 0

    def __post_init__(self) -> None:
        self._random = Random(self.seed)
        self.transports: list[asyncio.WriteTransport] = []

    @property
    def url(self) -> str:
        """To give clients as their endpoint."""
        return f"http://127.0.0.1:{self.port}"

    def draw(self, line: str) -> str | None:
        """Fault of a request, if any."""
        if self.only not in line or len(self.requests) <= self.after:
            return None
        chance = self._random.random()
        for kind, rate in self.rates.items():
            chance -= rate
            if chance < 0:
                self.faults[kind] += 1
                return kind
        return None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Handle one connection."""
        self.transports.append(writer.transport)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                await self._serve(reader, writer)
        finally:
            self.at_once -= 1
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        line, *headers = head.decode("latin-1").split("\r\n")
        self.requests.append(line)
        named = {name.strip().lower(): value.strip() for name, _, value in (part.partition(":") for part in headers)}
        if named.get("expect", "").lower() == "100-continue":
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await reader.readexactly(int(named.get("content-length", 0)))
        fault = self.draw(line)
        if fault == "latency":
            await asyncio.sleep(self._random.uniform(0, self.latency_s))
        if fault == "reset":
            _reset(writer)
            return
        if fault in REFUSALS:
            status, text = REFUSALS[fault]
            writer.write(b"HTTP/1.1 %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % (status, len(text)) + text)
            await writer.drain()
            return
        if (server := HERE.get(self.upstream)) is not None:
            method, target, _ = line.split()
            answer = server.respond(method, target, named, body, ends=True)
        else:
            kept = [part for part in headers if part and part.split(":")[0].lower() not in ("connection", "expect")]
            answer = await self._ask("\r\n".join([line, *kept, "Connection: close", "", ""]).encode("latin-1") + body)
        if fault == "lost":
            _reset(writer)
            return
        if fault == "truncated":
            answer = answer[: (len(answer) + answer.index(b"\r\n\r\n") + 4) // 2]
        writer.write(answer)
        await writer.drain()

    async def _ask(self, request: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.upstream)
        self.transports.append(writer.transport)
        try:
            writer.write(request)
            await writer.drain()
            return await reader.read()
        finally:
            writer.close()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with a reset and not with an end of file."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@contextmanager
def run_proxy(proxy: FaultProxy) -> Iterator[FaultProxy]:
    """While inside, a proxy serves from a thread of its own, on a port that the system chooses."""
    loop = asyncio.new_event_loop()
    ready = threading.Event()

    async def main() -> None:
        server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
        proxy.port = server.sockets[0].getsockname()[1]
        ready.set()
        async with server:
            await server.serve_forever()

    task = loop.create_task(main())

    async def end() -> None:
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for connection in left:
            connection.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        for transport in proxy.transports:
            transport.abort()
        for _ in range(3):  # a transport closes in a later round of the loop than it is told to
            await asyncio.sleep(0)

    def work() -> None:
        with suppress(asyncio.CancelledError):
            loop.run_until_complete(task)
        loop.run_until_complete(end())
        loop.close()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    ready.wait(10)
    try:
        yield proxy
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join(10)
