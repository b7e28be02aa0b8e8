"""Chromium without a window, driven over its DevTools protocol: pages are opened, clicked and looked at."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import time
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from tornado.httpclient import AsyncHTTPClient
from tornado.websocket import websocket_connect

_PATIENCE_S = 120.0


def find_chromium() -> str | None:
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return next((found for name in names if (found := shutil.which(name))), None)


needs_browser = pytest.mark.skipif(find_chromium() is None, reason="no Chromium on this machine: apt install chromium")


class Page:
    """One page of a browser."""

    def __init__(self, connection: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._connection, self._loop, self._count = connection, loop, 0
        self.problems: list[str] = []

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self._loop.run_until_complete(asyncio.wait_for(self._call(method, parameters), _PATIENCE_S))

    async def _call(self, method: str, parameters: dict[str, Any]) -> dict[str, Any]:
        self._count += 1
        number = self._count
        await self._connection.write_message(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            text = await self._connection.read_message()
            if text is None:
                raise ConnectionError("the browser is gone")
            message = json.loads(text)
            self._note(message)
            if message.get("id") == number:
                assert "error" not in message, message["error"]
                return dict(message["result"])

    def _note(self, message: dict[str, Any]) -> None:
        if message.get("method") == "Runtime.exceptionThrown":
            self.problems.append(
                message["params"]["exceptionDetails"].get("exception", {}).get("description", "exception")
            )
        if message.get("method") == "Log.entryAdded" and message["params"]["entry"]["level"] == "error":
            self.problems.append(message["params"]["entry"]["text"])

    def resize(self, width: int, height: int = 900) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )

    def open(self, url: str) -> None:
        self.call("Page.navigate", url=url)
        self.wait_for("document.readyState === 'complete' && location.href !== 'about:blank'")

    def run(self, script: str) -> Any:
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait_for(self, condition: str) -> None:
        stop = time.monotonic() + _PATIENCE_S
        while not self.run(f"Boolean({condition})"):
            assert time.monotonic() < stop, f"{condition} did not come true; {self.problems}"
            time.sleep(0.05)

    def click(self, x: float, y: float, to: tuple[float, float] | None = None) -> None:
        """Press and release the mouse, or drag it somewhere."""
        self.call("Input.dispatchMouseEvent", type="mousePressed", x=x, y=y, button="left", clickCount=1)
        if to is not None:
            x, y = to
            self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y, button="left", buttons=1)
        self.call("Input.dispatchMouseEvent", type="mouseReleased", x=x, y=y, button="left", clickCount=1)

    def screenshot(self, *, whole: bool = False) -> bytes:
        return b64decode(self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"])


@contextmanager
def browser() -> Iterator[Page]:
    """A page of a new browser, which is ended afterwards."""
    chromium = find_chromium()
    assert chromium is not None
    loop = asyncio.new_event_loop()
    with TemporaryDirectory(prefix="phbatch-browser-", ignore_cleanup_errors=True) as folder:
        flags = ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars", "--no-first-run")
        graphics = ("--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist")
        process = subprocess.Popen(
            [chromium, *flags, *graphics, "--remote-debugging-port=0", f"--user-data-dir={folder}", "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            page = loop.run_until_complete(asyncio.wait_for(_connect(Path(folder)), _PATIENCE_S))
            for domain in ("Page", "Runtime", "Log"):
                page.call(f"{domain}.enable")
            yield page
            page.call("Browser.close")
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()


async def _connect(folder: Path) -> Page:
    port = folder / "DevToolsActivePort"
    while not (port.exists() and port.read_text().strip()):
        await asyncio.sleep(0.05)
    number = port.read_text().split()[0]
    client = AsyncHTTPClient()
    while True:
        pages = json.loads((await client.fetch(f"http://127.0.0.1:{number}/json/list")).body)
        addresses = [page["webSocketDebuggerUrl"] for page in pages if page["type"] == "page"]
        if addresses:
            break
        await asyncio.sleep(0.05)
    connection = await websocket_connect(addresses[0], max_message_size=1 << 28)
    return Page(connection, asyncio.get_running_loop())
