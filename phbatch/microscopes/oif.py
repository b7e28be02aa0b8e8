"""OIF and OIB of Olympus FluoView, through the library oiffile; OIR, which succeeded them, no free library reads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from phbatch.microscopes.libraries import LibraryRecording, lacking
from phbatch.microscopes.recording import make_position
from phbatch.microscopes.units import to_micrometres, to_seconds
from phbatch.words.errors import InputError


class OifRecording(LibraryRecording):
    """An OIF with its folder of planes, or an OIB that holds both."""

    kind = "OIF"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        try:
            import oiffile
        except ImportError as error:
            raise lacking(path, "an Olympus image", "oif") from error
        with self.refusing():
            self._file: Any = oiffile.OifFile(path)
            self.close_with(self._file.close)
            series = self._file.series[0]
            lengths = {str(axis).lower(): int(size) for axis, size in zip(series.axes, series.shape, strict=True)}
            self.require_axes(lengths, "tcz")
            self._axes = [str(axis).lower() for axis in series.axes]
            self._planes = {tuple(map(int, index)): name for index, name in zip(series.indices, series, strict=True)}
            first = np.asarray(self._file.asarray(series=series[0]))
            axes = _axes_of(self._file.mainfile)
        if first.ndim != 2:
            raise InputError(f"{path} holds lines or volumes where planes of y and x are expected; export it as TIFF.")
        lengths |= {"y": first.shape[0], "x": first.shape[1]}
        z, y, x = (_step(axes.get(axis), lengths.get(axis.lower(), 1), to_micrometres) for axis in "ZYX")
        names = _channel_names(self._file.mainfile, lengths.get("c", 1))
        self.positions = (
            make_position(
                "",
                lengths,
                first.dtype,
                pixel_size=(z, y, x),
                interval=_step(axes.get("T"), lengths.get("t", 1), to_seconds),
                channel_names=names,
            ),
        )

    def read(self, position: int, t: int, c: int, z: int) -> NDArray[Any]:  # noqa: D102
        seen = self.positions[position]
        with self.lock, self.refusing():
            found = np.asarray(self._file.asarray(series=self._planes[self._index(t, c, z)]))
        if found.shape != seen.shape[3:]:
            raise InputError(
                f"{self.path} has a plane of another shape at t={t}, c={c}, z={z}; restore it from a copy."
            )
        return np.ascontiguousarray(found, seen.dtype)

    def file_of(self, position: int, t: int, c: int, z: int) -> Path | None:  # noqa: D102
        return Path(self.path) if self._index(t, c, z) in self._planes else None

    def _index(self, t: int, c: int, z: int) -> tuple[int, ...]:
        at = {"t": t, "c": c, "z": z}
        return tuple(at[axis] for axis in self._axes)


def refuse_oir(path: Path) -> NoReturn:
    """Say how an OIR is read."""
    raise InputError(
        f"{path} is an OIR, which no library reads that phbatch may take along; export it as OME-TIFF or as OIB in the"
        " microscope's software."
    )


def _axes_of(main: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    found = (main.get(f"Axis {number} Parameters Common") for number in range(8))
    return {str(axis.get("AxisCode")): axis for axis in found if axis}


def _step(axis: Mapping[str, Any] | None, count: int, convert: Any) -> float | None:
    """Distance between two of `count` along an axis; of pixels, the ends are those of the field."""
    if axis is None or count < 2:
        return None
    length = abs(float(axis.get("EndPosition", 0)) - float(axis.get("StartPosition", 0)))
    parts = count if axis.get("AxisCode") in ("X", "Y") else count - 1
    found: float | None = convert(length / parts, axis.get("UnitName", axis.get("PixUnit", "")))
    return found


def _channel_names(main: Mapping[str, Any], count: int) -> tuple[str, ...]:
    names = (main.get(f"GUI Channel {number} Parameters", {}).get("DyeName") for number in range(1, count + 1))
    found = tuple(str(name or "") for name in names)
    return found if all(found) else ()
