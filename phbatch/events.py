"""What happens during a run, as small records for whoever listens: progress bars, logs, tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


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


Event = RunStarted | UnitFinished | UnitFailed | Notice
Listener = Callable[[Event], None]


def ignore(event: Event) -> None:
    """Listener that does nothing."""


def only_notices(listener: Listener) -> Listener:
    """The listener, told of notices alone: of work that is no unit of the run."""
    return lambda event: listener(event) if isinstance(event, Notice) else None
