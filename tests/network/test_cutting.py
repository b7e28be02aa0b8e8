"""Tile and batch: what is measured, what is chosen, what is remembered, and what a GPU has no memory for."""

from __future__ import annotations

import sys
from math import prod
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

import phbatch
from phbatch.kernels.tiling import TilePlan, choose_tile
from phbatch.network.device import Device
from phbatch.network.model import Model, open_model
from phbatch.network.tuning import memory_probe as probe
from phbatch.network.tuning import tile as cutting
from phbatch.network.tuning.memory_probe import fits_on_device
from phbatch.network.tuning.tile import Cut, CutChoice, choose_cut, list_cuts, measure_cuts
from phbatch.network.unet import NetworkConfig
from tests.handmade import write_model

CONFIG = NetworkConfig(2, 1, 1, 2, 3, 32, True, "linear", False)


@settings(max_examples=80, deadline=None)
@given(
    shape=st.tuples(st.integers(8, 1500), st.integers(8, 1500)),
    planned=st.integers(96**2, 1 << 21),
    room=st.integers(96**2, 1 << 24),
    frames=st.integers(1, 1000),
    on_gpu=st.booleans(),
)
def test_cuts_fit(shape: tuple[int, int], planned: int, room: int, frames: int, on_gpu: bool) -> None:
    tile = choose_tile(shape, CONFIG.halo, CONFIG.grid, planned)
    first, *others = list_cuts(
        Cut(tile, 1), shape, CONFIG, max_pixels=room, frames=frames, on_gpu=on_gpu, tiles=True, batches=True
    )
    assert first == Cut(tile, 1)
    assert len({first, *others}) == 1 + len(others)
    for cut in others:
        plan = TilePlan(shape, cut.tile, CONFIG.halo, CONFIG.grid)  # refuses what does not fit
        assert cut.batch * prod(cut.tile) <= room
        assert cut.batch <= frames * len(plan.tiles)


def test_what_was_asked_for_stays() -> None:
    options: dict[str, Any] = {"max_pixels": 1 << 24, "frames": 100, "on_gpu": True}
    planned = Cut((96, 96), 2)
    only_batches = list_cuts(planned, (800, 800), CONFIG, tiles=False, **options)
    assert {cut.tile for cut in only_batches} == {(96, 96)}
    assert len(only_batches) == 3
    only_tiles = list_cuts(planned, (800, 800), CONFIG, batches=False, **options)
    assert {cut.batch for cut in only_tiles} == {2}
    assert len(only_tiles) > 1


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return open_model(write_model(tmp_path / "model", unet_residual=True))


class TestChoice:
    """What is chosen for speeds that are given."""

    @pytest.fixture
    def state(self, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
        """Speeds by batch, how often they were measured, and what the device is."""
        state: dict[str, Any] = {"speeds": {1: 1.0, 4: 1.3, 16: 1.1}, "calls": 0, "gpu": False, "room": 10**9}

        def measure(cuts: list[Cut], *_: Any, **__: Any) -> dict[str, float]:
            state["calls"] += 1
            return {str(cut): state["speeds"][cut.batch] for cut in cuts}

        monkeypatch.setattr(cutting, "measure_cuts", measure)
        monkeypatch.setattr(cutting, "find_device", lambda _: Device("a device", state["gpu"]))
        monkeypatch.setattr(
            cutting, "fits_on_device", lambda folder, tile, batch, *_: batch * prod(tile) <= state["room"]
        )
        return state

    def choose(self, model: Model, folder: Path, form: str = "upsampling", frames: int = 10**13) -> CutChoice:
        return choose_cut(
            model,
            (64, 64),
            Cut((64, 64), 1),
            "tensorflow",
            form,
            "float32",
            room=1 << 34,
            frames=frames,
            folder=folder,
        )

    def test_the_fastest_is_taken_and_remembered(self, model: Model, state: dict[str, Any], tmp_path: Path) -> None:
        first, second = (self.choose(model, tmp_path / "cache") for _ in range(2))
        assert first.cut == second.cut == Cut((64, 64), 4)
        assert first.reason == "measured 1.30 x 64x64, 1 at once on a device"
        assert second.reason == "remembered 1.30 x 64x64, 1 at once on a device"
        assert state["calls"] == 1

    def test_noise_does_not_choose(self, model: Model, state: dict[str, Any], tmp_path: Path) -> None:
        state["speeds"] = {1: 1.0, 4: 1.02, 16: 0.4}
        assert self.choose(model, tmp_path).cut.batch == 1

    def test_little_work_is_not_measured(self, model: Model, state: dict[str, Any], tmp_path: Path) -> None:
        assert self.choose(model, tmp_path, frames=1000) == CutChoice(Cut((64, 64), 1))
        assert state["calls"] == 0

    def test_the_plain_network_on_a_cpu_keeps_csbdeeps_bits(
        self, model: Model, state: dict[str, Any], tmp_path: Path
    ) -> None:
        assert self.choose(model, tmp_path, "plain").cut.batch == 1
        state["gpu"] = True
        assert self.choose(model, tmp_path, "plain").cut.batch == 4

    def test_what_a_gpu_has_no_memory_for_is_not_measured(
        self, model: Model, state: dict[str, Any], tmp_path: Path
    ) -> None:
        state |= {"gpu": True, "room": 3000, "speeds": {1: 1.0, 4: 1.2, 16: 1.1}}
        chosen = self.choose(model, tmp_path)
        assert chosen.cut.batch * prod(chosen.cut.tile) <= 3000
        assert chosen.reason == "measured the fastest that a device has memory for"
        state["room"] = 0  # the run itself will halve its batch, or say what is wrong
        assert self.choose(model, tmp_path / "other").cut.batch == 1


def test_a_gpu_of_a_cluster_takes_whole_frames_where_one_worker_knows_it(
    model: Model, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    card = Device("a card", True, True, 80 << 30)
    monkeypatch.setattr(cutting, "find_device", lambda _: card)
    arguments: dict[str, Any] = {"room": 1 << 34, "frames": 10, "folder": tmp_path}
    planned = Cut((1056, 2048), 1)
    whole = choose_cut(model, (2048, 2048), planned, "tensorflow", "plain", "float16", **arguments)
    assert whole.cut == Cut((2048, 2048), 1)
    assert whole.host_bytes == model.config.staging_bytes((2048, 2048), 1)
    asked = choose_cut(model, (2048, 2048), planned, "tensorflow", "plain", "float16", tiles=False, **arguments)
    assert asked.cut.tile == planned.tile


def test_measuring_counts_the_halo(model: Model) -> None:
    cuts = [Cut((128, 128), 1), Cut((64, 64), 1)]
    relative = measure_cuts(cuts, (128, 128), model.folder, "tensorflow", "plain", "float32", clock=process_time)
    assert list(relative) == ["128x128, 1 at once", "64x64, 1 at once"]
    assert relative["128x128, 1 at once"] == 1
    overhead = TilePlan((128, 128), (64, 64), model.config.halo, model.config.grid).overhead
    assert overhead > 2
    assert 0 < relative["64x64, 1 at once"] < 2, "it computes more than twice the pixels"


def test_a_child_says_whether_a_batch_fits(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = (model.folder, (32, 32), 2, "tensorflow", "plain", "float32")
    assert fits_on_device(*arguments)  # type: ignore[arg-type]
    monkeypatch.setattr(probe, "COMMAND", [sys.executable, "-c", "import os; os.abort()"])
    assert not fits_on_device(*arguments)  # type: ignore[arg-type]
    monkeypatch.setattr(probe, "COMMAND", [sys.executable, "-c", "import time; time.sleep(60)"])
    monkeypatch.setattr(probe, "TIMEOUT_S", 0.2)
    assert not fits_on_device(*arguments)  # type: ignore[arg-type]


def test_a_run_takes_and_continues_with_what_was_measured(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = np.random.default_rng(0).integers(400, 600, (6, 40, 44), "uint16")
    zarr.create_array(tmp_path / "in.zarr", data=frames, chunks=(1, 40, 44))
    monkeypatch.setattr(
        "phbatch.running.settle.choose_cut", lambda *_, **__: CutChoice(Cut((40, 44), 4), "measured so")
    )
    options: dict[str, Any] = {"axes": "tyx", "model": model.folder, "workers": 1, "network": "plain"}
    first = phbatch.run(tmp_path / "in.zarr", tmp_path / "out.zarr", **options)
    assert "tile: 40x44, 4 at once, measured so." in first.notices
    monkeypatch.setattr(
        "phbatch.running.settle.choose_cut", lambda *_, **__: pytest.fail("a run goes on as it was begun")
    )
    again = phbatch.run(tmp_path / "in.zarr", tmp_path / "out.zarr", **options)
    assert (again.units_done, again.units_skipped) == (0, first.units)
    attributes = zarr.open_group(first.output).attrs.asdict()["phbatch"]
    assert attributes["batch"] == 4
    single = phbatch.run(tmp_path / "in.zarr", tmp_path / "single.zarr", batch=1, tile=44, **options)
    one, four = (zarr.open_array(f"{result.output}/0")[:] for result in (single, first))
    np.testing.assert_allclose(four, one, atol=3e-5 * np.std(one))
