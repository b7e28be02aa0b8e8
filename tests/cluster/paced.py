"""A Python whose Dask workers wait for tickets, so that a run is where a test wants it, however slow the machine is.

A write of a worker takes one of the tickets that lie in a folder; where a file ``go`` lies there, none is needed.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any


def allow(folder: Path) -> None:
    """Lay down a ticket, where there is none."""
    if not any(folder.glob("ticket-*")):
        (folder / f"ticket-{time.monotonic_ns()}").touch()


def pace(folder: Path) -> None:
    """Have writes wait."""
    from phbatch.places.place import LocalPlace  # which others than workers need not load

    write_all = LocalPlace.write_all

    def write(self: LocalPlace, *given: Any, **named: Any) -> dict[str, Any]:
        while not (folder / "go").exists() and not taken(folder):
            time.sleep(0.1)
        return write_all(self, *given, **named)

    LocalPlace.write_all = write  # type: ignore[method-assign]


def taken(folder: Path) -> bool:
    """Take a ticket, where there is one."""
    for ticket in folder.glob("ticket-*"):
        try:
            ticket.unlink()
        except FileNotFoundError:
            continue
        return True
    return False
