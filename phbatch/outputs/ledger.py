"""The ledger: an append-only record of the units that are finished, one checksummed line each.

A unit is committed only after everything that it wrote is durable, so whatever is not in the ledger is done again. A
line that was torn by a crash fails its checksum and is skipped. Nothing is ever changed: a unit that turned out to be
damaged is retracted by a later record. Only who holds the output, or a part of it, appends (`phbatch.places.lock`), and
nobody to what another wrote.
"""

from __future__ import annotations

import json
import re
import uuid
import zlib
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from phbatch.places.own import PRIVATE
from phbatch.places.place import Place
from phbatch.planning.positions import PositionUnits
from phbatch.planning.units import Units
from phbatch.words.bits import Bits

FOLDER = f"{PRIVATE}/ledger"

METADATA = "metadata"
"""Key of the record of everything besides units: metadata and tables, as `record_small_objects` describes them."""

_UNIT = re.compile(rb'\{"unit": "([\w/-]+)"')


def encode_record(record: Mapping[str, Any]) -> bytes:
    r"""One line: CRC-32 in hexadecimal, a blank, the record as JSON.

    Examples
    --------
    >>> encode_record({"unit": "t0"})
    b'dbe586f7 {"unit": "t0"}\n'
    """
    text = json.dumps(_share_texts(record)).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def decode_records(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """Every record whose checksum is right; torn and damaged lines are passed over."""
    yield from map(_parse, _whole_texts(lines))


def _share_texts(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """A record that holds documents with each text once: of a plate, hundreds have the same."""
    documents = record.get("documents")
    if not documents:
        return record
    numbers = {text: number for number, text in enumerate(dict.fromkeys(documents.values()))}
    return {**record, "documents": {key: numbers[text] for key, text in documents.items()}, "texts": [*numbers]}


def _parse(text: bytes) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(text)
    texts = record.pop("texts", None)
    if texts is not None:
        record["documents"] = {key: texts[number] for key, number in record["documents"].items()}
    return record


def _whole_texts(lines: Iterable[bytes]) -> Iterator[bytes]:
    for line in lines:
        checksum, _, text = line.removesuffix(b"\n").partition(b" ")
        if text and checksum == b"%08x" % zlib.crc32(text):
            yield text


def _unit_of(text: bytes) -> str:
    """Unit of a record, which is its first value."""
    match = _UNIT.match(text)
    return match[1].decode() if match else str(json.loads(text)["unit"])


class Ledger:
    """Finished units of one output.

    Local outputs have one file per writer, to which lines are appended and synchronized; places that cannot append have
    one object per commit. Records that are committed together cost what one does.

    Parameters
    ----------
    output : Place
        The output group.
    folder : str
        Of another ledger of the same output: what a unit was found to be, before it is restored.
    """

    def __init__(self, output: Place, folder: str = FOLDER) -> None:
        self._writer = ""
        self._count = 0
        self._output, self._folder = output, folder

    def current(self, units: Units | PositionUnits | None = None) -> Iterator[dict[str, Any]]:
        """Last record of every unit that is committed and not retracted; one at a time, so read twice.

        Parameters
        ----------
        units : Units, optional
            Those of the run: they are told apart by a bit each, and all else by its name.
        """
        seen, others, count = Bits(len(units or ())), set[str](), 0
        last: dict[str, int] = {}  # of what has more than one
        for index, text in enumerate(_whole_texts(self._lines())):
            unit, count = _unit_of(text), index + 1
            position = units.find(unit) if units is not None else None
            new = seen.add(position) if position is not None else unit not in others
            if not new:
                last[unit] = index
            elif position is None:
                others.add(unit)
        for index, record in enumerate(islice(self, count)):
            if last.get(record["unit"], index) == index and "retracted" not in record:
                yield record

    def metadata(self) -> dict[str, Any] | None:
        """Last record of everything besides units; None where there is none."""
        last = None
        for text in _whole_texts(self._lines()):
            if _unit_of(text) == METADATA:
                last = text
        return None if last is None else _parse(last)

    def holds_units(self) -> bool:
        """Whether anything besides metadata was ever committed."""
        return any(record["unit"] != METADATA for record in self)

    def records(self) -> dict[str, dict[str, Any]]:
        """What is `current`, by unit, and all of it in memory."""
        return {record["unit"]: record for record in self.current()}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Every record, retractions included, older ones first."""
        return decode_records(self._lines())

    def commit(self, *records: Mapping[str, Any]) -> None:
        """Append records durably, all at once; each must have a key ``unit``, and a crash may leave the first few."""
        if not records:
            return
        lines = b"".join(map(encode_record, records))
        if not self._writer:
            self._writer = self._next_writer()
        try:
            self._append(lines)
        except BaseException:
            self._writer = ""  # what was torn must not swallow the next line
            raise

    def retract(self, unit: str) -> None:
        """Take a unit back: it is not finished any more."""
        self.commit({"unit": unit, "retracted": True})

    def _append(self, lines: bytes) -> None:
        if self._output.appends:
            self._output.append(f"{self._folder}/{self._writer}.jsonl", lines)
            return
        self._output.write(f"{self._folder}/{self._writer}-{self._count:08d}.jsonl", lines)
        self._count += 1

    def _next_writer(self) -> str:
        """A name that sorts behind those of all earlier writers, whatever became of their files' times."""
        used = [int(name.partition("-")[0]) for name in self._names() if name.partition("-")[0].isdecimal()]
        return f"{max(used, default=0) + 1:06d}-{uuid.uuid4().hex[:8]}"

    def _names(self) -> list[str]:
        return sorted(name for name in self._output.names(self._folder) if name.endswith(".jsonl"))

    def _lines(self) -> Iterator[bytes]:
        return self._output.lines([f"{self._folder}/{name}" for name in self._names()])
