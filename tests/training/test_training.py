"""A model that `phbatch train` makes is CSBDeep's, and a run with it takes what it was trained with."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from csbdeep.models import CARE

import phbatch
from phbatch.network.model import open_model
from phbatch.words.events import EpochFinished, Event, Notice, StepTaken, TrainingStarted
from tests.handmade import CommandLine, quickly_compiled, write_model
from tests.ome_inputs import write_ome
from tests.training.trained import LONG, QUICK, Whole, draw_pair, words, write_pair


def warnings_of(events: list[Event]) -> list[str]:
    return [event.text for event in events if isinstance(event, Notice) and event.warning]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, phbatch.TrainingResult, list[Event]]:
    """A folder with a pair, and a model that was trained with light corrected and pixels averaged."""
    folder = tmp_path_factory.mktemp("trained")
    low, high = write_pair(folder, side=128)
    heard: list[Event] = []
    result = phbatch.train(
        low, high, folder / "model", listener=heard.append, downscale=2, illumination="gaussian", normalize="mode",
        pixel_size=0.2, **QUICK,
    )  # fmt: skip
    return folder, result, heard


def test_a_training_makes_held_back_frames_better_and_says_how_it_went(
    trained: tuple[Path, phbatch.TrainingResult, list[Event]],
) -> None:
    folder, result, heard = trained
    before, after = result.psnr_db
    assert after > before + 1
    assert (result.frames, result.validation_frames, result.epochs) == (5, 1, 3)
    kinds = [sum(isinstance(event, kind) for event in heard) for kind in (TrainingStarted, StepTaken, EpochFinished)]
    assert kinds == [1, 90, 3]
    said = [event.text for event in heard if isinstance(event, Notice)]
    assert any("5 frames to learn from and 1 held back; a frame gives 4 patches" in text for text in said)
    assert any("of the patches hold no cells, where 20% were asked for" in text for text in said)
    assert any("patch=32 is small" in text for text in warnings_of(heard))
    page = (folder / "model/report.html").read_text(encoding="utf-8")
    assert f"{after:.2f} dB" in page
    assert page.count("data:image/png") == 1 + 4
    assert all(sentence[:40] in page for sentence in result.advice)
    assert "://" not in page


def test_csbdeep_loads_the_folder_and_predicts_the_same(
    trained: tuple[Path, phbatch.TrainingResult, list[Event]],
) -> None:
    folder, _, _ = trained
    model = CARE(None, "model", basedir=str(folder))
    assert (model.config.train_steps_per_epoch, model.config.train_batch_size) == (30, 4)
    frame = np.random.default_rng(0).normal(1, 0.1, (32, 32)).astype("float32")
    ours = np.asarray(phbatch.restore(frame, "yx", model=folder / "model", normalize="none", downscale=1,
                                      illumination="none"))  # fmt: skip
    theirs = model.predict(frame, "YX", normalizer=None)
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_a_run_takes_rule_light_and_averages_of_its_model(
    trained: tuple[Path, phbatch.TrainingResult, list[Event]], tmp_path: Path
) -> None:
    folder, _, _ = trained
    card = json.loads((folder / "model/phbatch.json").read_text(encoding="utf-8"))
    assert (card["downscale"], card["illumination"], card["pixel_size_um"]) == (2, "gaussian", 0.4)
    assert card["evaluation"]["psnr_db"][1] > card["evaluation"]["psnr_db"][0]
    given: Any = {"downscale": 2, "illumination": "gaussian", "normalize": "mode"}
    heard: list[Event] = []
    plain = phbatch.run(folder / "low.zarr", tmp_path / "a.zarr", model=folder / "model", listener=heard.append)
    asked = phbatch.run(folder / "low.zarr", tmp_path / "b.zarr", model=folder / "model", **given)
    assert not [text for text in warnings_of(heard) if "trained with" in text]
    images = [zarr.open_array(f"{result.output}/0", mode="r")[:] for result in (plain, asked)]
    assert images[0].shape == (6, 64, 64)
    np.testing.assert_array_equal(images[0], images[1])
    lazy = phbatch.restore(zarr.open_array(folder / "low.zarr", mode="r")[2:3], "tyx", model=folder / "model")
    np.testing.assert_allclose(np.asarray(lazy)[0], images[0][2], atol=1e-5)


def test_another_rule_or_light_than_that_of_the_training_warns_and_is_recorded(
    trained: tuple[Path, phbatch.TrainingResult, list[Event]], tmp_path: Path
) -> None:
    folder, _, _ = trained
    heard: list[Event] = []
    result = phbatch.run(
        folder / "low.zarr", tmp_path / "a.zarr", model=folder / "model", listener=heard.append, normalize="percentile",
        downscale=1, illumination="none",
    )  # fmt: skip
    said = warnings_of(heard)
    assert any("trained with mode" in text and "percentile" in text for text in said)
    assert any("downscale 2 and this run has 1" in text and "illumination gaussian" in text for text in said)
    recorded = zarr.open_group(result.output, mode="r").attrs.asdict()["phbatch"]
    assert {text for text in said if "trained with" in text} <= set(recorded["notices"])
    facts = recorded["model"]["facts"]
    assert facts["normalization"] == open_model(folder / "model").facts["normalization"]


@pytest.mark.parametrize("facts", [{"downscale": "two"}, {"illumination": "none", "illumination_mode": "add"}], ids=str)
def test_a_card_that_says_what_cannot_be_is_refused(tmp_path: Path, facts: dict[str, Any]) -> None:
    low, _ = write_pair(tmp_path, count=1)
    model = write_model(tmp_path / "model")
    (model / "phbatch.json").write_text(json.dumps(facts), encoding="utf-8")
    with pytest.raises(phbatch.ModelError, match="does not say how it was trained"):
        phbatch.run(low, tmp_path / "out.zarr", model=model)


@pytest.mark.parametrize(("options", "warned"), [({}, True), ({"target": "low"}, False), ({"target": "own"}, False)])
def test_own_percentiles_of_each_image_of_a_pair_are_warned_of(
    tmp_path: Path, options: dict[str, Any], warned: bool
) -> None:
    heard: list[Event] = []
    with pytest.raises(phbatch.InterruptedRunError):
        phbatch.train(
            simulate=6, output=tmp_path / "model", normalize="percentile", listener=heard.append, stop=lambda: True,
            **(QUICK | options),
        )  # fmt: skip
    assert any("its own percentiles" in text for text in warnings_of(heard)) == warned


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({}, "nowhere"),
        ({"clean": "a.zarr", "simulate": 4}, "leave one out"),
        ({"degrade": "noise"}, "add clean"),
        ({"clean": "a.zarr", "degrade": "fog"}, "fog is none of noise"),
        ({"simulate": 10, "patch": 30, "depth": 2}, "multiples of 4"),
        ({"simulate": 10, "kernel": 4}, "odd"),
        ({"simulate": 10, "loss": "laplace"}, "probabilistic"),
        (
            {"simulate": 2, "steps": 1, "epochs": 1, "sigma": 3, "normalize": "percentile"},
            "does nothing with normalize",
        ),
        ({"simulate": 10, "workers": 3}, "does nothing in `phbatch.train`"),
    ],
    ids=str,
)
def test_contradictions_are_refused_before_anything_is_written(
    tmp_path: Path, options: dict[str, Any], error: str
) -> None:
    with pytest.raises(phbatch.UsageError, match=error):
        phbatch.train(output=tmp_path / "model", **options)
    assert not (tmp_path / "model").exists()


def test_folders_of_others_and_frames_that_are_too_few_are_refused(tmp_path: Path) -> None:
    low, high = write_pair(tmp_path, count=1)
    with pytest.raises(phbatch.InputError, match="none to validate on"):
        phbatch.train(low, high, tmp_path / "model", **QUICK)
    with pytest.raises(phbatch.UsageError, match="give 96 or less"):
        phbatch.train(low, high, tmp_path / "model", **(QUICK | {"patch": 128}))
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/chapter.tex").write_text("words", encoding="utf-8")
    with pytest.raises(phbatch.OutputError, match=r"chapter\.tex, which no training made"):
        phbatch.train(output=tmp_path / "thesis", simulate=6, **QUICK)
    assert (tmp_path / "thesis/chapter.tex").read_text(encoding="utf-8") == "words"


def test_positions_of_a_plate_are_pairs_and_whole_positions_are_held_back(tmp_path: Path) -> None:
    for name, at in (("low.zarr", 0), ("high.zarr", 1)):
        root = zarr.create_group(tmp_path / name)
        wells = [{"path": f"A/{column}", "rowIndex": 0, "columnIndex": column - 1} for column in range(1, 7)]
        plate = {"version": "0.5", "columns": [{"name": str(column)} for column in range(1, 7)],
                 "rows": [{"name": "A"}], "wells": wells}  # fmt: skip
        root.attrs["ome"] = {"version": "0.5", "plate": plate}
        for column in range(1, 7):
            well = zarr.create_group(tmp_path / name / "A" / str(column))
            well.attrs["ome"] = {"version": "0.5", "well": {"images": [{"path": "0"}]}}
            write_ome(tmp_path / name / "A" / str(column) / "0", draw_pair(2, seed=column)[at], "tyx")
    options = QUICK | {"epochs": 1, "steps": 2, "validation": 0.17}
    result = phbatch.train(tmp_path / "low.zarr", tmp_path / "high.zarr", tmp_path / "model", **options)
    assert (result.frames, result.validation_frames) == (10, 2)
    assert result.card["training"]["data"]["names"][0] == "low.zarr/A/1/0"
    heard: list[Event] = []
    with pytest.raises(phbatch.InterruptedRunError):
        phbatch.train(
            tmp_path / "low.zarr", tmp_path / "high.zarr", tmp_path / "other", wells="A2-A6", stop=lambda: True,
            listener=heard.append, **options,
        )  # fmt: skip
    said = [event.text for event in heard if isinstance(event, Notice)]
    assert any("8 frames to learn from and 2 held back" in text for text in said), said


def test_tiffs_of_good_frames_become_a_model_in_one_command(phbatch_command: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "tiffs").mkdir()
    for t, frame in enumerate(draw_pair(4)[1]):
        tifffile.imwrite(tmp_path / f"tiffs/t{t:02}.tif", frame)
    given = QUICK | {"steps": 3, "clean": tmp_path / "tiffs", "degrade": "noise,flicker", "output": tmp_path / "m"}
    options = words(given)
    assert phbatch_command("train", *options) == 0
    assert "epoch 3/3: loss" in phbatch_command.err
    assert "gain" in phbatch_command.err
    assert f"model     {tmp_path / 'm'}" in phbatch_command.out
    assert phbatch_command("train", *options, "--json") == 0
    record = json.loads(phbatch_command.out)
    assert (record["epochs"], record["frames"], record["validation_frames"]) == (3, 3, 1)
    assert phbatch_command("run", tmp_path / "tiffs", tmp_path / "out.zarr", "--model", tmp_path / "m") == 0


def test_probabilistic_volumes_and_channels_are_trained(tmp_path: Path) -> None:
    low, high = (np.stack([image.reshape(3, 8, 64, 64)] * 2, axis=1) for image in draw_pair(24, 64))
    for name, image in (("low", low), ("high", high)):
        zarr.create_array(tmp_path / f"{name}.zarr", data=image, dimension_names=list("tczyx"))
    result = phbatch.train(
        tmp_path / "low.zarr", tmp_path / "high.zarr", tmp_path / "model", dims=3, together=True, probabilistic=True,
        patch_depth=4, **(QUICK | {"epochs": 1, "steps": 3}),
    )  # fmt: skip
    config = open_model(tmp_path / "model").config
    assert (config.n_dim, config.n_channel_in, config.n_channel_out, config.probabilistic) == (3, 2, 2, True)
    assert np.isfinite(result.psnr_db).all()
    assert phbatch.run(tmp_path / "low.zarr", tmp_path / "out.zarr", model=tmp_path / "model", uncertainty=True).frames


def test_jax_trains_the_same_network(whole: Whole, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "phbatch", "train", whole.low, whole.high, "-o", tmp_path / "there"]
    done = subprocess.run(
        [*map(str, command), *words(LONG | {"epochs": 1}), "--backend", "jax", "--json"],
        env=quickly_compiled(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    expected = whole.result.history[0].validation_loss
    assert json.loads(done.stdout)["validation_loss"] == pytest.approx(expected, rel=1e-3)
