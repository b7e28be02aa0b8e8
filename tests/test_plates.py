"""Many images as one run: plates, collections and patterns."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaozarrs
import zarr

import phbatch
from phbatch.outputs.ledger import Ledger
from phbatch.places.place import Place

WELLS = ("A/1", "A/2", "B/1")


def wrap(version: str, found: dict[str, Any]) -> dict[str, Any]:
    return {"ome": {"version": version} | found} if version == "0.5" else found


def make_image(root: zarr.Group, path: str, pixels: np.ndarray[Any, Any], version: str = "0.5") -> None:
    """An image of t, c, y, x."""
    kinds = {"t": "time", "c": "channel", "y": "space", "x": "space"}
    axes = [{"name": axis, "type": kind} for axis, kind in kinds.items()]
    scale = [{"type": "scale", "scale": [1.0, 1.0, 0.3, 0.3]}]
    multiscale = {"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scale}]}
    if version == "0.4":
        multiscale["version"] = "0.4"
    channels = [{"label": label, "color": "FFFFFF"} for label in ("PH", "GFP")][: pixels.shape[1]]
    attributes = {"multiscales": [multiscale], "omero": {"channels": channels}}
    image = root.create_group(path, attributes=wrap(version, attributes))
    image.create_array("0", data=pixels, chunks=(1, 1, *pixels.shape[2:]))


def make_plate(
    place: Path, wells: Sequence[str] = WELLS, fields: int = 2, size: int = 16, version: str = "0.5"
) -> Path:
    """A plate of images of 2 times and 2 channels, of noise."""
    parts = [{well.split("/")[part] for well in wells} for part in (0, 1)]
    rows, columns = (sorted(names, key=lambda name: (len(name), name)) for names in parts)
    entries = []
    for well in wells:
        row, column = well.split("/")
        entries.append({"path": well, "rowIndex": rows.index(row), "columnIndex": columns.index(column)})
    plate = {
        "rows": [{"name": row} for row in rows],
        "columns": [{"name": column} for column in columns],
        "wells": entries,
        "version": version,
    }
    root = zarr.create_group(
        place, zarr_format=2 if version == "0.4" else 3, attributes=wrap(version, {"plate": plate})
    )
    random = np.random.default_rng(0)
    for well in wells:
        images = [{"path": str(field)} for field in range(fields)]
        root.create_group(well, attributes=wrap(version, {"well": {"images": images, "version": version}}))
        for field in range(fields):
            make_image(root, f"{well}/{field}", random.normal(1000, 30, (2, 2, size, size)).astype("uint16"), version)
    return place


def run(place: Path | str, output: Path, **options: Any) -> phbatch.RunResult:
    return phbatch.run(place, output, **({"model": "none", "workers": 2} | options))


def objects(folder: Path) -> dict[str, bytes]:
    """Stored chunks of an image's array, by key."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_a_plate_is_one_run_with_the_bytes_of_a_run_of_each_field(tmp_path: Path, version: str) -> None:
    plate = make_plate(tmp_path / "p.zarr", version=version)
    result = run(plate, tmp_path / "all.zarr")
    assert (result.failed, result.frames, result.units_done) == ({}, 24, result.units)
    run(plate / "B/1/1", tmp_path / "one.zarr")
    assert objects(tmp_path / "all.zarr/B/1/1/0") == objects(tmp_path / "one.zarr/0")
    alone, among = (zarr.open_group(tmp_path / name).attrs.asdict() for name in ("one.zarr", "all.zarr/B/1/1"))
    assert {name: value for name, value in alone.items() if name != "phbatch"} == among
    yaozarrs.validate_zarr_store(str(tmp_path / "all.zarr"))
    assert [*(tmp_path / "all.zarr").rglob("ledger")] == [tmp_path / "all.zarr/.phbatch/ledger"]
    table = zarr.open_group(tmp_path / "all.zarr/statistics")
    assert table.attrs["positions"][5] == "B/1/1"
    rows = np.asarray(table["position"]) == 5
    assert rows.sum() == 4
    assert np.array_equal(
        np.asarray(table["median"])[rows], np.asarray(zarr.open_group(tmp_path / "one.zarr/statistics")["median"])
    )


def test_wells_and_fields_are_chosen_and_may_be_added(tmp_path: Path) -> None:
    plate, output = make_plate(tmp_path / "p.zarr"), tmp_path / "o.zarr"
    assert run(plate, output, wells="A1-A2", fields="1").units == 4
    attributes: Any = zarr.open_group(output).attrs["ome"]
    assert [well["path"] for well in attributes["plate"]["wells"]] == ["A/1", "A/2"]
    assert zarr.open_group(output / "A/2").attrs.asdict()["ome"]["well"]["images"] == [{"path": "1"}]
    more = run(plate, output, fields=1)
    assert (more.units_skipped, more.units_done) == (4, 2)
    yaozarrs.validate_zarr_store(str(output))
    with pytest.raises(phbatch.OutputError, match="also has A/1/1"):
        run(plate, output, wells="B1", fields=1)
    for wells, said in (("C1", "C1.* is not in"), ("A", "row and a column"), ("B3-A1", "is empty")):
        with pytest.raises(phbatch.UsageError, match=said):
            run(plate, tmp_path / "n.zarr", wells=wells)
    with pytest.raises(phbatch.UsageError, match="is none"):
        run(plate / "A/1/0", tmp_path / "n.zarr", wells="A1")
    assert not (tmp_path / "n.zarr").exists()


def test_a_stopped_plate_continues(tmp_path: Path) -> None:
    plate, output = make_plate(tmp_path / "p.zarr"), tmp_path / "o.zarr"
    asked = iter([False] * 12)
    with pytest.raises(phbatch.InterruptedRunError, match="of 12 units"):
        run(plate, output, workers=1, stop=lambda: next(asked, True))
    first = zarr.open_group(output).attrs.asdict()["phbatch"]["status"]
    result = run(plate, output)
    assert first == "running"
    assert 0 < result.units_skipped < 12
    assert result.units_skipped + result.units_done == 12
    run(plate, tmp_path / "whole.zarr")
    for field in ("A/1/0", "B/1/1"):
        assert objects(output / field / "0") == objects(tmp_path / "whole.zarr" / field / "0")
    shutil.rmtree(plate / "A/2/0/0/c/0/0")
    with pytest.raises(phbatch.OutputError, match="A/2/0/t0-1/c0 was changed"):
        run(plate, output)


def test_a_field_that_fails_is_named_and_the_others_are_done(tmp_path: Path) -> None:
    plate, output = make_plate(tmp_path / "p.zarr"), tmp_path / "o.zarr"
    chunk, metadata = plate / "A/1/1/0/c/0/0/0/0", plate / "B/1/0/0/zarr.json"
    whole = chunk.read_bytes(), metadata.read_bytes()
    chunk.write_bytes(b"torn")
    metadata.write_bytes(b"{")
    result = run(plate, output, retries=0)
    assert result.exit_code == 4
    assert sorted(result.failed) == ["A/1/1/t0-1/c0", "B/1/0"]
    chunk.write_bytes(whole[0])
    metadata.write_bytes(whole[1])
    mended = run(plate, output)
    assert (mended.failed, mended.units_skipped, mended.units_done) == ({}, 9, 3)
    assert zarr.open_group(output).attrs.asdict()["phbatch"]["status"] == "complete"


def test_a_sparse_plate_of_fields_of_several_shapes_and_dtypes(tmp_path: Path) -> None:
    plate, output = make_plate(tmp_path / "p.zarr", ("A/1", "H/12"), fields=1), tmp_path / "o.zarr"
    root = zarr.open_group(plate)
    shutil.rmtree(plate / "H/12/0")
    make_image(root, "H/12/0", np.random.default_rng(1).normal(1, 0.1, (1, 1, 40, 24)).astype("float32"))
    result = run(plate, output)
    assert (result.failed, result.frames) == ({}, 5)
    run(plate / "H/12/0", tmp_path / "one.zarr")
    assert objects(output / "H/12/0/0") == objects(tmp_path / "one.zarr/0")
    yaozarrs.validate_zarr_store(str(output))


def test_a_plate_is_verified_and_repaired_as_one(tmp_path: Path) -> None:
    plate, output = make_plate(tmp_path / "p.zarr", ("A/1", "B/2"), fields=1), tmp_path / "o.zarr"
    run(plate, output)
    before = objects(output)
    assert phbatch.verify(output).exit_code == 0
    chunk, well = output / "B/2/0/0/c/0/1/0/0", output / "B/2/zarr.json"
    chunk.write_bytes(b"torn")
    well.unlink()
    (output / "statistics/median/c/0").unlink()
    damages = {damage.place: damage.frames for damage in phbatch.verify(output).damages}
    assert damages.keys() == {"B/2/0/0/c/0/1/0/0", "B/2/zarr.json", "statistics/median/c/0"}
    assert damages["B/2/0/0/c/0/1/0/0"] == ("B/2/0/t0/c1/z0", "B/2/0/t1/c1/z0")
    assert phbatch.repair(output, workers=2).units_done == 1
    assert phbatch.verify(output).exit_code == 0
    after = objects(output)
    kept = [key for key in before if not key.startswith(".phbatch/")]
    assert {key: before[key] for key in kept} == {key: after[key] for key in kept}


def test_units_of_many_images_are_computed_again(tmp_path: Path) -> None:
    plate, output = make_plate(tmp_path / "p.zarr", ("A/1", "B/2"), fields=1), tmp_path / "o.zarr"
    run(plate, output, smooth_time=3)
    whole = phbatch.verify(output, deep=9)
    assert (whole.recomputed, whole.damages) == (4, ())
    assert whole.largest_difference == 0
    stored: Any = zarr.open_array(output / "B/2/0/0")
    stored[1, 1] += 1
    key, ledger = "B/2/0/0/c/0/1/0/0", Ledger(Place.at(output))
    record = next(record for record in ledger.current() if key in record["objects"])
    ledger.commit(record | {"objects": record["objects"] | {key: list(Place.at(output).mark(key))}})
    (output / "A/1/0/0/c/0/0/0/0").write_bytes(b"torn")
    report = phbatch.verify(output, deep=9)
    damages = {damage.place: damage.frames for damage in report.damages}
    assert damages.keys() == {"A/1/0/0/c/0/0/0/0", "B/2/0/t0-1/c1"}
    assert damages["B/2/0/t0-1/c1"] == ("B/2/0/t1/c1/z0",)
    assert report.recomputed == 3
    (plate / "B/2/0/0/zarr.json").unlink()
    with pytest.raises(phbatch.PhbatchError, match="B/2/0"):
        phbatch.verify(output, deep=9)


def test_what_takes_one_output_names_the_remedy(tmp_path: Path) -> None:
    plate, output = make_plate(tmp_path / "p.zarr", ("A/1",), fields=1), tmp_path / "o.zarr"
    run(plate, output)
    for function in (phbatch.verify, phbatch.repair):
        with pytest.raises(phbatch.OutputError, match=r"give .*/o\.zarr\.$"):
            function(output / "A/1/0")
    with pytest.raises(phbatch.UsageError, match=r"is one file and .* holds 1 images; give a folder"):
        phbatch.export(output, tmp_path / "o.tif")
    assert phbatch.export(output / "A/1/0", tmp_path / "o.tif")["shape"] == [2, 2, 1, 16, 16]
    with pytest.raises(phbatch.InputError, match="is a pattern, and one image is taken here"):
        phbatch.open(f"{plate}/*/*/0")


def test_a_part_of_a_plate_is_converted(tmp_path: Path) -> None:
    plate = make_plate(tmp_path / "p.zarr")
    result = phbatch.convert(plate, tmp_path / "o.zarr", wells="A1-A2", fields=1, workers=1)
    assert (result.failed, result.frames) == ({}, 8)
    for path in ("A/1/1", "A/2/1"):
        before, after = (np.asarray(zarr.open_array(place / path / "0")) for place in (plate, tmp_path / "o.zarr"))
        assert np.array_equal(after.reshape(before.shape), before)
    yaozarrs.validate_zarr_store(str(tmp_path / "o.zarr"))


def test_light_is_estimated_over_a_plate(tmp_path: Path) -> None:
    plate = make_plate(tmp_path / "p.zarr", ("A/1", "B/2"), fields=1)
    found = phbatch.illumination(plate, tmp_path / "light.zarr")
    fields = [np.asarray(zarr.open_array(plate / path / "0")) for path in ("A/1/0", "B/2/0")]
    frames = np.concatenate([field[:, 1] for field in fields]).astype("float32")
    levels = np.median(frames, axis=(1, 2), keepdims=True)
    assert found.profile.background is not None
    assert np.allclose(
        found.profile.background[1, 0], np.median(frames * np.median(levels) / levels, axis=0), rtol=1e-3
    )
    assert (found.facts["images"], len(found.facts["sampled"])) == (2, 4)
    assert run(plate, tmp_path / "o.zarr", illumination=tmp_path / "light.zarr").failed == {}


def make_uneven_plate(place: Path) -> Path:
    """Two fields of six times, the light of which falls along y in the one and along x in the other."""
    make_plate(place, ("A/1", "B/2"), fields=1)
    root = zarr.open_group(place)
    for well, axis in (("A/1", 0), ("B/2", 1)):
        shutil.rmtree(place / well / "0")
        ramp = np.expand_dims(np.linspace(0.6, 1.4, 16), 1 - axis)
        noise = np.random.default_rng(axis).normal(1000, 20, (6, 2, 16, 16))
        make_image(root, f"{well}/0", (noise * ramp).astype("uint16"))
    return place


def test_each_position_has_its_own_light(tmp_path: Path) -> None:
    plate, output = make_uneven_plate(tmp_path / "p.zarr"), tmp_path / "o.zarr"
    assert run(plate, output, illumination="temporal").failed == {}
    run(plate / "B/2/0", tmp_path / "one.zarr", illumination="temporal")
    assert objects(output / "B/2/0/0") == objects(tmp_path / "one.zarr/0")
    profiles: list[Any] = [zarr.open_group(output / path / "illumination")["background"] for path in ("A/1/0", "B/2/0")]
    for profile, axis in zip(profiles, (0, 1), strict=True):
        along = profile[0, 0].mean(axis=1 - axis)
        np.testing.assert_allclose(along / along.mean(), np.linspace(0.6, 1.4, 16), atol=0.05)
    assert phbatch.verify(output, deep=4).damages == ()
    hurt = next(path for path in (output / "A/1/0/illumination/background/c").rglob("*") if path.is_file())
    whole = hurt.read_bytes()
    hurt.write_bytes(b"torn")
    assert [damage.place for damage in phbatch.verify(output).damages] == [str(hurt.relative_to(output))]
    phbatch.repair(output)
    assert phbatch.verify(output).damages == ()
    assert hurt.read_bytes() == whole


def test_a_field_that_cannot_be_measured_before_is_left_out(tmp_path: Path) -> None:
    plate, output = make_plate(tmp_path / "p.zarr", fields=1), tmp_path / "o.zarr"
    chunk = plate / "A/2/0/0/c/0/0/0/0"
    whole = chunk.read_bytes()
    chunk.write_bytes(b"torn")
    result = run(plate, output, retries=0, scope="series")
    assert (result.exit_code, list(result.failed), result.units_done) == (4, ["A/2/0"], 4)
    chunk.write_bytes(whole)
    assert run(plate, output, scope="series").units_done == 2
    assert phbatch.verify(output).damages == ()


def test_patterns_and_collections(tmp_path: Path) -> None:
    plate = make_plate(tmp_path / "p.zarr")
    assert run(f"{plate}/A/*/0", tmp_path / "part.zarr").units == 4
    assert "plate" in zarr.open_group(tmp_path / "part.zarr").attrs["ome"]  # type: ignore[operator]
    (tmp_path / "day").mkdir()
    for name in ("m10", "m9"):
        zarr.create_array(tmp_path / f"day/{name}.zarr", data=np.arange(64.0, dtype="float32").reshape(1, 8, 8) + 9)
    (tmp_path / "day/notes").mkdir()
    assert run(f"{tmp_path}/day/*", tmp_path / "day.zarr", axes="tyx").units == 2
    assert zarr.open_group(tmp_path / "day.zarr/OME").attrs["ome"]["series"] == ["m9", "m10"]  # type: ignore[index]
    yaozarrs.validate_zarr_store(str(tmp_path / "day.zarr"))
    assert run(tmp_path / "day.zarr", tmp_path / "again.zarr").frames == 2
    with pytest.raises(phbatch.InputError, match="matches no"):
        run(f"{tmp_path}/none*", tmp_path / "n.zarr")


def test_a_stopped_plate_of_images_that_have_levels_continues(tmp_path: Path) -> None:
    plate, output = make_plate(tmp_path / "p.zarr", ("A/1",), fields=1, size=1100), tmp_path / "o.zarr"
    asked = iter([False] * 2)
    with pytest.raises(phbatch.InterruptedRunError):
        run(plate, output, workers=1, stop=lambda: next(asked, True))
    assert run(plate, output).failed == {}
    run(plate / "A/1/0", tmp_path / "one.zarr")
    for level in ("0", "1"):
        assert objects(output / "A/1/0" / level) == objects(tmp_path / "one.zarr" / level)
