"""Progress of a training as people see it: a bar of steps with losses, rate and time left, and a line an epoch."""

from __future__ import annotations

from collections.abc import Iterator
from math import isfinite

from rich.console import Console

from phbatch.tools.progress import ProgressReport
from phbatch.words.events import EpochFinished, Event, StepTaken, TrainingStarted


class TrainingProgress(ProgressReport):
    """Listener that shows a training: a bar on a terminal, a line for each epoch where the output is piped.

    Parameters
    ----------
    console : rich.console.Console, optional
        Default: the standard error stream.
    quiet : bool
        Whether only warnings are shown.
    """

    _counted = "steps"

    def __init__(self, console: Console | None = None, *, quiet: bool = False) -> None:
        super().__init__(console, quiet=quiet)
        self._epoch, self._epochs = 0, 0
        self._loss = self._validation = float("nan")

    def __call__(self, event: Event) -> None:
        """Show an event."""
        match event:
            case TrainingStarted() | StepTaken() | EpochFinished() if self._quiet:
                pass
            case TrainingStarted(_, epochs, done, steps):
                self._epoch, self._epochs = done, epochs
                self._begin("training", epochs * steps, done * steps)
                self._show()
            case StepTaken(loss):
                self._loss = loss
                self._advance(1)
            case EpochFinished(epoch, loss, validation, rate, best):
                self._epoch, self._validation = epoch, validation
                kept = ", kept" if best else ""
                self._say(
                    f"epoch {epoch}/{self._epochs}: loss {loss:.4g}, validation {validation:.4g}, rate {rate:.3g}{kept}"
                )
            case _:
                super().__call__(event)

    def _facts(self) -> Iterator[str]:
        if self._epochs:
            yield f"epoch {min(self._epoch + 1, self._epochs)}/{self._epochs}"
            yield f"loss {self._loss:.4g}"
        if isfinite(self._validation):
            yield f"validation {self._validation:.4g}"
        yield from super()._facts()
