"""Training a network of one's own, and the page about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Unpack

from phbatch.places.place import LocalPlace, Place
from phbatch.tools.training_page import write_training_page
from phbatch.training.folder import REPORT
from phbatch.training.session import TrainingResult, train_model
from phbatch.words.errors import OutputError, UsageError
from phbatch.words.events import Listener, Stop, ignore, logging_notices, never
from phbatch.words.option_types import TrainOptions
from phbatch.words.options import parse_options
from phbatch.words.training import TRAINING, parse_training


def train(
    low: str | Path | None = None,
    high: str | Path | None = None,
    output: str | Path | None = None,
    *,
    pairs: Sequence[tuple[str | Path, str | Path]] = (),
    listener: Listener = ignore,
    stop: Stop = never,
    **options: Unpack[TrainOptions],
) -> TrainingResult:
    """Train a CARE network on pairs of frames, with the rule, the light and the averages that a run uses.

    A training that was stopped or killed goes on, with the state of its optimizer, when it is called again with the
    same arguments; one that is finished does with more `epochs`.

    Parameters
    ----------
    low, high : str or Path, optional
        Images, or plates, of the same cells: as they are recorded, and as they should be.
    output : str or Path
        Folder of the model: CSBDeep's files, ``phbatch.json`` and a page, ``report.html``.
    pairs : sequence of (low, high)
        More of them.
    listener : callable
        Called with every event, see `phbatch.words.events`.
    stop : callable
        Asked before each step; once it says True, the training ends and can be continued.
    **options
        Settings of what is read and of the pixels, as for `phbatch.run`, and those of the training: see
        `phbatch.TrainingSettings`, and ``phbatch train --help``.

    Returns
    -------
    TrainingResult
        Losses, scores on frames that were held back, and what to change.

    Raises
    ------
    InputError
        The frames of a pair lie on different grids or show different scenes, or there are too few.
    UsageError
        Options contradict each other, or do nothing here.
    OutputError
        The folder holds something else, or another training.
    InterruptedRunError
        It was stopped; the best weights so far are there.
    """
    own = {name: options[name] for name in options if name in TRAINING}  # type: ignore[literal-required]
    settings = parse_options("train", {name: value for name, value in options.items() if name not in TRAINING})
    training = parse_training(own)
    if output is None or not isinstance(Place.at(output), LocalPlace):
        raise UsageError("the model needs a folder of this machine; give --output MODEL.")
    if (low is None) != (high is None):
        raise UsageError(f"{low or high} is one image of a pair; give LOW and HIGH, or the good one with --clean.")
    first = [(low, high)] if low is not None and high is not None else []
    folder = Path(output).expanduser().resolve()
    found = train_model([*first, *pairs], folder, settings, training, stop, logging_notices(listener))
    page = folder / REPORT
    try:
        write_training_page(page, found)
    except OSError as error:
        raise OutputError(f"the report cannot be written to {page} ({error.strerror}); mend that.") from error
    return replace(found, report=str(page))
