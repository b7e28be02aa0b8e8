"""Disks that fail: at any of the calls by which this process writes, at a size, or for want of rights.

None needs the rights of a superuser; where a test has them, a small file system is mounted besides.
"""

from __future__ import annotations

import builtins
import io
import os
import resource
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

REMOVING = ("unlink", "rmdir")
CALLS = ("open", "write", "fsync", "mkdir", "replace", "rename", "link", "pwrite", "ftruncate", *REMOVING)
"""Of `os`; besides them what Python opens to write. A rename is what makes written data appear."""


@dataclass
class BrokenDisk:
    """What is written under a folder fails from one call on.

    Attributes
    ----------
    folder : Path
        What lies elsewhere is not hurt.
    number : int
        Errno of the failures.
    first : int
        Index of the call that fails.
    once : bool
        Whether the disk recovers after one failure; a full or read-only disk does not.
    removes : bool
        Whether it still removes files, as a full disk does.
    calls : int
        Calls so far.
    failures : list of str
        What failed.
    """

    folder: Path
    number: int
    first: int
    once: bool = False
    removes: bool = True
    calls: int = 0
    failures: list[str] | None = None

    def meet(self, name: str) -> None:
        """Count a call; raises where it is to fail."""
        index, self.calls = self.calls, self.calls + 1
        if self.removes and name in REMOVING:
            return
        if index == self.first or (index > self.first and not self.once):
            self.failures = [*(self.failures or ()), name]
            raise OSError(self.number, os.strerror(self.number))

    def concerns(self, place: Any) -> bool:
        """Whether a path or a descriptor lies under the folder."""
        if isinstance(place, int):
            try:
                place = Path(f"/proc/self/fd/{place}").readlink()
            except OSError:
                return False
        return Path(os.fsdecode(place)).is_relative_to(self.folder)


@contextmanager
def break_disk(disk: BrokenDisk) -> Iterator[BrokenDisk]:
    """While inside, the disk is broken for this process; what Rust writes by itself is not."""

    def hurt(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(place: Any, *arguments: Any, **options: Any) -> Any:
            reading = name == "open" and not (arguments[0] if arguments else 0) & (os.O_CREAT | os.O_RDWR | os.O_WRONLY)
            if not reading and disk.concerns(place):
                disk.meet(name)
            return original(place, *arguments, **options)

        return call

    opened = io.open

    def open_file(place: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        if set(mode) & set("wax+") and not isinstance(place, int) and disk.concerns(place):
            disk.meet("open to write")
        return opened(place, mode, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        for name in CALLS:
            patch.setattr(os, name, hurt(name, getattr(os, name)))
        patch.setattr(io, "open", open_file)
        patch.setattr(builtins, "open", open_file)
        yield disk


@contextmanager
def limit_file_size(size_bytes: int) -> Iterator[None]:
    """While inside, no file of this process grows beyond a size, whoever writes it: ``File too large``."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def without_rights() -> Iterator[None]:
    """While inside, this process may write only where an ordinary user may."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def mount(folder: Path, size: str) -> bool:
    """Mount a file system of memory on a folder; whether that is allowed here."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    try:
        return subprocess.run(command, check=False, capture_output=True).returncode == 0
    except OSError:
        return False


def unmount(folder: Path) -> None:
    """The inverse of `mount`."""
    subprocess.run(["umount", str(folder)], check=True)


@cache
def may_mount() -> bool:
    """Whether this process may mount a file system."""
    with tempfile.TemporaryDirectory() as folder:
        mounted = mount(Path(folder), "1m")
        if mounted:
            unmount(Path(folder))
        return mounted
