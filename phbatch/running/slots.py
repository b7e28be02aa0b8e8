"""The lane of a process: as many units compute at once as it has threads; one that waits for the disk lets another in.

Whoever runs a task says how its thread leaves the lane and comes back. Without a word there is no lane: a plain loop
computes one unit after another, and a thread that belongs to somebody else, a user's own Dask task among them, is left
where it is.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class _Turn(threading.local):
    """Of this thread."""

    leave: Callable[[], object] | None = None
    come_back: Callable[[], object] | None = None
    left = False


_turn = _Turn()


@contextmanager
def in_lane(leave: Callable[[], object], come_back: Callable[[], object]) -> Iterator[None]:
    """While inside, this thread is one of a lane; both functions are called in this thread, in turns, `leave` first."""
    _turn.leave, _turn.come_back, _turn.left = leave, come_back, False
    try:
        yield
    finally:
        _turn.leave = _turn.come_back = None


def has_left() -> bool:
    """Whether this thread left its lane and did not come back."""
    return _turn.left


@contextmanager
def waiting() -> Iterator[None]:
    """While inside, and until the task ends, this thread does not compute and the next unit starts in its stead.

    After an error the thread waits for its turn again, since it will be told to try once more.
    """
    if _turn.leave is not None and not _turn.left:
        _turn.leave()
        _turn.left = True
    try:
        yield
    except Exception:
        come_back()
        raise


def come_back() -> None:
    """Wait for a turn to compute, where this thread has left its lane."""
    if _turn.come_back is not None and _turn.left:
        _turn.come_back()
        _turn.left = False
