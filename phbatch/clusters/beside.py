"""The folder beside an output, ``<stem>.jobs``: who was asked to compute it, what they say, scripts and logs.

Whoever sees the output sees it, too, wherever that is: nothing else is needed to say how far a run is, to stop it, or
to find its logs.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from phbatch.places.beside import place_beside
from phbatch.places.place import Place

_RECORD, _CANCEL = "submission.json", "cancel.json"


class Jobs:
    """What lies beside an output.

    Parameters
    ----------
    output : Place
        On a disk or elsewhere; it need not exist.

    Attributes
    ----------
    place : Place
        The folder.
    """

    def __init__(self, output: Place) -> None:
        self.place = place_beside(output.path, ".jobs", output.options)

    def submitted(self) -> dict[str, Any]:
        """What was submitted last; empty where nothing was."""
        return self._read(_RECORD)

    def submit(self, record: dict[str, Any]) -> None:
        """Record who computes from now on; what was said and asked before is over.

        Parameters
        ----------
        record : dict
            ``kind``, ``job`` (of the controller, or of the array), ``logs`` (their folder), and what the kind needs.
        """
        self.place.remove([name for name in self._names() if name.endswith(".json")])
        self._write(_RECORD, {"at": time.time(), **record})

    def say(self, who: str, state: dict[str, Any]) -> None:
        """One of those that compute says how it is doing: ``state`` in words, ``host``, ``process``, ``job``."""
        self._write(f"state-{who}.json", {"at": time.time(), **state})

    def states(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """What each of those that compute said last, by its name."""
        for name in sorted(self._names()):
            if name.startswith("state-") and name.endswith(".json"):
                yield name.removeprefix("state-").removesuffix(".json"), self._read(name)

    def cancel(self) -> None:
        """Ask those that compute to stop, wherever they are."""
        self._write(_CANCEL, {"at": time.time()})

    def cancelled(self) -> bool:
        """Whether they are asked to."""
        return bool(self._read(_CANCEL))

    def _names(self) -> list[str]:
        with suppress(OSError):
            return [name for name, is_folder in self.place.names().items() if not is_folder]
        return []

    def _read(self, name: str) -> dict[str, Any]:
        with suppress(OSError, ValueError):
            found = json.loads(self.place.read(name))
            return found if isinstance(found, dict) else {}
        return {}

    def _write(self, name: str, record: dict[str, Any]) -> None:
        self.place.write(name, json.dumps(record).encode())
