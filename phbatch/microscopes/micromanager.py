"""Folders of Micro-Manager: NDTiff, stacks that are OME-TIFFs, and an image for each plane beside ``metadata.txt``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from phbatch.microscopes.libraries import positive
from phbatch.microscopes.ndtiff import INDEX, NdTiffRecording
from phbatch.microscopes.recording import Position, Recording
from phbatch.microscopes.tiff import TiffRecording
from phbatch.microscopes.tiff_folder import TiffFolder

METADATA = "metadata.txt"
PATTERN = "img_channel{c:03}_position{p:03}_time{t:09}_z{z:03}.tif"
"""How Micro-Manager 2 names an image of one plane."""

_SHOWN = 1 << 20  # bytes of the metadata that are looked at: the summary comes first


def is_micromanager(path: Path) -> bool:
    """Whether a folder is of Micro-Manager."""
    return path.is_dir() and bool((path / INDEX).is_file() or _first_stack(path) or _first_image(path))


def open_micromanager(path: Path) -> Recording:
    """The recording of a folder for which `is_micromanager` says so."""
    if (path / INDEX).is_file():
        return NdTiffRecording(path)
    stack = _first_stack(path)
    if stack is not None:
        return TiffRecording(stack)
    folder = TiffFolder(path, PATTERN)
    said = _read_summary(path)
    folder.positions = tuple(_completed(position, said) for position in folder.positions)
    folder.kind = "Micro-Manager"
    return folder


def _first_stack(path: Path) -> Path | None:
    """An OME-TIFF of a stack, which tells of all the others."""
    return min(path.glob("*_MMStack*.ome.tif"), default=None)


def _first_image(path: Path) -> Path | None:
    return next(islice(path.glob("img_channel*_position*_time*_z*.tif"), 1), None)


def _read_summary(path: Path) -> Mapping[str, Any]:
    """The summary of an acquisition; empty where there is none. Of a file that was cut, what is whole is taken."""
    file = next((each for each in (path / METADATA, path.parent / METADATA) if each.is_file()), None)
    if file is None:
        return {}
    with file.open(encoding="utf-8", errors="replace") as lines:
        text = lines.read(_SHOWN)
    start = text.find("{", text.find('"Summary"'))
    try:
        found, _ = json.JSONDecoder().raw_decode(text[start:]) if start >= 0 else ({}, 0)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _completed(position: Position, said: Mapping[str, Any]) -> Position:
    """A position with what the summary says besides."""
    pixel, step, interval = (positive(said.get(name)) for name in ("PixelSize_um", "z-step_um", "Interval_ms"))
    names = tuple(map(str, said.get("ChNames") or ()))
    z, y, x = position.pixel_size
    return replace(
        position,
        pixel_size=(step if "z" in position.axes else z, pixel or y, pixel or x),
        interval=interval / 1000 if interval and "t" in position.axes else position.interval,
        channel_names=names if len(names) == position.shape[1] else position.channel_names,
    )
