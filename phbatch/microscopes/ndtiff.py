"""NDTiff, which Micro-Manager and Pycro-Manager write: its index says where each plane lies."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from phbatch.microscopes.libraries import LibraryRecording, positive
from phbatch.microscopes.recording import make_position
from phbatch.words.errors import InputError

INDEX = "NDTiff.index"

_AXES = {"time": "t", "channel": "c", "z": "z", "position": "p"}
_HEAD = struct.Struct("<8x5I")
_MARKS = 483729, 2355492  # of the format, and of the summary
_DTYPES = {0: "uint8", 1: "uint16", 3: "uint16", 4: "uint16", 5: "uint16", 6: "uint16"}


@dataclass(frozen=True)
class _Plane:
    path: Path
    start: int
    shape: tuple[int, int]
    dtype: str


class NdTiffRecording(LibraryRecording):
    """A folder of NDTiff; uncompressed planes, which nobody needs a library to read."""

    kind = "NDTiff"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        with self.refusing():
            found = [
                (dict(entry[0]), self._plane(folder, entry)) for entry in tifffile.read_ndtiff_index(folder / INDEX)
            ]
            said = _read_summary(found[0][1].path) if found else {}
        if not found:
            raise InputError(f"{folder} has an {INDEX} that names no plane; restore it from a copy.")
        names: dict[str, list[Any]] = {}
        for at, _ in found:
            for axis, value in at.items():
                if axis not in _AXES:
                    self.require_axes({axis: 2 if at[axis] != found[0][0].get(axis) else 1}, ())
                elif value not in names.setdefault(axis, []):
                    names[axis].append(value)
        for values in names.values():
            if all(isinstance(value, int) for value in values):
                values.sort()
        self._planes = {
            tuple(names[axis].index(at[axis]) if axis in at else 0 for axis in _AXES): plane for at, plane in found
        }
        first = found[0][1]
        lengths = {_AXES[axis]: len(values) for axis, values in names.items()}
        count = lengths.pop("p", 1)
        lengths |= {"y": first.shape[0], "x": first.shape[1]}
        channels = [str(value) for value in names.get("channel", ()) if not isinstance(value, int)]
        pixel = positive(said.get("PixelSize_um") or said.get("PixelSizeUm"))
        self.positions = tuple(
            make_position(
                str(names["position"][number]) if count > 1 else "",
                lengths,
                np.dtype(first.dtype),
                pixel_size=(positive(said.get("z-step_um")) if "z" in lengths else None, pixel, pixel),
                interval=_seconds(said.get("Interval_ms")) if "t" in lengths else None,
                channel_names=tuple(channels) if len(channels) == lengths.get("c", 1) else (),
            )
            for number in range(count)
        )

    def _plane(self, folder: Path, entry: tuple[Any, ...]) -> _Plane:
        _, name, start, width, height, pixel_type, compression, *_ = entry
        if pixel_type not in _DTYPES or compression:
            raise InputError(f"{self.path} holds colours or is compressed; export it as OME-TIFF.")
        return _Plane(folder / str(name), int(start), (int(height), int(width)), _DTYPES[pixel_type])

    def read(self, position: int, t: int, c: int, z: int) -> NDArray[Any]:  # noqa: D102
        seen, plane = self.positions[position], self._planes[t, c, z, position]
        if plane.shape != seen.shape[3:] or plane.dtype != seen.dtype:
            raise InputError(
                f"{self.path} has a plane of another shape at t={t}, c={c}, z={z}; restore it from a copy."
            )
        found = np.fromfile(plane.path, plane.dtype, plane.shape[0] * plane.shape[1], offset=plane.start)
        if found.size < plane.shape[0] * plane.shape[1]:
            raise InputError(f"{plane.path} ends before the plane of t={t}, c={c}, z={z}; restore it from a copy.")
        return found.reshape(plane.shape)

    def file_of(self, position: int, t: int, c: int, z: int) -> Path | None:  # noqa: D102
        plane = self._planes.get((t, c, z, position))
        return None if plane is None else plane.path

    @property
    def files(self) -> list[Path]:  # noqa: D102
        return sorted({Path(self.path) / INDEX, *(plane.path for plane in self._planes.values())})


def _read_summary(path: Path) -> Mapping[str, Any]:
    """What Micro-Manager says of an acquisition, in the head of its first file; empty where it says nothing."""
    with path.open("rb") as file:
        head = file.read(_HEAD.size)
        if len(head) < _HEAD.size:
            return {}
        mark, *_, summary_mark, length = _HEAD.unpack(head)
        text = file.read(length) if (mark, summary_mark) == _MARKS else b"{}"
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _seconds(milliseconds: Any) -> float | None:
    found = positive(milliseconds)
    return None if found is None else found / 1000
