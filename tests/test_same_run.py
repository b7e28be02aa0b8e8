"""A setting that is changed between two runs into one output is refused by its name, or the bytes stay as they are."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from distributed import LocalCluster

import phbatch
from phbatch.computing.identity import NUMBERS_VERSION, find_differences, fingerprint
from phbatch.kernels.intensity import describe_normalizer
from phbatch.running import begin
from phbatch.running.begin import AcceptedRun
from phbatch.words.choices import ESTIMATED_BACKGROUNDS, FRAME_BACKGROUNDS
from phbatch.words.settings import SETTINGS, parse_settings
from tests.handmade import write_model
from tests.test_options import GIVEN, NEEDS
from tests.test_resume import files

OF_NETWORK = [name for name, setting in SETTINGS.items() if setting.row.group == "network" and name != "model"]
CHANGED = GIVEN | {"axes": "tzyx", "channel": 1, "memory": "3GB", "tile": 64, "channel_names": ("PH", "GFP")}
"""A value of every setting that differs from what the outputs here were begun with."""

OF_FILES = {"pattern", "position"}
"""Settings of what microscopes wrote, which a Zarr refuses: tests/microscopes has them."""

OF_MANY = {"wells", "fields"}
"""Settings that choose of a plate or a collection, which one image refuses: tests/test_plates.py has them."""

OF_FOLLOWING = {"follow", "follow_timeout", "follow_until"}
"""Settings that wait for what comes: tests/test_follow.py has them."""

SINCE = {*OF_FILES, "ome_zarr", "levels", "level_method", "others"}
"""Settings that there were not when fingerprints were listed by hand."""

# As it was recorded before there was a table of settings; for the input below without a network.
RECORDED = """{"normalization":
{"method": "zscore", "factor": 1.0, "sigma": 3.0, "pmin": 1.0, "pmax": 90.0, "value": null},
"dtype": "uint16", "rescale": false, "packing": {"low": -1.0, "gain": 13107.0}, "uncertainty": false, "nan": "skip",
"smooth_time": 3, "bad_frames": "copy", "scope": "image", "percentiles": [1.0, 50.5], "illumination": "gaussian",
"illumination_mode": "subtract", "downscale": 2, "upscale_back": true, "codec": "blosc-zstd", "shuffle": "bit",
"shard": 1000000, "frames": [1, 4, 2], "channels": [0], "tile": null, "batch": null, "backend": null, "network": null,
"precision": null}"""
RECORDED_OPTIONS: dict[str, Any] = {
    "normalize": "zscore",
    "sigma": 3,
    "pmin": 1,
    "pmax": 90,
    "percentiles": (1, 50.5),
    "smooth_time": 3,
    "illumination": "gaussian",
    "illumination_mode": "subtract",
    "downscale": 2,
    "upscale_back": True,
    "channel": 0,
    "frames": "1:4:2",
    "dtype": "uint16",
    "range": "-1:4",
    "nan": "skip",
    "bad_frames": "copy",
    "codec": "blosc-zstd",
    "shuffle": "bit",
    "shard": "1MB",
}


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two channels, four times."""
    folder = tmp_path_factory.mktemp("same")
    draw = np.random.default_rng(0)
    pixels = draw.normal(1000, 30, (4, 2, 96, 96)) + 300 * (draw.random((4, 2, 96, 96)) > 0.97)
    zarr.create_array(folder / "in.zarr", data=pixels.astype("uint16"), chunks=(1, 1, 96, 96), dimension_names="tcyx")
    write_model(folder / "model", probabilistic=True)
    phbatch.report.save_statistics(folder / "table.csv", phbatch.statistics(folder / "in.zarr"))
    return folder / "in.zarr"


def beside(image: Path, name: str) -> dict[str, Any]:
    """Settings that a setting acts beside."""
    if name in OF_NETWORK:
        return {"model": image.with_name("model"), "network": "plain"}
    needs = {"normalize": "fixed", "value": 1.0} if name == "value" else NEEDS.get(name, {})
    return {"model": "none"} | needs


def changed(image: Path, name: str) -> dict[str, Any]:
    """A value of a setting that is not that of the run before."""
    value = {"stats": image.with_name("table.csv"), "model": image.with_name("model")}.get(name, CHANGED[name])
    return beside(image, name) | {name: value}


class Begun:
    """Outputs by the settings that they were made with."""

    def __init__(self, image: Path) -> None:
        self._image = image
        self._made: dict[str, Path] = {}

    def __call__(self, options: dict[str, Any]) -> Path:
        name = str(sorted(options.items(), key=str))
        if name not in self._made:
            self._made[name] = self._image.with_name(f"begun{len(self._made)}.zarr")
            phbatch.run(self._image, self._made[name], workers=1, command="same", **options)
        return self._made[name]


@pytest.fixture(scope="module")
def begun(image: Path) -> Begun:
    return Begun(image)


@pytest.fixture
def scheduler() -> Iterator[Callable[[], str]]:
    """Opens a Dask cluster where it is asked for."""
    opened = []

    def open_cluster() -> str:
        opened.append(LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0"))
        return str(opened[0].scheduler_address)

    yield open_cluster
    for cluster in opened:
        cluster.close()


# tests/cluster/test_local_devices.py has the devices
@pytest.mark.parametrize("name", sorted(SETTINGS.keys() - {"devices"} - OF_FILES - OF_MANY - OF_FOLLOWING))
def test_a_changed_setting_is_refused_by_name_or_the_bytes_stay(
    image: Path, begun: Begun, tmp_path: Path, name: str, scheduler: Callable[[], str]
) -> None:
    before = begun(beside(image, name))
    continued = Path(shutil.copytree(before, tmp_path / "continued.zarr"))
    options = changed(image, name) | ({"scheduler": scheduler()} if name == "scheduler" else {})
    if SETTINGS[name].row.touches == "numbers" and name != "precision_bound":  # which decides on the precision alone
        with pytest.raises(phbatch.OutputError, match=rf"begun differently \(.*\b{name}\b"):
            phbatch.run(image, continued, command="same", **options)
        assert files(continued) == files(before)
        return
    for output in (continued, tmp_path / "afresh.zarr"):
        phbatch.run(image, output, command="same", **options)
        found, expected = files(output), files(before)
        assert found.keys() == expected.keys()
        assert [key for key in found if key != "zarr.json" and found[key] != expected[key]] == []


def fingerprint_before(accepted: AcceptedRun, given: dict[str, Any]) -> dict[str, Any]:
    """The list by hand that outputs were begun with before there was a table."""
    settings, resolved, source, model = accepted.settings, accepted.resolved, accepted.source, accepted.model
    recipe, geometry = resolved.recipe, resolved.geometry
    sampled = settings.illumination in ESTIMATED_BACKGROUNDS and settings.illumination not in FRAME_BACKGROUNDS
    return {
        "input": source.identity(pixels=sampled or recipe.passes > 1),
        "settings": {
            "normalization": recipe.rule.model_dump(),
            "dtype": recipe.dtype,
            "rescale": recipe.rescale,
            "packing": asdict(recipe.packing) if recipe.packing else None,
            "uncertainty": recipe.uncertainty,
            "nan": settings.nan,
            "smooth_time": settings.smooth_time,
            "bad_frames": settings.bad_frames,
            "scope": settings.scope,
            "percentiles": list(settings.percentiles),
            "illumination": settings.illumination,
            "illumination_mode": settings.illumination_mode,
            "downscale": settings.downscale,
            "upscale_back": settings.upscale_back,
            "codec": settings.codec,
            "shuffle": settings.shuffle,
            "shard": settings.shard,
            "frames": [geometry.times.start, geometry.times.stop, geometry.times.step],
            "channels": list(geometry.channels),
            "tile": list(recipe.tiles.tile) if recipe.tiles else None,
            "batch": recipe.batch if model else None,
            "backend": settings.backend if model else None,
            "network": recipe.network if model else None,
            "precision": recipe.precision if model else None,
        },
        "model": {"name": model.name, "sha256": model.sha256} if model else None,
        "normalizer": describe_normalizer(recipe.rule.method),
        "given": dict(given),
        "numbers_version": NUMBERS_VERSION if model and recipe.precision != "float32" else 4,
    }


def both(image: Path, options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Fingerprints of a run as they were and as they are, as they are recorded."""
    accepted = begin.accept_run(str(image), image.with_name("nowhere.zarr"), parse_settings(options))
    given = {"statistics": accepted.given.digest() if accepted.given else None, "illumination": None}
    now = fingerprint(accepted.settings, accepted.resolved, accepted.source, accepted.model, given)
    return json.loads(json.dumps(fingerprint_before(accepted, given))), json.loads(json.dumps(now))


@pytest.mark.parametrize("name", sorted(SETTINGS.keys() - {"scheduler", "devices"} - SINCE))
def test_outputs_that_are_older_than_the_table_are_continued(image: Path, name: str) -> None:
    for options in (beside(image, name), changed(image, name)):
        before, now = both(image, options)
        assert before | {"settings": None} == now | {"settings": None}
        assert before["settings"] == {key: value for key, value in now["settings"].items() if key not in SINCE}
        assert find_differences(before, now) == []


def test_a_recorded_fingerprint_is_that_of_its_settings(image: Path) -> None:
    now = both(image, {"model": "none", **RECORDED_OPTIONS})[1]["settings"]
    assert {key: value for key, value in now.items() if key not in SINCE} == json.loads(RECORDED)


def test_what_is_older_than_a_setting_was_made_with_its_default(image: Path) -> None:
    _, now = both(image, {"model": "none"})
    older = {**now, "settings": {name: value for name, value in now["settings"].items() if name != "bad_frames"}}
    assert find_differences(older, now) == []
    _, other = both(image, {"model": "none", "bad_frames": "copy"})
    assert "settings.bad_frames was normalize and is copy" in find_differences(older, other)


def test_the_fingerprint_holds_what_touches_the_numbers_and_nothing_else(image: Path) -> None:
    _, mark = both(image, {"model": image.with_name("model")})
    stands = {f"settings.{name}" for name, setting in SETTINGS.items() if setting.identifies}
    for name, setting in SETTINGS.items():
        assert setting.row.touches == "numbers" or not setting.row.stands, name
        stands |= {setting.row.stands} - {""}
    for place in stands:
        part: Any = mark
        for key in place.split("."):
            assert key in part, place
            part = part[key]
    named = {place.split(".")[1] for place in stands if place.startswith("settings.")}
    assert set(mark["settings"]) == named
