"""Chunks of the usual layouts, encoded and decoded by numcodecs in the thread that asks.

zarr hands each call to the one thread of its event loop and each chunk to another, which costs more than to compress a
small chunk. What is stored is the same, byte by byte, and whatever is not plain is left to zarr.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, BytesCodec, ZstdCodec

from phbatch.places.guard import stated_bytes

_HEAD = 18
_BLOSC_HEAD = 16
_SHUFFLES = {"noshuffle": 0, "shuffle": 1, "bitshuffle": 2}


@dataclass(frozen=True)
class DirectChunks:
    """How the chunks of an array are stored that has neither shards nor filters, and pixels in native order.

    Attributes
    ----------
    chunks : tuple of int
        Lengths of a chunk.
    dtype : numpy.dtype
        Of the pixels.
    fill_value : number
        Of what is not stored, and of what a chunk has beyond the end of the array.
    codec : numcodecs codec, or None
        Blosc, Zstandard, or nothing.
    typed : bool
        Whether the codec is given pixels (Zarr 2), and not bytes.
    key_of : callable
        Key of the chunk at some coordinates.
    """

    chunks: tuple[int, ...]
    dtype: np.dtype[Any]
    fill_value: Any
    codec: Any
    typed: bool
    key_of: Callable[[tuple[int, ...]], str]

    @classmethod
    def of(cls, array: zarr.Array[Any]) -> DirectChunks | None:
        """None where zarr must encode and decode."""
        dtype, version_2 = np.dtype(array.dtype), array.metadata.zarr_format == 2
        if dtype.kind not in "uif" or not dtype.isnative or array.shards is not None or array.order != "C":
            return None
        if array.ndim == 0 or len(array.filters) or len(array.compressors) > 1:
            return None
        if not version_2 and not _is_native(array.serializer):
            return None
        stored = next(iter(array.compressors), None)
        codec = _of_version_2(stored) if version_2 else _of_version_3(stored)
        if codec is NotImplemented:
            return None
        fill_value: Any = 0 if array.fill_value is None else array.fill_value
        return cls(array.chunks, dtype, fill_value, codec, version_2, array.metadata.encode_chunk_key)

    def encode(self, selection: tuple[slice, ...], values: NDArray[Any]) -> dict[str, memoryview]:
        """Bytes of whole chunks by their keys; beyond the end of the array they are filled up."""
        return {key: memoryview(self._encode(values[part])) for key, part, _ in self._touched(selection)}

    def read(self, folder: Path, selection: tuple[slice, ...]) -> NDArray[Any] | None:
        """A selection of the array in a folder; None where a chunk is damaged, or may be.

        Raises
        ------
        OSError
            A chunk cannot be read.
        """
        values = np.empty(tuple(part.stop - part.start for part in selection), self.dtype)
        for key, part, inside in self._touched(selection):
            target = values[part]
            try:
                data = (folder / key).read_bytes()
            except FileNotFoundError:
                target[...] = self.fill_value
                continue
            whole = target.shape == self.chunks and target.flags.c_contiguous
            chunk = target if whole else np.empty(self.chunks, self.dtype)
            if not self._is_sound(data, chunk.nbytes) or not self._decode(data, chunk):
                return None
            if not whole:
                target[...] = chunk[inside]
        return values

    def _encode(self, part: NDArray[Any]) -> Any:
        if part.shape == self.chunks:
            chunk = np.ascontiguousarray(part, self.dtype)
        else:
            chunk = np.full(self.chunks, self.fill_value, self.dtype)
            chunk[tuple(map(slice, part.shape))] = part
        if self.codec is None:
            return chunk.tobytes()
        return self.codec.encode(chunk if self.typed else chunk.reshape(-1).view(np.uint8))

    def _decode(self, data: bytes, chunk: NDArray[Any]) -> bool:
        """Decode into a chunk; whether that could be done."""
        there = chunk.reshape(-1).view(np.uint8)
        try:
            if self.codec is None:
                there[...] = np.frombuffer(data, np.uint8)
            else:
                self.codec.decode(data, out=there)
        except Exception:  # zarr will find the same, and what it raises is known
            return False
        return True

    def _is_sound(self, data: bytes, size: int) -> bool:
        """Whether what a chunk says of its lengths is right."""
        if self.codec is None:
            return len(data) == size
        if self.codec.codec_id == "blosc":
            lengths = [int.from_bytes(data[at : at + 4], "little") for at in (4, 12)]
            return len(data) >= _BLOSC_HEAD and lengths == [size, len(data)]
        return stated_bytes(self.codec, data[:_HEAD], data[-4:]) == size

    def _touched(self, selection: tuple[slice, ...]) -> Iterator[tuple[str, tuple[slice, ...], tuple[slice, ...]]]:
        """Key of every chunk of a selection, where it lies in the selection, and what of the chunk does."""
        for coordinates in product(*map(_range_of, selection, self.chunks)):
            part, inside = [], []
            for at, length, asked in zip(coordinates, self.chunks, selection, strict=True):
                start, stop = max(asked.start, at * length), min(asked.stop, (at + 1) * length)
                part.append(slice(start - asked.start, stop - asked.start))
                inside.append(slice(start - at * length, stop - at * length))
            yield self.key_of(coordinates), tuple(part), tuple(inside)


def _range_of(part: slice, length: int) -> range:
    """Numbers of the chunks that a slice touches."""
    return range(part.start // length, -(-part.stop // length))


def _is_native(serializer: Any) -> bool:
    """Whether pixels are stored as they lie in memory."""
    if not isinstance(serializer, BytesCodec):
        return False
    endian = serializer.to_dict().get("configuration", {})
    return not endian or endian == {"endian": sys.byteorder}


def _of_version_2(codec: Any) -> Any:
    """The codec itself, where it is known."""
    return codec if codec is None or type(codec) in (numcodecs.Blosc, numcodecs.Zstd) else NotImplemented


def _of_version_3(codec: Any) -> Any:
    """The codec of numcodecs that one of zarr uses; NotImplemented where it is not known."""
    if codec is None:
        return None
    configuration: dict[str, Any] = codec.to_dict().get("configuration", {})
    if type(codec) is ZstdCodec:
        return numcodecs.Zstd(**configuration)
    if type(codec) is not BloscCodec:
        return NotImplemented
    try:
        return numcodecs.Blosc(**configuration | {"shuffle": _SHUFFLES[configuration["shuffle"]]})
    except TypeError:  # before 0.16 it has no type size, and zarr shuffles bytes as if they were pixels
        return NotImplemented
