"""Zarr reads a chunk that is not there as zeros: right for a chunk never written, wrong for an input that is gone."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import fsspec
import numpy as np
import pytest
import zarr

import phbatch
from phbatch.computing.tasks import Job, restore_unit
from phbatch.inputs import image as sources
from phbatch.inputs.stamps import Stamps
from phbatch.places import place as places
from phbatch.planning.memory import UnitMemory
from phbatch.planning.unit import Unit
from phbatch.words.given import parse_storage_options
from tests.faults.inputs import files
from tests.faults.stores import Bucket, upload
from tests.handmade import CommandLine

FRAMES = 5
SETTINGS: dict[str, Any] = {"model": "none", "normalize": "fixed", "value": 100.0, "command": "same", "workers": 1}
PLACES = ("local", "s3", "http", "memory")


@dataclass
class Place:
    """An input somewhere, which can be taken away.

    Attributes
    ----------
    url : str
        Of the input.
    remove : callable
        Removes the objects whose key holds a text.
    options : dict
        Storage options.
    """

    url: str
    remove: Callable[[str], None]
    options: dict[str, Any] = field(default_factory=dict)

    def run(self, output: Path, **options: Any) -> phbatch.RunResult:
        return phbatch.run(self.url, output, **({"storage_options": self.options or None} | SETTINGS | options))


@pytest.fixture
def small_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("phbatch.planning.units._UNIT_PIXELS", 1)


@pytest.fixture(params=[2, 3])
def sparse(request: pytest.FixtureRequest, tmp_path: Path, small_frames: None) -> Path:
    """Frames of which the second is empty and was never written, as a bare array or as level 0 of an image."""
    frames = np.random.default_rng(0).integers(100, 200, (FRAMES, 24, 20), dtype="uint16")
    frames[1] = 0
    path = tmp_path / "served" / "in.zarr"
    options: dict[str, Any] = {"data": frames, "chunks": (1, 12, 20)}
    if request.param == 3:
        zarr.create_array(path, **options)
    else:
        axes = [{"name": "t", "type": "time"}, *({"name": name, "type": "space"} for name in "yx")]
        level = {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [1.0, 1.0, 1.0]}]}
        image = [{"version": "0.4", "axes": axes, "datasets": [level]}]
        group = zarr.open_group(path, mode="w", zarr_format=2, attributes={"multiscales": image})
        group.create_array("0", **options)
    chunks = [file for file in path.rglob("*") if file.is_file() and not file.name.startswith((".z", "zarr."))]
    assert len(chunks) == 2 * (FRAMES - 1)
    return path


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, sparse: Path) -> Place:
    def remove_local(part: str) -> None:
        for file in sparse.rglob("*"):
            if file.is_file() and part in file.relative_to(sparse).as_posix():
                file.unlink()

    if request.param == "local":
        return Place(str(sparse), remove_local)
    if request.param == "http":
        return Place(f"{request.getfixturevalue('web_server')}/in.zarr", remove_local)
    if request.param == "memory":
        url, store = f"memory://{sparse.parents[1].name}/in.zarr", fsspec.filesystem("memory")
        store.put(str(sparse), url, recursive=True)
        return Place(url, lambda part: [store.rm_file(key) for key in store.find(url) if part in key])
    bucket: Bucket = request.getfixturevalue("bucket")
    url = upload(sparse, bucket, "in.zarr")
    uploaded = places.Place.at(url, parse_storage_options(bucket.options()))

    def remove_remote(part: str) -> None:
        uploaded.remove([key for key, _, _ in uploaded.files() if part in key])

    return Place(url, remove_remote, bucket.options())


def test_chunks_that_were_never_written_are_zeros(place: Place, tmp_path: Path) -> None:
    result = place.run(tmp_path / "out.zarr")
    assert (result.failed, result.units_done) == ({}, FRAMES)
    pixels = zarr.open_array(tmp_path / "out.zarr" / "0")[:]
    assert [bool(frame.any()) for frame in pixels] == [True, False, True, True, True]
    assert phbatch.verify(tmp_path / "out.zarr", deep=FRAMES, storage_options=place.options or None).damages == ()


def test_an_input_that_vanishes_during_a_run_is_no_input_of_zeros(
    sparse: Path, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = shutil.copytree(sparse, tmp_path / "copy.zarr")

    def restore_and_vanish(job: Job, unit: Unit) -> Any:
        restored = restore_unit(job, unit)
        if unit.key == "t2/c0":
            place.remove("")
        return restored

    monkeypatch.setattr("phbatch.running.commit.restore_unit", restore_and_vanish)
    first = place.run(tmp_path / "out.zarr")
    monkeypatch.undo()
    monkeypatch.setattr("phbatch.planning.units._UNIT_PIXELS", 1)
    assert (first.exit_code, first.units_done) == (4, 3)
    assert list(first.failed) == ["t3/c0", "t4/c0"]
    assert all("is gone" in error for error in first.failed.values()), first.failed
    with pytest.raises(phbatch.InputError, match=r"holds no Zarr|does not exist"):
        place.run(tmp_path / "out.zarr")
    shutil.copytree(copy, tmp_path / "again" / "in.zarr", copy_function=shutil.copy2)
    whole = phbatch.run(copy, tmp_path / "whole.zarr", **SETTINGS)
    kept = {key: data for key, data in files(first.output).items() if key.startswith("0/")}
    assert kept
    assert {key: files(whole.output)[key] for key in kept} == kept


def test_a_chunk_that_vanishes_while_it_is_read_is_no_chunk_of_zeros(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its size and time were asked for, and then it is gone."""
    original = Stamps.of_all

    def stamp_and_remove(self: Stamps, keys: Any) -> Any:
        found = original(self, keys)
        for key in keys:
            if key.endswith(("3/1/0", "3.1.0")):
                place.remove(key)
        return found

    monkeypatch.setattr(Stamps, "of_all", stamp_and_remove)
    result = place.run(tmp_path / "out.zarr", retries=0)
    assert list(result.failed) == ["t3/c0"]
    assert "was changed while" in result.failed["t3/c0"]


@pytest.mark.parametrize("command", ["stats", "compare"])
def test_other_commands_do_not_take_it_for_zeros_either(
    place: Place, phbatch_command: CommandLine, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    original, read = sources.Source._read_noting, [0]

    def vanish(self: Any, region: Any) -> Any:
        read[0] += 1
        if read[0] == 3:
            place.remove("")
        return original(self, region)

    monkeypatch.setattr(sources.Source, "_read_noting", vanish)
    given = [f"--storage-options={key}={value}" for key, value in place.options.items()]
    assert phbatch_command(command, place.url, *given) == 3
    said = phbatch_command.err.splitlines()[-1]
    half = ("that array is missing", "holds no Zarr array")  # opened by another thread when half of it was removed
    assert any(words in said for words in ("is gone", *half))
    assert urlsplit(place.url).path in phbatch_command.err


def test_a_large_frame_that_vanishes_is_said(
    tmp_path: Path, phbatch_command: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = np.random.default_rng(0).random((1, 2000, 2000))
    zarr.create_array(tmp_path / "in.zarr", data=frames, chunks=(1, 500, 500))
    original, read = sources.Source._read_noting, [0]

    def vanish(self: Any, region: Any) -> Any:
        read[0] += 1
        if read[0] == 3:
            shutil.rmtree(tmp_path / "in.zarr")
        return original(self, region)

    monkeypatch.setattr(sources.Source, "_read_noting", vanish)
    monkeypatch.setattr(
        "phbatch.planning.resolve.measuring_unit_memory", lambda *_, **__: UnitMemory(1, 1 << 50, 1 << 50)
    )
    assert phbatch_command("stats", tmp_path / "in.zarr") == 3
    assert "is gone" in phbatch_command.err
