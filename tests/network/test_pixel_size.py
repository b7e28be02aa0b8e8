"""A model that knows the size of its pixels warns where the image's differ, with the remedy that helps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import zarr

import phbatch
from phbatch.network.model import DEFAULT_MODEL, open_model
from tests.handmade import write_model


def image(folder: Path, size: float, unit: str | None) -> Path:
    group = zarr.create_group(str(folder / "a.zarr"), zarr_format=2)
    group.create_array("0", shape=(64, 64), chunks=(64, 64), dtype="uint16")
    axes = [{"name": name, "type": "space"} | ({"unit": unit} if unit else {}) for name in "yx"]
    datasets = [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [size, size]}]}]
    group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": datasets}]
    return folder / "a.zarr"


@pytest.mark.parametrize(
    ("size", "unit", "downscale", "part"),
    [
        (0.2, "micrometer", 1, None),
        (220.0, "nanometer", 1, None),
        (0.1, "micrometer", 1, "downscale=2"),
        (0.1, "micrometer", 2, None),
        (50.0, "nanometer", 1, "downscale=4"),
        (0.65, "micrometer", 1, "no downscale comes nearer"),
        (0.2, "micrometer", 3, "downscale=1"),
        (0.65, None, 1, None),
    ],
)
def test_pixels_of_another_size_are_warned_of(
    tmp_path: Path, size: float, unit: str | None, downscale: int, part: str | None
) -> None:
    model = write_model(tmp_path / "model")
    (model / "phbatch.json").write_text(json.dumps({"pixel_size_um": 0.2}))
    notices = phbatch.plan(image(tmp_path, size, unit), model=model, downscale=downscale).notices
    warned = [notice for notice in notices if "micrometers" in notice]
    assert len(warned) == (part is not None)
    assert part is None or part in warned[0]


def test_the_default_model_says_what_it_does_to_faint_detail(tmp_path: Path) -> None:
    notices = phbatch.plan(image(tmp_path, 0.1625, "micrometer")).notices
    (said,) = [notice for notice in notices if "bundled" in notice]
    limits = open_model(DEFAULT_MODEL).facts["limits"]
    assert said == f"model: {DEFAULT_MODEL}, bundled: {limits.split('. ')[0]}; choose another with model."
    assert "detail" in said
    named = phbatch.plan(image(tmp_path / "named", 0.1625, "micrometer"), model=DEFAULT_MODEL).notices
    assert not any("bundled" in notice for notice in named)
