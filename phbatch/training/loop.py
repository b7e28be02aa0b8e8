"""The loop of a training: epochs of steps, each epoch judged on frames that no step sees, then made durable."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from time import monotonic
from typing import TypeVar

from phbatch.network.learning import Batch, Learner
from phbatch.training.checkpoint import Epoch, Progress
from phbatch.training.patches import PatchStream
from phbatch.words.errors import InterruptedRunError, UsageError
from phbatch.words.events import EpochFinished, Listener, StepTaken, Stop, TrainingStarted

AHEAD = 2
"""Batches that are read and cut while a step is computed."""

_Item = TypeVar("_Item")


def read_ahead(items: Iterator[_Item], count: int = AHEAD) -> Generator[_Item, None, None]:
    """The same items, of which some are made in a thread before they are asked for."""
    pool = ThreadPoolExecutor(1, thread_name_prefix="phbatch-patches")
    try:
        waiting: deque[Future[_Item]] = deque(pool.submit(next, items) for _ in range(count))
        while True:
            yield waiting.popleft().result()
            waiting.append(pool.submit(next, items))
    finally:
        pool.shutdown(cancel_futures=True)


def learn(
    learner: Learner,
    stream: PatchStream,
    held: Sequence[Batch],
    progress: Progress,
    *,
    model: str,
    epochs: int,
    steps: int,
    keep: Callable[[Progress, bool], None],
    stop: Stop,
    listener: Listener,
) -> Progress:
    """Train from where a progress is, to a number of epochs.

    Parameters
    ----------
    learner : Learner
        At the state of the progress.
    stream : PatchStream
        Of the frames to train on.
    held : sequence of Batch
        Patches of the frames to validate on.
    progress : Progress
        What is finished.
    model : str
        Folder, for the messages.
    epochs, steps : int
        Epochs in all, and steps of each.
    keep : callable
        Makes an epoch durable; told whether it is the best so far.
    stop : callable
        Asked before each step.
    listener : callable
        Told of steps and epochs.

    Raises
    ------
    InterruptedRunError
        It was asked to stop; what earlier epochs made is kept.
    UsageError
        The loss is no number any more.
    """
    listener(TrainingStarted(model, epochs, len(progress.epochs), steps))
    with closing(read_ahead(stream.batches(progress.position))) as batches:
        for number in range(len(progress.epochs), epochs):
            started, rate, total = monotonic(), learner.rate, 0.0
            position = progress.position
            for step in range(1, steps + 1):
                if stop():
                    raise InterruptedRunError(_stopped(progress, model))
                batch, position = next(batches)
                total += learner.learn(batch)
                listener(StepTaken(total / step))
            validation = learner.judge(held)
            if not total < float("inf"):
                raise UsageError(
                    f"the loss of epoch {number + 1} is {total / steps}; lower --rate, or choose another --normalize."
                )
            learner.end_epoch(number, validation)
            progress = progress.after(Epoch(total / steps, validation, rate, monotonic() - started), position)
            best = progress.best == number
            keep(progress, best)
            listener(EpochFinished(number + 1, total / steps, validation, learner.rate, best))
    return progress


def _stopped(progress: Progress, model: str) -> str:
    done, best = len(progress.epochs), progress.best
    if best is None:
        return f"stopped in the first epoch, of which {model} keeps nothing; the same command begins again."
    return (
        f"stopped in epoch {done + 1}: {model} holds the best weights so far, of epoch {best + 1}; the same command"
        f" continues after epoch {done}."
    )
