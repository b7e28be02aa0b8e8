"""The lane of a process: as many units compute at once as it has threads; one that waits for the disk lets another in.

A task leaves the lane by Dask's ``secede``, whether it runs in threads of this process or on a worker of a cluster.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import local

from distributed import get_worker, secede
from distributed.threadpoolexecutor import rejoin, thread_state
from distributed.threadpoolexecutor import secede as leave_threads

_own = local()


@contextmanager
def in_lane() -> Iterator[None]:
    """While inside, this thread is one of phbatch's tasks, and no task of somebody else's that calls phbatch."""
    _own.task = True
    try:
        yield
    finally:
        _own.task = False


@contextmanager
def waiting() -> Iterator[None]:
    """While inside, and until the task ends, this thread does not compute and the next unit starts in its stead.

    After an error the thread waits for its turn again, since it will be told to try once more.
    """
    _leave()
    try:
        yield
    except Exception:
        come_back()
        raise


def come_back() -> None:
    """Wait for a turn to compute, where this thread has left its pool."""
    if not getattr(thread_state, "proceed", True):
        rejoin()


def _leave() -> None:
    """Let another thread start; a plain loop has none."""
    if not getattr(_own, "task", False) or not getattr(thread_state, "proceed", False):
        return
    try:
        get_worker()
    except ValueError:
        leave_threads()
    else:
        secede()
