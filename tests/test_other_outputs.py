"""An output that exists and is of another run is said so, with the remedy, by plan as by run, and is left as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import phbatch
from tests.handmade import CommandLine, write_model


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with inputs of many shapes, a model, and an output of two frames of the first."""
    folder = tmp_path_factory.mktemp("begun")
    draw = np.random.default_rng(5)
    shapes = {"first": (2, 150, 130), "small": (2, 20, 24), "large": (2, 300, 200), "thin": (2, 1, 130)}
    shapes |= {"longer": (3, 150, 130), "planes": (2, 2, 150, 130)}
    for name, shape in shapes.items():
        image = draw.integers(400, 900, shape).astype("uint16")
        zarr.create_array(
            folder / f"{name}.zarr", data=image, dimension_names=list("tzyx" if len(shape) > 3 else "tyx")
        )
    zarr.create_array(folder / "floats.zarr", data=draw.normal(500, 9, (2, 150, 130)).astype("float32"))
    model = write_model(folder / "model")
    write_model(folder / "deeper", unet_n_depth=3)
    phbatch.run(folder / "first.zarr", folder / "out.zarr", model=model, tile=64, batch=1, network="plain")
    return folder


@pytest.mark.parametrize("command", ["plan", "run"])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        *((name, {}) for name in ("small", "large", "thin", "longer", "planes", "floats")),
        ("first", {"downscale": 2}),
        ("first", {"frames": "0:1"}),
        ("first", {"model": "deeper"}),
        ("first", {"model": "none"}),
        ("first", {"normalize": "mode"}),
    ],
    ids=str,
)
def test_it_is_said_and_left_as_it_is(begun: Path, command: str, name: str, options: dict[str, Any]) -> None:
    before = sorted((path, path.stat().st_mtime_ns) for path in (begun / "out.zarr").rglob("*"))
    model = options.get("model", "model")
    given = options | {"model": model if model == "none" else begun / model}
    with pytest.raises(phbatch.OutputError, match=r"exists and was begun differently .*overwrite=True") as caught:
        getattr(phbatch, command)(begun / f"{name}.zarr", begun / "out.zarr", **given)
    assert not any(len(word) > 60 and word.isalnum() for word in str(caught.value).split())
    assert sorted((path, path.stat().st_mtime_ns) for path in (begun / "out.zarr").rglob("*")) == before
    assert phbatch.plan(begun / f"{name}.zarr", begun / "out.zarr", **given, overwrite=True).frames > 0


def test_its_own_run_may_be_planned_and_called_again(begun: Path, phbatch_command: CommandLine) -> None:
    planned = phbatch.plan(begun / "first.zarr", begun / "out.zarr", model=begun / "model")
    assert planned.tile == (64, 64)
    result = phbatch.run(begun / "first.zarr", begun / "out.zarr", model=begun / "model")
    assert (result.units_done, result.units_skipped) == (0, result.units)
    assert phbatch_command("plan", begun / "thin.zarr", begun / "out.zarr", "--model", begun / "model") == 3
    assert "--overwrite" in phbatch_command.err
