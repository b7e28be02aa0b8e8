"""The ledger: an append-only record of the units that are finished, one checksummed line each.

A unit is committed only after everything that it wrote is durable, so whatever is not in the ledger is done again. A
line that was torn by a crash fails its checksum and is skipped.
"""

from __future__ import annotations

import json
import os
import uuid
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from phbatch.config import StorageOptions
from phbatch.storage.store import is_url, list_files, local_path, read_file, write_remote_file

FOLDER = ".phbatch/ledger"


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

    Local outputs have one file per writer, to which lines are appended and synchronized; object stores have one object
    per record, since they cannot append.

    Parameters
    ----------
    output : str
        Path or URL of the output group.
    options : SecretStr or None
        Of the object store.
    """

    def __init__(self, output: str, options: StorageOptions = None) -> None:
        self._writer = uuid.uuid4().hex[:12]
        self._count = 0
        self._remote = is_url(output)
        self._output, self._options = output, options
        if not self._remote:
            self._path = local_path(output) / FOLDER

    def records(self) -> dict[str, dict[str, Any]]:
        """Last record of every unit that is committed, by unit."""
        return {record["unit"]: record for record in self}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Every record, older ones first."""
        for data in self._read():
            yield from decode_records(data)

    def commit(self, record: Mapping[str, Any]) -> None:
        """Append a record durably; it must have a key ``unit``."""
        line = encode_record(record)
        if self._remote:
            write_remote_file(self._output, f"{FOLDER}/{self._writer}-{self._count:08d}.jsonl", line, self._options)
            self._count += 1
            return
        self._path.mkdir(parents=True, exist_ok=True)
        with (self._path / f"{self._writer}.jsonl").open("ab") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())

    def _read(self) -> Iterator[bytes]:
        if not self._remote:
            files: list[Path] = sorted(self._path.glob("*.jsonl"), key=lambda file: file.stat().st_mtime_ns)
            yield from (file.read_bytes() for file in files)
        else:
            folder = f"{self._output}/{FOLDER}"
            yield from (read_file(folder, key, self._options) for key, _, _ in list_files(folder, self._options))
