"""Tasks that share the output of many images make, byte for byte, what one run makes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import zarr

import phbatch
from phbatch.places.lock import read_array
from phbatch.places.place import Place
from phbatch.planning.positions import PositionUnits
from phbatch.planning.units import Geometry
from tests.faults.inputs import files
from tests.test_plates import make_image, make_plate, make_uneven_plate

FORMS: dict[str, dict[str, Any]] = {
    "one pass": {},
    "smoothed": {"smooth_time": 3},
    "pooled": {"scope": "series"},
    "light": {"illumination": "temporal"},
}


def contents(output: Path) -> dict[str, bytes]:
    """All files; the root says by which call it was made, too."""
    found = files(output)
    root = json.loads(found["zarr.json"])
    root["attributes"]["phbatch"].pop("command")
    return found | {"zarr.json": json.dumps(root).encode()}


def do_all(output: str, parts: int) -> phbatch.PartResult:
    for part in range(1, parts + 1):
        result = phbatch.run_part(output, part, workers=1)
    return result


@pytest.mark.parametrize("parts", [1, 4, 30])
def test_parts_are_all_units_once(parts: int) -> None:
    small, large = (Geometry((n, 1, 1, 2048, 2048), (1, 1, 1, 2048, 2048), range(n), (0,)) for n in (3, 8))
    units = PositionUnits({"A/1/0": small, "A/2/0": large, "B/1/0": small})
    each = [units.part(number, parts) for number in range(1, parts + 1)]
    assert [unit.key for part in each for unit in part] == [unit.key for unit in units]
    for part in each:
        assert max(map(len, each)) - len(part) <= 1
        assert [part.find(unit.key) for unit in part] == [*range(len(part))]
        assert [unit.key for unit in units if unit.key in part] == [unit.key for unit in part]
        assert part.images == [*dict.fromkeys(part.place(index)[0] for index in range(len(part)))]


@pytest.mark.parametrize("options", FORMS.values(), ids=FORMS)
def test_parts_make_what_a_run_makes(tmp_path: Path, options: dict[str, Any]) -> None:
    plate = make_uneven_plate(tmp_path / "p.zarr") if "illumination" in options else make_plate(tmp_path / "p.zarr")
    asked: dict[str, Any] = {"model": "none", "workers": 1, **options}
    phbatch.run(plate, tmp_path / "plain.zarr", **asked)
    begun = phbatch.begin_parts(plate, tmp_path / "out.zarr", parts=3, **asked)
    assert (begun.passes, begun.complete) == (1, False)
    assert read_array(Place.at(begun.output)) is not None
    result = do_all(begun.output, 3)
    assert result.verified is not None
    assert result.verified.damages == ()
    assert contents(tmp_path / "out.zarr") == contents(tmp_path / "plain.zarr")
    assert read_array(Place.at(begun.output)) is None
    assert phbatch.begin_parts(plate, begun.output, parts=3, **asked).complete
    assert phbatch.run(plate, begun.output, **asked).units_done == 0


def test_a_task_that_was_stopped_goes_on_and_a_run_may_end_it(tmp_path: Path) -> None:
    plate = make_plate(tmp_path / "p.zarr")
    phbatch.run(plate, tmp_path / "plain.zarr", model="none", workers=1)
    output = phbatch.begin_parts(plate, tmp_path / "out.zarr", parts=2, model="none", workers=1).output
    asked = iter([False] * 5)
    with pytest.raises(phbatch.InterruptedRunError):
        phbatch.run_part(output, 1, workers=1, stop=lambda: next(asked, True))
    first = phbatch.run_part(output, 1, workers=1)
    assert 0 < first.units_skipped < first.units == 6
    assert first.missing == 6
    again = phbatch.begin_parts(plate, output, parts=5, model="none", workers=1)
    assert (again.units, again.units_done) == (12, 6)
    assert do_all(output, 5).complete
    assert contents(tmp_path / "out.zarr") == contents(tmp_path / "plain.zarr")


def test_more_parts_than_units_and_images_of_several_kinds(tmp_path: Path) -> None:
    plate = make_plate(tmp_path / "p.zarr", ("A/1", "H/12"), fields=1)
    shutil.rmtree(plate / "H/12/0")
    make_image(zarr.open_group(plate), "H/12/0", zarr.open_array(plate / "A/1/0/0")[:1, :, :9].astype("float32"))
    phbatch.run(plate, tmp_path / "plain.zarr", model="none", workers=1)
    output = phbatch.begin_parts(plate, tmp_path / "out.zarr", parts=7, model="none", workers=1).output
    assert do_all(output, 7).complete
    assert contents(tmp_path / "out.zarr") == contents(tmp_path / "plain.zarr")


def test_a_field_that_fails_is_named_and_done_once_it_is_mended(tmp_path: Path) -> None:
    plate = make_plate(tmp_path / "p.zarr", fields=1)
    output = phbatch.begin_parts(plate, tmp_path / "out.zarr", parts=3, model="none", workers=1).output
    chunk, metadata = plate / "A/2/0/0/c/0/0/0/0", plate / "B/1/0/0/zarr.json"
    whole = chunk.read_bytes(), metadata.read_bytes()
    chunk.write_bytes(b"torn")
    metadata.write_bytes(b"{")
    results = [phbatch.run_part(output, part, workers=1, retries=0) for part in (1, 2, 3)]
    assert [[*result.failed] for result in results] == [[], ["A/2/0/t0-1/c0"], ["B/1/0"]]
    assert [result.exit_code for result in results] == [0, 4, 4]
    chunk.write_bytes(whole[0])
    metadata.write_bytes(whole[1])
    assert do_all(output, 3).complete
    phbatch.run(plate, tmp_path / "plain.zarr", model="none", workers=1)
    assert contents(tmp_path / "out.zarr") == contents(tmp_path / "plain.zarr")


def test_another_input_is_refused(tmp_path: Path) -> None:
    plate = make_plate(tmp_path / "p.zarr", fields=1)
    output = phbatch.begin_parts(plate, tmp_path / "out.zarr", parts=2, model="none", workers=1).output
    phbatch.run_part(output, 1, workers=1)
    with pytest.raises(phbatch.OutputError, match="is one image and"):
        phbatch.run_part(output, 2, workers=1, input=plate / "A/1/0")
    (plate / "A/1/0/0/c/0/0/0/0").unlink()
    with pytest.raises(phbatch.OutputError, match="was changed after it was restored"):
        phbatch.run_part(output, 1, workers=1)
