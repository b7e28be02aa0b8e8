"""Signals, which belong to the command line: the library leaves those of its host, and its timer, as they are."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

GRACE_S = 6.0
"""What is in flight when a command is asked to stop may take this long; then it is dropped, and redone by the next."""

_ALARM = getattr(signal, "SIGALRM", None)  # Windows has none: there, a second Ctrl-C alone interrupts
_SIGNALS = tuple(number for number in (signal.SIGINT, signal.SIGTERM, _ALARM) if number is not None)
_taken = {"by the command line": False}


@contextmanager
def stop_on_signal() -> Iterator[Callable[[], bool]]:
    """While inside, the first SIGINT or SIGTERM asks to stop; a second SIGINT, or `GRACE_S`, interrupts at once."""
    asked, left = threading.Event(), False

    def ask(number: int, _: FrameType | None) -> None:
        if left:  # nothing is in flight; raised while handlers are put back, it would leave this one in place
            return
        if number == _ALARM or (asked.is_set() and number == signal.SIGINT):
            raise KeyboardInterrupt
        if not asked.is_set():
            asked.set()
            _set_alarm(GRACE_S)

    previous: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():
        previous = {number: signal.signal(number, ask) for number in _SIGNALS}
    _taken["by the command line"] = bool(previous)
    try:
        yield asked.is_set
    finally:
        left = True
        _taken["by the command line"] = False
        if asked.is_set():
            _set_alarm(0)
        for number, handler in previous.items():
            signal.signal(number, handler)


def _set_alarm(seconds: float) -> None:
    if _ALARM is not None:
        signal.setitimer(signal.ITIMER_REAL, seconds)


@contextmanager
def deferring_signals() -> Iterator[None]:
    """While inside, the signals of the command line wait.

    An interrupt within distributed makes it print tracebacks, and hang now and then.
    """
    met: list[int] = []
    previous: dict[signal.Signals, Any] = {}
    if _taken["by the command line"] and threading.current_thread() is threading.main_thread():
        for number in _SIGNALS:
            previous[number] = signal.signal(number, lambda number, _: met.append(number))
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        for each in met:
            signal.raise_signal(each)
