"""Where the pages of a Dask scheduler are."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from typing import Any

import dask
import psutil

from phbatch.computing.cluster import identify
from phbatch.words.events import Listener, Notice, Stop

_ANSWER_S = 1.0
_HERE = "127.0.0.1"


def say_dashboard(scheduler: str | None, stop: Stop, listener: Listener) -> None:
    """Say the address of a scheduler's pages, where they answer."""
    if scheduler is not None and (address := dashboard_of(scheduler, identify(scheduler, stop))):
        listener(Notice(f"dashboard: {address}"))


def dashboard_of(scheduler: str, identity: dict[str, Any]) -> str:
    """Address of the pages; empty where there are none that are seen from here.

    Parameters
    ----------
    scheduler : str
        Its address.
    identity : dict
        What it says of itself; a scheduler may listen to all and show its pages on its own machine alone.
    """
    port = (identity.get("services") or {}).get("dashboard")
    host = scheduler.partition("://")[2].rpartition(":")[0].strip("[]")
    if not port or not host:
        return ""
    here = {each.address for found in psutil.net_if_addrs().values() for each in found}
    for each in dict.fromkeys((host, *([_HERE] if host in here else []))):
        with suppress(OSError), socket.create_connection((each, int(port)), _ANSWER_S):
            safe = dask.config.get("distributed.scheduler.dashboard.tls.cert", None)
            facts = {**os.environ, "scheme": "https" if safe else "http", "host": each, "port": port}
            return str(dask.config.get("distributed.dashboard.link", "{scheme}://{host}:{port}/status").format(**facts))
    return ""
