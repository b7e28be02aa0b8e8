"""A training that was interrupted, and then killed, ends as one that was not."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np

import phbatch
from phbatch.network.model import open_model
from phbatch.training.checkpoint import read_checkpoint
from tests.training.trained import QUICK, words, write_pair

LONG = QUICK | {"epochs": 4, "steps": 25}


def train_until(epoch: int, number: signal.Signals, command: list[str]) -> tuple[int, str]:
    """Send a signal to a training in a child once an epoch is told; its exit code, and what it said."""
    said = ""
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as child:
        assert child.stderr is not None
        for line in child.stderr:
            said += line
            if line.startswith(f"epoch {epoch}/"):
                child.send_signal(number)
                break
        said += child.stderr.read()
    return child.returncode, said


def test_interrupted_then_killed_then_continued_is_as_never_interrupted(tmp_path: Path) -> None:
    low, high = write_pair(tmp_path)
    model = tmp_path / "model"
    command = [sys.executable, "-m", "phbatch", "train", *map(str, (low, high)), "-o", str(model), *words(LONG)]
    code, said = train_until(1, signal.SIGINT, command)
    assert code == 130
    assert "the same command continues" in said
    assert open_model(model).facts["training"]["best_epoch"] >= 1
    code, said = train_until(2, signal.SIGKILL, command)
    assert code == -signal.SIGKILL
    assert "was finished before, with the optimizer's state" in said
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
