"""The lane of a process: as many units compute at once as it has threads.

One that waits for the disk lets another in, and so does one whose pixels are on a GPU, where there is memory for more
than compute.

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
    lend: Callable[[], object] | None = None
    take_back: Callable[[], object] | None = None
    left = False


_turn = _Turn()


@contextmanager
def in_lane(
    leave: Callable[[], object],
    come_back: Callable[[], object],
    lend: Callable[[], object] | None = None,
    take_back: Callable[[], object] | None = None,
) -> Iterator[None]:
    """While inside, this thread is one of a lane.

    All functions are called in this thread, in turns: `leave`, then `come_back`, where its unit is out of memory but
    for what is written; `lend`, then `take_back`, where it only waits for a device. Without them it waits in its turn.
    """
    _turn.leave, _turn.come_back, _turn.left = leave, come_back, False
    _turn.lend, _turn.take_back = lend, take_back
    try:
        yield
    finally:
        _turn.leave = _turn.come_back = _turn.lend = _turn.take_back = None


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


@contextmanager
def on_device() -> Iterator[None]:
    """While inside, this thread waits for a device, and another computes in its stead; then it waits for its turn."""
    lend, take_back = _turn.lend, _turn.take_back
    if lend is None or take_back is None or _turn.left:
        yield
        return
    lend()
    try:
        yield
    finally:
        take_back()


def come_back() -> None:
    """Wait for a turn to compute, where this thread has left its lane."""
    if _turn.come_back is not None and _turn.left:
        _turn.come_back()
        _turn.left = False
