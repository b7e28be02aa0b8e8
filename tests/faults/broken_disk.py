"""A disk that fails at any of the calls by which this process writes to it: no rights of a superuser are needed."""

from __future__ import annotations

import builtins
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

REMOVING = ("unlink", "rmdir")
CALLS = ("open", "fsync", "mkdir", "replace", "rename", "link", "pwrite", "ftruncate", *REMOVING)
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
