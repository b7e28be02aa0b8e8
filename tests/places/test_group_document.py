"""The document of a group is read and written as zarr does it, byte by byte, and what is no group is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
import zarr

from phbatch.outputs.creation import GroupDocument
from phbatch.places.place import Place

ATTRIBUTES = {"phbatch": {"status": "running", "numbers": [1, 2.5, None, float("nan")]}, "ome": {"name": "\u00b5m"}}


def documents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_what_is_changed_is_written_as_zarr_writes_it(tmp_path: Path, zarr_format: Literal[2, 3]) -> None:
    for name in ("ours", "zarrs"):
        zarr.create_group(tmp_path / name, zarr_format=zarr_format, attributes=ATTRIBUTES)
    found = GroupDocument.read(Place.at(tmp_path / "ours"))
    assert found.zarr_format == zarr_format
    change: dict[str, Any] = {"phbatch": {"status": "complete"}, "more": [{"a": 1}]}
    found.attributes.update(change)
    found.write(Place.at(tmp_path / "ours"))
    zarr.open_group(tmp_path / "zarrs", mode="r+").attrs.update(change)
    assert documents(tmp_path / "ours") == documents(tmp_path / "zarrs")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("zarr.json", '{"node_type": "array", "zarr_format": 3}'),
        ("zarr.json", '{"node_type": "group", "zarr_format": 2}'),
        ("zarr.json", '{"node_type": "group", "zarr_format": 3, "attributes": []}'),
        ("zarr.json", "[]"),
        ("zarr.json", '{"node_type": "gr'),
        (".zgroup", '{"zarr_format": 3}'),
        (".zgroup", ""),
    ],
)
def test_what_is_no_group_is_refused(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"is of no group|Expecting|Unterminated"):
        GroupDocument.read(Place.at(tmp_path))


def test_damaged_attributes_are_refused_and_none_are_empty(tmp_path: Path) -> None:
    (tmp_path / ".zgroup").write_text('{"zarr_format": 2}', encoding="utf-8")
    assert GroupDocument.read(Place.at(tmp_path)) == GroupDocument(2, {})
    (tmp_path / ".zattrs").write_text("[]", encoding="utf-8")
    with pytest.raises(ValueError, match="holds no attributes"):
        GroupDocument.read(Place.at(tmp_path))


def test_where_nothing_is_no_group_is_found(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        GroupDocument.read(Place.at(tmp_path))
