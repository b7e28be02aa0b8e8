"""CZI of Zeiss, through the library czifile; blocks that are compressed by Zstandard, which it does not know, here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
from numpy.typing import NDArray

from phbatch.microscopes.libraries import LibraryRecording, lacking, parse_xml, positive
from phbatch.microscopes.recording import make_position
from phbatch.words.errors import InputError

_ZSTD, _ZSTD_WITH_HEADER = 5, 6
_BYTES_APART = 1  # bit of the header: low bytes come first, and all high bytes after them

_Key = tuple[int, int, int, int]
"""Scene, and indices along t, c and z."""


class CziRecording(LibraryRecording):
    """A CZI file; each scene is a position, and its tiles are put together."""

    kind = "CZI"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        try:
            import czifile
        except ImportError as error:
            raise lacking(path, "a CZI file", "czi") from error
        with self.refusing():
            self._file: Any = czifile.CziFile(path)
            self.close_with(self._file.close)
            self._read_blocks()

    def _read_blocks(self) -> None:
        blocks: dict[_Key, list[tuple[int, int, Any]]] = {}
        sizes, axes = dict[str, int](), set[str]()
        for entry in self._file.subblock_directory:
            if entry.stored_shape != entry.shape:
                continue  # of the pyramid
            at = {each.dimension: (int(each.start), int(each.size)) for each in entry.dimension_entries}
            for axis, (start, size) in at.items():
                sizes[axis] = max(sizes.get(axis, 1), start + size)
            axes.update(at)
            scene, t, c, z = (at.get(axis, (0, 1))[0] for axis in "STCZ")
            blocks.setdefault((scene, t, c, z), []).append((at["Y"][0], at["X"][0], entry))
        self.require_axes(sizes, "STCZYXM")
        if not blocks:
            raise InputError(f"{self.path} holds no image; give another file.")
        self._blocks, said = blocks, _read_metadata(self._file.metadata())
        dtype = np.dtype(next(iter(blocks.values()))[0][2].dtype)
        self._samples = int(np.prod(dtype.shape)) if dtype.shape else 1
        scenes = sorted({scene for scene, _, _, _ in blocks})
        self._scenes, self._corners, positions = scenes, [], []
        for scene in scenes:
            tiles = [each for key, some in blocks.items() if key[0] == scene for each in some]
            top, left = min(y for y, _, _ in tiles), min(x for _, x, _ in tiles)
            ends = [(y + _length(entry, "Y"), x + _length(entry, "X")) for y, x, entry in tiles]
            lengths = {axis.lower(): size for axis, size in sizes.items() if axis in axes & set("TCZ")}
            if self._samples > 1:
                lengths["c"] = lengths.get("c", 1) * self._samples
            lengths |= {"y": max(y for y, _ in ends) - top, "x": max(x for _, x in ends) - left}
            names = said["names"] if len(said["names"]) == lengths.get("c", 1) else ()
            self._corners.append((top, left))
            positions.append(
                make_position(
                    f"scene {scene}" if len(scenes) > 1 else "",
                    lengths,
                    dtype.base,
                    pixel_size=said["pixel_size"],
                    interval=said["interval"] if "t" in lengths else None,
                    channel_names=names,
                )
            )
        self.positions = tuple(positions)

    def read(self, position: int, t: int, c: int, z: int) -> NDArray[Any]:  # noqa: D102
        seen, (top, left) = self.positions[position], self._corners[position]
        channel, sample = divmod(c, self._samples)
        plane = np.zeros(seen.shape[3:], seen.dtype)
        for y, x, entry in self._blocks.get((self._scenes[position], t, channel, z), ()):
            with self.refusing():
                tile = self._decode(entry)[..., sample]
                plane[y - top : y - top + tile.shape[0], x - left : x - left + tile.shape[1]] = tile
        return plane

    def file_of(self, position: int, t: int, c: int, z: int) -> Path | None:  # noqa: D102
        return Path(self.path) if (self._scenes[position], t, c // self._samples, z) in self._blocks else None

    def _decode(self, entry: Any) -> NDArray[Any]:
        """Pixels of a block, as (y, x, sample)."""
        shape = (_length(entry, "Y"), _length(entry, "X"), self._samples)
        with self.lock:
            segment = entry.data_segment()
            if entry.compression not in (_ZSTD, _ZSTD_WITH_HEADER):
                return np.asarray(segment.data(resize=False)).reshape(shape)
            data = segment.data(raw=True)
        header = data[0] if entry.compression == _ZSTD_WITH_HEADER else 0
        apart = header >= 3 and data[1] == 1 and data[2] & _BYTES_APART
        found = np.frombuffer(numcodecs.zstd.decompress(data[header:]), np.uint8)
        if apart:
            found = np.ascontiguousarray(found.reshape(2, -1).T)
        pixels: NDArray[Any] = found.reshape(-1).view(np.dtype(entry.dtype).base).reshape(shape)
        stored = [2, 1, 0, 3][: self._samples]  # blue, green, red
        return pixels[..., stored] if self._samples >= 3 else pixels


def _length(entry: Any, axis: str) -> int:
    return next(int(each.size) for each in entry.dimension_entries if each.dimension == axis)


def _read_metadata(text: str) -> dict[str, Any]:
    root = parse_xml(text)
    said: dict[str, Any] = {"pixel_size": (None, None, None), "interval": None, "names": ()}
    if root is None:
        return said
    distances = {
        each.get("Id"): positive(each.findtext("Value")) for each in root.iterfind(".//Scaling/Items/Distance")
    }
    metres = (distances.get(axis) for axis in "ZYX")
    said["pixel_size"] = tuple(None if size is None else float(f"{size * 1e6:.9g}") for size in metres)
    said["interval"] = positive(root.findtext(".//Dimensions/T/Positions/Interval/Increment"))
    names = tuple(each.get("Name") or "" for each in root.iterfind(".//Information/Image/Dimensions/Channels/Channel"))
    said["names"] = names if all(names) else ()
    return said
