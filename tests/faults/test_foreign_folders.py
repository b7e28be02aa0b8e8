"""What is no output of phbatch is never touched: not by run, not with --overwrite, not after a repair or a lock."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import zarr

import phbatch
from phbatch.config import parse_storage_options
from phbatch.storage.lock import LOCK, OWN_NAMES, PRIVATE, hold_output
from phbatch.storage.remote import write_object
from phbatch.storage.sink import remove_output
from tests.faults.stores import Bucket, remote_bytes
from tests.handmade import CommandLine, write_model
from tests.test_bad_input import contents


@pytest.fixture
def source(tmp_path: Path, frames: np.ndarray) -> Path:
    (tmp_path / "data").mkdir()
    zarr.create_array(tmp_path / "data" / "in.zarr", data=frames)
    return tmp_path / "data" / "in.zarr"


def photographs(folder: Path) -> Path:
    """A folder of somebody's files, some of whose names an output has, too."""
    (folder / "0").mkdir(parents=True)
    (folder / "0" / "holiday.jpg").write_bytes(b"holiday")
    (folder / "thesis.tex").write_text("thesis")
    return folder


def locked(folder: Path) -> Path:
    """The same with the lock of a run, as an earlier phbatch left it."""
    (photographs(folder) / PRIVATE).mkdir()
    (folder / LOCK).write_text("")
    return folder


def held(folder: Path) -> Path:
    """The same with the lock of a run that died."""
    with hold_output(str(photographs(folder)), "dead"):
        return folder


@pytest.mark.parametrize("make", [photographs, locked, held])
@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "IN", "OUT"),
        ("run", "IN", "OUT", "--overwrite"),
        ("plan", "IN", "OUT"),
        ("repair", "OUT"),
        ("verify", "OUT"),
    ],
)
def test_somebodys_folder_stays_as_it_is(
    tmp_path: Path, source: Path, phbatch_command: CommandLine, make: object, arguments: tuple[str, ...]
) -> None:
    assert callable(make)
    folder = make(tmp_path / "home")
    before = contents(tmp_path)
    places = {"IN": source, "OUT": folder}
    given = [places.get(part, part) for part in arguments]
    for command in [given, given]:  # what the first call leaves must not open the door to the second
        options = ["--model", "none"] if command[0] in ("run", "plan") else []
        assert phbatch_command(*command, *options) == 3
        assert "remove it yourself" not in phbatch_command.err or command[0] in ("run", "plan")
        assert contents(tmp_path) == before


@pytest.mark.parametrize("home", ["", "in.zarr", ".."])
@pytest.mark.parametrize("overwrite", [False, True])
def test_home_the_input_and_its_parents_are_no_outputs(
    source: Path, phbatch_command: CommandLine, monkeypatch: pytest.MonkeyPatch, home: str, overwrite: bool
) -> None:
    monkeypatch.setenv("HOME", str(source.parent))
    monkeypatch.chdir(source.parent)
    before = contents(source.parent.parent)
    output = home or "~"
    arguments = ["run", source, output if home else Path(output).expanduser(), "--model", "none"]
    assert phbatch_command(*arguments, *["--overwrite"] * overwrite) == 3
    assert contents(source.parent.parent) == before


@pytest.mark.parametrize("status", ["creating", "stopped", "complete"])
def test_what_lies_beside_the_parts_of_an_output_survives_overwriting(
    tmp_path: Path, source: Path, phbatch_command: CommandLine, status: str
) -> None:
    output = tmp_path / "out.zarr"
    phbatch.run(source, output, model="none")
    if status == "creating":
        (output / "zarr.json").unlink()
    elif status == "stopped":
        document = json.loads((output / "zarr.json").read_text())
        document["attributes"]["phbatch"]["status"] = "running"
        (output / "zarr.json").write_text(json.dumps(document))
    (output / "labels").mkdir()
    (output / "labels" / "cells.bin").write_bytes(b"drawn by hand")
    before = contents(output)
    assert phbatch_command("run", source, output, "--model", "none", "--overwrite") == 3
    assert "labels" in phbatch_command.err
    assert contents(output) == before


def test_every_name_that_runs_write_is_known(tmp_path: Path, source: Path) -> None:
    model = write_model(tmp_path / "model", probabilistic=True)
    options = {"illumination": "temporal", "uncertainty": True, "overwrite": True}
    for version in ("0.4", "0.5"):
        data = zarr.open_array(source, mode="r")[:]
        image = tmp_path / f"{version}.zarr"
        group = zarr.open_group(image, mode="w", zarr_format=2 if version == "0.4" else 3)
        axes = [{"name": name, "type": "time" if name == "t" else "space"} for name in "tyx"]
        level = {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [1.0, 1.0, 1.0]}]}
        multiscales = [{"axes": axes, "datasets": [level], "version": version}]
        group.attrs.put(
            {"multiscales": multiscales}
            if version == "0.4"
            else {"ome": {"version": "0.5", "multiscales": multiscales}}
        )
        group.create_array("0", data=np.concatenate([data] * 4))
        result = phbatch.run(image, model=model, **options)
        phbatch.run(image, model=model, **options)
        names = {path.name for path in Path(result.output).iterdir()}
        assert ("zarr.json" in names) == (version == "0.5")
        assert {"0", "uncertainty", "illumination", "statistics", PRIVATE} <= names <= OWN_NAMES


def test_strangers_on_an_object_store_survive(source: Path, bucket: Bucket) -> None:
    output, options = bucket.url("out.zarr"), bucket.options()
    secret = parse_storage_options(options)
    phbatch.run(source, output, model="none", storage_options=options)
    write_object(output, "labels/cells.bin", b"drawn by hand", secret)
    before = remote_bytes(output, options)
    with pytest.raises(phbatch.OutputError, match="labels"):
        phbatch.run(source, output, model="none", overwrite=True, storage_options=options)
    with pytest.raises(phbatch.OutputError, match="labels"):
        remove_output(output, secret)
    assert remote_bytes(output, options) == before
