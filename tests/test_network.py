"""A run settles which form of the network it uses, says so, and keeps to it; every form gives CSBDeep's numbers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import zarr
from csbdeep.data import PercentileNormalizer
from distributed import LocalCluster

import phbatch
from phbatch.network.forms import list_forms
from phbatch.network.model import open_model
from phbatch.network.tuning.form import Choice
from phbatch.running import settle
from phbatch.words.events import Event, UnitFinished
from tests.handmade import CommandLine, write_model
from tests.models import Case, make_model
from tests.test_csbdeep_parity import difference, in_file, make_frame, predict_whole, smallest_tile

BOUND = 3e-5  # of the output's std


@pytest.mark.parametrize(
    "case",
    [
        Case(depth=2, kernel=5, n_first=8, probabilistic=True),
        Case(depth=3, kernel=3, channels=(2, 2), last="relu"),
        Case(depth=1, kernel=7, channels=(3, 1), residual=False),
        Case(n_dim=3, depth=2, kernel=3, channels=(1, 2), residual=False),
    ],
    ids=str,
)
def test_every_form_gives_the_numbers_of_csbdeep(tmp_path: Path, case: Case) -> None:
    model = make_model(tmp_path / "model", case)
    frame = make_frame(case, "uint16")
    stored, axes = in_file(frame, case)
    zarr.create_array(tmp_path / "in.zarr", data=stored)
    expected, scale = predict_whole(model, frame, PercentileNormalizer(2, 99.8, do_after=False), case)
    for form in list_forms(open_model(tmp_path / "model").config):
        # A form is the same function on any tile (`test_polyphase`): the whole frame shows the bits of the plain one.
        for tile in (None, smallest_tile(case)) if form == "plain" else (smallest_tile(case),):
            result = phbatch.run(
                tmp_path / "in.zarr",
                tmp_path / "out.zarr",
                model=tmp_path / "model",
                axes=axes,
                tile=tile,
                network=form,
                uncertainty=case.probabilistic,
                workers=1,
                overwrite=True,
            )
            found = zarr.open_array(result.output, path="0")[:]
            assert difference(found, expected) <= BOUND, form
            if tile is None:
                np.testing.assert_array_equal(found.reshape(expected.shape), expected)
            if scale is not None:
                assert difference(zarr.open_array(result.output, path="uncertainty/0")[:], scale) <= BOUND


@pytest.fixture
def data(tmp_path: Path, frames: np.ndarray) -> dict[str, Any]:
    """Arguments of a run on three frames with a small model."""
    zarr.create_array(tmp_path / "in.zarr", data=np.tile(frames, (1, 30, 30)), chunks=(1, 1200, 1080))
    return {
        "input": tmp_path / "in.zarr",
        "output": tmp_path / "out.zarr",
        "model": write_model(tmp_path / "model", unet_residual=True),
        "workers": 1,
    }


@pytest.fixture
def choose(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Sets the form that is the fastest."""

    def set_fastest(form: str) -> None:
        monkeypatch.setattr(settle, "choose_form", lambda *_, **__: Choice(form, "measured 1.50 x plain on a test"))

    return set_fastest


def recorded(output: Path) -> dict[str, Any]:
    attributes: dict[str, Any] = zarr.open_group(output, mode="r").attrs.asdict()["phbatch"]
    return attributes


def stop_after_one(event: Event) -> None:
    if isinstance(event, UnitFinished):
        raise KeyboardInterrupt


def test_the_fastest_form_is_used_named_and_continued(data: dict[str, Any], choose: Callable[[str], None]) -> None:
    choose("polyphase-1")
    with pytest.raises(KeyboardInterrupt):
        phbatch.run(**data, listener=stop_after_one)
    found = recorded(data["output"])
    assert found["network"] == found["fingerprint"]["settings"]["network"] == "polyphase-1"
    assert "network: polyphase-1, measured 1.50 x plain on a test." in found["notices"]
    choose("upsampling")
    assert phbatch.plan(**data).network == "polyphase-1"
    result = phbatch.run(**data)
    assert 1 <= result.units_skipped <= result.units  # what was in flight is finished, too
    continued = zarr.open_array(result.output, path="0")[:]
    whole = phbatch.run(**data | {"network": "polyphase-1", "overwrite": True})
    np.testing.assert_array_equal(continued, zarr.open_array(whole.output, path="0")[:])
    with pytest.raises(phbatch.OutputError, match=r"settings\.network was polyphase-1 and is plain"):
        phbatch.run(**data | {"network": "plain"})


def test_a_plan_chooses_nothing(data: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settle, "choose_form", None)
    assert phbatch.plan(**data).network == "auto"
    assert phbatch.plan(**data | {"network": "Upsampling"}).network == "upsampling"
    assert phbatch.plan(**data | {"model": "none"}).network is None


def test_a_small_run_is_plain_without_measuring(data: dict[str, Any]) -> None:
    result = phbatch.run(**data)
    assert "network: plain, too little work to measure other forms." in result.notices
    array = da.from_zarr(zarr.open_array(data["input"]))
    lazy = phbatch.restore(array, "tyx", model=data["model"])
    np.testing.assert_array_equal(lazy.compute(), zarr.open_array(result.output, path="0")[:])


@pytest.mark.parametrize(
    ("network", "message"),
    [("polyphase-3", "2D network of depth 2; use plain, upsampling"), ("fast", "network='fast' is not valid")],
)
def test_a_form_that_is_not_there_is_refused(data: dict[str, Any], network: str, message: str) -> None:
    with pytest.raises(phbatch.UsageError, match=message):
        phbatch.run(**data, network=network)
    assert not data["output"].exists()


def test_on_a_cluster_a_worker_chooses_and_all_use_it(data: dict[str, Any], choose: Callable[[str], None]) -> None:
    choose("upsampling")
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0") as cluster:
        result = phbatch.run(**data, scheduler=cluster.scheduler_address)
    assert recorded(data["output"])["network"] == "upsampling"
    there = zarr.open_array(result.output, path="0")[:]
    here = phbatch.run(**data | {"network": "upsampling", "overwrite": True})
    np.testing.assert_array_equal(there, zarr.open_array(here.output, path="0")[:])


def test_info_measures_every_form(phbatch_command: CommandLine, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model", unet_n_depth=1)
    assert phbatch_command("info", folder, "--benchmark", "--json") == 0
    forms = json.loads(phbatch_command.out.splitlines()[-1])["forms"]
    assert [row["form"] for row in forms] == ["plain", "upsampling", "polyphase-1"]
    assert all(row["difference"] <= BOUND for row in forms)
    assert phbatch_command("info", folder, "--benchmark") == 0
    assert "polyphase-1" in phbatch_command.out
    assert "x plain" in phbatch_command.out
    zarr.create_array(tmp_path / "in.zarr", data=np.zeros((4, 4), np.uint8))
    assert phbatch_command("info", tmp_path / "in.zarr", "--benchmark") == 2
    assert "--benchmark measures models" in phbatch_command.err
