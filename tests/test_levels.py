"""Coarser levels of an output: of level 0 whatever else is chosen, and committed, verified and mended with it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import phbatch
from phbatch.kernels import intensity
from phbatch.kernels.pyramid import make_levels
from phbatch.outputs.ledger import Ledger, decode_records, encode_record
from phbatch.places.place import Place
from tests.models import Case, make_model


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """Odd lengths, and several channels and planes."""
    pixels = np.random.default_rng(0).normal(1000, 100, (4, 2, 3, 37, 50)).astype("uint16")
    zarr.create_array(tmp_path / "in.zarr", data=pixels, chunks=(1, 1, 2, 37, 50))
    return tmp_path / "in.zarr"


def levels_of(output: str | Path, group: str = "") -> list[np.ndarray]:
    """Pixels of all levels, found as a viewer finds them."""
    root = zarr.open_group(output, path=group, mode="r")
    attributes = root.attrs.asdict()
    datasets = attributes.get("ome", attributes)["multiscales"][0]["datasets"]
    return [root[dataset["path"]][:] for dataset in datasets]


def means_of(full: np.ndarray, level: int) -> np.ndarray:
    """Of the whole image, by NumPy alone."""
    sums, areas = full.astype(np.float64), np.ones(full.shape)
    for axis in (-2, -1):
        starts = np.arange(0, full.shape[axis], 2**level)
        sums, areas = (np.add.reduceat(values, starts, axis) for values in (sums, areas))
    means = sums / areas
    return (np.rint(means) if full.dtype.kind == "u" else means).astype(full.dtype)


def files_of(output: Path) -> dict[str, bytes]:
    """Every object of an output's images."""
    private = output / ".phbatch"
    return {
        str(path.relative_to(output)): path.read_bytes()
        for path in output.rglob("*")
        if path.is_file() and private not in path.parents and path.name not in ("zarr.json", ".zattrs")
    }


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"dtype": "float16"},
        {"dtype": "uint16", "scale": 500.0, "shard": "50kB", "workers": 2},
        {"dtype": "uint8", "range": "0:2", "shard": "auto"},
        {"downscale": 3, "upscale_back": True, "rescale": True},
        {"downscale": 3, "frames": "1:4:2"},
        {"level_method": "mode", "dtype": "uint8", "range": "0:2"},
    ],
    ids=str,
)
def test_levels_are_of_level_0(image: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    given: dict[str, Any] = {"workers": 1} | options
    output = phbatch.run(image, tmp_path / "out.zarr", model="none", levels=4, **given).output
    full, *coarser = levels_of(output)
    assert len(coarser) == 3
    for level, pixels in enumerate(coarser, 1):
        mode = options.get("level_method") == "mode"
        np.testing.assert_array_equal(pixels, make_levels(full, level, "mode")[-1] if mode else means_of(full, level))
    assert phbatch.verify(output, deep=2).damages == ()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"rescale": True},
        {"illumination": "gaussian", "bad_frames": "skip"},
        {"downscale": 2, "normalize": "percentile"},
        {"level_method": "mode"},
    ],
    ids=str,
)
def test_one_pass_over_a_frame_writes_what_several_do(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    """Of some frames that cannot be normalized, too."""
    zarr.open_array(image)[1:3, :, 1] = 70
    made = []
    for name, large in (("one", 0), ("several", 1 << 30)):
        monkeypatch.setattr(intensity, "_LARGE", large)
        phbatch.run(image, tmp_path / name, model="none", levels=4, workers=1, **options)
        made.append(files_of(tmp_path / name))
    assert made[0].keys() == made[1].keys()
    assert [name for name, data in made[0].items() if data != made[1][name]] == []


def test_the_uncertainty_has_levels_and_every_level_its_place(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).normal(1000, 30, (2, 45, 52)).astype("uint16")
    group = zarr.create_group(tmp_path / "in.zarr", zarr_format=2)
    group.create_array("0", data=frames, chunks=(1, 45, 52))
    axes = [{"name": "t", "type": "time"}, *({"name": n, "type": "space", "unit": "micrometer"} for n in "yx")]
    place = [{"type": "scale", "scale": [60.0, 0.5, 0.25]}, {"type": "translation", "translation": [0.0, 7.0, 9.0]}]
    datasets = [{"path": "0", "coordinateTransformations": place}]
    group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": datasets}]
    make_model(tmp_path / "model", Case(depth=1, probabilistic=True))
    output = phbatch.run(tmp_path / "in.zarr", model=tmp_path / "model", uncertainty=True, levels=3, workers=1).output
    for name in ("", "uncertainty"):
        full, *coarser = levels_of(output, name)
        for level, pixels in enumerate(coarser, 1):
            np.testing.assert_array_equal(pixels, means_of(full, level))
        found = zarr.open_group(output, path=name, mode="r").attrs.asdict()["multiscales"][0]["datasets"]
        assert [dataset["coordinateTransformations"] for dataset in found[1:]] == [
            [
                {"type": "scale", "scale": [60.0, 1.0, 0.5]},
                {"type": "translation", "translation": [0.0, 7.25, 9.125]},
            ],
            [
                {"type": "scale", "scale": [60.0, 2.0, 1.0]},
                {"type": "translation", "translation": [0.0, 7.75, 9.375]},
            ],
        ]


def test_levels_by_themselves_are_those_of_large_images(tmp_path: Path) -> None:
    for name, width, expected in (("small", 1024, 1), ("large", 1300, 2), ("huge", 4097, 4)):
        zarr.create_array(tmp_path / name, shape=(1, 8, width), chunks=(1, 8, width), dtype="uint8")
        plan = phbatch.plan(tmp_path / name, model="none")
        assert len(plan.levels) == expected
        assert plan.levels[-1][1] <= 1024
        assert plan.bytes_written == 4 * sum(y * x for y, x in plan.levels)
    with pytest.raises(phbatch.UsageError, match="give 11 or fewer"):
        phbatch.plan(tmp_path / "small", model="none", levels=12)
    with pytest.raises(phbatch.UsageError, match="does nothing with one level"):
        phbatch.plan(tmp_path / "small", model="none", level_method="mode")


def test_interrupted_anywhere_and_continued_gives_the_same_bytes(image: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"model": "none", "levels": 3, "workers": 1, "shard": "30kB"}
    whole = tmp_path / "whole.zarr"
    result = phbatch.run(image, whole, **options)
    for units in range(1, result.units):
        asked = iter(range(units + 1))
        cut = tmp_path / "cut.zarr"
        try:
            phbatch.run(image, cut, stop=lambda asked=asked: next(asked, None) is None, **options)
        except phbatch.InterruptedRunError:
            phbatch.run(image, cut, **options)
        assert files_of(cut) == files_of(whole)
        shutil.rmtree(cut)


def test_a_damaged_object_of_a_level_is_found_and_mended(image: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.zarr"
    phbatch.run(image, output, model="none", levels=3, workers=1)
    whole = files_of(output)
    hurt = sorted(key for key in whole if key.startswith(("1/", "2/")))[::7]
    for index, key in enumerate(hurt):
        if index % 2:
            (output / key).unlink()
        else:
            (output / key).write_bytes(whole[key][:-1] + bytes([whole[key][-1] ^ 1]))
    (output / "2/image/zarr.json").write_text("{")
    report = phbatch.verify(output)
    assert {damage.place for damage in report.damages} == {*hurt, "2/image/zarr.json"}
    assert all(damage.frames for damage in report.damages if damage.unit)
    phbatch.repair(output)
    assert files_of(output) == whole
    assert phbatch.verify(output, deep=1).damages == ()


def test_deep_verification_sees_levels_of_other_pixels(image: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.zarr"
    phbatch.run(image, output, model="none", levels=2, workers=1)
    zarr.open_array(output, path="1/image")[0, 0, 0, 0, 0] = 7
    changed = {key: (output / key) for key in files_of(output) if key.startswith("1/image/c/0/0/0/")}
    (key, path), ledger = changed.popitem(), Ledger(Place.at(output))
    record = next(record for record in ledger.current() if key in record["objects"])
    mark = list(Place.at(output).mark(key))
    ledger.commit(record | {"objects": record["objects"] | {key: mark}})
    assert path.exists()
    assert phbatch.verify(output).damages == ()
    assert [damage.place for damage in phbatch.verify(output, deep=99).damages] == [record["unit"]]


def as_before(output: Path) -> None:
    """Make an output without levels look as if it was written before there were any."""
    root = json.loads((output / "zarr.json").read_text())
    ours = root["attributes"]["phbatch"]
    for name in ("levels", "level_method"):
        ours["settings"].pop(name), ours["fingerprint"]["settings"].pop(name, None)
    del ours["geometry"]["levels"]
    (output / "zarr.json").write_text(json.dumps(root, indent=2))
    for path in (output / ".phbatch/ledger").glob("*.jsonl"):
        lines = list(decode_records(path.read_bytes().splitlines()))
        for record in lines:
            if "zarr.json" in record.get("documents", {}):
                record["documents"]["zarr.json"] = (output / "zarr.json").read_text()
        path.write_bytes(b"".join(map(encode_record, lines)))


def test_outputs_of_before_go_on_without_levels(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).normal(1000, 30, (1, 3, 1, 20, 1500)).astype("uint16")
    zarr.create_array(tmp_path / "in.zarr", data=frames, chunks=(1, 1, 1, 20, 1500))
    options: dict[str, Any] = {"model": "none", "workers": 1, "shard": "100kB"}
    whole, cut = tmp_path / "whole.zarr", tmp_path / "cut.zarr"
    phbatch.run(tmp_path / "in.zarr", whole, levels=1, **options)
    asked = iter(range(2))
    with pytest.raises(phbatch.InterruptedRunError):
        phbatch.run(tmp_path / "in.zarr", cut, levels=1, stop=lambda: next(asked, None) is None, **options)
    for output in (whole, cut):
        as_before(output)
        assert phbatch.run(tmp_path / "in.zarr", output, **options).units == 3
        assert phbatch.verify(output, deep=1).damages == ()
        assert files_of(output) == files_of(whole)
        assert sorted(path.name for path in output.iterdir()) == [".phbatch", "0", "statistics", "zarr.json"]
    hurt = next(path for path in (whole / "0").rglob("*") if path.name not in ("zarr.json",) and path.is_file())
    hurt.unlink()
    assert phbatch.repair(whole).units_done == 1
    assert files_of(whole) == files_of(cut)
    with pytest.raises(phbatch.OutputError, match=r"settings.levels was 1 and is 2"):
        phbatch.run(tmp_path / "in.zarr", whole, levels=2, **options)
