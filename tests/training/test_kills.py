"""A training that was interrupted, and then killed, ends as one that was not."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import phbatch
from phbatch.network.learning import Learner
from phbatch.network.model import open_model
from phbatch.training.checkpoint import read_checkpoint
from tests.handmade import CommandLine
from tests.training.trained import QUICK, words, write_pair

LONG = QUICK | {"epochs": 4, "steps": 25}


def train_until_killed(epoch: int, command: list[str]) -> tuple[int, str]:
    """Kill a training in a child once an epoch is told; its exit code, and what it said."""
    said = ""
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as child:
        assert child.stderr is not None
        for line in child.stderr:
            said += line
            if line.startswith(f"epoch {epoch}/"):
                child.kill()
                break
        said += child.stderr.read()
    return child.returncode, said


@contextmanager
def pressing_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """While inside, Ctrl-C is pressed after every epoch of a training in this process."""
    end_epoch = Learner.end_epoch

    def end_and_interrupt(self: Learner, epoch: int, validation_loss: float) -> None:
        end_epoch(self, epoch, validation_loss)
        signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "end_epoch", end_and_interrupt)
        yield


def test_interrupted_then_killed_then_continued_is_as_never_interrupted(
    phbatch_command: CommandLine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    low, high = write_pair(tmp_path)
    model = tmp_path / "model"
    command = ["train", *map(str, (low, high)), "-o", str(model), *words(LONG)]
    with pressing_ctrl_c(monkeypatch):
        assert phbatch_command(*command) == 130
    assert "the same command continues" in phbatch_command.err
    assert open_model(model).facts["training"]["best_epoch"] >= 1
    code, said = train_until_killed(2, [sys.executable, "-m", "phbatch", *command])
    assert code == -signal.SIGKILL
    assert "epoch 1 was finished before, with the optimizer's state" in said
    kept = read_checkpoint(model)
    assert kept is not None
    assert 2 <= len(kept[0].epochs) < 4
    phbatch.train(low, high, model, **LONG)
    phbatch.train(low, high, tmp_path / "whole", **LONG)
    found, expected = read_checkpoint(model), read_checkpoint(tmp_path / "whole")
    assert found is not None
    assert expected is not None
    assert found[0].position == expected[0].position
    for name, array in expected[1].items():
        np.testing.assert_allclose(found[1][name], array, atol=1e-3, rtol=1e-3, err_msg=name)
