"""Model folders of either generation of Keras are read layer by layer; whatever does not fit is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from phbatch.network.model import open_model
from phbatch.network.predictor import get_predictor
from phbatch.network.unet import build_network, list_layers, parse_config
from phbatch.network.weights import read_weights
from phbatch.words.errors import ModelError, UsageError
from tests.handmade import CONFIG, write_model, write_weights
from tests.models import Case, make_model


@pytest.mark.parametrize("suffix", [":0", ""])
@pytest.mark.parametrize("root", ["", "model_weights"])
@pytest.mark.parametrize("probabilistic", [False, True])
def test_both_generations_and_full_models(tmp_path: Path, suffix: str, root: str, probabilistic: bool) -> None:
    config = CONFIG | {"probabilistic": probabilistic}
    written = write_weights(tmp_path / "w.h5", config, suffix=suffix, root=root)
    found = read_weights(tmp_path / "w.h5", parse_config(config))
    assert set(found) == set(written)
    for name, arrays in written.items():
        for mine, theirs in zip(found[name], arrays, strict=True):
            np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize(
    "case",
    [
        Case(),
        Case(depth=3, kernel=5, probabilistic=True),
        Case(n_dim=3, depth=1),
        Case(channels=(2, 3), residual=False),
    ],
    ids=str,
)
def test_layers_are_those_that_csbdeep_builds(tmp_path: Path, case: Case) -> None:
    model = make_model(tmp_path / "model", case)
    config = open_model(tmp_path / "model").config
    theirs = [layer for layer in model.keras_model.layers if layer.get_weights()]
    mine = list_layers(config)
    shapes = {layer.name: layer.get_weights()[0].shape for layer in theirs}
    for layer in mine:
        if layer.name not in ("mean", "scale"):
            assert shapes.pop(layer.name) == layer.kernel_shape
    assert list(shapes.values()) == [layer.kernel_shape for layer in mine if layer.name in ("mean", "scale")]


def test_missing_layers_nan_and_surplus_heads_are_named(tmp_path: Path) -> None:
    path = tmp_path / "w.h5"
    config = parse_config(CONFIG)
    write_weights(path, CONFIG)
    with h5py.File(path, "r+") as file:
        file["middle_0/middle_0/kernel:0"][0, 0, 0, 0] = np.nan
    with pytest.raises(ModelError, match=r"middle_0 of w\.h5 holds NaN"):
        read_weights(path, config)
    with h5py.File(path, "r+") as file:
        names = [name if isinstance(name, bytes) else name.encode() for name in file.attrs["layer_names"]]
        file.attrs["layer_names"] = [name for name in names if name != b"middle_0"]
    with pytest.raises(ModelError, match="lacks the layer middle_0"):
        read_weights(path, config)
    write_weights(path, CONFIG | {"probabilistic": True})
    with pytest.raises(ModelError, match="holds 2 layers besides"):
        read_weights(path, config)


@pytest.mark.parametrize("cut", [0, 1, 100, 2000, -1])
def test_truncated_files_are_refused(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "w.h5"
    write_weights(path, CONFIG)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ModelError, match="truncated"):
        read_weights(path, parse_config(CONFIG))


def test_best_is_preferred_to_last_whatever_their_times(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    write_weights(folder / "weights_last.h5", CONFIG, seed=9)
    assert open_model(folder).weights_path.name == "weights_best.h5"
    (folder / "weights_best.h5").unlink()
    assert open_model(folder).weights_path.name == "weights_last.h5"


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"n_dim": 4}, "n_dim = 4"),
        ({"unet_kern_size": 4}, "unet_kern_size"),
        ({"unet_n_depth": 0}, "unet_n_depth"),
        ({"unet_last_activation": "tanh"}, "unet_last_activation"),
        ({"n_channel_out": 2, "unet_residual": True}, "unet_residual"),
        ({"axes": "TYXC", "n_dim": 3}, "axes"),
        ({"n_dim": "two"}, "lacks a valid"),
        ({"unet_n_depth": 2.7}, "no whole number"),
        ({"unet_residual": "false"}, "neither true nor false"),
        ({"n_rays": 32}, "StarDist"),
        ({"n2v_patch_shape": [64, 64]}, "N2V"),
        ({"proj_n_depth": 4}, "ProjectionCARE"),
    ],
)
def test_configurations_that_care_cannot_have(change: dict[str, Any], part: str) -> None:
    with pytest.raises(ModelError, match=part):
        parse_config(CONFIG | change)


@pytest.mark.parametrize(
    ("text", "part"),
    [("{", "no readable JSON"), ("[1]", "holds a list"), ('{"normalization": {"method": "mean"}}', "not valid"),
     ('{"normalization": {"method": "mode", "colour": 1}}', "colour")],
)  # fmt: skip
def test_sidecars_that_are_wrong(tmp_path: Path, text: str, part: str) -> None:
    folder = write_model(tmp_path / "model")
    (folder / "phbatch.json").write_text(text)
    with pytest.raises(ModelError, match=part):
        open_model(folder)


def test_folders_of_other_kinds(tmp_path: Path) -> None:
    for name, part in (
        ("saved_model.pb", "SavedModel"),
        ("rdf.yaml", r"bioimage\.io"),
        ("notes.txt", r"no config\.json"),
    ):
        folder = tmp_path / name.split(".")[0]
        folder.mkdir()
        (folder / name).write_text("")
        with pytest.raises(ModelError, match=part):
            open_model(folder)


@pytest.mark.parametrize(("depth", "kernel"), [(1, 3), (2, 3), (2, 5), (3, 3), (2, 9)])
def test_the_halo_is_the_reach_of_the_real_network(depth: int, kernel: int) -> None:
    config = parse_config(CONFIG | {"unet_n_depth": depth, "unet_kern_size": kernel, "unet_n_first": 1})
    weights = {
        layer.name: (np.ones(layer.kernel_shape, np.float32), np.zeros(layer.kernel_shape[-1:], np.float32))
        for layer in list_layers(config)
    }
    network = build_network(config, weights)
    halo, grid = config.halo, config.grid
    size = 2 * halo + 4 * grid
    base = np.zeros((1, size, size, 1), np.float32)
    # A block of the pooling grid is written; does a pixel at a distance from it reach it? All weights are positive.
    start = halo + grid

    def reaches(distance: int) -> bool:
        image = base.copy()
        image[0, start - distance, start, 0] = 1
        return bool(np.abs(np.asarray(network(image)))[0, start : start + grid, start : start + grid].max() > 0)

    assert not reaches(halo + 1)
    assert reaches(halo - grid + 1)


def test_another_backend_in_one_process_is_refused(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    model = open_model(folder)
    get_predictor(folder, model.sha256, (16, 16), 1, "tensorflow")
    with pytest.raises(UsageError, match="one backend per process"):
        get_predictor(folder, model.sha256, (16, 16), 1, "jax")


def test_batches_smaller_than_compiled_give_the_same_numbers(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    predictor = get_predictor(folder, open_model(folder).sha256, (24, 20), 3, "tensorflow")
    tiles = np.random.default_rng(0).random((3, 24, 20, 1), np.float32)
    np.testing.assert_allclose(predictor(tiles[:2]), predictor(tiles)[:2], rtol=1e-5, atol=1e-6)
    assert predictor(tiles[:1]).shape == (1, 24, 20, 1)


def test_config_json_of_csbdeep_is_understood(tmp_path: Path) -> None:
    make_model(tmp_path / "model", Case(depth=3, kernel=5, probabilistic=True))
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert parse_config(config).halo == 96
