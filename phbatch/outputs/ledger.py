"""The ledger: an append-only record of the units that are finished, one checksummed line each.

A unit is committed only after everything that it wrote is durable, so whatever is not in the ledger is done again. A
line that was torn by a crash fails its checksum and is skipped. Nothing is ever changed: a unit that turned out to be
damaged is retracted by a later record. Only the run that holds the output appends (`phbatch.places.lock`).
"""

from __future__ import annotations

import json
import uuid
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

from phbatch.places.lock import PRIVATE
from phbatch.places.place import Place

FOLDER = f"{PRIVATE}/ledger"

METADATA = "metadata"
"""Key of the record of everything besides units: metadata and tables, as `record_small_objects` describes them."""

_OBJECTS_AT_ONCE = 256


def encode_record(record: Mapping[str, Any]) -> bytes:
    r"""One line: CRC-32 in hexadecimal, a blank, the record as JSON.

    Examples
    --------
    >>> encode_record({"unit": "t0"})
    b'dbe586f7 {"unit": "t0"}\n'
    """
    text = json.dumps(record).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def decode_records(data: bytes) -> Iterator[dict[str, Any]]:
    """Every record whose checksum is right; torn and damaged lines are passed over."""
    for line in data.split(b"\n"):
        checksum, _, text = line.partition(b" ")
        if text and checksum == b"%08x" % zlib.crc32(text):
            yield json.loads(text)


class Ledger:
    """Finished units of one output.

    Local outputs have one file per writer, to which lines are appended and synchronized; places that cannot append have
    one object per record.

    Parameters
    ----------
    output : Place
        The output group.
    """

    def __init__(self, output: Place) -> None:
        self._writer = ""
        self._count = 0
        self._output = output

    def current(self) -> Iterator[dict[str, Any]]:
        """Last record of every unit that is committed and not retracted; one at a time, so read twice."""
        last = {record["unit"]: index for index, record in enumerate(self)}
        for index, record in enumerate(self):
            if last.get(record["unit"]) == index and "retracted" not in record:
                yield record

    def holds_units(self) -> bool:
        """Whether anything besides metadata was ever committed."""
        return any(record["unit"] != METADATA for record in self)

    def records(self) -> dict[str, dict[str, Any]]:
        """What is `current`, by unit, and all of it in memory."""
        return {record["unit"]: record for record in self.current()}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Every record, retractions included, older ones first."""
        for data in self._read():
            yield from decode_records(data)

    def commit(self, record: Mapping[str, Any]) -> None:
        """Append a record durably; it must have a key ``unit``."""
        line = encode_record(record)
        if not self._writer:
            self._writer = self._next_writer()
        try:
            self._append(line)
        except BaseException:
            self._writer = ""  # what was torn must not swallow the next line
            raise

    def retract(self, unit: str) -> None:
        """Take a unit back: it is not finished any more."""
        self.commit({"unit": unit, "retracted": True})

    def _append(self, line: bytes) -> None:
        if self._output.appends:
            self._output.append(f"{FOLDER}/{self._writer}.jsonl", line)
            return
        self._output.write(f"{FOLDER}/{self._writer}-{self._count:08d}.jsonl", line)
        self._count += 1

    def _next_writer(self) -> str:
        """A name that sorts behind those of all earlier writers, whatever became of their files' times."""
        used = [int(name.partition("-")[0]) for name in self._names() if name.partition("-")[0].isdecimal()]
        return f"{max(used, default=0) + 1:06d}-{uuid.uuid4().hex[:8]}"

    def _names(self) -> list[str]:
        return sorted(name for name in self._output.names(FOLDER) if name.endswith(".jsonl"))

    def _read(self) -> Iterator[bytes]:
        names, at_once = self._names(), _OBJECTS_AT_ONCE if self._output.remote else 1
        for first in range(0, len(names), at_once):
            yield from self._output.read_all([f"{FOLDER}/{name}" for name in names[first : first + at_once]])
