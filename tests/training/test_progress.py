"""What a person sees of a training: losses, rate, time left, and a line for each epoch."""

from __future__ import annotations

import io

from rich.console import Console

from phbatch.report import TrainingProgress
from phbatch.words.events import EpochFinished, Event, Notice, StepTaken, TrainingStarted

EVENTS: list[Event] = [
    TrainingStarted("model", epochs=3, epochs_done=1, steps=2),
    StepTaken(0.5),
    StepTaken(0.25),
    EpochFinished(2, 0.25, 0.3, 2e-4, best=True),
    StepTaken(0.125),
    Notice("a patch is small", warning=True),
]


def shown(*, terminal: bool, quiet: bool = False, width: int = 160) -> str:
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal, width=width, color_system=None)
    with TrainingProgress(console, quiet=quiet) as listener:
        for event in EVENTS:
            listener(event)
    return text.getvalue()


def test_a_terminal_shows_a_bar_of_steps_with_losses_and_time_left() -> None:
    text = shown(terminal=True)
    assert "5/6 steps" in text
    assert "epoch 3/3  loss 0.125  validation 0.3" in text
    assert "steps/s" in text
    assert " left" in text


def test_a_pipe_gets_a_line_an_epoch_and_quiet_warnings_alone() -> None:
    text = shown(terminal=False)
    assert "epoch 2/3: loss 0.25, validation 0.3, rate 0.0002, kept" in text
    assert "a patch is small" in text
    assert shown(terminal=False, quiet=True).strip() == "warning: a patch is small"
