"""Profiles of uneven light on disk: a Zarr group with a background and perhaps a dark field, or one flat image."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import tifffile
import zarr
from numpy.typing import NDArray
from zarr.errors import BaseZarrError

from phbatch.places.guard import read_whole
from phbatch.places.own import find_strangers
from phbatch.places.place import Place
from phbatch.places.zarr_nodes import naming
from phbatch.words.errors import InputError, OutputError

BACKGROUND = "background"
DARK = "dark"
_FLAT_NAMES = (BACKGROUND, "flat", "flatfield")
_DARK_NAMES = (DARK, "darkfield")


def read_profile(place: Place) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """Read a profile.

    Parameters
    ----------
    place : Place
        What `write_profile` made; any Zarr group with an array ``background`` (or ``flat``) and perhaps one ``dark``;
        a Zarr array; or a TIFF image. Arrays are ``yx``, ``cyx`` or ``czyx``.

    Returns
    -------
    background, dark : (c, z, y, x) ndarray of float32
        `dark` is None where there is none.

    Raises
    ------
    InputError
        It cannot be read, or has other dimensions.
    """
    try:
        if place.name.lower().endswith((".tif", ".tiff")):
            return _as_czyx(np.asarray(tifffile.imread(place.path)), place), None
        node = place.open()
        if isinstance(node, zarr.Array):
            return _as_czyx(read_whole(node), place), None
        background, dark = (_find(place, node, names) for names in (_FLAT_NAMES, _DARK_NAMES))
    except (OSError, BaseZarrError, ValueError, KeyError, TypeError, ImportError) as error:
        raise InputError(
            f"illumination {place} cannot be read as a profile ({error}); make one with `phbatch illumination`, or give"
            " a method."
        ) from error
    if background is None:
        raise InputError(
            f"illumination {place} is a group without an array {' or '.join(_FLAT_NAMES)}; give a profile of `phbatch"
            " illumination`, or the path of the array."
        )
    return _as_czyx(background, place), None if dark is None else _as_czyx(dark, place)


def write_profile(
    place: Place,
    background: NDArray[np.float32],
    dark: NDArray[np.float32] | None,
    facts: Mapping[str, Any],
    node: str = "",
) -> None:
    """Write a profile, replacing what is at the node; its facts are written last and say that it is whole.

    Parameters
    ----------
    place : Place
        Of a store.
    background, dark : (c, z, y, x) ndarray of float32
        Counts.
    facts : mapping
        Attributes of the group.
    node : str
        Group within the store.

    Raises
    ------
    OutputError
        The place cannot be written.
    """
    try:
        with place.pipeline(fast=False):
            group = zarr.open_group(place.store(), mode="r+" if node else "w")
            group = group.require_group(node) if node else group  # in the format of the group that holds it
            for name, values in ((BACKGROUND, background), (DARK, dark)):
                if values is not None:
                    named = naming("czyx", group.metadata.zarr_format)
                    chunks = (1, 1, *values.shape[2:])
                    group.create_array(name, data=values, chunks=chunks, overwrite=True, **named)
            group.attrs.put(dict(facts))
    except (OSError, BaseZarrError, ValueError) as error:
        raise OutputError(f"profile {place} cannot be written ({error}); choose another place.") from error


def require_replaceable(place: Place) -> None:
    """Refuse a place where something else lies than a profile that `write_profile` made: it would be removed.

    Raises
    ------
    OutputError
        Names it.
    """
    try:
        names = set(place.names())
    except (OSError, ImportError, ValueError) as error:
        raise OutputError(f"{place} cannot be reached ({error}); correct it.") from error
    strangers = find_strangers(names - {BACKGROUND, DARK})
    if names and (strangers or "method" not in (read_facts(place) or {})):
        what = f"holds {strangers[0]}" if strangers else "is no profile"
        raise OutputError(f"{place} exists and {what}; choose another place, or move that away.")


def read_facts(place: Place, node: str = "") -> dict[str, Any] | None:
    """Facts of a profile; None where there is no whole one."""
    try:
        return place.open(node).attrs.asdict() or None
    except (OSError, BaseZarrError, KeyError, ValueError):
        return None


def digest_profile(background: NDArray[np.float32], dark: NDArray[np.float32] | None) -> str:
    """Hexadecimal SHA-256 of the numbers of a profile."""
    found = hashlib.sha256(str(background.shape).encode() + background.tobytes())
    if dark is not None:
        found.update(dark.tobytes())
    return found.hexdigest()


def _find(place: Place, group: zarr.Group, names: tuple[str, ...]) -> NDArray[Any] | None:
    name = next((name for name in names if name in group), None)
    if name is None:
        return None
    array = place.open(name)
    return read_whole(array) if isinstance(array, zarr.Array) else None


def _as_czyx(values: NDArray[Any], place: Place) -> NDArray[np.float32]:
    if not 2 <= values.ndim <= 4 or values.dtype.kind not in "uif":
        raise InputError(
            f"illumination {place} has {values.ndim} dimensions of {values.dtype}; a profile is yx, cyx or czyx in real"
            " numbers."
        )
    if values.ndim == 3:
        values = values[:, np.newaxis]
    return np.ascontiguousarray(values.reshape((1,) * (4 - values.ndim) + values.shape), np.float32)
