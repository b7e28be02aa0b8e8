"""What happens during a run, as small records for whoever listens: progress bars, logs, tests."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from phbatch.words.wording import say


@dataclass(frozen=True)
class RunStarted:
    """The work begins.

    Attributes
    ----------
    output : str
        Where it goes; empty where nothing is written.
    units, units_done : int
        All units, and those that an earlier run finished.
    frames, frames_done : int
        The same in frames.
    frame_pixels : int
        Pixels of one frame.
    """

    output: str
    units: int
    units_done: int
    frames: int
    frames_done: int
    frame_pixels: int


@dataclass(frozen=True)
class UnitFinished:
    """A unit is committed."""

    unit: str
    frames: int


@dataclass(frozen=True)
class UnitFailed:
    """A unit could not be finished; the others go on."""

    unit: str
    error: str


@dataclass(frozen=True)
class Notice:
    """A choice that phbatch made, or a warning, in one line."""

    text: str
    warning: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", say(self.text))


_LOG = logging.getLogger("phbatch")


def log(notice: Notice) -> None:
    """Tell a notice to the logger ``phbatch``: without handlers, Python prints warnings, and no choices."""
    _LOG.log(logging.WARNING if notice.warning else logging.INFO, notice.text)


Event = RunStarted | UnitFinished | UnitFailed | Notice
Listener = Callable[[Event], None]


Stop = Callable[[], bool]
"""Asked again and again whether to stop."""


def never() -> bool:
    """What to ask where nobody stops."""
    return False


def ignore(event: Event) -> None:
    """Listener that does nothing."""


def logging_notices(listener: Listener) -> Listener:
    """A listener that has notices logged, too, for whoever did not give one."""

    def listen(event: Event) -> None:
        if isinstance(event, Notice):
            log(event)
        listener(event)

    return listen
