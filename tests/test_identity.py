"""What makes two runs the same: what only their fingerprints can see is seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import phbatch
from phbatch.computing import identity
from phbatch.computing.identity import find_differences
from phbatch.words.events import Event, UnitFinished


@pytest.fixture
def source(tmp_path: Path, frames: np.ndarray) -> Path:
    zarr.create_array(tmp_path / "in.zarr", data=frames, chunks=(1, 40, 36))
    return tmp_path / "in.zarr"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"nan": "skip"}, r"settings\.nan"),
        ({"frames": "0:2"}, r"settings\.frames"),
        ({"frames": "0:1"}, r"settings\.frames"),
        ({"sigma": 3}, r"normalization\.sigma"),
        ({"codec": "none"}, r"settings\.codec"),
    ],
)
def test_a_finished_run_is_continued_by_no_other(source: Path, change: dict[str, Any], named: str) -> None:
    output = phbatch.run(source, model="none", frames="0:3").output
    with pytest.raises(phbatch.OutputError, match=named):
        phbatch.run(source, output, **{"model": "none", "frames": "0:3"} | change)


def test_an_unfinished_run_is_continued_by_no_other_once_it_has_units(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(400, 600, (4, 1100, 1000), "uint16")
    zarr.create_array(tmp_path / "in.zarr", data=image, chunks=(1, 1100, 1000))
    asked = []

    def ask(event: Event) -> None:
        asked.append(isinstance(event, UnitFinished))

    with pytest.raises(phbatch.InterruptedRunError):
        phbatch.run(tmp_path / "in.zarr", model="none", workers=1, listener=ask, stop=lambda: any(asked))
    with pytest.raises(phbatch.OutputError, match=r"settings\.nan"):
        phbatch.run(tmp_path / "in.zarr", model="none", nan="skip")


@pytest.mark.parametrize(
    ("options", "versions"),
    [
        ({"model": "none"}, ["_EXACT_VERSION"]),
        ({"model": "phase-2d", "precision": "float32"}, ["_EXACT_VERSION"]),
        ({"model": "phase-2d", "precision": "bfloat16", "precision_bound": 1.0}, ["NUMBERS_VERSION"]),
    ],
    ids=["no network", "float32", "bfloat16"],
)
def test_a_run_of_another_version_of_its_numbers_is_not_continued(
    source: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], versions: list[str]
) -> None:
    phbatch.run(source, **options)
    for version in ("_EXACT_VERSION", "NUMBERS_VERSION"):
        with monkeypatch.context() as patch:
            patch.setattr(identity, version, getattr(identity, version) + 9)
            if version in versions:
                with pytest.raises(phbatch.OutputError, match="numbers_version"):
                    phbatch.run(source, **options)
            else:
                assert phbatch.run(source, **options).units_done == 0


def test_a_rule_of_another_package_is_another_run(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    phbatch.run(source, model="none")
    monkeypatch.setattr(identity, "describe_normalizer", lambda method: f"mine:{method} of mine 1.0")
    with pytest.raises(phbatch.OutputError, match="normalizer was None and is mine:median"):
        phbatch.run(source, model="none")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({}, "was changed after it was restored"),
        ({"smooth_time": 3}, r"input\.digest"),
        ({"scope": "series"}, r"input\.digest"),
        ({"illumination": "temporal"}, r"input\.digest"),
        ({"illumination": "gaussian"}, "was changed after it was restored"),
    ],
    ids=str,
)
def test_pixels_that_changed_are_those_of_the_input_where_frames_depend_on_each_other(
    source: Path, options: dict[str, Any], named: str
) -> None:
    phbatch.run(source, model="none", **options)
    zarr.open_array(source, mode="r+")[2, 3, 4] = 1
    with pytest.raises(phbatch.OutputError, match=named):
        phbatch.run(source, model="none", **options)


def test_differences_are_found_in_both_directions() -> None:
    assert find_differences({}, {"a": 1}) == ["a was None and is 1"]
    assert find_differences({"a": 1}, {}) == ["a was 1 and is None"]
    assert find_differences({"b": {"c": [1]}, "a": 1}, {"b": {"c": [2]}, "a": 2}) == [
        "a was 1 and is 2",
        "b.c was [1] and is [2]",
    ]
