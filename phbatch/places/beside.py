"""The place beside another, under the same stem."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from phbatch.places.place import LocalPlace, Place
from phbatch.words.given import StorageOptions


def place_beside(path: str, suffix: str, options: StorageOptions = None) -> Place:
    """The place beside what a path names, outside of the Zarr hierarchy that holds it; of a link, beside the link.

    Examples
    --------
    >>> place_beside("s3://bucket/a.zarr", ".phbatch.zarr").path
    's3://bucket/a.phbatch.zarr'
    """
    place = Place.at(path, options)
    if not isinstance(place, LocalPlace):
        parent, _, name = place.path.rpartition("/")
        return replace(place, path=f"{parent}/{name.removesuffix('.zarr')}{suffix}")
    spelled = _unresolved(path)
    outermost, names = spelled, [spelled.name]
    for folder in spelled.parents:
        if any((folder / file).exists() for file in ("zarr.json", ".zgroup")):
            names = [*spelled.relative_to(folder).parts]
            outermost = folder
    stem = outermost.stem if outermost == spelled else ".".join([outermost.stem, *names])
    return Place.at(outermost.parent) / f"{stem}{suffix}"


def _unresolved(path: str) -> Path:
    """Absolute, with links as they are spelled; what comes before a ``..`` is followed, since that must be."""
    place = Path.cwd() / Path(path.removeprefix("file://")).expanduser()
    parts = place.parts
    if ".." in parts:
        last = len(parts) - parts[::-1].index("..")
        place = Path(*parts[:last]).resolve().joinpath(*parts[last:])
    return place
