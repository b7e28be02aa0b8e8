"""What OME-NGFF says of groups above images: plates and wells, and bioformats2raw collections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import yaozarrs.v04
import yaozarrs.v05

from phbatch.places.ome import Version


@dataclass(frozen=True)
class Well:
    """One well of a plate: its path, and where it is."""

    path: str
    row: int
    column: int


@dataclass(frozen=True)
class Plate:
    """Names of rows and columns of a plate, and its wells."""

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    wells: tuple[Well, ...]


def plate_of(attributes: Mapping[str, Any]) -> Plate | None:
    """The plate that attributes describe as OME-NGFF has it; None where they describe none that holds together."""
    try:
        plate = attributes["plate"]
        return Plate(
            tuple(str(row["name"]) for row in plate["rows"]),
            tuple(str(column["name"]) for column in plate["columns"]),
            tuple(Well(str(each["path"]), int(each["rowIndex"]), int(each["columnIndex"])) for each in plate["wells"]),
        )
    except (KeyError, TypeError, ValueError):
        return None


def make_group_attributes(
    kind: Literal["plate", "collection", "images"],
    attributes: Mapping[str, Any],
    wells: Mapping[str, Sequence[Mapping[str, Any]]],
    paths: Sequence[str],
    version: Version,
) -> dict[str, dict[str, Any]]:
    """Attributes of the groups above some images, by path; the root is ``""``.

    Parameters
    ----------
    kind : {"plate", "collection", "images"}
        Images that a pattern matched are written as a collection.
    attributes : mapping
        Of the plate that they are from.
    wells : mapping of str to sequence of mapping
        The fields of each well.
    paths : sequence of str
        Of the images.
    version : {"0.4", "0.5"}
        To write.
    """
    if kind != "plate":
        series = {"series": list(paths)}
        groups: dict[str, dict[str, Any]] = {"": {"bioformats2raw.layout": 3}, "OME": series}
        return {path: _wrap(found, version) for path, found in groups.items()}
    plate = dict(attributes["plate"])
    plate["wells"] = [entry for entry in plate["wells"] if entry["path"] in wells]
    plate["field_count"] = max(map(len, wells.values()))
    plate["version"] = version
    if version == "0.5":
        yaozarrs.v05.Plate.model_validate({"version": "0.5", "plate": plate})
    else:
        yaozarrs.v04.Plate.model_validate({"plate": plate})
    found = {"": _wrap({"plate": plate}, version)}
    for path, images in wells.items():
        found[path] = _wrap({"well": {"images": [dict(image) for image in images], "version": version}}, version)
    return found


def _wrap(found: dict[str, Any], version: Version) -> dict[str, Any]:
    return {"ome": {"version": version} | found} if version == "0.5" else found
