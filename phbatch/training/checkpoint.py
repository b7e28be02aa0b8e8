"""What a training needs to go on after it was killed: one file, replaced whole after every epoch."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phbatch.places.durable import replace_file
from phbatch.training.patches import Position
from phbatch.words.errors import OutputError

CHECKPOINT = "training.npz"
"""Its name within the model's folder."""

_RECORD = "record"

State = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Epoch:
    """What became of an epoch.

    Attributes
    ----------
    loss, validation_loss : float
        Means.
    rate : float
        Learning rate of its steps.
    seconds : float
        That it took.
    """

    loss: float
    validation_loss: float
    rate: float
    seconds: float


@dataclass(frozen=True)
class Progress:
    """How far a training is.

    Attributes
    ----------
    fingerprint : mapping
        What it is a training of.
    position : (int, int, int)
        In the stream of patches.
    epochs : tuple of Epoch
        Those that are finished.
    """

    fingerprint: Mapping[str, Any]
    position: Position = (0, 0, 0)
    epochs: tuple[Epoch, ...] = field(default=())

    @property
    def best(self) -> int | None:
        """Index of the epoch with the lowest validation loss; None where none has a number for it."""
        losses = np.array([epoch.validation_loss for epoch in self.epochs])
        return int(np.nanargmin(losses)) if np.isfinite(losses).any() else None

    def after(self, epoch: Epoch, position: Position) -> Progress:
        """With one epoch more."""
        return replace(self, position=position, epochs=(*self.epochs, epoch))


def write_checkpoint(folder: Path, progress: Progress, state: State) -> None:
    """Replace the checkpoint: it is the one of before or this one, whenever the process is killed."""
    record = json.dumps(asdict(progress)).encode()
    buffer = io.BytesIO()
    np.savez(buffer, **{_RECORD: np.frombuffer(record, np.uint8), **state})  # type: ignore[arg-type]
    replace_file(folder / CHECKPOINT, buffer.getvalue())


def read_checkpoint(folder: Path) -> tuple[Progress, State] | None:
    """The checkpoint of a folder; None where there is none.

    Raises
    ------
    OutputError
        It is damaged.
    """
    path = folder / CHECKPOINT
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        record = json.loads(arrays.pop(_RECORD).tobytes())
        epochs = tuple(Epoch(**epoch) for epoch in record["epochs"])
        turn, start, done = record["position"]
        return Progress(record["fingerprint"], (turn, start, done), epochs), arrays
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OutputError(
            f"{path} cannot be read ({type(error).__name__}); put it back from a copy, or start afresh with"
            " --overwrite."
        ) from error


def find_difference(recorded: Mapping[str, Any], wanted: Mapping[str, Any], name: str = "") -> str | None:
    """The first value in which two fingerprints differ, in words.

    Examples
    --------
    >>> find_difference({"network": {"depth": 2}}, {"network": {"depth": 3}})
    'network depth was 2 and is 3'
    """
    for key in sorted({*recorded, *wanted}):
        before, now = recorded.get(key), wanted.get(key)
        words = f"{name} {key.replace('_', ' ')}".strip()
        if isinstance(before, Mapping) and isinstance(now, Mapping):
            found = find_difference(before, now, words)
            if found:
                return found
        elif before != now:
            short = [text if len(text := str(value)) <= 60 else f"{text[:57]}..." for value in (before, now)]
            return f"{words} was {short[0]} and is {short[1]}"
    return None
