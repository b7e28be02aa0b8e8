"""What happens during a run, as small records for whoever listens: progress bars, logs, tests."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

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
    planned_bytes : int
        Memory that the plan projects for this process; 0 where others compute, or nobody planned.
    counted : {"frames", "bands"}
        What is counted as frames, here and in every `UnitFinished`: frames, or bands of frames that are larger than
        memory.
    """

    output: str
    units: int
    units_done: int
    frames: int
    frames_done: int
    frame_pixels: int
    planned_bytes: int = 0
    counted: str = "frames"


@dataclass(frozen=True)
class StageStarted:
    """A stage of a run begins, before its `RunStarted` or after all its units.

    Attributes
    ----------
    stage : str
        In words, such as ``"measuring"``.
    frames : int
        Of which a `UnitMeasured` tells each; 0 where nobody counts.
    """

    stage: str
    frames: int = 0


@dataclass(frozen=True)
class UnitMeasured:
    """A unit is measured, before any is restored."""

    unit: str
    frames: int


@dataclass(frozen=True)
class UnitFinished:
    """A unit is committed.

    Attributes
    ----------
    unit : str
        Its key.
    frames : int
        How many it has.
    stages : mapping of str to float
        Seconds that it spent in each stage, see `phbatch.frames.clock`.
    flagged : mapping of str to sequence of str
        Why, of its frames that are flagged.
    """

    unit: str
    frames: int
    stages: Mapping[str, float] = field(default_factory=dict, compare=False, repr=False)
    flagged: Mapping[str, Sequence[str]] = field(default_factory=dict, compare=False, repr=False)


@dataclass(frozen=True)
class UnitFailed:
    """A unit could not be finished; the others go on."""

    unit: str
    error: str


@dataclass(frozen=True)
class Notice:
    """A choice that phbatch made, or a warning, in one line; `logger` is the module that says it."""

    text: str
    warning: bool = False
    logger: str = field(default="", compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", say(self.text))
        if not self.logger:
            frame = inspect.currentframe()  # of this, of __init__, of who says it
            speaker = frame.f_back.f_back if frame and frame.f_back else None
            name = str(speaker.f_globals.get("__name__", "")) if speaker else ""
            object.__setattr__(self, "logger", name if name.startswith("phbatch.") else "phbatch")


@dataclass(frozen=True)
class TrainingStarted:
    """The steps of a training begin.

    Attributes
    ----------
    model : str
        Folder that it goes to.
    epochs, epochs_done : int
        All epochs, and those that an earlier call finished.
    steps : int
        Of an epoch.
    """

    model: str
    epochs: int
    epochs_done: int
    steps: int


@dataclass(frozen=True)
class StepTaken:
    """A step of a training is taken.

    Attributes
    ----------
    loss : float
        Mean of the epoch so far.
    """

    loss: float


@dataclass(frozen=True)
class EpochFinished:
    """An epoch is finished, and its checkpoint written.

    Attributes
    ----------
    epoch : int
        From 1 on.
    loss, validation_loss : float
        Means.
    rate : float
        Learning rate from here on.
    best : bool
        Whether no epoch before had a lower validation loss.
    """

    epoch: int
    loss: float
    validation_loss: float
    rate: float
    best: bool


Event = (
    RunStarted
    | StageStarted
    | UnitMeasured
    | UnitFinished
    | UnitFailed
    | TrainingStarted
    | StepTaken
    | EpochFinished
    | Notice
)
Listener = Callable[[Event], None]

_TRAINING = "phbatch.training.loop"


def in_words(event: Event) -> tuple[str, int, str]:
    """What is logged of an event: the logger, which has the name of a module, the level, and a line.

    Examples
    --------
    >>> in_words(UnitFailed("t3/c0", "the disk is full"))
    ('phbatch.running.commit', 30, 'unit t3/c0 failed: the disk is full')
    """
    match event:
        case Notice():
            return event.logger, logging.WARNING if event.warning else logging.INFO, event.text
        case UnitFailed():
            return "phbatch.running.commit", logging.WARNING, f"unit {event.unit} failed: {event.error}"
        case UnitFinished():
            return "phbatch.running.commit", logging.DEBUG, f"unit {event.unit} of {event.frames} frames is finished"
        case UnitMeasured():
            return "phbatch.running.measure", logging.DEBUG, f"unit {event.unit} of {event.frames} frames is measured"
        case StageStarted():
            return "phbatch.running.run", logging.DEBUG, event.stage
        case RunStarted():
            text = f"{event.units - event.units_done} of {event.units} units are to be done of {event.output}"
            return "phbatch.running.run", logging.DEBUG, text
        case TrainingStarted():
            text = f"{event.epochs - event.epochs_done} of {event.epochs} epochs are to be done of {event.model}"
            return _TRAINING, logging.DEBUG, text
        case StepTaken():
            return _TRAINING, logging.DEBUG, f"step, loss {event.loss:.4g}"
        case EpochFinished():
            losses = f"loss {event.loss:.4g}, validation {event.validation_loss:.4g}, rate {event.rate:.3g}"
            return _TRAINING, logging.INFO, f"epoch {event.epoch}: {losses}"


def log(event: Event) -> None:
    """Tell an event to its logger below ``phbatch``: without handlers, Python prints warnings, and nothing else."""
    name, level, text = in_words(event)
    logging.getLogger(name).log(level, "%s", text)


Stop = Callable[[], bool]
"""Asked again and again whether to stop."""


def never() -> bool:
    """What to ask where nobody stops."""
    return False


def ignore(event: Event) -> None:
    """Listener that does nothing."""


_COMMITS = logging.getLogger("phbatch.running.commit")


def logging_notices(listener: Listener) -> Listener:
    """A listener that has events logged, too, for whoever did not give one, and hears each notice once."""
    said: set[Notice] = set()

    def listen(event: Event) -> None:
        if isinstance(event, Notice):
            if event in said:
                return
            said.add(event)
            log(event)
        elif isinstance(event, UnitFailed | EpochFinished) or _COMMITS.isEnabledFor(logging.DEBUG):
            log(event)
        listener(event)

    return listen
