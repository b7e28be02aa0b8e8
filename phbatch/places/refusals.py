"""What is at a place that is no image which can be opened, and what to do: one sentence each."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import numcodecs
from zarr.errors import BaseZarrError
from zarr.registry import get_codec_class

from phbatch.places.place import LocalPlace, Place
from phbatch.words.errors import InputError, first_line

_SHOWN = 5
_MAGIC = re.compile(r"[*?\[]")
_REMEDY = "give the path of a Zarr array, an OME-Zarr image, a TIFF or a folder of TIFFs"


def is_pattern(path: str) -> bool:
    """Whether a path may stand for many."""
    return _MAGIC.search(path) is not None


def require_place(place: Place) -> None:
    """Refuse a path that is no folder: a mistyped one, a zip, another file.

    Raises
    ------
    InputError
        Says which.
    """
    if place.remote and place.name.lower().endswith((".zip", ".ozx")):
        raise _zipped(place)
    if not isinstance(place, LocalPlace):
        return
    if not place.exists() and is_pattern(place.path):
        raise InputError(f"{place} is a pattern, and one image is taken here; give one of those that it matches.")
    if not place.exists():
        raise InputError(f"{place} does not exist; {_REMEDY}.")
    if place.folder.is_file():
        with suppress(OSError):
            if zipfile.is_zipfile(place.folder):
                raise _zipped(place)
        raise InputError(f"{place} is a file and no Zarr, which is a folder; {_REMEDY}.")


def explain_failure(place: Place, node: str, error: Exception) -> InputError:
    """Why an array or group cannot be opened, by what the library said of it."""
    said = f"{place}/{node}" if node else place.path
    if isinstance(error, FileNotFoundError):
        absent = " or does not exist" if place.remote else ""
        return InputError(f"{said} holds no Zarr array or group{absent}; {_REMEDY}.")
    missing = next(_missing_codecs(place, node), None)
    if missing is not None:
        return InputError(
            f"{said} is stored with the codec {missing!r}, which is not installed here; install the Python package"
            " that brings it (numcodecs and zarr find it by themselves), or write the image again with another codec."
        )
    return InputError(f"{said} cannot be read as Zarr ({first_line(error)[:200]}); {_REMEDY}.")


def explain_group(place: Place, attributes: Mapping[str, Any]) -> InputError:
    """What a group is that is no image, with the path of one."""
    ome = attributes.get("ome")
    ome = ome if isinstance(ome, Mapping) else attributes
    said = f"{place} is a group and no OME-Zarr image"
    if "plate" in ome:
        plate = ome["plate"] if isinstance(ome["plate"], Mapping) else {}
        wells = _paths(plate.get("wells"))
        field = next(iter(list_fields(place, wells[0])), "0") if wells else "0"
        count = f" of {len(wells)} wells" if wells else ""
        example = f"INPUT/{wells[0] if wells else 'A/1'}/{field}"
        return InputError(f"{said}; it is a plate{count}: give the path of one field of a well, such as {example}.")
    if "well" in ome:
        fields = _paths(ome["well"].get("images") if isinstance(ome["well"], Mapping) else None)
        return InputError(f"{said}; it is a well of a plate: give the path of one field, {_of(fields or ['0'])}.")
    if "labels" in ome:
        return InputError(f"{said}; it is a list of labels, which are no images: give the image that they belong to.")
    children = _children(place)
    groups = [name for name, is_array in children.items() if not is_array and name != "OME"]
    arrays = [name for name, is_array in children.items() if is_array]
    if "bioformats2raw.layout" in ome:
        images = list_series(place) or [name for name in groups if name.isdecimal()] or ["0"]
        return InputError(f"{said}; it is a bioformats2raw collection: give the path of one image, {_of(images)}.")
    if arrays:
        listed = _listed(arrays)
        return InputError(f"{said}; it holds the arrays {listed}: give the path of one with --axes, {_of(arrays)}.")
    if groups:
        return InputError(f"{said}; it holds the groups {_listed(groups)}: give the path of an image, {_of(groups)}.")
    return InputError(f"{said} and holds no array; give the path of an image.")


def _zipped(place: Place) -> InputError:
    return InputError(
        f"{place} is a zip, of which phbatch does not read; unpack it, and give the folder that holds it."
    )


def _of(names: list[str]) -> str:
    return "such as " + ", ".join(f"INPUT/{name}" for name in names[:2])


def _listed(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def _paths(entries: object) -> list[str]:
    listed = entries if isinstance(entries, list) else []
    return [str(entry["path"]) for entry in listed if isinstance(entry, Mapping) and "path" in entry]


def list_fields(place: Place, well: str) -> list[str]:
    """Fields of a well, as its group lists them."""
    found = ome_attributes(place, well).get("well")
    return _paths(found.get("images")) if isinstance(found, Mapping) else []


def list_series(place: Place) -> list[str]:
    """Images of a bioformats2raw collection, as its group OME lists them."""
    series = ome_attributes(place, "OME").get("series")
    return [str(name) for name in series] if isinstance(series, list) else []


def _children(place: Place) -> dict[str, bool]:
    """Names of the arrays and groups directly inside a group, and whether each is an array."""
    found = {}
    with suppress(OSError):
        names = sorted(name for name, is_folder in place.names().items() if is_folder)
        for name in names[: 4 * _SHOWN]:
            document = _document(place, f"{name}/zarr.json")
            if document or _document(place, f"{name}/.zgroup"):
                found[name] = document.get("node_type") == "array"
            elif _document(place, f"{name}/.zarray"):
                found[name] = True
    return found


def ome_attributes(place: Place, node: str = "") -> Mapping[str, Any]:
    """What OME-NGFF says of a group, in whichever version; empty where nothing can be read."""
    prefix = f"{node}/" if node else ""
    found = _document(place, f"{prefix}zarr.json").get("attributes")
    attributes = found if isinstance(found, Mapping) else _document(place, f"{prefix}.zattrs")
    ome = attributes.get("ome")
    return ome if isinstance(ome, Mapping) else attributes


def is_image(place: Place, node: str) -> bool:
    """Whether an array or an image, and no label image, is at a node."""
    ome = ome_attributes(place, node)
    if "multiscales" in ome:
        return "image-label" not in ome
    array = _document(place, f"{node}/zarr.json").get("node_type") == "array"
    return array or bool(_document(place, f"{node}/.zarray"))


def _missing_codecs(place: Place, node: str) -> Iterator[str]:
    """Names, in the metadata of an array, of the codecs that are not installed."""
    prefix = f"{node}/" if node else ""
    old = _document(place, f"{prefix}.zarray")
    for codec in [*(old.get("filters") or []), old.get("compressor")]:
        if isinstance(codec, Mapping) and "id" in codec and not _is_installed_v2(codec):
            yield str(codec["id"])
    yield from _missing_v3(_document(place, f"{prefix}zarr.json").get("codecs"))


def _missing_v3(codecs: object) -> Iterator[str]:
    for codec in codecs if isinstance(codecs, list) else []:
        name = codec.get("name") if isinstance(codec, Mapping) else codec
        try:
            get_codec_class(str(name))
        except (KeyError, BaseZarrError):  # by the version of zarr
            yield str(name)
        except Exception:  # noqa: S112 - a codec that is there and fails to load has an error of its own
            continue
        inner = codec.get("configuration") if isinstance(codec, Mapping) else None
        if isinstance(inner, Mapping):
            yield from _missing_v3(inner.get("codecs"))
            yield from _missing_v3(inner.get("index_codecs"))


def _is_installed_v2(codec: Mapping[str, Any]) -> bool:
    try:
        numcodecs.get_codec(dict(codec))
    except Exception as error:  # what wrong parameters make codecs raise has no bounds
        return "not available" not in str(error)
    return True


def _document(place: Place, key: str) -> Mapping[str, Any]:
    """A metadata file; empty where there is none that can be read."""
    try:
        found = json.loads(place.read(key))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, Mapping) else {}
