"""What is looked at before a stranger's chunk is decoded: the codec must not run code, the chunk must not be a bomb."""

from __future__ import annotations

from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import zarr
from zarr.storage import LocalStore

from phbatch.errors import InputError

_EXECUTING = ("pickle",)
"""Codecs of numcodecs that run what the chunk says."""

_SLACK_BYTES = 1 << 20
_WIDEST_FILTER = 8  # a filter may turn one byte of a pixel into eight


def require_harmless_codecs(array: zarr.Array[Any]) -> None:
    """Refuse an array whose decoding would run code that the array brings with it.

    Raises
    ------
    InputError
        Its metadata name such a codec.
    """
    for codec in (*array.filters, *array.compressors):
        name = str(getattr(codec, "codec_id", type(codec).__name__)).lower()
        if any(word in name for word in _EXECUTING):
            raise InputError(
                f"the array is stored with the codec {name!r}, which runs what it reads; it is not opened."
            )


def require_decodable(array: zarr.Array[Any], selection: tuple[slice, ...]) -> None:
    """Refuse local chunks that say of themselves that they decode to more than a chunk.

    The sizes in the headers of Blosc, LZ4 and Zstandard and at the end of gzip are compared with the chunk's; chunks
    inside of shards, on object stores, or of codecs and writers that do not state a size are not looked at.

    Raises
    ------
    InputError
        Names the first such chunk.
    """
    codec = next(iter(array.compressors[-1:]), None)
    name = str(getattr(codec, "codec_id", None) or type(codec).__name__.removesuffix("Codec")).lower()
    store = array.store_path.store
    if name not in _STATED or array.shards or not isinstance(store, LocalStore):
        return
    limit = prod(array.chunks) * array.dtype.itemsize * (_WIDEST_FILTER if array.filters else 1) + _SLACK_BYTES
    folder = Path(store.root) / array.path
    ranges = (
        range(part.start // chunk, -(-part.stop // chunk)) for part, chunk in zip(selection, array.chunks, strict=True)
    )
    for coordinates in product(*ranges):
        key = array.metadata.encode_chunk_key(coordinates)
        size = _stated_bytes(folder / key, name)
        if size > limit:
            raise InputError(
                f"chunk {key} says that it holds {size} bytes and a chunk of the array has {limit - _SLACK_BYTES} at"
                " most; restore it from a copy."
            )


def _stated_bytes(file: Path, name: str) -> int:
    """Size that a chunk says it decodes to; 0 where it does not say, or is absent."""
    try:
        with file.open("rb") as opened:
            if name == "gzip":
                opened.seek(-4, 2)
            return _STATED[name](opened.read(18))
    except OSError:
        return 0


def _zstd_bytes(head: bytes) -> int:
    """Frame_Content_Size, RFC 8878, section 3.1.1.1."""
    if len(head) < 6 or head[:4] != b"\x28\xb5\x2f\xfd":
        return 0
    single = head[4] >> 5 & 1
    width = (single, 2, 4, 8)[head[4] >> 6]
    at = 5 + (1 - single) + (0, 1, 2, 4)[head[4] & 3]
    return int.from_bytes(head[at : at + width], "little") + (256 if width == 2 else 0)


_STATED = {
    "blosc": lambda head: int.from_bytes(head[4:8], "little"),
    "lz4": lambda head: int.from_bytes(head[:4], "little"),
    "gzip": lambda tail: int.from_bytes(tail[:4], "little"),
    "zstd": _zstd_bytes,
}
