"""Files of a place one by one, in the order in which their whole list would be sorted."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from phbatch.inputs.image import open_source
from phbatch.places.place import Place

names = st.text("a0.-~_ é/", min_size=1, max_size=8).map(lambda text: "/".join(filter(None, text.split("/"))))


def listed(root: Path) -> list[tuple[str, int, str]]:
    files = [path for path in root.rglob("*") if path.is_file()]
    stats = [(path.relative_to(root).as_posix(), path.stat()) for path in files]
    return sorted((key, found.st_size, str(found.st_mtime_ns)) for key, found in stats)


@settings(max_examples=40, deadline=None)
@given(st.lists(names.filter(lambda name: name.strip("./ ") == name and name), max_size=12))
def test_files_come_in_the_order_of_their_list(keys: list[str]) -> None:
    with TemporaryDirectory() as name:
        root = Path(name)
        for key in keys:
            if any(parent.is_file() for parent in (root / key).parents) or (root / key).exists():
                continue
            (root / key).parent.mkdir(parents=True, exist_ok=True)
            (root / key).write_bytes(key.encode())
        (root / "loop").symlink_to(root / "loop")
        (root / "up").symlink_to(root)
        assert list(Place.at(name).iterate_files()) == Place.at(name).files() == listed(root)


def test_a_place_that_is_not_there_has_no_files(tmp_path: Path) -> None:
    assert Place.at(tmp_path / "nothing").files() == []


def test_an_input_is_digested_as_its_list_of_files_was(tmp_path: Path) -> None:
    data = np.arange(12 * 16, dtype="uint16").reshape(12, 4, 4)
    zarr.create_array(tmp_path / "in.zarr", data=data, chunks=(1, 4, 4))
    found = open_source(Place.at(tmp_path / "in.zarr"), "tyx").identity(pixels=True)
    files = listed(tmp_path / "in.zarr")
    assert (found["files"], found["bytes"]) == (13, sum(size for _, size, _ in files))
    assert found["digest"] == hashlib.sha256(json.dumps(files).encode()).hexdigest()
