"""What is looked at before a stranger's chunk is decoded: the codec must not run code, the chunk must not be a bomb."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import product
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.abc.codec import Codec
from zarr.storage import LocalStore

from phbatch.words.errors import InputError

_EXECUTING = ("pickle",)
"""Codecs of numcodecs that run what the chunk says."""

_SLACK_BYTES = 1 << 20
_EMPTY = 2**64 - 1  # offset of a chunk that a shard does not hold

WIDEST_FILTER = 8
"""A filter may turn one byte of a pixel into so many."""


def require_harmless_codecs(array: zarr.Array[Any]) -> None:
    """Refuse an array whose decoding would run code that the array brings with it.

    Raises
    ------
    InputError
        Its metadata name such a codec.
    """
    for codec in (*array.filters, *array.compressors):
        name = _name_of(codec)
        if any(word in name for word in _EXECUTING):
            raise InputError(
                f"the array is stored with the codec {name!r}, which runs what it reads; it is not opened."
            )


def require_decodable(array: zarr.Array[Any], selection: tuple[slice, ...]) -> None:
    """Refuse local chunks that say that they decode to more than a chunk; others are looked at when they are decoded.

    The sizes in the headers of Blosc, LZ4 and Zstandard and at the end of gzip are compared with the chunk's; chunks of
    codecs and writers that do not state a size are not looked at.

    Raises
    ------
    InputError
        Names the first such chunk.
    """
    codec = next(iter(array.compressors[-1:]), None)
    store = array.store_path.store
    if _name_of(codec) not in _STATED or not isinstance(store, LocalStore):
        return
    limit = prod(array.chunks) * array.dtype.itemsize * (WIDEST_FILTER if array.filters else 1)
    for key, span in _encoded_chunks(array, Path(store.root) / array.path, selection):
        try:
            with (Path(store.root) / array.path / key).open("rb") as file:
                head, tail = _ends(file, span)
        except OSError:
            continue
        require_size(f"chunk {key}", stated_bytes(codec, head, tail), limit)


def read_whole(array: zarr.Array[Any]) -> NDArray[Any]:
    """A small array, whose chunks are looked at first.

    Raises
    ------
    InputError
        As `require_decodable`.
    """
    require_decodable(array, tuple(slice(0, size) for size in array.shape))
    return np.asarray(array[:])


def require_size(name: str, stated: int, limit: int) -> None:
    """Refuse a chunk that would decode to more than its array's chunks have.

    Raises
    ------
    InputError
        Names the chunk.
    """
    if stated > limit + _SLACK_BYTES:
        raise InputError(
            f"{name} says that it holds {stated} bytes and a chunk of the array has {limit} at most; restore it from a"
            " copy."
        )


def stated_bytes(codec: Any, head: bytes, tail: bytes) -> int:
    """Size that a chunk says it decodes to, by its first 18 and last 4 bytes; 0 where it does not say."""
    name = _name_of(codec)
    return _STATED[name](tail if name == "gzip" else head) if name in _STATED else 0


def _name_of(codec: Any) -> str:
    """Name in the metadata of Zarr 3 or 2, the same for both; empty for no codec."""
    if codec is None:
        return ""
    name = codec.to_dict()["name"] if isinstance(codec, Codec) else codec.get_config()["id"]
    return str(name).removeprefix("numcodecs.").lower()


Span = tuple[int, int]
"""Offset and length in bytes."""


def _encoded_chunks(
    array: zarr.Array[Any], folder: Path, selection: tuple[slice, ...]
) -> Iterator[tuple[str, Span | None]]:
    """Key of the object that holds each chunk of a selection, and where in it; None where it is the whole object."""
    per_object = tuple(shard // chunk for shard, chunk in zip(array.shards or array.chunks, array.chunks, strict=True))
    ranges = (
        range(part.start // chunk, -(-part.stop // chunk)) for part, chunk in zip(selection, array.chunks, strict=True)
    )
    indices: dict[str, NDArray[np.uint64] | None] = {}
    for coordinates in product(*ranges):
        outer = tuple(at // count for at, count in zip(coordinates, per_object, strict=True))
        key = array.metadata.encode_chunk_key(outer)
        if not array.shards:
            yield key, None
            continue
        if key not in indices:
            indices[key] = _shard_index(array, folder / key, per_object)
        index = indices[key]
        if index is not None:
            inner = tuple(at % count for at, count in zip(coordinates, per_object, strict=True))
            offset, length = (int(number) for number in index[inner])
            if offset != _EMPTY:
                yield key, (offset, length)


def _shard_index(array: zarr.Array[Any], file: Path, per_object: tuple[int, ...]) -> NDArray[np.uint64] | None:
    """Offsets and lengths of the chunks in a shard; None where it is absent, torn, or its index is encoded otherwise.

    https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/index.html
    """
    metadata: Any = array.metadata.to_dict()
    sharding = metadata["codecs"][0]["configuration"]
    names = [codec["name"] for codec in sharding["index_codecs"]]
    if names not in (["bytes"], ["bytes", "crc32c"]):
        return None
    size, checksum = 16 * prod(per_object), 4 * (len(names) - 1)
    try:
        with file.open("rb") as opened:
            if sharding.get("index_location", "end") == "end":
                opened.seek(-size - checksum, os.SEEK_END)
            data = opened.read(size)
    except OSError:
        return None
    return np.frombuffer(data, "<u8").reshape(*per_object, 2) if len(data) == size else None


def _ends(file: BinaryIO, span: Span | None) -> tuple[bytes, bytes]:
    """First 18 and last 4 bytes of a chunk in a file; nothing where the file does not hold it whole."""
    size = file.seek(0, os.SEEK_END)
    offset, length = span or (0, size)
    if offset + length > size or length < 4:
        return b"", b""
    file.seek(offset)
    head = file.read(min(18, length))
    file.seek(offset + length - 4)
    return head, file.read(4)


def _zstd_bytes(head: bytes) -> int:
    """Frame_Content_Size, RFC 8878, section 3.1.1.1."""
    if len(head) < 6 or head[:4] != b"\x28\xb5\x2f\xfd":
        return 0
    single = head[4] >> 5 & 1
    width = (single, 2, 4, 8)[head[4] >> 6]
    at = 5 + (1 - single) + (0, 1, 2, 4)[head[4] & 3]
    return int.from_bytes(head[at : at + width], "little") + (256 if width == 2 else 0)


_STATED: dict[str, Callable[[bytes], int]] = {
    "blosc": lambda head: int.from_bytes(head[4:8], "little"),
    "lz4": lambda head: int.from_bytes(head[:4], "little"),
    "gzip": lambda tail: int.from_bytes(tail, "little"),
    "zstd": _zstd_bytes,
}
