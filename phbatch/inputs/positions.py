"""Many images as one input: the fields of a plate, the images of a collection, or what a pattern matches."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from phbatch.microscopes.opening import find_reader
from phbatch.places.place import LocalPlace, Place
from phbatch.places.refusals import is_image, is_pattern, list_fields, list_series, ome_attributes
from phbatch.words.errors import InputError, UsageError
from phbatch.words.settings import RunSettings
from phbatch.words.wells import canonical_well, in_fields, in_wells

_LEVELS = 3  # of a plate: row, well, field


@dataclass(frozen=True)
class Positions:
    """Images that are one input.

    Attributes
    ----------
    input : str
        As it was given, absolute.
    root : Place
        That they lie in.
    kind : {"plate", "collection", "images"}
        What the root is; ``"images"`` is nothing but what a pattern matched.
    paths : tuple of str
        Of each image within the root.
    attributes : mapping
        What OME-NGFF says of the root.
    wells : mapping of str to sequence of mapping
        Of a plate: what each well says of those of its fields that were chosen, by its path.
    bare : tuple of str
        Of a plate: wells that it lists and that hold no field.
    notices : tuple of str
        What was left out.
    """

    input: str
    root: Place
    kind: Literal["plate", "collection", "images"]
    paths: tuple[str, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    wells: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    bare: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()

    @property
    def places(self) -> dict[str, str]:
        """Where each image lies, by its name among them: its path in an output, and in others of the same form."""
        return {name: str(self.root / path) for name, path in name_images(self.paths).items()}

    def only(self, names: Iterable[str]) -> Positions:
        """Some of the images, where they have the same names alone; else all."""
        known = name_images(self.paths)
        chosen = {name: known[name] for name in dict.fromkeys(names) if name in known}
        if not chosen or name_images(chosen.values()) != chosen:
            return self
        kept = frozenset(chosen.values())
        wells = {
            well: [image for image in images if f"{well}/{image.get('path')}" in kept]
            for well, images in self.wells.items()
        }
        return replace(
            self,
            paths=tuple(chosen.values()),
            wells={well: images for well, images in wells.items() if images},
            bare=(),
            notices=(),
        )


def list_images(input: str | Path, settings: RunSettings) -> dict[str, str]:
    """Where the images of an input lie, by their names; the name of one that is alone is empty.

    Raises
    ------
    InputError, UsageError
        As `find_positions`.
    """
    found = find_positions(str(input), settings)
    return {"": str(input)} if found is None else found.places


def name_images(paths: Iterable[str]) -> dict[str, str]:
    """Paths of images by their names: the same path, without the endings that say Zarr.

    Examples
    --------
    >>> name_images(["m9.ome.zarr", "m10.zarr"])
    {'m9': 'm9.ome.zarr', 'm10': 'm10.zarr'}
    """
    paths = list(paths)
    short = ["/".join(_bare(part) for part in path.split("/")) for path in paths]
    return dict(zip(short if len({*short}) == len(paths) else paths, paths, strict=True))


def _bare(name: str) -> str:
    return name.removesuffix(".zarr").removesuffix(".ome") or name


def find_positions(input: str, settings: RunSettings) -> Positions | None:
    """The images that an input is; None where it is one, or nothing that can be read.

    Raises
    ------
    InputError
        There is no image among them.
    UsageError
        Wells or fields were chosen that are not there, or of what has none.
    """
    place = Place.at(input, settings.storage_options)
    given = place.path
    found: Positions | None = None
    if is_pattern(input) and not _is_there(place):
        if isinstance(place, LocalPlace) and find_reader(Path(given)) is not None:
            return None  # a series of files
        found = _find_matches(given, settings)
    elif "plate" in (attributes := ome_attributes(place)):
        found = _find_plate(given, place, attributes, settings)
    elif "bioformats2raw.layout" in attributes:
        found = _find_collection(given, place, attributes, settings)
    if settings.wells is not None and (found is None or found.kind != "plate"):
        raise UsageError(f"--wells {settings.wells} chooses of a plate and {input} is none; leave it out.")
    if settings.fields is not None and (found is None or found.kind == "images"):
        raise UsageError(
            f"--fields {settings.fields} chooses of a plate or a collection and {input} is neither; leave it out."
        )
    if found is not None and not found.paths:
        raise InputError(f"{input} holds no image; correct the path, or its metadata.")
    return found


def _is_there(place: Place) -> bool:
    return isinstance(place, LocalPlace) and place.exists()


def _find_plate(
    given: str,
    root: Place,
    attributes: Mapping[str, Any],
    settings: RunSettings,
    matched: Callable[[str], bool] | None = None,
) -> Positions:
    """Fields of a plate: those that were chosen, or that a pattern matched."""
    plate = attributes["plate"] if isinstance(attributes["plate"], Mapping) else {}
    entries = plate.get("wells")
    names = [
        str(entry["path"])
        for entry in (entries if isinstance(entries, list) else [])
        if isinstance(entry, Mapping) and "path" in entry
    ]
    used: set[str] = set()
    wells: dict[str, list[Mapping[str, Any]]] = {}
    paths, absent = [], []
    for name in names:
        if not _chosen(canonical_well(name), settings.wells, in_wells, used):
            continue
        images = ome_attributes(root, name).get("well", {})
        listed = images.get("images") if isinstance(images, Mapping) else None
        if not list_fields(root, name):
            absent.append(name)
        for image in listed if isinstance(listed, list) else []:
            path = f"{name}/{image.get('path')}"
            if _chosen(str(image.get("path")), settings.fields, in_fields, used) and (not matched or matched(path)):
                wells.setdefault(name, []).append(image)
                paths.append(path)
    _require_used(settings.wells, used, "wells", root)
    _require_used(settings.fields, used, "fields", root)
    notices = [f"of the plate's wells {_few(absent)} hold no field and are left out."] if absent else []
    return Positions(given, root, "plate", tuple(paths), attributes, wells, tuple(absent), tuple(notices))


def _find_collection(given: str, root: Place, attributes: Mapping[str, Any], settings: RunSettings) -> Positions:
    names = list_series(root) or sorted(
        (name for name, is_folder in root.names().items() if is_folder and name.isdecimal()), key=int
    )
    used: set[str] = set()
    chosen = [name for name in names if _chosen(name, settings.fields, in_fields, used)]
    _require_used(settings.fields, used, "fields", root)
    return Positions(given, root, "collection", tuple(chosen), attributes)


def _find_matches(given: str, settings: RunSettings) -> Positions:
    """What a pattern matches; where that is in a plate, it is a part of the plate."""
    parts = given.split("/")
    first = next(index for index, part in enumerate(parts) if is_pattern(part))
    root = Place.at("/".join(parts[:first]) or ("/" if first else "."), settings.storage_options)
    if not root.lists:
        raise UsageError(f"{given} is a pattern, and a web server lists nothing; give its images one by one.")
    matches = [path for path in _expand(root, parts[first:]) if is_image(root, path)]
    if not matches:
        raise InputError(f"{given} matches no Zarr array and no OME-Zarr image; correct the pattern.")
    above, prefix = root, ""
    for _ in range(_LEVELS):
        attributes = ome_attributes(above)
        if "plate" in attributes:
            inside = {prefix + path for path in matches}
            return _find_plate(given, above, attributes, settings, inside.__contains__)
        head, _, name = above.path.rpartition("/")
        if not head or head.endswith(":/"):
            break
        above, prefix = Place.at(head, settings.storage_options), f"{name}/{prefix}"
    return Positions(given, root, "images", tuple(sorted(matches, key=_natural)))


def _expand(root: Place, parts: Sequence[str]) -> list[str]:
    found = [""]
    for part in filter(None, parts):
        if not is_pattern(part):
            found = [f"{path}/{part}".lstrip("/") for path in found]
            continue
        found = [
            f"{path}/{name}".lstrip("/")
            for path in found
            for name, is_folder in root.names(path).items()
            if is_folder and fnmatchcase(name, part) and (part.startswith(".") or not name.startswith("."))
        ]
    return found


def _chosen(name: str, chosen: str | None, find: Callable[[str, str], str | None], used: set[str]) -> bool:
    if chosen is None:
        return True
    part = find(name, chosen)
    if part is not None:
        used.add(part)
    return part is not None


def _require_used(chosen: str | None, used: set[str], what: str, root: Place) -> None:
    unused = [part for part in (chosen or "").split(",") if part and part not in used]
    if unused:
        raise UsageError(f"--{what} {unused[0]} is not in {root}; leave it out, or correct it.")


def _natural(text: str) -> list[tuple[int, str]]:
    """By the numbers in a name, and then by its letters."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", text)]


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
