"""Outputs of every form as libraries read them that did not write them: pixels, scale, names, levels, wells.

The extra ``judges`` has those that install beside phbatch. The others ask for other versions of its libraries, or
bring a desktop; `make judges` gives each an environment of its own in ``build/judges`` (``PHBATCH_JUDGES`` says where
else), in which `tests/judge.py` reads. Where a library is in neither, its test is skipped and says so.
"""

from __future__ import annotations

import json
import os
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import phbatch
from tests.judge import OF_PLATES, READERS, judge
from tests.ome_inputs import AXES, scale_of, write_ome
from tests.test_plates import make_plate

ROOT = Path(__file__).parent.parent
ENVIRONMENTS = Path(os.environ.get("PHBATCH_JUDGES", ROOT / "build/judges"))
SCALE = (30.0, 1.0, 0.65, 0.325)
NAMES = ["PH", "GFP"]
FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "0.4": ("0.4", {}),
    "0.5": ("0.5", {}),
    "0.4 with levels": ("0.4", {"levels": 3}),
    "0.5 with levels": ("0.5", {"levels": 3}),
    "shards": ("0.5", {"shard": "100kB", "levels": 2}),
    "integers": ("0.5", {"dtype": "uint16", "range": "0:4"}),
    "one restored, one copied": ("0.5", {"channel": 0, "others": "copy"}),
    "not named 0.4": ("0.4", {}),
    "not named 0.5": ("0.5", {}),
}
"""Versions and options of outputs."""

WELLS = ["A/1", "B/2"]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An output of every form, and plates and one of their fields."""
    folder = tmp_path_factory.mktemp("judges")
    image = np.random.default_rng(1).integers(400, 900, (3, 2, 40, 36), dtype="uint16")
    units = {"t": "second", "y": "micrometer", "x": "micrometer"}
    axes = [AXES[axis] | ({"unit": units[axis]} if axis in units else {}) for axis in "tcyx"]
    window = {"min": 0, "max": 4, "start": 0, "end": 2}
    channels = [{"label": name, "color": "FFFFFF", "window": window} for name in NAMES]
    found = {}
    for version in ("0.4", "0.5"):
        write_ome(
            folder / f"in{version}.zarr",
            image,
            axes,
            version,
            transforms=[scale_of(*SCALE)],
            attributes={"omero": {"channels": channels}},
        )
        write_ome(folder / f"bare{version}.zarr", image, axes, version, transforms=[scale_of(*SCALE)])
        plate = make_plate(folder / f"plate{version}.zarr", WELLS, fields=1, version=version)
        found[f"plate {version}"] = folder / f"plate{version}.out.zarr"
        phbatch.run(plate, found[f"plate {version}"], model="none", workers=1)
    for form, (version, options) in FORMS.items():
        found[form] = folder / f"{form.replace(' ', '-')}.zarr"
        source = folder / f"{'bare' if 'not named' in form else 'in'}{version}.zarr"
        phbatch.run(source, found[form], model="none", normalize="median", workers=1, **options)
    assert "sharding_indexed" in (found["shards"] / "0/zarr.json").read_text(encoding="utf-8")
    return found


def ask(name: str, folder: Path, paths: list[Path]) -> None:
    """Have a reader read, here or in its own environment."""
    missing = [module for module in READERS[name][1] if find_spec(module) is None]
    if not missing:
        judge(name, folder, paths)
        return
    python = ENVIRONMENTS / name / "bin/python"
    if not (python.exists() and (ENVIRONMENTS / name / "ready").exists()):
        pytest.skip(f"{missing[0]} is not installed: `make judges` puts it into an environment of its own")
    command = [python, ROOT / "tests/judge.py", name, folder, *paths]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", READERS)
@pytest.mark.filterwarnings("default")  # libraries warn of their own coming versions
def test_an_output_is_what_its_judge_reads(name: str, outputs: dict[str, Path], tmp_path: Path) -> None:
    fields = {f"field of {form}": path / WELLS[1] / "0" for form, path in outputs.items() if "plate" in form}
    paths = outputs | fields
    ask(name, tmp_path, [*paths.values()])
    for index, (form, path) in enumerate(paths.items()):
        found = json.loads((tmp_path / f"{index}.json").read_text(encoding="utf-8"))
        if form.startswith("plate"):
            assert found == ({"wells": WELLS} if name in OF_PLATES else {}), form
            continue
        pixels, expected = np.load(tmp_path / f"{index}.npy"), np.asarray(phbatch.open(path))
        assert pixels.dtype == (np.uint16 if form == "integers" else np.float32), form
        np.testing.assert_array_equal(pixels, expected, err_msg=form)
        expected_names = ["channel 0", "channel 1"] if "not named" in form else NAMES
        assert found["names"] in (None, expected_names), form
        assert found["levels"] in (None, FORMS.get(form, ("", {}))[1].get("levels", 1)), form
        scale = (1.0, 1.0, 0.3, 0.3) if form in fields else SCALE
        assert found["scale"] == pytest.approx(scale), form


def test_xarray_reads_what_phbatch_opens(outputs: dict[str, Path]) -> None:
    for form, path in outputs.items():
        if "plate" not in form:
            found = phbatch.open(path)
            steps = [float(found[axis][1] - found[axis][0]) for axis in "tyx"]
            assert steps == pytest.approx([SCALE[0], *SCALE[2:]]), form
            assert found["c"].values.tolist() == ([0, 1] if "not named" in form else NAMES)
