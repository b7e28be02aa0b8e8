"""Weight files that do not fit are refused in one sentence, whatever is wrong with them; heads are told by position."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from phbatch.network.unet import list_layers, parse_config
from phbatch.network.weights import read_weights
from phbatch.words.errors import ModelError
from tests.handmade import CONFIG, write_weights
from tests.models import Case, convert_to_keras_2, make_model

PROBABILISTIC = CONFIG | {"probabilistic": True}


def test_heads_are_told_by_their_position_and_not_by_their_names(tmp_path: Path) -> None:
    path = tmp_path / "w.h5"
    written = write_weights(path, PROBABILISTIC)
    with h5py.File(path, "r+") as file:  # in the alphabet conv2d_12, the scale, comes first
        names = [str(name) for name in file.attrs["layer_names"]]
        heads = [names.index(name) for name in ("conv2d_7", "conv2d_12")]
        assert heads[0] < heads[1]
        assert sorted(file)[:2] == ["add_1", "conv2d_12"]
    found = read_weights(path, parse_config(PROBABILISTIC))
    np.testing.assert_array_equal(found["mean"][0], written["mean"][0])
    np.testing.assert_array_equal(found["scale"][0], written["scale"][0])
    with h5py.File(path, "r+") as file:
        names[heads[0]], names[heads[1]] = names[heads[1]], names[heads[0]]
        file.attrs["layer_names"] = names
    swapped = read_weights(path, parse_config(PROBABILISTIC))
    np.testing.assert_array_equal(swapped["mean"][0], written["scale"][0])
    np.testing.assert_array_equal(swapped["scale"][0], written["mean"][0])


@pytest.mark.parametrize(
    "case",
    [Case(probabilistic=True), Case(depth=3, residual=False), Case(n_dim=3, depth=1, probabilistic=True)],
    ids=str,
)
def test_files_of_csbdeep_hold_what_its_network_holds(tmp_path: Path, case: Case) -> None:
    model = make_model(tmp_path / "model", case)
    convert_to_keras_2(tmp_path / "model", tmp_path / "keras2")
    theirs = [layer.get_weights() for layer in model.keras_model.layers if layer.get_weights()]
    config = parse_config(
        CONFIG
        | {
            "n_dim": case.n_dim,
            "unet_n_depth": case.depth,
            "unet_n_first": case.n_first,
            "probabilistic": case.probabilistic,
        }
    )
    for folder in ("model", "keras2"):
        found = read_weights(tmp_path / folder / "weights_best.h5", config)
        assert list(found) == [layer.name for layer in list_layers(config)]
        for mine, expected in zip(found.values(), theirs, strict=True):
            for array, other in zip(mine, expected, strict=True):
                np.testing.assert_array_equal(array, other)
                assert array.dtype == np.float32


def _transpose(file: h5py.File) -> None:
    kernel = file["up_level_0_no_0/up_level_0_no_0/kernel:0"][:]
    del file["up_level_0_no_0/up_level_0_no_0/kernel:0"]
    file["up_level_0_no_0/up_level_0_no_0/kernel:0"] = kernel.swapaxes(2, 3)


def _drop_bias(file: h5py.File) -> None:
    file["middle_2"].attrs["weight_names"] = [b"middle_2/kernel:0"]


def _lengthen_bias(file: h5py.File) -> None:
    del file["middle_2/middle_2/bias:0"]
    file["middle_2/middle_2/bias:0"] = np.zeros(99, np.float32)


def _infinite_head(file: h5py.File) -> None:
    file["conv2d_7/conv2d_7/bias:0"][0] = np.inf


def _drop_dataset(file: h5py.File) -> None:
    del file["down_level_1_no_0/down_level_1_no_0/kernel:0"]


def _drop_names(file: h5py.File) -> None:
    del file.attrs["layer_names"]


def _drop_weight_names(file: h5py.File) -> None:
    del file["middle_0"].attrs["weight_names"]


def _store_text(file: h5py.File) -> None:
    del file["middle_0/middle_0/bias:0"]
    file["middle_0/middle_0/bias:0"] = np.array([b"a", b"b"])


def _drop_head(file: h5py.File) -> None:
    file.attrs["layer_names"] = [name for name in file.attrs["layer_names"] if name != "conv2d_7"]


@pytest.mark.parametrize(
    ("damage", "part"),
    [
        (_transpose, r"layer up_level_0_no_0 of w\.h5 has shapes .* and config\.json asks for"),
        (_drop_bias, "layer middle_2 .* has shapes"),
        (_lengthen_bias, r"layer middle_2 .* has shapes .*\(99,\)"),
        (_infinite_head, "layer mean .* holds NaN or infinity"),
        (_drop_dataset, "cannot be read as Keras weights"),
        (_drop_names, "without the layers of a network"),
        (_drop_weight_names, "cannot be read as Keras weights"),
        (_store_text, "cannot be read as Keras weights"),
        (_drop_head, r"holds 0 layers besides the U-Net's \(none\) and config\.json asks for 1"),
    ],
)
def test_damage_is_named(tmp_path: Path, damage: Callable[[h5py.File], None], part: str) -> None:
    path = tmp_path / "w.h5"
    write_weights(path, CONFIG)
    with h5py.File(path, "r+") as file:
        damage(file)
    with pytest.raises(ModelError, match=part):
        read_weights(path, parse_config(CONFIG))


@pytest.mark.parametrize(
    "change", [{"unet_n_first": 4}, {"unet_kern_size": 5}, {"n_channel_in": 2}, {"n_channel_out": 3}, {"n_dim": 3}]
)
def test_weights_of_another_width_are_refused(tmp_path: Path, change: dict[str, int]) -> None:
    write_weights(tmp_path / "w.h5", CONFIG)
    with pytest.raises(ModelError, match=r"has shapes .* the weights belong to another network"):
        read_weights(tmp_path / "w.h5", parse_config(CONFIG | change))


@pytest.mark.parametrize(("stored", "asked"), [(2, 1), (1, 2)])
def test_weights_of_another_depth_are_refused(tmp_path: Path, stored: int, asked: int) -> None:
    write_weights(tmp_path / "w.h5", CONFIG | {"unet_n_depth": stored})
    with pytest.raises(ModelError, match=r"the weights (belong to another network|do not fit config)"):
        read_weights(tmp_path / "w.h5", parse_config(CONFIG | {"unet_n_depth": asked}))


def test_a_file_that_is_cut_anywhere_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.h5"
    write_weights(path, CONFIG)
    whole = path.read_bytes()
    for cut in range(0, len(whole), len(whole) // 60):
        path.write_bytes(whole[:cut])
        with pytest.raises(ModelError, match="cannot be read as Keras weights"):
            read_weights(path, parse_config(CONFIG))


def test_a_file_that_is_overwritten_anywhere_is_read_or_refused_and_never_a_surprise(tmp_path: Path) -> None:
    path = tmp_path / "w.h5"
    write_weights(path, CONFIG)
    whole = path.read_bytes()
    draw = np.random.default_rng(0)
    refused = 0
    for _ in range(120):
        start = int(draw.integers(len(whole) - 32))
        path.write_bytes(whole[:start] + draw.bytes(32) + whole[start + 32 :])
        try:
            found = read_weights(path, parse_config(CONFIG))
        except ModelError:
            refused += 1
        else:
            assert all(np.isfinite(array).all() for arrays in found.values() for array in arrays)
    assert refused > 10


def test_a_file_that_is_no_hdf5_or_not_there_is_refused(tmp_path: Path) -> None:
    (tmp_path / "w.h5").write_text("version https://git-lfs.github.com/spec/v1\n")
    for name in ("w.h5", "absent.h5"):
        with pytest.raises(ModelError, match=f"{name} cannot be read as Keras weights"):
            read_weights(tmp_path / name, parse_config(CONFIG))
