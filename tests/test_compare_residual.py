"""`compare --residual` judges what a network removes before anything is run: planted over-smoothing is found."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr

import phbatch
from tests.handmade import CommandLine, write_model

SIDE = 192


def write_smoothing(folder: Path, times: int) -> Path:
    """A network that smooths by a 3 x 3 binomial so many times, up to 3: it passes its first skip connection alone."""
    write_model(folder)
    (folder / "phbatch.json").write_text('{"normalization": {"method": "median"}}', encoding="utf-8")
    delta = np.zeros((3, 3))
    delta[1, 1] = 1
    binomial = np.outer([1, 2, 1], [1, 2, 1]) / 16
    path = {"down_level_0_no_0": 0, "down_level_0_no_1": 0, "up_level_0_no_0": 2, "up_level_0_no_2": 0}
    with h5py.File(folder / "weights_best.h5", "r+") as file:

        def empty(_name: str, node: object) -> None:
            if isinstance(node, h5py.Dataset):
                node[:] = 0

        file.visititems(empty)
        for index, (name, channel) in enumerate(path.items()):
            file[f"{name}/{name}/kernel:0"][:, :, channel, 0] = binomial if index < times else delta
        heads = [name for name in file if name.startswith("conv2d")]
        file[f"{heads[0]}/{heads[0]}/kernel:0"][0, 0, 0, 0] = 1
    return folder


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lines two pixels wide in one quarter of two frames, under photon noise."""
    clean = np.full((2, SIDE, SIDE), 400.0)
    clean[:, 100:150, 100:150:7] += 160
    path = tmp_path_factory.mktemp("residual") / "in.zarr"
    zarr.create_array(path, data=np.random.default_rng(0).poisson(clean).astype("uint16"), chunks=(1, SIDE, SIDE))
    return path


def test_planted_over_smoothing_is_named_with_its_places(
    frames: Path, tmp_path: Path, phbatch_command: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("phbatch.tools.removal.WINDOW", 128)  # at its edge a frame is smoothed into zeros
    model, page, picture = (tmp_path / name for name in ("smooth", "page.html", "picture.png"))
    write_smoothing(model, 3)
    assert phbatch_command("compare", frames, "--residual", "--model", model, "-o", page, "--json") == 0
    found = json.loads(phbatch_command.out)["residual"]
    assert found["verdict"] == "structure"
    assert {(place["y"], place["x"]) for place in found["places"]} == {(y, x) for y in (96, 128) for x in (96, 128)}
    text = page.read_text(encoding="utf-8")
    assert "structure was removed, at these places: t" in text
    assert text.count("<i style=") == 4
    assert phbatch_command("compare", frames, "--residual", "--model", model, "-o", picture) == 0
    assert "removed by smooth: structure was removed, at these places: t" in phbatch_command.out
    plain = tmp_path / "plain.png"
    phbatch_command("compare", frames, "--model", model, "-o", plain)
    assert "removed by" not in phbatch_command.out
    assert len(picture.read_bytes()) > len(plain.read_bytes())


def test_a_network_that_leaves_frames_as_they_are_removes_nothing(frames: Path, tmp_path: Path) -> None:
    found = phbatch.compare_rules(frames, residual=True, model=write_smoothing(tmp_path / "same", 0)).residual
    assert found is not None
    assert (found.verdict, found.places) == ("nothing", ())


def test_noise_that_the_bundled_model_removes_is_called_noise(tmp_path: Path) -> None:
    movie = phbatch.PhaseContrast(shape=(192, 192), n_frames=2, seed=3)
    phbatch.write_time_lapse(str(tmp_path / "in.zarr"), movie)
    found = phbatch.compare_rules(tmp_path / "in.zarr", residual=True).residual
    assert found is not None
    assert found.sentence.startswith("noise: ")
    assert found.removed == pytest.approx(1, rel=0.15)


def test_what_cannot_be_judged_is_said(frames: Path, tmp_path: Path) -> None:
    with pytest.raises(phbatch.UsageError, match="model none has none; name a model"):
        phbatch.compare_rules(frames, residual=True, model="none")
    model = write_model(tmp_path / "two", n_channel_in=2, n_channel_out=2)
    with pytest.raises(phbatch.UsageError, match="two takes volumes or several channels"):
        phbatch.compare_rules(frames, residual=True, model=model)
    small = np.random.default_rng(1).poisson(400, (2, 12, 12)).astype("uint16")
    zarr.create_array(tmp_path / "small.zarr", data=small)
    found = phbatch.compare_rules(tmp_path / "small.zarr", residual=True)
    assert found.residual is None
    assert "residual left out" in found.notices[-1]
