"""What a TIFF file says of its images beside their pixels: calibration, interval, names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree as Xml

import tifffile

from phbatch.microscopes.units import to_micrometres, to_seconds

PixelSize = tuple[float | None, float | None, float | None]
"""Along z, y and x, in micrometres."""

_PLAUSIBLE = (1e-3, 50.0)
"""Micrometres per pixel of a baseline TIFF: others are the dots per inch of a printer."""


@dataclass(frozen=True)
class Said:
    """What is said of one image; nothing by default."""

    name: str = ""
    pixel_size: PixelSize = (None, None, None)
    interval: float | None = None
    channel_names: tuple[str, ...] = ()


def read_said(file: tifffile.TiffFile) -> list[Said]:
    """What a file says of its images, in their order; one of several may stand for all."""
    if file.is_ome and file.ome_metadata:
        return read_ome(file.ome_metadata)
    if file.is_imagej and file.imagej_metadata:
        return [_read_imagej(file, file.imagej_metadata)]
    return [Said(pixel_size=_from_resolution(file))]


def read_ome(text: str) -> list[Said]:
    """Of OME-XML, as other formats have it, too; nothing where it is no XML.

    Examples
    --------
    >>> read_ome('<OME><Image Name="a"><Pixels PhysicalSizeX="325" PhysicalSizeXUnit="nm"/></Image></OME>')
    [Said(name='a', pixel_size=(None, None, 0.325), interval=None, channel_names=())]
    """
    if "<!DOCTYPE" in text or "<!ENTITY" in text:  # entities may grow without bounds, and OME-XML has none
        return []
    try:
        root = Xml.fromstring(text)  # noqa: S314
    except Xml.ParseError:
        return []
    found = []
    for image in (each for each in root.iter() if _local(each) == "Image"):
        pixels = next((each for each in image if _local(each) == "Pixels"), None)
        if pixels is None:
            continue
        z, y, x = (
            to_micrometres(pixels.get(f"PhysicalSize{axis}"), pixels.get(f"PhysicalSize{axis}Unit", "µm"))
            for axis in "ZYX"
        )
        names = [each.get("Name") or "" for each in pixels if _local(each) == "Channel"]
        interval = to_seconds(pixels.get("TimeIncrement"), pixels.get("TimeIncrementUnit", "s"))
        found.append(
            Said(
                image.get("Name") or "",
                (z, y, x),
                interval or _from_planes(pixels),
                tuple(names) if names and all(names) else (),
            )
        )
    return found


def _from_planes(pixels: Xml.Element) -> float | None:
    """Mean time between frames, from when the first plane of each was taken."""
    times = {}
    for plane in (each for each in pixels if _local(each) == "Plane"):
        if plane.get("TheC", "0") == "0" and plane.get("TheZ", "0") == "0" and plane.get("DeltaT"):
            unit = plane.get("DeltaTUnit", "s")
            times[int(plane.get("TheT", "0"))] = to_seconds(plane.get("DeltaT"), unit) or 0.0
    if len(times) < 2:
        return None
    first, last = min(times), max(times)
    return to_seconds((times[last] - times[first]) / (last - first), "s")


def _local(element: Xml.Element) -> str:
    return str(element.tag).rpartition("}")[2]


def _read_imagej(file: tifffile.TiffFile, metadata: Mapping[str, Any]) -> Said:
    unit = metadata.get("unit", "")
    y, x = (_per_pixel(file, name, metadata.get(f"{axis}unit", unit)) for axis, name in _RESOLUTIONS)
    z = to_micrometres(metadata.get("spacing"), metadata.get("zunit", unit))
    interval = to_seconds(metadata.get("finterval"), metadata.get("tunit", "s"))
    if interval is None and metadata.get("fps"):
        interval = to_seconds(1 / float(metadata["fps"]), "s")
    return Said(pixel_size=(z, y, x), interval=interval)


_RESOLUTIONS = (("y", "YResolution"), ("x", "XResolution"))


def _from_resolution(file: tifffile.TiffFile) -> PixelSize:
    unit = file.pages.first.tags.valueof("ResolutionUnit", default=2)
    word = {2: "inch", 3: "cm"}.get(int(unit), "")
    y, x = (_per_pixel(file, name, word) for _, name in _RESOLUTIONS)
    low, high = _PLAUSIBLE
    y, x = (size if size is not None and low <= size <= high else None for size in (y, x))
    return None, y, x


def _per_pixel(file: tifffile.TiffFile, tag: str, unit: object) -> float | None:
    value = file.pages.first.tags.valueof(tag, default=None)
    if not isinstance(value, tuple) or len(value) != 2 or not value[0]:
        return None
    return to_micrometres(value[1] / value[0], unit)
