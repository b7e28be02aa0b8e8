"""ND2 of Nikon, through the library nd2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phbatch.microscopes.libraries import LibraryRecording, lacking
from phbatch.microscopes.recording import make_position
from phbatch.words.errors import InputError

_TIMES = ("TimeLoop", "NETimeLoop")


class Nd2Recording(LibraryRecording):
    """An ND2 file; each point of the stage is a position."""

    kind = "ND2"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        try:
            import nd2
        except ImportError as error:
            raise lacking(path, "an ND2 file", "nd2") from error
        with self.refusing():
            self._file: Any = nd2.ND2File(path)
            self.close_with(self._file.close)
            self._read_metadata()

    def _read_metadata(self) -> None:
        sizes = {str(axis).lower(): int(size) for axis, size in self._file.sizes.items()}
        self.require_axes(sizes, "ptczyxs")
        self._samples = sizes.pop("s", 1)
        self._channels = sizes.get("c", 1)
        if self._samples > 1 or "c" in sizes:
            sizes["c"] = self._channels * self._samples
        loops: Any = self._file.loop_indices or ({},)
        self._frames = {
            tuple(int(each.get(axis, 0)) for axis in "PTZ"): number for number, each in reversed([*enumerate(loops)])
        }
        voxel = self._file.voxel_size()
        names = _channel_names(self._file.metadata) if self._samples == 1 else ()
        points = _point_names(self._file.experiment)
        count = sizes.pop("p", 1)
        self.positions = tuple(
            make_position(
                points[number] if number < len(points) else (str(number) if count > 1 else ""),
                sizes,
                np.dtype(self._file.dtype),
                pixel_size=(voxel.z or None if "z" in sizes else None, voxel.y or None, voxel.x or None),
                interval=_interval(self._file.experiment) if "t" in sizes else None,
                channel_names=names if len(names) == sizes.get("c", 1) else (),
            )
            for number in range(count)
        )

    def read(self, position: int, t: int, c: int, z: int) -> NDArray[Any]:  # noqa: D102
        seen = self.positions[position]
        number = self._frames.get((position, t, z))
        if number is None:
            raise InputError(f"{self.path} lacks the frame of t={t}, z={z}; restore it from a copy.")
        channel, sample = divmod(c, self._samples)
        with self.lock, self.refusing():
            found = np.asarray(self._file.read_frame(number))
            planes = found.reshape(self._channels, *seen.shape[3:], self._samples)
            return np.ascontiguousarray(planes[channel, ..., sample], seen.dtype)

    def file_of(self, position: int, t: int, c: int, z: int) -> Path | None:  # noqa: D102
        return Path(self.path) if (position, t, z) in self._frames else None


def _channel_names(metadata: Any) -> tuple[str, ...]:
    names = tuple(str(channel.channel.name) for channel in getattr(metadata, "channels", None) or ())
    return names if all(names) else ()


def _point_names(experiment: Any) -> list[str]:
    for loop in experiment or ():
        if loop.type == "XYPosLoop":
            return [str(point.name or number) for number, point in enumerate(loop.parameters.points)]
    return []


def _interval(experiment: Any) -> float | None:
    """Seconds between frames: as measured, else as planned; None where there are several."""
    for loop in experiment or ():
        if loop.type in _TIMES:
            periods = getattr(loop.parameters, "periods", None) or [loop.parameters]
            if len(periods) > 1:
                return None
            measured = getattr(getattr(periods[0], "periodDiff", None), "avg", 0) or 0
            return float(measured or periods[0].periodMs) / 1000 or None
    return None
