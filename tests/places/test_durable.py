"""What is written aside has its bytes, whatever the file system allows, and large files leave no trace in the cache."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from phbatch.places import durable
from phbatch.places.durable import mark_of, mark_of_file, write_aside

BLOCK, PART = 4096, 3 * 4096
RANDOM = os.urandom(10 * PART)
Write = Callable[[int, memoryview], int]


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """On the disk of the checkout: pytest's own folder may be in memory, where nothing has to be aligned."""
    build = Path(__file__).parents[2] / "build"
    build.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=build) as folder:
        yield Path(folder)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file is a large one, of several parts."""
    monkeypatch.setattr(durable, "_BYTES_AT_ONCE", PART)
    monkeypatch.setattr(durable, "_PIECE_BYTES", 5000)
    monkeypatch.setattr(durable, "_LARGE_BYTES", 0)
    monkeypatch.setattr(durable, "_buffers", durable.deque())


def is_direct(descriptor: int) -> bool:
    return bool(fcntl.fcntl(descriptor, fcntl.F_GETFL) & durable._DIRECT)


def may_be_direct(folder: Path) -> bool:
    """Whether files in a folder can be written past the page cache."""
    try:
        os.close(os.open(folder / "direct", os.O_WRONLY | os.O_CREAT | durable._DIRECT))
    except OSError:
        return False
    return durable._DIRECT != 0


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(size=st.integers(0, len(RANDOM)) | st.integers(0, 9).map(lambda blocks: blocks * BLOCK))
def test_files_of_any_size_have_their_bytes(tmp_path: Path, size: int) -> None:
    data = memoryview(RANDOM)[:size]
    assert write_aside(tmp_path / "file", data) == mark_of(data) == mark_of_file(tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == data


def test_whole_blocks_go_past_the_cache_and_the_rest_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written, original = [], os.write

    def write(descriptor: int, data: memoryview) -> int:
        written.append((len(data), is_direct(descriptor)))
        return original(descriptor, data)

    monkeypatch.setattr(os, "write", write)
    write_aside(tmp_path / "file", memoryview(RANDOM)[: PART + BLOCK + 5])
    direct = may_be_direct(tmp_path)
    assert written == ([(PART, True), (BLOCK, True), (5, False)] if direct else [(PART + BLOCK + 5, False)])
    monkeypatch.setattr(durable, "_LARGE_BYTES", PART)
    write_aside(tmp_path / "small", memoryview(RANDOM)[: PART - 1])
    assert written[-1] == (PART - 1, False)


def half(original: Write, descriptor: int, data: memoryview) -> int:
    return original(descriptor, data[: max(1, len(data) // 2)] if is_direct(descriptor) else data[:1000])


def refuse(original: Write, descriptor: int, data: memoryview) -> int:
    if is_direct(descriptor):
        raise OSError(errno.EINVAL, "larger blocks")
    return original(descriptor, data)


@pytest.mark.parametrize("way", [half, refuse])
def test_short_and_refused_writes_lose_no_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: Callable[[Write, int, memoryview], int]
) -> None:
    original = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: way(original, descriptor, data))
    assert write_aside(tmp_path / "file", memoryview(RANDOM)) == mark_of(RANDOM)
    assert (tmp_path / "file").read_bytes() == RANDOM


def test_a_file_system_without_it_is_written_through_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = fcntl.fcntl

    def refuse_direct(descriptor: int, command: int, flags: int = 0) -> int:
        if command == fcntl.F_SETFL and flags & durable._DIRECT:
            raise OSError(errno.EINVAL, "no direct input and output")
        return original(descriptor, command, flags)

    monkeypatch.setattr(fcntl, "fcntl", refuse_direct)
    assert write_aside(tmp_path / "file", memoryview(RANDOM)) == mark_of(RANDOM)
    assert (tmp_path / "file").read_bytes() == RANDOM


def test_a_full_disk_is_said_and_the_buffer_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int, data: memoryview) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    write_aside(tmp_path / "whole", memoryview(RANDOM))
    kept = len(durable._buffers)
    assert kept == may_be_direct(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", fail)
        with pytest.raises(OSError, match="No space left"):
            write_aside(tmp_path / "file", memoryview(RANDOM))
    assert len(durable._buffers) == kept
    write_aside(tmp_path / "file", memoryview(RANDOM))
    assert (tmp_path / "file").read_bytes() == RANDOM


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system does not fork")
def test_a_forked_process_synchronizes_too(tmp_path: Path) -> None:
    """In a process of its own, since this one may have threads that a fork would leave behind."""
    code = """
import os, sys
from pathlib import Path
from phbatch.places.durable import synchronize_together
paths = [Path(sys.argv[1])] * 3
synchronize_together(paths)
child = os.fork()
synchronize_together(paths)
if not child:
    os._exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code, str(tmp_path)], check=True, timeout=60)


class Rounds:
    """Rounds whose first one waits for the disk until it is told to end."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.found = list[set[str]]()
        self.begun, self.end = Event(), Event()
        self.error: OSError | None = None
        self.rounds = durable._Rounds()
        monkeypatch.setattr(durable, "synchronize_together", self._synchronize)

    def _synchronize(self, folders: Collection[str], at_once: int) -> None:
        assert at_once > 0
        self.found.append(set(folders))
        self.begun.set()
        assert self.end.wait(60)
        if len(self.found) == 2 and self.error is not None:
            raise self.error

    def join(self, count: int) -> None:
        """Wait until so many folders are in the next round."""
        last = time.monotonic() + 60
        while self.rounds._next is None or len(self.rounds._next.folders) < count:
            assert time.monotonic() < last
            time.sleep(0.001)


@pytest.mark.parametrize("error", [None, OSError(errno.EIO, "Input/output error")])
def test_who_comes_while_a_round_waits_is_in_the_next_and_a_common_folder_is_synchronized_once(
    monkeypatch: pytest.MonkeyPatch, error: OSError | None
) -> None:
    common, own = "common", [str(index) for index in range(5)]
    disk = Rounds(monkeypatch)
    disk.error = error
    with ThreadPoolExecutor(5) as pool:
        first = pool.submit(disk.rounds.synchronize, {common, own[0]})
        assert disk.begun.wait(60)
        others = [pool.submit(disk.rounds.synchronize, {common, folder}) for folder in own[1:]]
        disk.join(5)
        assert not any(other.done() for other in others)
        disk.end.set()
        assert first.exception() is None
        assert [other.exception() for other in others] == [error] * 4
    assert disk.found == [{common, own[0]}, {common, *own[1:]}]
    disk.rounds.synchronize({common})
    assert disk.found[2:] == [{common}]
