"""The network is CSBDeep's, layer by layer and number by number, and its halo is what it reaches."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from csbdeep.internals.nets import common_unet

from phbatch.network.forms import PLAIN, build_form
from phbatch.network.unet import NetworkConfig, build_network, list_layers

HEADS = ("mean", "scale")


def make_config(**changes: Any) -> NetworkConfig:
    plain: dict[str, Any] = {
        "n_dim": 2,
        "n_channel_in": 1,
        "n_channel_out": 1,
        "depth": 2,
        "kernel": 3,
        "n_first": 2,
        "residual": False,
        "last_activation": "linear",
        "probabilistic": False,
    }
    return NetworkConfig(**(plain | changes))


def make_weights(config: NetworkConfig, seed: int = 0) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    draw = np.random.default_rng(seed)
    weights = {}
    for layer in list_layers(config):
        kernel = draw.normal(0, (2 / np.prod(layer.kernel_shape[:-1])) ** 0.5, layer.kernel_shape)
        weights[layer.name] = (
            kernel.astype(np.float32),
            draw.normal(0, 0.1, layer.kernel_shape[-1:]).astype(np.float32),
        )
    return weights


@pytest.mark.parametrize(
    "config",
    [
        make_config(depth=1, kernel=7, residual=True),
        make_config(depth=2, kernel=5, n_first=3, probabilistic=True, n_channel_in=3, n_channel_out=2),
        make_config(depth=3, residual=True, probabilistic=True, n_channel_in=4, n_channel_out=4),
        make_config(depth=4, last_activation="relu", n_channel_out=3),
        make_config(depth=2, kernel=1),
        make_config(n_dim=3, depth=1, kernel=5, last_activation="relu", residual=True, probabilistic=True),
        make_config(n_dim=3, depth=2, n_channel_in=2, probabilistic=True),
        make_config(n_dim=3, depth=3, residual=True),
    ],
    ids=lambda config: f"{config.n_dim}d-depth{config.depth}-k{config.kernel}",
)
def test_layers_and_numbers_are_those_of_csbdeeps_network(config: NetworkConfig) -> None:
    theirs = common_unet(
        config.n_dim,
        config.depth,
        config.kernel,
        config.n_first,
        config.n_channel_out,
        config.residual,
        config.probabilistic,
        config.last_activation,
    )((*(None,) * config.n_dim, config.n_channel_in))
    layers = [layer for layer in theirs.layers if layer.get_weights()]
    expected = list_layers(config)
    assert [layer.get_weights()[0].shape for layer in layers] == [layer.kernel_shape for layer in expected]
    names = [layer.name for layer in expected]
    inner = len(names) - sum(name in HEADS for name in names)
    assert [layer.name for layer in layers][:inner] == names[:inner]
    assert names[inner:] == list(HEADS[: 1 + config.probabilistic])

    weights = make_weights(config)
    for layer, name in zip(layers, names, strict=True):
        layer.set_weights(weights[name])
    size = 2 * config.grid
    shape = (2, *(size + axis * config.grid for axis in range(config.n_dim)), config.n_channel_in)
    tiles = np.random.default_rng(1).normal(0.5, 1, shape).astype(np.float32)
    networks = (build_form(config, weights, PLAIN), build_network(config, weights), theirs)
    found, trained, whole = (np.asarray(network(tiles)) for network in networks)
    assert found.shape == (*shape[:-1], config.n_output)
    np.testing.assert_array_equal(found, trained)
    np.testing.assert_allclose(found, whole, rtol=0, atol=1e-5 * float(whole.std()))
    if config.probabilistic:
        assert found[..., config.n_channel_out :].min() >= 1e-3


@pytest.mark.parametrize(
    ("n_dim", "depth", "kernel"),
    [(2, 1, 3), (2, 1, 7), (2, 2, 3), (2, 2, 5), (2, 2, 9), (2, 3, 3), (2, 3, 5), (2, 4, 3), (3, 1, 3), (3, 1, 5)],
)
def test_what_lies_beyond_the_halo_changes_no_bit_on_any_side(n_dim: int, depth: int, kernel: int) -> None:
    config = make_config(n_dim=n_dim, depth=depth, kernel=kernel)
    network = build_form(config, make_weights(config), PLAIN)
    halo, grid = config.halo, config.grid
    size = 2 * (halo + 2 * grid)  # inside: 2 grid; then the halo; then one grid more on every side
    draw = np.random.default_rng(2)
    shape = (1, *(size,) * n_dim, 1)
    image = draw.normal(0, 1, shape).astype(np.float32)
    known = tuple(slice(grid, size - grid) for _ in range(n_dim))
    other = (100 * draw.normal(0, 1, shape)).astype(np.float32)
    other[(0, *known)] = image[(0, *known)]
    inside = (0, *(slice(grid + halo, size - grid - halo) for _ in range(n_dim)))
    first, second = np.asarray(network(image)), np.asarray(network(other))
    assert np.abs(first - second).max() > 1
    np.testing.assert_array_equal(first[inside], second[inside])


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("axis", [0, 1])
def test_a_halo_one_block_shorter_would_not_do_for_depth_2_kernel_5(axis: int, before: bool) -> None:
    config = make_config(depth=2, kernel=5)
    network = build_form(config, make_weights(config), PLAIN)
    halo, grid = config.halo, config.grid
    assert (halo, grid) == (40, 4)
    size, start = 2 * (halo + grid), halo
    image = np.random.default_rng(2).normal(0, 1, (1, size, size, 1)).astype(np.float32)
    block = (0, slice(start, start + 2 * grid), slice(start, start + 2 * grid))
    whole = np.asarray(network(image))[block]

    def changes(distance: int) -> float:
        """Change of the block when all pixels further away from it than `distance`, on one side, are others."""
        changed = image.copy()
        far = slice(0, start - distance) if before else slice(start + 2 * grid + distance, size)
        place = (0, far, slice(None)) if axis == 0 else (0, slice(None), far)
        changed[place] += 100
        return float(np.abs(np.asarray(network(changed))[block] - whole).max())

    assert changes(halo) == 0
    assert changes(halo - grid) > 1e-5 * whole.std()


@pytest.mark.parametrize("config", [make_config(probabilistic=True), make_config(n_dim=3, depth=1)], ids=["2d", "3d"])
def test_building_draws_no_random_kernels(config: NetworkConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each shape of them would be a program to compile: a second per layer and more with JAX."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a random kernel")

    monkeypatch.setattr(keras.initializers.GlorotUniform, "__call__", refuse)
    build_network(config, make_weights(config))
