"""The weights are those that CSBDeep itself would load, by their content and not by their name, and are said."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import warnings
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr
from csbdeep.models import CARE

import phbatch
from phbatch.network.model import open_model
from phbatch.network.unet import parse_config
from phbatch.network.weights import Weights, read_weights
from phbatch.words.errors import ModelError
from tests.handmade import CONFIG, write_model, write_weights
from tests.models import Case, make_model


def named_files(folder: Path, names: dict[str, float]) -> Path:
    """A model folder whose weight files have these names and ages; each holds other numbers."""
    write_model(folder)
    (folder / "weights_best.h5").unlink()
    for seed, (name, age) in enumerate(names.items()):
        write_weights(folder / name, CONFIG, seed=seed)
        os.utime(folder / name, (1e9 - age, 1e9 - age))
    return folder


def chosen_by_csbdeep(folder: Path) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as said:
        CARE(None, folder.name, basedir=str(folder.parent))
    return said.getvalue().split("'")[1]


@pytest.mark.parametrize(
    "names",
    [
        {"weights_now.h5": 0},
        {"care_best.h5": 0},
        {"weights_best.hdf5": 0},
        {"weights_last.h5": 5, "weights_now.h5": 0},
        {"weights_last.h5": 0, "weights_now.h5": 5},
        {"weights_best.h5": 9, "weights_last.h5": 0},
        {"weights_best.h5": 9, "other_best.h5": 0, "weights_last.h5": 5},
        {"weights_best.h5": 0, "other_best.hdf5": 9},
    ],
    ids=lambda names: "-".join(names),
)
def test_the_choice_is_that_of_csbdeep(tmp_path: Path, names: dict[str, float]) -> None:
    folder = named_files(tmp_path / "model", names)
    model = open_model(folder)
    assert model.weights_path.name == chosen_by_csbdeep(folder)
    assert all(name in model.choice for name in names) or model.choice == ""
    assert (model.choice == "") == (model.weights_path.name == "weights_best.h5" and "other_best.hdf5" not in names)


def test_of_two_of_one_age_the_one_that_the_configuration_names_is_taken(tmp_path: Path) -> None:
    folder = named_files(tmp_path / "model", {"a_best.h5": 0, "b_best.h5": 0, "c_best.h5": 0, "._d_best.h5": -9})
    (folder / "config.json").write_text(json.dumps(CONFIG | {"train_checkpoint": "b_best.h5"}))
    assert open_model(folder).weights_path.name == "b_best.h5"


def test_a_run_says_and_records_its_weights(tmp_path: Path) -> None:
    folder = named_files(tmp_path / "model", {"weights_now.h5": 0})
    frames = np.random.default_rng(0).normal(1000, 30, (1, 64, 64)).astype("uint16")
    zarr.create_array(str(tmp_path / "a.zarr"), data=frames, dimension_names=list("tyx"))
    result = phbatch.run(tmp_path / "a.zarr", tmp_path / "b.zarr", model=folder, workers=1, network="plain")
    assert any(notice.startswith("weights: weights_now.h5") for notice in result.notices)
    recorded: Any = zarr.open_group(result.output, mode="r").attrs["phbatch"]
    assert recorded["model"]["weights"] == "weights_now.h5"
    assert recorded["model"]["sha256"] == open_model(folder).sha256


def save_in_keras_3(model: Any, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # CSBDeep warns that Keras 2 cannot load it
        model.keras_model.save_weights(str(path))


def assert_equal(found: Weights, expected: Weights) -> None:
    assert list(found) == list(expected)
    for name, arrays in expected.items():
        for mine, theirs in zip(found[name], arrays, strict=True):
            np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("case", [Case(depth=3, probabilistic=True), Case(n_dim=3, depth=1, channels=(2, 2))], ids=str)
def test_the_layout_of_keras_3_holds_the_same_weights_whatever_its_name(tmp_path: Path, case: Case) -> None:
    theirs = make_model(tmp_path / "model", case)
    model = open_model(tmp_path / "model")
    expected = read_weights(model.weights_path, model.config)
    modern = tmp_path / "weights_best.weights.h5"
    save_in_keras_3(theirs, modern)
    assert_equal(read_weights(modern, model.config), expected)
    shutil.copy(modern, tmp_path / "renamed.h5")
    with h5py.File(tmp_path / "renamed.h5", "r+") as file:  # Keras before 3.6 wrote no names
        for group in file["layers"].values():
            group["vars"].attrs.pop("name", None)
    assert_equal(read_weights(tmp_path / "renamed.h5", model.config), expected)


def test_a_keras_3_file_of_another_network_is_refused_by_its_name_and_not_called_truncated(tmp_path: Path) -> None:
    theirs = make_model(tmp_path / "model", Case())
    save_in_keras_3(theirs, tmp_path / "x.weights.h5")
    deeper = parse_config(json.loads((tmp_path / "model/config.json").read_text()) | {"unet_n_depth": 3})
    with pytest.raises(ModelError, match=r"x\.weights\.h5") as refused:
        read_weights(tmp_path / "x.weights.h5", deeper)
    assert "truncated" not in str(refused.value)
    with h5py.File(tmp_path / "empty.h5", "w") as file:
        file["numbers"] = np.zeros(3)
    with pytest.raises(ModelError, match=r"empty\.h5 is an HDF5 file without") as refused:
        read_weights(tmp_path / "empty.h5", deeper)
    assert "truncated" not in str(refused.value)
