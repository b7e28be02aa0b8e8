"""LIF of Leica, through the library liffile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phbatch.microscopes.libraries import LibraryRecording, lacking, spacing
from phbatch.microscopes.recording import Position, make_position
from phbatch.words.errors import InputError


class LifRecording(LibraryRecording):
    """A LIF file; each image, and each tile of a mosaic, is a position."""

    kind = "LIF"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        try:
            import liffile
        except ImportError as error:
            raise lacking(path, "a LIF file", "lif") from error
        with self.refusing():
            self._file: Any = liffile.LifFile(path)
            self.close_with(self._file.close)
            found = [pair for image in self._file.images if not image.is_flim for pair in self._read_image(image)]
        if not found:
            raise InputError(f"{path} holds no image; give another file.")
        self._images = [image for image, _, _ in found]
        self._tiles = [tile for _, tile, _ in found]
        self.positions = tuple(position for _, _, position in found)

    def _read_image(self, image: Any) -> list[tuple[Any, int | None, Position]]:
        sizes = {str(axis): int(size) for axis, size in image.sizes.items()}
        if "Y" not in sizes or "X" not in sizes:
            return []  # a line scan or a point
        self.require_axes(sizes, "MTCZYXS")
        tiles = sizes.pop("M", None)
        samples = sizes.pop("S", 1)
        lengths = {axis.lower(): size for axis, size in sizes.items()}
        if samples > 1:
            lengths["c"] = lengths.get("c", 1) * samples
        along = {axis: spacing(image.coords.get(axis)) for axis in "TZYX"}
        z, y, x = (_micrometres(along[axis]) for axis in "ZYX")
        name = str(image.attrs.get("path") or image.name).partition("/")[2] or str(image.name)
        return [
            (
                image,
                tile,
                make_position(
                    name if tile is None else f"{name}/{tile}",
                    lengths,
                    np.dtype(image.dtype),
                    pixel_size=(z, y, x),
                    interval=along["T"],
                ),
            )
            for tile in ([None] if tiles is None else range(tiles))
        ]

    def read(self, position: int, t: int, c: int, z: int) -> NDArray[Any]:  # noqa: D102
        image, tile, seen = self._images[position], self._tiles[position], self.positions[position]
        samples = int(image.sizes.get("S", 1))
        channel, sample = divmod(c, samples)
        wanted = {"M": tile or 0, "T": t, "C": channel, "Z": z}
        with self.lock, self.refusing():
            found = image.frame(**{axis: index for axis, index in wanted.items() if axis in image.sizes})
            plane = np.asarray(found).reshape(*seen.shape[3:], samples)[..., sample]
            return np.ascontiguousarray(plane, seen.dtype)


def _micrometres(metres: float | None) -> float | None:
    return None if metres is None else float(f"{metres * 1e6:.9g}")
