"""Bytes that survive a power cut, and the checksums by which they are known again."""

from __future__ import annotations

import errno
import mmap
import os
import uuid
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from itertools import accumulate
from pathlib import Path
from threading import Lock

from zlib_ng import zlib_ng

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

Mark = tuple[int, str]
"""Size in bytes, and CRC-32 in hexadecimal, of one stored object."""

Data = bytes | memoryview

PARTIAL = ".partial"
"""Suffix of what is written aside, by zarr, too; a process that was killed leaves such files behind."""

_AT_ONCE = 16  # files that are synchronized
_FOLDERS_AT_ONCE = 3  # after the first, little is left to do for the others
_BYTES_AT_ONCE = 1 << 22
_PIECE_BYTES = 1 << 18  # is in the cache of a core when it is copied
_BLOCK_BYTES = 1 << 12
_LARGE_BYTES = 1 << 20
_DIRECT = getattr(os, "O_DIRECT", 0) if fcntl else 0
_BINARY = getattr(os, "O_BINARY", 0)  # else Windows rewrites line ends
_FULL = getattr(fcntl, "F_FULLFSYNC", None)  # else macOS leaves the bytes in the cache of the disk
_WINDOWS = not hasattr(os, "O_DIRECTORY")
_buffers: deque[mmap.mmap] = deque()


@cache
def _synchronizing() -> ThreadPoolExecutor:
    """Threads that wait for the disk, of all units together."""
    return ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="phbatch-synchronize")


def write_aside(path: str | Path, data: memoryview) -> Mark:
    """Write a file that nobody waits for, to be synchronized: a large one past the page cache, where that is possible.

    A page of the cache that is new costs time: 2 s of a processor per GB on a virtual machine that has to be given the
    memory first, where writing past it costs a tenth of that; and what is written is needed by nobody soon.

    Returns
    -------
    Mark
        Of what was to be written: no byte is fetched from memory once more for it.
    """
    data = data.cast("B")
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _BINARY, 0o666)
    try:
        done, checksum = _write_past_cache(descriptor, data) if _DIRECT and len(data) >= _LARGE_BYTES else (0, 0)
        rest = data[done:]
        checksum = zlib_ng.crc32(rest, checksum)
        _write_all(descriptor, rest)
    finally:
        os.close(descriptor)
    return len(data), f"{checksum:08x}"


def _write_past_cache(descriptor: int, data: memoryview) -> tuple[int, int]:
    """Write whole blocks of the disk from an aligned copy, part by part; how much was written, and its checksum."""
    done = checksum = 0
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | _DIRECT)
    except OSError:  # this file system has a cache only
        return done, checksum
    buffer = _buffers.pop() if _buffers else _aligned()
    try:
        while size := min(len(buffer), (len(data) - done) // _BLOCK_BYTES * _BLOCK_BYTES):
            ahead = checksum
            for start in range(0, size, _PIECE_BYTES):
                stop = min(start + _PIECE_BYTES, size)
                piece = data[done + start : done + stop]
                ahead = zlib_ng.crc32(piece, ahead)
                buffer[start:stop] = piece
            with memoryview(buffer) as aligned:
                written = os.write(descriptor, aligned[:size])
            checksum = ahead if written == size else zlib_ng.crc32(data[done : done + written], checksum)
            done += written
            if written < size:
                break
    except OSError as error:
        if error.errno != errno.EINVAL:  # it has larger blocks
            raise
    finally:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags)
        _buffers.append(buffer)
    return done, checksum


def _aligned() -> mmap.mmap:
    """Memory of large pages, where the system has them: of small ones, the disk is told every one."""
    buffer = mmap.mmap(-1, _BYTES_AT_ONCE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError, AttributeError):
        buffer.madvise(mmap.MADV_HUGEPAGE)
    return buffer


def synchronize(path: str | Path) -> None:
    """Have a file, or the names in a folder, written to the disk; Windows keeps the latter itself."""
    if _WINDOWS and os.path.isdir(path):
        return
    descriptor = os.open(path, os.O_RDWR | _BINARY if _WINDOWS else os.O_RDONLY)
    try:
        _flush(descriptor)
    finally:
        os.close(descriptor)


def synchronize_together(paths: Collection[str | Path], at_once: int = _AT_ONCE) -> None:
    """As `synchronize`, for many, so many at once: a disk synchronizes them together in about the time of a few."""
    if len(paths) == 1:
        synchronize(*paths)
        return
    each = list(paths)  # a thread has its share of them: to hand over each costs as much as to synchronize it
    shares = [each[first::at_once] for first in range(min(at_once, len(each)))]
    list(_synchronizing().map(_synchronize_one_by_one, shares))


def _synchronize_one_by_one(paths: Iterable[str | Path]) -> None:
    for path in paths:
        synchronize(path)


@dataclass
class _Round:
    """Folders that are synchronized together, and what comes of it."""

    folders: set[str] = field(default_factory=set)
    result: Future[None] = field(default_factory=Future)


class _Rounds:
    """Folders of many threads, synchronized a round at a time.

    Who comes while a round waits for the disk is in the next one, which the first of them begins, and is told once all
    of it is durable. So a folder that all have in common is synchronized once for all.
    """

    def __init__(self) -> None:
        self._joining, self._turn = Lock(), Lock()
        self._next: _Round | None = None

    def synchronize(self, folders: Collection[str]) -> None:
        """Return once the names in some folders are durable; what one of the round meets is raised in all."""
        with self._joining:
            begins = self._next is None
            joined = self._next = self._next or _Round()
            joined.folders.update(folders)
        if begins:
            try:
                with self._turn:
                    with self._joining:
                        self._next = None
                    synchronize_together(joined.folders, _FOLDERS_AT_ONCE)
                joined.result.set_result(None)
            except BaseException as error:
                joined.result.set_exception(error)
        joined.result.result()


@cache
def _rounds() -> _Rounds:
    """Of all units together."""
    return _Rounds()


if hasattr(os, "register_at_fork"):  # a process that is forked has none of the threads
    for _threads in (_synchronizing, _rounds):
        os.register_at_fork(after_in_child=_threads.cache_clear)


def _flush(descriptor: int) -> None:
    if _FULL is not None:
        with suppress(OSError):  # not every file system has it
            fcntl.fcntl(descriptor, _FULL)
            return
    os.fsync(descriptor)


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


def replace_files(
    root: Path, files: Mapping[str, Mapping[str, Data]], scratch: Path, fence: Callable[[], None]
) -> dict[str, Mark]:
    """As `replace_file`, for files by folders that are there and keys within; `fence` comes before the first rename.

    Returns
    -------
    dict of str to Mark
        Of every file, by its path within `root`.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    marks, aside = dict[str, Mark](), list[tuple[str, str, str]]()
    for name, found in files.items():
        for key, data in found.items():
            path = f"{scratch}/{uuid.uuid4().hex}{PARTIAL}"
            marks[f"{name}/{key}"] = write_aside(path, memoryview(data))
            aside.append((path, name, key))
    synchronize_together([path for path, *_ in aside])
    fence()
    folders = set[str]()
    for path, name, key in aside:
        *parts, file = key.split("/")
        *_, folder = within = list(accumulate(parts, "{}/{}".format, initial=f"{root}/{name}"))
        if folder not in folders:
            os.makedirs(folder, exist_ok=True)
            folders.update(within)
        os.replace(path, f"{folder}/{file}")
    _rounds().synchronize(folders)
    return marks


def replace_together(root: Path, files: Mapping[str, bytes]) -> None:
    """As `replace_file`, for many files by key, see `synchronize_together`."""
    pairs = {root / key: root / f"{key}.{uuid.uuid4().hex}{PARTIAL}" for key in files}
    folders = {folder for path in pairs for folder in path.parents if folder.is_relative_to(root)}
    for folder in {path.parent for path in pairs}:
        folder.mkdir(parents=True, exist_ok=True)
    try:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(_write_durably, pairs.values(), files.values()))
            for path, aside in pairs.items():
                aside.replace(path)
        synchronize_together(folders)
    except BaseException:
        for aside in pairs.values():
            with suppress(OSError):
                aside.unlink(missing_ok=True)
        raise


def replace_loosely(root: Path, files: Mapping[str, bytes]) -> None:
    """Write files by key, each aside and renamed into place; whoever needs them durable synchronizes them later."""
    folders, mark = set[str](), f"{uuid.uuid4().hex}{PARTIAL}"
    for key, data in files.items():
        path = f"{root}/{key}"
        folder = os.path.dirname(path)
        if folder not in folders:
            os.makedirs(folder, exist_ok=True)
            folders.add(folder)
        aside = f"{path}.{mark}"
        try:
            _write(aside, data, os.O_TRUNC)
            os.replace(aside, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(aside)
            raise


def _write(path: str, data: bytes, flag: int, *, durably: bool = False) -> None:
    """Write a file, from its beginning or at its end."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | _BINARY | flag, 0o666)
    try:
        _write_all(descriptor, memoryview(data))
        if durably:
            _flush(descriptor)
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, rest: memoryview) -> None:
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _write_durably(path: Path, data: bytes) -> None:
    _write(str(path), data, os.O_TRUNC, durably=True)


def append_durably(path: str, data: bytes) -> None:
    """Append to a file, and have it on the disk when this returns; the file and its folder may be new."""
    folder = os.path.dirname(path)
    new = not os.path.exists(path)
    if new:
        os.makedirs(folder, exist_ok=True)
        synchronize(os.path.dirname(folder))
    _write(path, data, os.O_APPEND, durably=True)
    if new:
        synchronize(folder)


def append_loosely(path: str, data: bytes) -> None:
    """Append to a file that outlives the process, and a power cut once the system has written it; it may be new."""
    try:
        _write(path, data, os.O_APPEND)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        _write(path, data, os.O_APPEND)


def mark_of(data: bytes | memoryview) -> Mark:
    """Mark of an object's bytes.

    Examples
    --------
    >>> mark_of(b"phbatch")
    (7, 'ab8a27ab')
    """
    return len(data), f"{zlib_ng.crc32(data):08x}"


def mark_of_file(path: Path) -> Mark:
    """Mark of a file, read in bounded memory."""
    size = checksum = 0
    with path.open("rb") as file:
        while part := file.read(_BYTES_AT_ONCE):
            size += len(part)
            checksum = zlib_ng.crc32(part, checksum)
    return size, f"{checksum:08x}"
