"""A damaged output is named, frame by frame, and mended to the byte."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
import zarr

import phbatch
from phbatch.outputs.ledger import Ledger
from phbatch.places.durable import mark_of
from phbatch.places.place import Place
from tests.faults.faults import damage, small_frames
from tests.faults.inputs import files, make_input
from tests.handmade import CommandLine, write_model

pytestmark = pytest.mark.usefixtures("small")
DAMAGES = ("flip", "tear", "empty", "delete")


@pytest.fixture(scope="module")
def small() -> Iterator[None]:
    with small_frames():
        yield


@pytest.fixture(scope="module", params=[2, 3])
def whole(request: pytest.FixtureRequest, small: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    result = phbatch.run(
        make_input(folder / "in.zarr", zarr_format=request.param),
        folder / "out.zarr",
        model="none",
        command="same",
        workers=2,
    )
    return Path(result.output)


def chunk(output: Path, t: int, y: int) -> Path:
    found = output / "0" / "c" / str(t) / str(y) / "0"
    return found if found.exists() else output / "0" / str(t) / str(y) / "0"


def other_objects(output: Path) -> list[str]:
    """Metadata and tables: everything besides pixels and the private folder."""
    pixels = re.compile(r"(0|\d+/image)/(c|\d+)/")
    return sorted(key for key in files(output) if not key.startswith(".phbatch") and not pixels.match(key))


def test_a_whole_output_is_whole(whole: Path) -> None:
    report = phbatch.verify(whole, deep=3)
    assert report.damages == ()
    assert (report.units, report.recomputed, report.exit_code, report.largest_difference) == (6, 3, 0, 0)
    assert report.objects == sum(not key.startswith(".phbatch") for key in files(whole))


@pytest.mark.parametrize("kind", DAMAGES)
def test_damaged_pixels_name_their_frames_and_are_mended(whole: Path, tmp_path: Path, kind: str) -> None:
    before = files(whole)
    output = shutil.copytree(whole, tmp_path / "out.zarr")
    for t, y in ((1, 1), (4, 0)):
        damage(chunk(output, t, y), kind)
    report = phbatch.verify(output)
    assert report.exit_code == 3
    assert sorted(report.frames) == ["t1/c0/z0", "t4/c0/z0"]
    assert {damage.unit for damage in report.damages} == {"t1/c0", "t4/c0"}
    result = phbatch.repair(output)
    assert (result.units_done, result.units_skipped, result.exit_code) == (2, 4, 0)
    assert files(output) == before
    assert phbatch.verify(output, deep=1).damages == ()


@pytest.mark.parametrize("kind", DAMAGES)
def test_damaged_metadata_and_tables_are_mended_without_restoring_a_frame(
    whole: Path, tmp_path: Path, kind: str
) -> None:
    before = files(whole)
    names = other_objects(whole)
    assert len(names) > 20
    for name in names[DAMAGES.index(kind) :: 6]:  # `make soak` damages every one in every way
        output = shutil.copytree(whole, tmp_path / name.replace("/", "_"))
        damage(output / name, kind)
        report = phbatch.verify(output)
        assert [damage.place for damage in report.damages] == [name]
        assert report.frames == []
        assert phbatch.repair(output).units_done == 0
        assert files(output) == before
        assert phbatch.verify(output).damages == ()


def test_a_truncated_ledger_costs_what_it_lost(whole: Path, tmp_path: Path) -> None:
    before = files(whole)
    output = shutil.copytree(whole, tmp_path / "out.zarr")
    ledgers = sorted(output.glob(".phbatch/ledger/*.jsonl"))
    units = next(path for path in ledgers if b'"t3/c0"' in path.read_bytes())
    lines = units.read_bytes().splitlines(keepends=True)
    units.write_bytes(b"".join(lines[:3]) + lines[3][:-9])
    report = phbatch.verify(output)
    assert len(report.frames) == 3
    assert phbatch.repair(output).units_done == 3
    assert files(output) == before
    shutil.rmtree(output / ".phbatch" / "ledger")
    assert len(phbatch.verify(output).frames) == 6
    assert phbatch.repair(output).units_done == 6
    assert files(output) == before


def test_pixels_that_are_wrong_and_rightly_summed_are_found_by_computing(tmp_path: Path) -> None:
    source = make_input(tmp_path / "in.zarr")
    result = phbatch.run(source, tmp_path / "out.zarr", model="none", command="same")
    before = files(result.output)
    zarr.open_array(result.output, path="0", mode="r+")[2, 5, 5] += 1
    record = Ledger(Place.at(result.output)).records()["t2/c0"]
    data = chunk(Path(result.output), 2, 0).read_bytes()
    Ledger(Place.at(result.output)).commit(record | {"objects": record["objects"] | {"0/c/2/0/0": mark_of(data)}})
    assert phbatch.verify(result.output).damages == ()
    report = phbatch.verify(result.output, deep=6)
    assert report.frames == ["t2/c0/z0"]
    assert report.largest_difference > 1
    chunk(Path(result.output), 2, 0).unlink()
    phbatch.repair(result.output)
    assert files(result.output) == before


@pytest.mark.parametrize(
    "options",
    [
        {"bad_frames": "skip", "smooth_time": 3},
        {"illumination": "temporal"},
        {"scope": "position", "dtype": "uint16", "rescale": True},
    ],
    ids=str,
)
def test_runs_of_several_passes_are_verified_and_mended(
    tmp_path: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "model")
    make_input(tmp_path / "in3.zarr", (4, 104, 101), (1, 52, 101))
    result = phbatch.run("in3.zarr", "out.zarr", model="model", command="same", **options)
    before = files(result.output)
    monkeypatch.chdir("/")
    assert phbatch.verify(result.output, deep=4).damages == ()
    damage(chunk(Path(result.output), 2, 1), "flip")
    for path in Path(result.output).glob("illumination/background/c/*/*/*/*"):
        damage(path, "flip")
    assert phbatch.verify(result.output).frames == ["t2/c0/z0"]
    assert phbatch.repair(result.output).units_done == 1
    assert files(result.output) == before


def test_a_run_that_was_not_finished_is_named_and_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make_input(tmp_path / "in.zarr")
    good = (source / "c" / "3" / "0" / "0").read_bytes()
    damage(source / "c" / "3" / "0" / "0", "tear")
    first = phbatch.run(source, tmp_path / "out.zarr", model="none")
    assert list(first.failed) == ["t3/c0"]
    report = phbatch.verify(first.output)
    assert (report.missing, report.damages, report.exit_code) == (("t3/c0",), (), 3)
    (source / "c" / "3" / "0" / "0").write_bytes(good)
    assert phbatch.repair(first.output).units_done == 1
    assert phbatch.verify(first.output, deep=6).damages == ()


def test_nothing_is_mended_from_another_input(tmp_path: Path) -> None:
    source = make_input(tmp_path / "in.zarr")
    result = phbatch.run(source, tmp_path / "out.zarr", model="none")
    damage(chunk(Path(result.output), 3, 1), "tear")
    other = source / "c" / "3" / "0" / "0"
    other.write_bytes((source / "c" / "4" / "0" / "0").read_bytes())
    with pytest.raises(phbatch.OutputError, match=r"the input of t3/c0 was changed"):
        phbatch.repair(result.output)
    assert phbatch.verify(result.output).frames == ["t3/c0/z0"]
    shutil.rmtree(source)
    with pytest.raises(phbatch.InputError, match="does not exist"):
        phbatch.repair(result.output)


def test_an_output_on_an_object_store_is_verified_and_mended(tmp_path: Path) -> None:
    store = fsspec.filesystem("memory")
    output = f"memory://{tmp_path.name}/out.zarr"
    result = phbatch.run(make_input(tmp_path / "in.zarr"), output, model="none")
    keys = [key for key in store.find(output) if "/.phbatch/" not in key]
    before = {key: store.cat_file(key) for key in keys}
    report = phbatch.verify(output, deep=2)
    assert (report.damages, report.objects) == ((), len(keys))
    hurt = [key for key in keys if key.endswith(("0/c/1/0/0", "median/zarr.json", "mean/c/0", "out.zarr/zarr.json"))]
    assert len(hurt) == 4
    store.rm_file(hurt[0])
    for key in hurt[1:]:
        store.pipe_file(key, before[key][:-3])
    assert phbatch.verify(output).frames == ["t1/c0/z0"]
    assert phbatch.repair(output).units_done == 1
    assert {key: store.cat_file(key) for key in keys} == before
    assert phbatch.verify(result.output).damages == ()


def test_the_commands(whole: Path, tmp_path: Path, phbatch_command: CommandLine) -> None:
    output = shutil.copytree(whole, tmp_path / "out.zarr")
    assert phbatch_command("verify", output, "--deep", 1) == 0
    assert "whole" in phbatch_command.out
    damage(chunk(output, 5, 0), "flip")
    assert phbatch_command("verify", output, "--json") == 3
    assert "t5/c0" in phbatch_command.out
    assert phbatch_command("repair", output) == 0
    assert phbatch_command("verify", output) == 0
    assert phbatch_command("verify", tmp_path / "nothing.zarr") == 3
    assert phbatch_command("repair", tmp_path / "nothing.zarr") == 3
    assert not (tmp_path / "nothing.zarr").exists()
