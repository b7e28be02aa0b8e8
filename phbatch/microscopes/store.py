"""A recording's position as a Zarr array of which every chunk is a plane, and nothing is copied."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from zarr.abc.buffer import Buffer
from zarr.abc.store import ByteRequest, Store

from phbatch.microscopes.opening import open_recording
from phbatch.microscopes.recording import Index, Position, Recording, stamp
from phbatch.places.base import File, Place
from phbatch.words.errors import UsageError

if TYPE_CHECKING:
    from zarr.abc.buffer import BufferPrototype

_METADATA = "zarr.json"


@dataclass(frozen=True)
class RecordingPlace(Place):
    """Where a recording lies, as one of its positions is seen: an array with a chunk for each plane.

    Attributes
    ----------
    pattern : str or None
        Of names.
    axes : str or None
        Of a file that does not say what its dimensions are.
    position : str or None
        Number or name of the position; None where there is one alone.
    """

    pattern: str | None = None
    axes: str | None = None
    position: str | None = None

    remote: ClassVar[bool] = False
    writable: ClassVar[bool] = False

    @cached_property
    def recording(self) -> Recording:
        """Opened once, and not taken along to other processes."""
        return open_recording(Path(self.path), self.pattern, self.axes)

    @cached_property
    def number(self) -> int:
        """Of the position."""
        return choose_position(self.recording, self.position)

    @property
    def seen(self) -> Position:
        """The position."""
        return self.recording.positions[self.number]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("recording", "number")}

    def store(self) -> Store:  # noqa: D102
        return _RecordingStore(self)

    def open(self, node: str = "", mode: str = "r") -> Any:  # noqa: D102
        with self.pipeline(fast=False):
            return super().open(node, mode)

    def metadata_document(self) -> bytes:
        """``zarr.json`` of the array."""
        position = self.seen
        shape = [size for axis, size in zip("tczyx", position.shape, strict=True) if axis in position.axes]
        chunks = [size if axis in "yx" else 1 for axis, size in zip(position.axes, shape, strict=True)]
        document = {
            "zarr_format": 3,
            "node_type": "array",
            "shape": shape,
            "data_type": position.dtype.name,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunks}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "fill_value": 0,
            "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
            "dimension_names": list(position.axes),
            "attributes": {},
        }
        return json.dumps(document).encode()

    def index_of(self, key: str) -> Index | None:
        """The plane that a key means; None for any other."""
        first, *parts = key.split("/")
        axes, shape = self.seen.axes, self.seen.shape
        if first != "c" or len(parts) != len(axes) or not all(part.isdecimal() for part in parts):
            return None
        at = dict(zip(axes, map(int, parts), strict=True))
        if at["y"] or at["x"] or any(at.get(axis, 0) >= shape["tcz".index(axis)] for axis in "tcz"):
            return None
        return at.get("t", 0), at.get("c", 0), at.get("z", 0)

    def file_of(self, key: str) -> Path | None:
        """The file that holds a plane, by its key; None for no plane, and one that was never written."""
        index = self.index_of(key)
        return None if index is None else self.recording.file_of(self.number, *index)

    def holds(self, other: Place) -> bool:  # noqa: D102 - what is written beside files is in nobody's way
        return any(str(path) == other.path or str(path).startswith(f"{other.path}/") for path in self.recording.files)

    def files(self) -> list[File]:  # noqa: D102
        root = Path(self.path)
        return [
            (path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path), *stamp(path))
            for path in self.recording.files
        ]

    def keys(self) -> Iterator[str]:  # noqa: D102
        yield _METADATA
        position = self.seen
        lengths = dict(zip("tczyx", (*position.shape[:3], 1, 1), strict=True))
        for at in product(*(range(lengths[axis]) for axis in position.axes)):
            key = "/".join(("c", *map(str, at)))
            if self.file_of(key) is not None:
                yield key

    def names(self, folder: str = "") -> dict[str, bool]:  # noqa: D102
        return {} if folder else {_METADATA: False, "c": True}

    def stat(self, key: str) -> tuple[int, str]:  # noqa: D102
        path = Path(self.path) if key == _METADATA else self.file_of(key)
        if path is None:
            raise FileNotFoundError(f"{self.path} has no plane {key}")
        return stamp(path)

    def exists(self, key: str = "") -> bool:  # noqa: D102
        if key == _METADATA or not key:
            return any(path.exists() for path in self.recording.files[:1])
        return super().exists(key)

    def read(self, key: str) -> bytes:  # noqa: D102
        if key == _METADATA:
            return self.metadata_document()
        index = self.index_of(key)
        if index is None or self.recording.file_of(self.number, *index) is None:
            raise FileNotFoundError(f"{self.path} has no plane {key}")
        return bytes(self.plane(index).tobytes())

    def plane(self, index: Index) -> Any:
        """Pixels of a plane, little-endian."""
        found = self.recording.read(self.number, *index)
        return np.ascontiguousarray(found, found.dtype.newbyteorder("<"))

    def block(self, selection: tuple[slice, ...]) -> NDArray[Any]:
        """Pixels of a part of the array, in native byte order: plane by plane, in the thread that asks.

        Through zarr's event loop and a thread for each plane it would take longer than to read a plane. What was never
        written is 0.
        """
        position = self.seen
        at = dict(zip(position.axes, selection, strict=True))
        inner = at["y"], at["x"]
        whole = inner == (slice(0, position.shape[3]), slice(0, position.shape[4]))
        outer = [range(at[axis].start, at[axis].stop) if axis in at else range(1) for axis in "tcz"]
        shape = tuple(part.stop - part.start for part in selection)
        if whole and all(len(indices) == 1 for indices in outer):
            index = outer[0].start, outer[1].start, outer[2].start
            if self.recording.file_of(self.number, *index) is None:
                return np.zeros(shape, position.dtype)
            return self.recording.read(self.number, *index).reshape(shape)
        lengths = [part.stop - part.start for part in inner]
        found = np.zeros((*map(len, outer), *lengths), position.dtype)
        for place, (t, c, z) in zip(np.ndindex(*map(len, outer)), product(*outer), strict=True):
            if self.recording.file_of(self.number, t, c, z) is not None:
                found[place] = self.recording.read(self.number, t, c, z)[inner]
        return found.reshape(shape)

    def write(self, key: str, data: bytes) -> None:  # noqa: D102
        raise PermissionError(f"{self.path} is what a microscope wrote, and is only read")

    def remove(self, keys: Any) -> None:  # noqa: D102
        raise PermissionError(f"{self.path} is what a microscope wrote, and is only read")


class _RecordingStore(Store):
    """zarr's view of a recording; planes are read by threads, so that several are at once."""

    def __init__(self, place: RecordingPlace) -> None:
        super().__init__(read_only=True)
        self._place = place
        self._is_open = True

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _RecordingStore) and other._place == self._place

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        if key == _METADATA:
            return prototype.buffer.from_bytes(self._place.metadata_document())
        index = self._place.index_of(key)
        if index is None:
            return None
        return await asyncio.to_thread(self._read, index, prototype)

    def _read(self, index: Index, prototype: BufferPrototype) -> Buffer | None:
        place = self._place
        if place.recording.file_of(place.number, *index) is None:
            return None
        return prototype.buffer.from_array_like(place.plane(index).reshape(-1).view(np.uint8))

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        return [await self.get(key, prototype) for key, _ in key_ranges]

    async def exists(self, key: str) -> bool:
        return self._place.exists(key)

    supports_writes = supports_deletes = supports_listing = False

    async def set(self, key: str, value: Buffer) -> None:
        self._check_writable()

    async def delete(self, key: str) -> None:
        self._check_writable()

    async def list(self) -> AsyncIterator[str]:
        for key in self._place.keys():  # noqa: SIM118 - no mapping
            yield key

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        for key in self._place.keys():  # noqa: SIM118 - no mapping
            if key.startswith(prefix):
                yield key

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        for name in self._place.names(prefix):
            yield name


def choose_position(recording: Recording, asked: str | None) -> int:
    """Index of the position that is asked for by its number or name.

    Raises
    ------
    UsageError
        None is asked for and there are several, or there is none such.
    """
    names = [position.name for position in recording.positions]
    numbered = all(name.isdecimal() for name in names) and len(set(names)) == len(names)
    shown = ", ".join(name if numbered else f"{at} {name}".strip() for at, name in enumerate(names[:5]))
    shown += f" and {len(names) - 5} more" if len(names) > 5 else ""
    if asked is None:
        if len(names) == 1:
            return 0
        raise UsageError(
            f"{recording.path} holds {len(names)} positions ({shown}); choose one, such as --position"
            f" {names[0] if numbered else 0}."
        )
    if names.count(asked) == 1:
        return names.index(asked)
    if asked.isdecimal() and int(asked) < len(names):
        return int(asked)
    raise UsageError(f"--position {asked} is not in {recording.path}, whose positions are {shown}; choose one of them.")
