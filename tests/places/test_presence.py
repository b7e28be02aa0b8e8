"""Chunks that are not there: none at all is refused, a part is said, and what a writer left out on purpose works."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import product
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

import phbatch
from phbatch.inputs import presence
from phbatch.inputs.image import Source, open_source
from phbatch.inputs.presence import look_for_chunks
from phbatch.places.ome import ImageMetadata
from phbatch.places.place import Place
from tests.handmade import CommandLine
from tests.ome_inputs import write_ome

IMAGE = np.random.default_rng(0).integers(900, 1100, (6, 24, 32), dtype="uint16")


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(params=["local", "memory", "http"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    """What makes the path under which phbatch reads a local folder: itself, a copy in memory, or a web server."""
    if request.param == "local":
        yield str
    elif request.param == "memory":
        yield partial(copy_to_memory, name=tmp_path.name)
    else:
        pytest.importorskip("obstore")
        with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path))) as server:
            thread = Thread(target=server.serve_forever)
            thread.start()
            yield lambda path: f"http://127.0.0.1:{server.server_port}/{path.name}"
            server.shutdown()
            thread.join()


def copy_to_memory(path: Path, name: str) -> str:
    import fsspec

    memory = fsspec.filesystem("memory")
    for file in path.rglob("*"):
        if file.is_file():
            memory.pipe_file(f"/{name}/in.zarr/{file.relative_to(path).as_posix()}", file.read_bytes())
    return f"memory://{name}/in.zarr"


def remove(path: Path, *keys: str) -> None:
    for key in keys:
        (path / key).unlink()


@pytest.mark.parametrize("options", [{"zarr_format": 2}, {"zarr_format": 3}, {"shards": (2, 24, 32)}], ids=str)
def test_absent_frames_are_named(tmp_path: Path, place: Any, options: dict[str, Any]) -> None:
    path = tmp_path / "in.zarr"
    array = zarr.create_array(path, data=IMAGE, chunks=(1, 12, 32), **options)
    step = options.get("shards", (1,))[0]
    names = [array.metadata.encode_chunk_key((4 // step, *rest)) for rest in ([0, 0], [1, 0])][: 1 if step > 1 else 2]
    remove(path, *names)
    if step == 1:
        remove(path, array.metadata.encode_chunk_key((1, 1, 0)))
    source = open_source(Place.at(place(path)))
    found = look_for_chunks(source, range(6), (0,))
    assert [key.t for key in found.whole.first] == ([4] if step == 1 else [4, 5])
    assert [key.t for key in found.partial.first] == ([1] if step == 1 else [])
    assert found.absent == (3 if step == 1 else 1)
    assert look_for_chunks(source, range(2, 4), (0,)).absent == 0
    result = phbatch.run(source.path, tmp_path / "out.zarr", model="none", workers=1)
    (said,) = [notice for notice in result.notices if "do not exist" in notice]
    assert "all of t4/c0/z0" in said
    assert ("part of t1/c0/z0" in said) == (step == 1)


def test_an_array_without_chunks_is_refused(tmp_path: Path, place: Any, phbatch_command: CommandLine) -> None:
    path = tmp_path / "in.zarr"
    zarr.create_array(path, shape=IMAGE.shape, chunks=(1, 24, 32), dtype="uint16")
    url, output = place(path), tmp_path / "out.zarr"
    measuring = (("stats", url), ("compare", url), ("illumination", url, "-o", tmp_path / "profile.zarr"))
    for command in (("run", url, output, "--model", "none"), *measuring):
        assert phbatch_command(*command) == 3
        assert "holds none of the 6 chunks" in phbatch_command.err
        assert "c/0/0/0" in phbatch_command.err
    assert not output.exists()


def test_chunks_under_other_keys_are_refused(tmp_path: Path, phbatch_command: CommandLine) -> None:
    path = write_ome(tmp_path / "in.zarr", IMAGE, "tyx")
    document = json.loads((path / "0" / ".zarray").read_text())
    (path / "0" / ".zarray").write_text(json.dumps(document | {"dimension_separator": "/"}))
    assert phbatch_command("run", path, "--model", "none") == 3
    assert "'0.0.0'" in phbatch_command.err
    assert "'0/0/0'" in phbatch_command.err
    assert not (tmp_path / "in.phbatch.zarr").exists()


def test_frames_that_are_not_stored_are_refused_and_others_are_not(tmp_path: Path) -> None:
    image = IMAGE.copy()
    image[3:] = 0
    zarr.create_array(tmp_path / "in.zarr", data=image, chunks=(1, 24, 32))  # chunks of zeros are not written
    assert phbatch.run(tmp_path / "in.zarr", model="none", frames="0:3", workers=1).notices == ()
    with pytest.raises(phbatch.InputError, match="holds none of the 3 chunks"):
        phbatch.statistics(tmp_path / "in.zarr", frames="3:6")
    result = phbatch.run(tmp_path / "in.zarr", tmp_path / "all.zarr", model="none", workers=1)
    assert sorted(result.flagged) == ["t3/c0/z0", "t4/c0/z0", "t5/c0/z0"]
    np.testing.assert_array_equal(zarr.open_array(f"{result.output}/0")[3:], 0)


def test_a_number_of_frames_that_cannot_be_is_refused_at_once(tmp_path: Path, phbatch_command: CommandLine) -> None:
    path = tmp_path / "in.zarr"
    zarr.create_array(path, data=IMAGE, chunks=(1, 24, 32))
    document = json.loads((path / "zarr.json").read_text())
    (path / "zarr.json").write_text(json.dumps(document | {"shape": [10**7, 24, 32]}))
    assert phbatch_command("run", path, tmp_path / "out.zarr", "--model", "none") == 3
    assert "holds 1 of 64 chunks that were asked for, of 10000000, of its frames" in phbatch_command.err
    assert not (tmp_path / "out.zarr").exists()
    assert phbatch_command("run", path, "--model", "none", "--frames", "0:6") == 0


def test_large_arrays_are_asked_and_not_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "MAX_LISTED", {"local": 5, "remote": 5})
    monkeypatch.setattr(presence, "MAX_ASKED", 4)
    zarr.create_array(tmp_path / "in.zarr", data=np.tile(IMAGE, (5, 1, 1)), chunks=(1, 12, 32))
    source = open_source(Place.at(tmp_path / "in.zarr"))
    found = look_for_chunks(source, range(30), (0,))
    assert (found.expected, found.absent, found.total) == (4, 0, 60)
    remove(tmp_path / "in.zarr", "c/0/0/0")
    found = look_for_chunks(source, range(30), (0,))
    assert (found.absent, [key.t for key in found.partial.first], found.whole.count) == (1, [0], 0)
    shutil.rmtree(tmp_path / "in.zarr" / "c")
    with pytest.raises(phbatch.InputError, match="none of the 4 chunks that were asked for, of 60"):
        phbatch.run(tmp_path / "in.zarr", model="none")


@pytest.mark.parametrize("axes", ["xyt", "tczyx", "yx"])
def test_keys_follow_the_axes_as_stored(tmp_path: Path, axes: str) -> None:
    lengths = {"t": 3, "c": 2, "z": 2, "y": 20, "x": 24}
    image = np.ones([lengths[axis] for axis in axes], "uint16")
    path = write_ome(tmp_path / "in.zarr", image, axes, "0.5")
    source = open_source(Place.at(path))
    assert look_for_chunks(source, range(source.shape[0]), range(source.shape[1])).absent == 0


@pytest.mark.parametrize("encoding", ["default", "v2"])
@settings(max_examples=25)
@given(st.data())
def test_objects_are_found_by_the_keys_that_they_have(encoding: str, data: st.DataObject) -> None:
    axes = "".join(data.draw(st.permutations(data.draw(st.sampled_from(["tyx", "tczyx", "zyx", "tcyx"])))))
    shape = tuple(data.draw(st.integers(1, 9)) for _ in axes)
    chunks = tuple(data.draw(st.integers(1, size)) for size in shape)
    store = zarr.storage.MemoryStore()
    array = zarr.create_array(
        store, shape=shape, chunks=chunks, dtype="uint8", chunk_key_encoding={"name": encoding, "separator": "/"}
    )
    source = Source(
        Place.at("memory://memory"), "", array, axes, ImageMetadata.bare("".join(sorted(axes, key="tczyx".index)))
    )
    n_t, n_c, n_z = source.shape[:3]
    start = data.draw(st.integers(0, n_t - 1))
    times = range(start, n_t, data.draw(st.integers(1, 4)))
    channels = sorted(data.draw(st.sets(st.integers(0, n_c - 1), min_size=1)))
    objects = presence._Objects(source, times, channels)
    keys = [objects.key(place) for place in range(len(objects))]
    selection = {
        tuple(dict(zip("tczyx", at, strict=True))[axis] // chunk for axis, chunk in zip(axes, chunks, strict=True))
        for at in product(times, channels, range(n_z), *map(range, source.shape[3:]))
    }
    assert {array.metadata.encode_chunk_key(at) for at in selection} == set(keys)
    assert len(keys) == len(selection)
    assert [objects.find(key) for key in keys] == list(range(len(keys)))
    everything = product(*(range(-(-size // chunk)) for size, chunk in zip(shape, chunks, strict=True)))
    others = {array.metadata.encode_chunk_key(at) for at in everything} - set(keys)
    assert [objects.find(key) for key in (*others, "zarr.json", "c/99/0/0", "")] == [None] * (len(others) + 3)
