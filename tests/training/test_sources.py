"""What a training learns from: simulated frames, and several pairs; from the command to a run with the model."""

from __future__ import annotations

import json
from pathlib import Path

import phbatch
from tests.handmade import CommandLine
from tests.training.trained import QUICK, words, write_pair


def test_simulated_frames_become_a_model_that_a_run_takes(phbatch_command: CommandLine, tmp_path: Path) -> None:
    model, asked = tmp_path / "model", words(QUICK | {"simulate": 8, "epochs": 2, "validation": 0.25})
    assert phbatch_command("train", "-o", model, *asked, "--json") == 0
    found = json.loads(phbatch_command.out)
    before, after = found["psnr_db"]
    assert after > before
    assert (found["frames"], found["validation_frames"]) == (6, 2)
    card = json.loads((model / "phbatch.json").read_text(encoding="utf-8"))
    assert set(card["training"]["data"]["names"]) <= {f"simulated {index}" for index in range(8)}
    assert (model / "report.html").is_file()
    movie = phbatch.PhaseContrast(shape=(96, 96), n_frames=2, seed=77)
    for name in ("noisy", "clean"):
        phbatch.write_time_lapse(tmp_path / f"{name}.zarr", movie, clean=name == "clean")
    assert phbatch_command("run", tmp_path / "noisy.zarr", tmp_path / "out.zarr", "--model", model) == 0
    assert len(phbatch.evaluate(tmp_path / "out.zarr", tmp_path / "clean.zarr").rows) == 2
    assert phbatch.verify(tmp_path / "out.zarr").damages == ()


def test_pairs_are_given_one_after_the_other(phbatch_command: CommandLine, tmp_path: Path) -> None:
    pairs = []
    for seed in range(3):
        (tmp_path / str(seed)).mkdir()
        pairs.append(write_pair(tmp_path / str(seed), count=4, seed=seed))
    asked = words(QUICK | {"epochs": 1, "steps": 3, "validation": 0.25})
    first, *others = pairs
    more = [word for pair in others for word in ("--pair", *pair)]
    assert phbatch_command("train", *first, "-o", tmp_path / "model", *more, *asked, "--json") == 0
    found = json.loads(phbatch_command.out)
    assert found["frames"] + found["validation_frames"] == 12
    alone = [word for pair in pairs for word in ("--pair", *pair)]
    assert phbatch_command("train", "-o", tmp_path / "model", *alone, *asked, "--json") == 0  # it is the same training
    assert "nothing is left to do" in phbatch_command.err
    assert json.loads(phbatch_command.out) == found
    assert phbatch_command("train", first[0], "-o", tmp_path / "half", "--pair", *others[0], *asked) == 2
    assert "one image of a pair" in phbatch_command.err
