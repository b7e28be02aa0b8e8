"""A disk that fails at any write of a run: one clear sentence, and the next call ends with the bytes of a whole run."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import zarr

import phbatch
from phbatch.places.durable import replace_file
from phbatch.words.errors import OutputError
from tests.faults.broken_disk import (
    BrokenDisk,
    break_disk,
    limit_file_size,
    may_mount,
    mount,
    unmount,
    without_rights,
)
from tests.faults.faults import damage, small_units
from tests.faults.inputs import files, make_input
from tests.handmade import CommandLine

SOAK = bool(os.environ.get("PHBATCH_SOAK"))
NUMBERS = (errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT)
SETTINGS: dict[str, Any] = {"model": "none", "workers": 1, "retries": 0}


def lasting(number: int) -> dict[str, bool]:
    """How a disk fails that gives this error."""
    return {"once": number == errno.EIO, "removes": number not in (errno.EROFS, errno.EIO)}


class Command:
    """``phbatch run`` of three frames, on a disk that may be broken."""

    def __init__(self, phbatch_command: CommandLine, folder: Path) -> None:
        self._command = phbatch_command
        self.source = make_input(folder / "in.zarr", (3, 24, 20), (1, 24, 20))
        self.output = folder / "disk" / "out.zarr"
        self.output.parent.mkdir()

    def __call__(self, *options: str) -> int:
        given = ("--model", "none", "--workers", "1", "--retries", "0", *options)
        return self._command("run", self.source, self.output, *given)

    def require_one_sentence(self, code: int) -> None:
        shown = self._command.err
        assert code in (3, 4), shown
        assert "unexpected" not in shown
        assert "Traceback" not in shown
        if code == 3:
            (line,) = [line for line in shown.splitlines() if line.startswith("error: ")]
            assert str(self.output) in line
            assert line.endswith(".")


@pytest.fixture
def command(phbatch_command: CommandLine, tmp_path: Path) -> Iterator[Command]:
    with small_units():
        yield Command(phbatch_command, tmp_path)


@pytest.mark.parametrize("illumination", ["none", "temporal"])
def test_a_run_survives_a_failure_of_any_write(command: Command, illumination: str) -> None:
    options = ("--illumination", illumination)
    with break_disk(BrokenDisk(command.output.parent, errno.EIO, 1 << 30)) as counted:
        assert command(*options) == 0
    whole = files(command.output)
    shutil.rmtree(command.output)
    assert counted.calls > 150
    step = 1 if SOAK else 13 if illumination == "none" else 41
    said = set()
    for first, number in zip(range(0, counted.calls, step), cycle(NUMBERS), strict=False):
        with break_disk(BrokenDisk(command.output.parent, number, first, **lasting(number))) as disk:
            code = command(*options)
        if disk.failures and code != 0:  # a failure to let go of the lock, or to remove scratch files, hurts nothing
            command.require_one_sentence(code)
            said.add(code)
        assert command(*options) == 0, (first, number, disk.failures, command._command.err)
        assert files(command.output) == whole, (first, number, disk.failures)
        assert phbatch.verify(command.output).damages == ()
        shutil.rmtree(command.output)
    assert 3 in said


def test_a_repair_survives_a_failure_of_any_write(
    command: Command, phbatch_command: CommandLine, tmp_path: Path
) -> None:
    assert command() == 0
    whole, kept = files(command.output), shutil.copytree(command.output, tmp_path / "kept.zarr")
    hurt = ("0/c/1/0/0", "0/zarr.json", "zarr.json", "statistics/median/c/0")

    def break_output() -> None:
        shutil.rmtree(command.output, ignore_errors=True)
        shutil.copytree(kept, command.output)
        for key in hurt:
            damage(command.output / key, "tear")

    break_output()
    with break_disk(BrokenDisk(command.output.parent, errno.EIO, 1 << 30)) as counted:
        assert phbatch_command("repair", command.output) == 0
    assert files(command.output) == whole
    failed = 0
    for first, number in zip(range(0, counted.calls, 1 if SOAK else 29), cycle(NUMBERS), strict=False):
        break_output()
        with break_disk(BrokenDisk(command.output.parent, number, first, **lasting(number))):
            code = phbatch_command("repair", command.output)
        if code:
            command.require_one_sentence(code)
            failed += 1
        assert phbatch_command("repair", command.output) == 0, phbatch_command.err
        assert files(command.output) == whole, (first, number)
    assert failed >= 2


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    place = tmp_path / "a.json"
    replace_file(place, b"old")
    with break_disk(BrokenDisk(tmp_path, errno.EIO, 1 << 30)) as counted:
        replace_file(place, b"new")
    assert place.read_bytes() == b"new"
    for first in range(counted.calls):
        place.write_bytes(b"old")
        with break_disk(BrokenDisk(tmp_path, errno.ENOSPC, first)), pytest.raises(OSError, match="No space"):
            replace_file(place, b"new")
        assert place.read_bytes() in (b"old", b"new")
        assert list(tmp_path.iterdir()) == [place]


def test_what_a_killed_process_left_aside_is_removed(command: Command) -> None:
    assert command() == 0
    whole = files(command.output)
    shutil.rmtree(command.output / ".phbatch" / "ledger")
    for folder in (command.output, command.output / "statistics"):
        (folder / "zarr.0123456789abcdef0123456789abcdef.partial").write_bytes(b"{")
    assert command() == 0
    assert files(command.output) == whole


FULL_DISKS = ["limit of the file size", *(["mounted"] if may_mount() else [])]
"""Disks whose end the writes of Rust meet, too: what does not fit is frames of noise, behind frames of few values."""


@pytest.fixture(params=FULL_DISKS)
def full_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Path, Callable[[], Any]]]:
    """A folder that takes some frames and not all, while a context is entered."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if request.param != "mounted":
        yield folder, lambda: limit_file_size(300_000)
        return
    assert mount(folder, "4400k")
    yield folder, nullcontext
    unmount(folder)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_is_said_and_what_is_written_stays(
    tmp_path: Path, full_disk: tuple[Path, Callable[[], Any]], workers: int
) -> None:
    frames = np.random.default_rng(3).integers(100, 200, (8, 1040, 1010), "uint16")
    frames[:4] = np.arange(1010) // 100 + 100
    zarr.create_array(tmp_path / "in.zarr", data=frames, chunks=(1, 520, 1010))
    settings: dict[str, Any] = {"model": "none", "dtype": "float16", "levels": 1, "command": "same", "workers": workers}
    whole = phbatch.run(tmp_path / "in.zarr", tmp_path / "whole.zarr", **settings)
    folder, filled = full_disk
    with filled(), pytest.raises(OutputError, match=r"cannot take more \(.*(No space left|too large).*make room"):
        phbatch.run(tmp_path / "in.zarr", folder / "out.zarr", **settings)
    hurt = phbatch.verify(folder / "out.zarr")
    assert hurt.damages == ()
    assert 0 < len(hurt.missing) < 8
    if os.path.ismount(folder):
        subprocess.run(["mount", "-o", "remount,size=64m", str(folder)], check=True)
    last = phbatch.run(tmp_path / "in.zarr", folder / "out.zarr", **settings)
    assert last.units_done == len(hurt.missing)
    assert files(last.output) == files(whole.output)


def test_a_place_that_may_not_be_written_is_said() -> None:
    with TemporaryDirectory(dir="/tmp") as name:  # which other users may enter, as they may not pytest's own
        folder = Path(name)
        source = make_input(folder / "in.zarr", (3, 40, 40), (1, 40, 40))
        phbatch.run(source, folder / "out.zarr", model="none")
        (folder / "closed").mkdir()
        for place in (folder / "closed", folder):
            place.chmod(0o555)
        with without_rights(), pytest.raises(OutputError, match=r"cannot be written \(.*Permission denied"):
            phbatch.run(source, folder / "closed" / "out.zarr", model="none")
        for place in (folder, folder / "closed"):
            place.chmod(0o755)
        assert list((folder / "closed").iterdir()) == []


def test_a_disk_that_is_read_only_is_said(tmp_path: Path) -> None:
    source = make_input(tmp_path / "in.zarr", (3, 40, 40), (1, 40, 40))
    (tmp_path / "disk").mkdir()
    with (
        break_disk(BrokenDisk(tmp_path / "disk", errno.EROFS, 0, removes=False)),
        pytest.raises(OutputError, match=r"cannot be written \(.*Read-only file system"),
    ):
        phbatch.run(source, tmp_path / "disk" / "out.zarr", model="none")
    assert list((tmp_path / "disk").iterdir()) == []
