"""A multiscale of OME-NGFF as it is found: axes in any order, transformations of both kinds composed, or a refusal.

The specifications: https://ngff.openmicroscopy.org/0.4/ and https://ngff.openmicroscopy.org/0.5/. What real software
writes beside them is read where it has one meaning, and said.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf, isfinite
from typing import Any

from phbatch.words.axes import axis_letter
from phbatch.words.errors import InputError

_SHOWN = 80  # characters of a value in a message

_KINDS = {"time": "t", "channel": "c"}


def _by_word(words: Mapping[str, str]) -> dict[str, str]:
    """Names of NGFF by what software writes for them."""
    return {word: name for name, found in words.items() for word in found.split()}


_SPACE_UNITS = _by_word(
    {
        "meter": "m metre meters metres",
        "millimeter": "mm millimetre millimeters millimetres",
        "micrometer": "um \u00b5m \u03bcm micron microns micrometre micrometers micrometres",
        "nanometer": "nm nanometre nanometers nanometres",
        "angstrom": "\u00c5 A angstroms",
    }
)
_TIME_UNITS = _by_word(
    {
        "nanosecond": "ns nanoseconds",
        "microsecond": "us \u00b5s \u03bcs microseconds",
        "millisecond": "ms msec milliseconds",
        "second": "s sec secs seconds",
        "minute": "min mins minutes",
        "hour": "h hr hrs hours",
        "day": "d days",
    }
)


@dataclass(frozen=True)
class Multiscale:
    """A level of a multiscale, along the axes as they are stored.

    Attributes
    ----------
    axes : str
        Letters of ``tczyx`` in the order of the array's dimensions.
    scale, translation : tuple of float
        Of the dataset and the multiscale together.
    units : tuple of str or None
        By NGFF's names where they mean one of them.
    path : str
        Of the array within the group.
    name : str or None
        Of the image.
    notices : tuple of str
        What was taken otherwise than it is written.
    levels : int
        How many there are.
    """

    axes: str
    scale: tuple[float, ...]
    translation: tuple[float, ...]
    units: tuple[str | None, ...]
    path: str
    name: str | None
    notices: tuple[str, ...]
    levels: int


def read_multiscale(attributes: Mapping[str, Any], found_version: str, place: str, level: int = 0) -> Multiscale:
    """Read the first multiscale of a group.

    Parameters
    ----------
    attributes : mapping
        With ``multiscales``.
    found_version : {"0.4", "0.5"}
        By where the attributes lie.
    place : str
        Path of the group, for messages.
    level : int
        Which; 0 is the full resolution.

    Raises
    ------
    InputError
        The metadata belong to another version of NGFF, do not say where the pixels are and what their axes mean, or
        have no such level.
    """
    multiscales = attributes["multiscales"]
    if not isinstance(multiscales, list) or not multiscales:
        raise _invalid("multiscales", "it should be a list of at least one image")
    first = _mapping(multiscales[0], "multiscales.0")
    datasets = first.get("datasets")
    if not isinstance(datasets, list) or not datasets:
        raise _invalid("multiscales.0.datasets", "it should be a list of at least one level")
    require_level(level, len(datasets), place)
    dataset = _mapping(datasets[level], f"multiscales.0.datasets.{level}")
    path = dataset.get("path")
    if not isinstance(path, str) or not path.strip("/"):
        raise _invalid(f"multiscales.0.datasets.{level}.path", f"{shown(path)} is no path of an array")
    notices: list[str] = []
    _require_version(attributes, first, found_version, f"{place}/{path}", notices)
    axes = _read_axes(first.get("axes"), f"{place}/{path}")
    scale, translation = _compose(
        axes, (dataset.get("coordinateTransformations"), first.get("coordinateTransformations")), notices
    )
    units = tuple(_read_unit(axis, entry, notices) for axis, entry in zip(axes, first["axes"], strict=True))
    if len(multiscales) > 1:
        notices.append(_others(multiscales, place))
    name = first.get("name")
    name = str(name) if isinstance(name, str | int) else None
    return Multiscale(axes, scale, translation, units, path, name, tuple(notices), len(datasets))


def require_level(level: int, levels: int, place: str) -> None:
    """Refuse a level that an image has not.

    Raises
    ------
    InputError
        Says which it has.
    """
    if not 0 <= level < levels:
        one = f"there are {levels}, so give 0 to {levels - 1}" if levels > 1 else "there is one, so give 0"
        raise InputError(f"level {level} is not in {place}; {one}.")


def _require_version(
    attributes: Mapping[str, Any], first: Mapping[str, Any], found_version: str, array: str, notices: list[str]
) -> None:
    version = attributes.get("version") if found_version == "0.5" else first.get("version")
    axes = first.get("axes")
    stated = str(version)[:40] if version is not None else found_version
    number = re.match(r"(\d+)\.(\d+)", stated)
    known = number is not None and (int(number[1]), int(number[2])) in ((0, 4), (0, 5))
    if isinstance(axes, list) and axes and all(isinstance(axis, str) for axis in axes):
        letters = "".join(axis_letter(axis) or "?" for axis in axes[:5])
        raise InputError(
            f"the axes of the OME-Zarr {stated} metadata are bare names, as in NGFF 0.3; phbatch reads 0.4 and 0.5:"
            f" give the array itself, as in {array} --axes {letters}, or convert the image."
        )
    if not known:
        hint = "tczyx" if stated in ("0.1", "0.2") else "tyx"
        raise InputError(
            f"the image is OME-Zarr (NGFF) {stated} and phbatch reads 0.4 and 0.5; give the array itself, as in {array}"
            f" --axes {hint}, or convert the image."
        )
    if axes is None:
        raise _invalid("multiscales.0.axes", f"there are none; give the array itself, as in {array} --axes tyx")
    if version is None and found_version == "0.5":
        notices.append("the OME-Zarr metadata have no version: they are read as 0.5.")


def _read_axes(entries: object, array: str) -> str:
    if not isinstance(entries, list):
        raise _invalid("multiscales.0.axes", "it should be a list")
    letters = []
    for index, entry in enumerate(entries):
        axis = _mapping(entry, f"multiscales.0.axes.{index}")
        name, kind = axis.get("name"), axis.get("type")
        by_name, by_kind = axis_letter(name), _KINDS.get(str(kind))
        if by_name and by_kind and by_name != by_kind:
            raise InputError(
                f"axis {shown(name)} is of type {shown(kind)} in the OME-Zarr metadata, which contradict each other;"
                f" correct them, or give the array itself, as in {array} --axes tyx."
            )
        letter = by_name or by_kind
        if letter is None:
            raise InputError(
                f"axis {shown(name)} is unknown; phbatch reads images with the axes t, c, z, y and x: choose a part"
                " that has these alone, or correct the metadata."
            )
        letters.append(letter)
    repeated = next((letter for letter in letters if letters.count(letter) > 1), None)
    if repeated or not {"y", "x"} <= set(letters):
        what = f"name {repeated} twice" if repeated else "lack y or x"
        raise InputError(f"the axes {shown(''.join(letters))} of the OME-Zarr metadata {what}; correct the metadata.")
    return "".join(letters)


def _compose(axes: str, lists: Sequence[object], notices: list[str]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Scale and translation of the transformations, which apply one after the other: the dataset's come first."""
    scale, translation = [1.0] * len(axes), [0.0] * len(axes)
    scaled = False
    for transforms in lists:
        for transform in _listed(transforms):
            kind = transform.get("type")
            if kind == "identity":
                continue
            if kind not in ("scale", "translation") or kind not in transform:
                raise InputError(
                    f"the OME-Zarr metadata have a transformation of type {shown(kind)} that phbatch cannot read; it"
                    " takes scale, translation and identity with their numbers: convert the image, or give the array"
                    " itself with --axes."
                )
            numbers = _numbers(transform[kind], kind, axes)
            if kind == "translation":
                translation = [have + more for have, more in zip(translation, numbers, strict=True)]
                continue
            scaled = True
            numbers = [_positive(number, axis, notices) for number, axis in zip(numbers, axes, strict=True)]
            scale = [have * more for have, more in zip(scale, numbers, strict=True)]
            translation = [have * more for have, more in zip(translation, numbers, strict=True)]
    if not all(0 < distance < inf for distance in scale) or not all(map(isfinite, translation)):
        raise _invalid(
            "coordinateTransformations", f"together they give the scale {scale} and the origin {translation}"
        )
    if not scaled:
        notices.append("the OME-Zarr metadata state no scale: 1 is taken along every axis.")
    return tuple(scale), tuple(translation)


def _listed(transforms: object) -> list[Mapping[str, Any]]:
    if transforms is None:
        return []
    if not isinstance(transforms, list) or not all(isinstance(transform, Mapping) for transform in transforms):
        raise _invalid("coordinateTransformations", "it should be a list of transformations")
    return transforms


def _numbers(values: object, kind: str, axes: str) -> list[float]:
    if not isinstance(values, list):
        raise _invalid("coordinateTransformations", f"the {kind} {shown(values)} is no list of numbers")
    for value in values:
        if not isinstance(value, int | float) or isinstance(value, bool) or abs(value) > sys.float_info.max:
            if value in (inf, -inf):
                continue
            raise _invalid(
                "coordinateTransformations", f"the {kind} is {shown(values)} and {shown(value)} is no number"
            )
    if len(values) != len(axes):
        plural = "s" * (len(values) != 1)
        raise _invalid("coordinateTransformations", f"the {kind} has {len(values)} number{plural} for {len(axes)} axes")
    if kind == "translation" and not all(isfinite(value) for value in values):
        raise _invalid("coordinateTransformations", f"the translation is {shown(values)}, which is not finite")
    return [float(value) for value in values]


def _positive(distance: float, axis: str, notices: list[str]) -> float:
    if distance == 0:
        notices.append(f"the OME-Zarr metadata have the scale 0 along {axis}: 1 is taken.")
        return 1.0
    if not 0 < distance < inf:
        raise InputError(
            f"the OME-Zarr metadata say that pixels lie {distance} apart along {axis}; correct the scale, which is a"
            " positive number."
        )
    return distance


def _read_unit(axis: str, entry: Mapping[str, Any], notices: list[str]) -> str | None:
    unit = entry.get("unit")
    if unit is None or unit == "":
        return None
    if not isinstance(unit, str):
        notices.append(
            f"the unit of {axis} is {shown(unit)} in the OME-Zarr metadata, which is no word: it is left out."
        )
        return None
    known = _TIME_UNITS if axis == "t" else _SPACE_UNITS if axis in "zyx" else {}
    # Symbols are looked up as they are, for Ms is no ms.
    return known.get(unit.strip()) or (known.get(unit.strip().lower()) if len(unit.strip()) > 2 else None) or unit


def _others(multiscales: Sequence[object], place: str) -> str:
    """What the other images of the group are, and how to get at them."""
    named = []
    for entry in multiscales:
        image = entry if isinstance(entry, Mapping) else {}
        datasets = image.get("datasets")
        level = datasets[0] if isinstance(datasets, list) and datasets else None
        path = level.get("path") if isinstance(level, Mapping) else None
        named.append(f"{str(image.get('name') or 'unnamed')[:40]} ({str(path)[:40]})")
    shown = ", ".join(named[:5]) + (f" and {len(named) - 5} more" if len(named) > 5 else "")
    return (
        f"{place} holds {len(named)} images, {shown}: the first is read; give the array of another with --axes, such as"
        f" {place}/PATH."
    )


def shown(value: object) -> str:
    """A value as it is shown in a message: its beginning, where it is long."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _mapping(value: object, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise _invalid(where, f"{shown(value)} is no object with names")
    return value


def _invalid(where: str, reason: str) -> InputError:
    return InputError(
        f"the OME-Zarr metadata are invalid at {where} ({reason}); correct them, or give the path of the array itself"
        " with --axes."
    )
