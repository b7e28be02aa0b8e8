"""What is at a place that is no image which can be opened, and what to do: one sentence each."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import numcodecs
from zarr.registry import get_codec_class

from phbatch.places.zarr_nodes import is_url, list_folder, local_path, read_file
from phbatch.words.errors import InputError, first_line
from phbatch.words.settings import StorageOptions

_SHOWN = 5
_REMEDY = "give the path of a Zarr array or an OME-Zarr image"


def require_place(path: str) -> None:
    """Refuse a path that is no folder: a mistyped one, a zip, another file.

    Raises
    ------
    InputError
        Says which.
    """
    if path.lower().endswith((".zip", ".ozx")) and is_url(path):
        raise _zipped(path)
    if is_url(path):
        return
    place = local_path(path)
    if not place.exists():
        raise InputError(f"{path} does not exist; {_REMEDY}.")
    if place.is_file():
        with suppress(OSError):
            if zipfile.is_zipfile(place):
                raise _zipped(path)
        tiff = place.suffix.lower() in (".tif", ".tiff")
        remedy = "write its pages into a Zarr array first, for instance with tifffile and zarr" if tiff else _REMEDY
        raise InputError(f"{path} is a file and no Zarr, which is a folder; {remedy}.")


def explain_failure(path: str, node: str, error: Exception, options: StorageOptions) -> InputError:
    """Why an array or group cannot be opened, by what the library said of it."""
    place = f"{path}/{node}" if node else path
    if isinstance(error, FileNotFoundError):
        absent = " or does not exist" if is_url(path) else ""
        return InputError(f"{place} holds no Zarr array or group{absent}; {_REMEDY}.")
    missing = next(_missing_codecs(path, node, options), None)
    if missing is not None:
        return InputError(
            f"{place} is stored with the codec {missing!r}, which is not installed here; install the Python package"
            " that brings it (numcodecs and zarr find it by themselves), or write the image again with another codec."
        )
    return InputError(f"{place} cannot be read as Zarr ({first_line(error)[:200]}); {_REMEDY}.")


def explain_group(path: str, attributes: Mapping[str, Any], options: StorageOptions) -> InputError:
    """What a group is that is no image, with the path of one."""
    ome = attributes.get("ome")
    ome = ome if isinstance(ome, Mapping) else attributes
    said = f"{path} is a group and no OME-Zarr image"
    if "plate" in ome:
        plate = ome["plate"] if isinstance(ome["plate"], Mapping) else {}
        wells = _paths(plate.get("wells"))
        field = next(iter(_fields(path, wells[0], options)), "0") if wells else "0"
        count = f" of {len(wells)} wells" if wells else ""
        example = f"INPUT/{wells[0] if wells else 'A/1'}/{field}"
        return InputError(f"{said}; it is a plate{count}: give the path of one field of a well, such as {example}.")
    if "well" in ome:
        fields = _paths(ome["well"].get("images") if isinstance(ome["well"], Mapping) else None)
        return InputError(f"{said}; it is a well of a plate: give the path of one field, {_of(fields or ['0'])}.")
    if "labels" in ome:
        return InputError(f"{said}; it is a list of labels, which are no images: give the image that they belong to.")
    children = _children(path, options)
    groups = [name for name, is_array in children.items() if not is_array and name != "OME"]
    arrays = [name for name, is_array in children.items() if is_array]
    if "bioformats2raw.layout" in ome:
        images = _series(path, options) or [name for name in groups if name.isdecimal()] or ["0"]
        return InputError(f"{said}; it is a bioformats2raw collection: give the path of one image, {_of(images)}.")
    if arrays:
        listed = _listed(arrays)
        return InputError(f"{said}; it holds the arrays {listed}: give the path of one with --axes, {_of(arrays)}.")
    if groups:
        return InputError(f"{said}; it holds the groups {_listed(groups)}: give the path of an image, {_of(groups)}.")
    return InputError(f"{said} and holds no array; give the path of an image.")


def _zipped(path: str) -> InputError:
    return InputError(f"{path} is a zip, of which phbatch does not read; unpack it, and give the folder that holds it.")


def _of(names: list[str]) -> str:
    return "such as " + ", ".join(f"INPUT/{name}" for name in names[:2])


def _listed(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def _paths(entries: object) -> list[str]:
    listed = entries if isinstance(entries, list) else []
    return [str(entry["path"]) for entry in listed if isinstance(entry, Mapping) and "path" in entry]


def _fields(path: str, well: str, options: StorageOptions) -> list[str]:
    attributes = _attributes(path, well, options)
    found = attributes.get("well")
    return _paths(found.get("images")) if isinstance(found, Mapping) else []


def _series(path: str, options: StorageOptions) -> list[str]:
    """Images of a bioformats2raw collection, as its group OME lists them."""
    series = _attributes(path, "OME", options).get("series")
    return [str(name) for name in series] if isinstance(series, list) else []


def _children(path: str, options: StorageOptions) -> dict[str, bool]:
    """Names of the arrays and groups directly inside a group, and whether each is an array."""
    found = {}
    with suppress(OSError):
        names = sorted(name for name, is_folder in list_folder(path, "", options).items() if is_folder)
        for name in names[: 4 * _SHOWN]:
            document = _document(path, f"{name}/zarr.json", options)
            if document or _document(path, f"{name}/.zgroup", options):
                found[name] = document.get("node_type") == "array"
            elif _document(path, f"{name}/.zarray", options):
                found[name] = True
    return found


def _attributes(path: str, node: str, options: StorageOptions) -> Mapping[str, Any]:
    found = _document(path, f"{node}/zarr.json", options).get("attributes")
    attributes = found if isinstance(found, Mapping) else _document(path, f"{node}/.zattrs", options)
    ome = attributes.get("ome")
    return ome if isinstance(ome, Mapping) else attributes


def _missing_codecs(path: str, node: str, options: StorageOptions) -> Iterator[str]:
    """Names, in the metadata of an array, of the codecs that are not installed."""
    prefix = f"{node}/" if node else ""
    old = _document(path, f"{prefix}.zarray", options)
    for codec in [*(old.get("filters") or []), old.get("compressor")]:
        if isinstance(codec, Mapping) and "id" in codec and not _is_installed_v2(codec):
            yield str(codec["id"])
    yield from _missing_v3(_document(path, f"{prefix}zarr.json", options).get("codecs"))


def _missing_v3(codecs: object) -> Iterator[str]:
    for codec in codecs if isinstance(codecs, list) else []:
        name = codec.get("name") if isinstance(codec, Mapping) else codec
        try:
            get_codec_class(str(name))
        except KeyError:
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


def _document(path: str, key: str, options: StorageOptions) -> Mapping[str, Any]:
    """A metadata file; empty where there is none that can be read."""
    try:
        found = json.loads(read_file(path, key, options))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, Mapping) else {}
