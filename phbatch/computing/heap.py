"""The heap of a process that is phbatch's own: memory that one unit frees is the next one's.

glibc gives threads heaps of their own, and what is free at the end of one goes back to the system at once; each unit
then waits for new pages to be found and cleared. One heap that keeps them is smaller at its peak, too.
"""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import suppress

_ARENA_MAX, _TRIM_THRESHOLD, _MMAP_THRESHOLD = -8, -1, -3  # of mallopt, in malloc.h
_KEPT_BYTES, _LARGEST_BYTES = 256 << 20, 32 << 20  # the latter is the most that glibc takes


def keep_heap() -> bool:
    """Keep up to 256 MB of what is freed, in one heap; whether that was done.

    It changes the whole process, so that only the command line calls it. It is left undone where the C library is not
    glibc, and where the environment says how to allocate.
    """
    if sys.platform != "linux" or any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return False
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL("libc.so.6")
        library.gnu_get_libc_version  # noqa: B018 - another library of that name has other numbers
        settings = {_ARENA_MAX: 1, _TRIM_THRESHOLD: _KEPT_BYTES, _MMAP_THRESHOLD: _LARGEST_BYTES}
        return all(library.mallopt(name, value) for name, value in settings.items())
    return False
