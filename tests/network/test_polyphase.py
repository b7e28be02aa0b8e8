"""Every form of a network is the same function, and a form is chosen by what was measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phbatch.network.forms import (
    PLAIN,
    build_form,
    depth_to_space,
    fold_upsampling,
    list_forms,
    require_form,
    space_to_depth,
    to_blocks,
)
from phbatch.network.model import Model, open_model
from phbatch.network.tuning import form as choice
from phbatch.network.tuning.form import FormSpeed, choose_form, measure_forms, shrink_tile
from phbatch.network.unet import NetworkConfig, list_layers
from phbatch.words.errors import UsageError
from tests.handmade import write_model

BOUND = 3e-5  # of the output's std

CONFIGS = [
    NetworkConfig(2, 1, 1, 1, 7, 5, True, "linear", True),
    NetworkConfig(2, 1, 1, 2, 5, 8, True, "linear", False),
    NetworkConfig(2, 2, 4, 2, 3, 4, False, "relu", True),
    NetworkConfig(2, 3, 1, 3, 5, 3, False, "linear", False),
    NetworkConfig(2, 4, 4, 3, 7, 2, True, "relu", True),
    NetworkConfig(2, 1, 1, 4, 3, 2, True, "linear", False),
    NetworkConfig(2, 1, 1, 2, 1, 3, True, "linear", False),
    NetworkConfig(3, 1, 1, 1, 5, 3, True, "linear", False),
    NetworkConfig(3, 1, 3, 1, 7, 2, False, "linear", True),
    NetworkConfig(3, 2, 2, 2, 3, 2, True, "relu", True),
    NetworkConfig(3, 1, 1, 3, 3, 2, True, "linear", False),
]


def make_weights(config: NetworkConfig, seed: int = 0) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    draw = np.random.default_rng(seed)
    weights = {}
    for layer in list_layers(config):
        kernel = draw.normal(0, (2 / np.prod(layer.kernel_shape[:-1])) ** 0.5, layer.kernel_shape)
        bias = draw.normal(0, 0.1, layer.kernel_shape[-1:])
        weights[layer.name] = (kernel.astype(np.float32), bias.astype(np.float32))
    return weights


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: f"{c.n_dim}d-depth{c.depth}-k{c.kernel}-c{c.n_channel_in}")
def test_every_form_is_the_same_function(config: NetworkConfig) -> None:
    """Up to the zeros at the edges: tiles of one to a few pooling grids, so that edges are everywhere."""
    weights = make_weights(config)
    draw = np.random.default_rng(3)
    for lengths in ((1, 1, 1), (3, 2, 5)):
        tile = tuple(length * config.grid for length in lengths[-config.n_dim :])
        tiles = draw.normal(size=(2, *tile, config.n_channel_in)).astype(np.float32)
        expected = np.asarray(build_form(config, weights, PLAIN)(tiles))
        assert expected.std() > 0
        for form in list_forms(config)[1:]:
            found = np.asarray(build_form(config, weights, form)(tiles))
            assert found.shape == expected.shape
            assert np.abs(found - expected).max() <= BOUND * expected.std(), form


def convolve(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """A convolution layer with zeros around: ``(y, x, n_in)`` and ``(k, l, n_in, n_out)`` to ``(y, x, n_out)``."""
    padded = np.pad(image, [*((width // 2, width // 2) for width in kernel.shape[:2]), (0, 0)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, kernel.shape[:2], axis=(0, 1))
    return np.einsum("yxikl,klio->yxo", windows, kernel)


def blocks_of(image: np.ndarray) -> np.ndarray:
    y, x, c = image.shape
    return image.reshape(y // 2, 2, x // 2, 2, c).transpose(0, 2, 1, 3, 4).reshape(y // 2, x // 2, 4 * c)


KERNELS = st.tuples(
    st.sampled_from([1, 3, 5, 7, 9]), st.sampled_from([1, 3, 5, 7]), st.integers(1, 3), st.integers(1, 2)
)


@settings(max_examples=40, deadline=None)
@given(shape=KERNELS, size=st.tuples(st.integers(1, 7), st.integers(1, 7)), seed=st.integers(0, 99))
def test_a_convolution_of_blocks_is_the_convolution(
    shape: tuple[int, int, int, int], size: tuple[int, int], seed: int
) -> None:
    """Any odd kernel, of unequal widths too, on whole numbers: equal without rounding."""
    draw = np.random.default_rng(seed)
    kernel = draw.integers(-4, 5, shape).astype(np.float32)
    low = draw.integers(-9, 10, (*size, shape[2])).astype(float)
    image = draw.integers(-9, 10, (2 * size[0], 2 * size[1], shape[2])).astype(float)
    blocked = to_blocks(kernel)
    assert blocked.shape[2:] == (4 * shape[2], 4 * shape[3])
    np.testing.assert_array_equal(convolve(blocks_of(image), blocked), blocks_of(convolve(image, kernel)))
    upsampled = low.repeat(2, axis=0).repeat(2, axis=1)
    blocked = to_blocks(kernel, upsampled=True)
    np.testing.assert_array_equal(convolve(low, blocked), blocks_of(convolve(upsampled, kernel)))


@pytest.mark.parametrize("width", [1, 3, 5, 7, 9])
def test_upsampling_and_a_kernel_are_one_transposed_convolution(width: int) -> None:
    draw = np.random.default_rng(width)
    kernel = draw.integers(-4, 5, (width, width, 2, 3)).astype(np.float32)
    low = draw.integers(-9, 10, (1, 6, 7, 2)).astype(np.float32)
    found = keras.ops.conv_transpose(low, fold_upsampling(kernel), strides=2, padding="same")
    expected = convolve(low[0].repeat(2, axis=0).repeat(2, axis=1), kernel)
    np.testing.assert_array_equal(np.asarray(found)[0], expected)


def test_space_to_depth_is_undone_and_orders_phases_by_row() -> None:
    image = np.arange(4 * 6 * 2, dtype=np.float32).reshape(1, 4, 6, 2)
    np.testing.assert_array_equal(np.asarray(space_to_depth(image))[0], blocks_of(image[0]))
    volume = np.random.default_rng(0).random((2, 4, 2, 6, 3), np.float32)
    np.testing.assert_array_equal(np.asarray(depth_to_space(space_to_depth(volume))), volume)


def test_a_form_that_the_network_lacks_is_refused() -> None:
    with pytest.raises(
        UsageError, match=r"network='polyphase-3' .* 2D network of depth 2; use plain, upsampling, polyphase-1, poly"
    ):
        require_form(CONFIGS[1], "polyphase-3")


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return open_model(write_model(tmp_path / "model", unet_residual=True))


def test_measuring_reports_all_forms_and_plain_is_the_measure(model: Model) -> None:
    speeds = measure_forms(model, (32, 32), 1, "tensorflow", thorough=True)
    assert [speed.form for speed in speeds] == ["plain", "upsampling", "polyphase-1", "polyphase-2"]
    assert speeds[0].relative == 1
    assert speeds[0].difference == 0
    assert all(speed.mpx_per_s > 0 and speed.difference <= BOUND for speed in speeds)


class TestChoice:
    """What is chosen for speeds that are given."""

    @pytest.fixture
    def measured(self, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
        """Speeds that measuring finds, and how often it was asked."""
        state: dict[str, Any] = {"relative": {"plain": 1.0, "upsampling": 1.2, "polyphase-1": 1.4}, "calls": 0}

        def measure(*_: Any, **__: Any) -> list[FormSpeed]:
            state["calls"] += 1
            return [FormSpeed(form, speed, speed, 0.0) for form, speed in state["relative"].items()]

        monkeypatch.setattr(choice, "measure_forms", measure)
        return state

    def choose(self, model: Model, cache: Path, pixels: int = 10**15, tile: int = 64) -> choice.Choice:
        return choose_form(model, (tile, 64), 1, "tensorflow", pixels, cache)

    def test_the_fastest_is_taken_and_remembered(self, model: Model, measured: dict[str, Any], tmp_path: Path) -> None:
        first, second = (self.choose(model, tmp_path / "cache") for _ in range(2))
        assert first.form == second.form == "polyphase-1"
        assert first.reason.startswith("measured 1.40 x plain")
        assert second.reason.startswith("remembered 1.40 x plain")
        assert measured["calls"] == 1
        self.choose(model, tmp_path / "cache", tile=32)
        assert measured["calls"] == 2, "another tile is another case"

    def test_noise_does_not_choose(self, model: Model, measured: dict[str, Any], tmp_path: Path) -> None:
        measured["relative"] = {"plain": 1.0, "upsampling": 1.02, "polyphase-1": 0.7}
        assert self.choose(model, tmp_path).form == "plain"

    def test_little_work_is_not_measured(self, model: Model, measured: dict[str, Any], tmp_path: Path) -> None:
        assert self.choose(model, tmp_path, pixels=10**6).form == "plain"
        assert measured["calls"] == 0
        self.choose(model, tmp_path)
        assert self.choose(model, tmp_path, pixels=10**6).form == "polyphase-1", "remembered at no cost"

    @pytest.mark.parametrize("damage", ["", "[]", '{"case": 1}', "\xff", "other case", "unknown form", "no number"])
    def test_a_broken_memory_is_ignored(
        self, model: Model, measured: dict[str, Any], tmp_path: Path, damage: str
    ) -> None:
        self.choose(model, tmp_path)
        (file,) = tmp_path.glob("network-*.json")
        stored = json.loads(file.read_text())
        if damage == "other case":
            damage = json.dumps(stored | {"case": stored["case"] | {"batch": 7}})
        elif damage == "unknown form":
            damage = json.dumps(stored | {"relative": {"plain": 1.0, "winograd": 9.0}})
        elif damage == "no number":
            damage = json.dumps(stored | {"relative": {"plain": 1.0, "upsampling": float("nan")}})
        file.write_bytes(damage.encode("latin-1"))
        assert self.choose(model, tmp_path).form == "polyphase-1"
        assert measured["calls"] == 2
        assert json.loads(file.read_text()) == stored, "and written anew"

    def test_a_cache_that_cannot_be_written_is_not_missed(
        self, model: Model, measured: dict[str, Any], tmp_path: Path
    ) -> None:
        (tmp_path / "file").write_text("")
        assert self.choose(model, tmp_path / "file" / "cache").form == "polyphase-1"


@given(
    tile=st.lists(st.integers(1, 300), min_size=2, max_size=3),
    depth=st.integers(1, 4),
    max_pixels=st.integers(1, 1 << 18),
)
def test_a_shrunk_tile_stays_on_the_grid(tile: list[int], depth: int, max_pixels: int) -> None:
    grid = 1 << depth
    full = tuple(length * grid for length in tile)
    shrunk = shrink_tile(full, grid, max_pixels)
    assert all(0 < small <= length and small % grid == 0 for small, length in zip(shrunk, full, strict=True))
    assert np.prod(shrunk) <= max_pixels or set(shrunk) == {grid}
