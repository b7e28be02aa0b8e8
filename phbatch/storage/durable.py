"""Bytes that survive a power cut, and the checksums by which they are known again."""

from __future__ import annotations

import mmap
import os
import uuid
import zlib
from contextlib import suppress
from pathlib import Path

Mark = tuple[int, str]
"""Size in bytes, and CRC-32 in hexadecimal, of one stored object."""

PARTIAL = ".partial"
"""Suffix of what is written aside, by zarr, too; a process that was killed leaves such files behind."""

_BYTES_AT_ONCE = 1 << 22


def settle(path: Path) -> Mark:
    """Have a file that nobody else writes written to the disk, and give its mark without copying it."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        size = os.fstat(file.fileno()).st_size
        if size == 0:  # which cannot be mapped
            return mark_of(b"")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return size, f"{zlib.crc32(data):08x}"


def synchronize(path: Path) -> None:
    """Have a file, or the names in a folder, written to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_file(path: Path, data: bytes) -> None:
    """Write a file durably: aside, synchronized and renamed into place; nothing is left aside where that fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f"{path.name}.{uuid.uuid4().hex}{PARTIAL}")
    try:
        aside.write_bytes(data)
        synchronize(aside)
        aside.replace(path)
    except BaseException:
        with suppress(OSError):
            aside.unlink(missing_ok=True)
        raise
    synchronize(path.parent)


def mark_of(data: bytes) -> Mark:
    """Mark of an object's bytes.

    Examples
    --------
    >>> mark_of(b"phbatch")
    (7, 'ab8a27ab')
    """
    return len(data), f"{zlib.crc32(data):08x}"


def mark_of_file(path: Path) -> Mark:
    """Mark of a file, read in bounded memory."""
    size = checksum = 0
    with path.open("rb") as file:
        while part := file.read(_BYTES_AT_ONCE):
            size += len(part)
            checksum = zlib.crc32(part, checksum)
    return size, f"{checksum:08x}"
