"""A training that was finished, interrupted, and killed, and went on each time, ends as one that was not."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import phbatch
from phbatch.network.learning import Batch, Learner
from phbatch.network.model import open_model
from phbatch.training.checkpoint import Progress, State, read_checkpoint
from phbatch.words.events import Event, Notice
from tests.forks import Forked
from tests.handmade import CommandLine
from tests.training.trained import LONG, Whole, words

KILLED = """
import os, signal
from phbatch.network.learning import Learner
from phbatch.shell.commands import main

learn, steps = Learner.learn, iter(range(9))

def learn_or_die(self, batch):
    if next(steps, None) is None:
        os.kill(os.getpid(), signal.SIGKILL)
    return learn(self, batch)

Learner.learn = learn_or_die
main()
"""
"""The command line, killed within its second epoch."""


@contextmanager
def pressing_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """While inside, Ctrl-C is pressed within the second epoch of a training in this process."""
    learn, steps = Learner.learn, iter(range(9))

    def learn_and_interrupt(self: Learner, batch: Batch) -> float:
        if next(steps, None) is None:
            signal.raise_signal(signal.SIGINT)
        return learn(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "learn", learn_and_interrupt)
        yield


def kept(model: Path) -> tuple[Progress, State]:
    found = read_checkpoint(model)
    assert found is not None
    return found


def test_finished_interrupted_and_killed_it_goes_on_as_if_nothing_had_been(
    phbatch_command: CommandLine, monkeypatch: pytest.MonkeyPatch, whole: Whole, tmp_path: Path
) -> None:
    model, heard = tmp_path / "model", list[Event]()
    phbatch.train(whole.low, whole.high, model, **LONG | {"epochs": 1})
    command = ["train", str(whole.low), str(whole.high), "-o", str(model), *words(LONG)]
    with pressing_ctrl_c(monkeypatch):
        assert phbatch_command(*command) == 130
    assert "epoch 1 was finished before, with the optimizer's state" in phbatch_command.err
    said = " ".join(phbatch_command.err.split())
    best = open_model(model).facts["training"]["best_epoch"]
    assert 1 <= best <= 2
    assert f"stopped in epoch 3: {model} holds the best weights so far, of epoch {best}; the same command" in said
    assert open_model(model).normalization == phbatch.Normalization()
    killed = Forked(KILLED, command)
    _, errors = killed.communicate(timeout=300)
    assert killed.returncode == -signal.SIGKILL, errors
    assert "epoch 2 was finished before" in errors
    assert len(kept(model)[0].epochs) == 3
    assert train(whole, model).history[-1].loss == pytest.approx(whole.result.history[-1].loss, rel=1e-4)
    found, expected = kept(model), kept(whole.model)
    assert found[0].position == expected[0].position
    for name, array in expected[1].items():
        np.testing.assert_allclose(found[1][name], array, atol=1e-4, err_msg=name)
    assert train(whole, model, listener=heard.append).epochs == 5
    assert any("nothing is left to do" in event.text for event in heard if isinstance(event, Notice))


def train(whole: Whole, model: Path, **options: Any) -> phbatch.TrainingResult:
    return phbatch.train(whole.low, whole.high, model, **LONG | options)


def test_another_training_of_the_same_folder_is_refused(whole: Whole) -> None:
    with pytest.raises(phbatch.OutputError, match="network kernel was 3 and is 5"):
        train(whole, whole.model, kernel=5)
    with pytest.raises(phbatch.OutputError, match="rule method was median and is mode"):
        train(whole, whole.model, normalize="mode")
