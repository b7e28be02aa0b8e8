"""Whole chunks of an array become the bytes of its objects, in memory, to be written by whoever knows the place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import zarr
from numpy.typing import NDArray
from zarr.abc.buffer import Buffer
from zarr.storage import MemoryStore, StorePath

from phbatch.places.direct import DirectChunks
from phbatch.places.zarr_nodes import chunk_keys, reopen


@dataclass(frozen=True, eq=False)
class Encoded:
    """What `Sink.encode` made, for `Sink.place`.

    Attributes
    ----------
    name : str
        Path of the array within the output.
    objects : mapping of str to memoryview
        Bytes of the objects by their keys within the array.
    """

    name: str
    objects: Mapping[str, memoryview]


class Encoder:
    """Encodes regions of one array, from many threads, of which no two share a chunk or shard.

    Plain chunks are encoded in the thread that asks (`phbatch.places.direct`), all others by zarr itself, and not by
    zarrs, which writes into files only, through the page cache and not atomically; whose threads order the chunks of a
    shard differently every time; and which in one thread is hardly faster, but for chunks smaller than 256 x 256 pixels
    in a shard, which phbatch does not make of larger frames.

    Parameters
    ----------
    name : str
        Path of the array within the output.
    array : zarr.Array
        The array itself; it is not written.
    """

    def __init__(self, name: str, array: zarr.Array[Any]) -> None:
        self._name = name
        self._stored: dict[str, Buffer] = {}
        self._direct = DirectChunks.of(array)
        if self._direct is None:
            self._array = reopen(array, StorePath(MemoryStore(self._stored)), empty_chunks=True)

    def encode(self, selection: tuple[slice, ...], values: NDArray[Any]) -> Encoded:
        """Encode whole chunks or shards; what zarr encodes is taken out of its store again."""
        if self._direct is not None:
            return Encoded(self._name, self._direct.encode(selection, values))
        self._array[selection] = values
        keys = chunk_keys(self._array, selection)
        return Encoded(self._name, {key: self._stored.pop(key).as_numpy_array().data for key in keys})
