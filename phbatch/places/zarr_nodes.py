"""Opening Zarr arrays and groups, the one door to them: on a disk with the codecs of zarrs, elsewhere with zarr's own.

The latter is guarded (`phbatch.places.decoding`); of the former, chunks are looked at first (`phbatch.places.guard`).
"""

from __future__ import annotations

import os
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from typing import Any

import zarr
from zarr.abc.store import Store

from phbatch.places.decoding import GuardedCodecPipeline
from phbatch.places.guard import require_harmless_codecs

_OS_ERROR = re.compile(r"os error (\d+)")
_CONFIG_LOCK = threading.RLock()
_PIPELINES = {
    True: "zarrs.ZarrsCodecPipeline",
    False: f"{GuardedCodecPipeline.__module__}.{GuardedCodecPipeline.__qualname__}",
}


@contextmanager
def codec_pipeline(*, fast: bool) -> Iterator[None]:
    """While arrays are opened inside, they get the codec pipeline of local places where `fast`, and else zarr's own."""
    with (
        _CONFIG_LOCK,
        zarr.config.set({"codec_pipeline.path": _PIPELINES[fast]}),
        warnings.catch_warnings(),
    ):
        # zarrs falls back to zarr's own pipeline for codecs and dtypes that it does not know, and says so.
        warnings.filterwarnings("ignore", message="Array is unsupported by ZarrsCodecPipeline")
        yield


def limit_threads(count: int) -> None:
    """Let codecs use at most so many threads in this process."""
    zarr.config.set({"threading.max_workers": count})


def open_node(store: Store | str, node: str, mode: str, *, fast: bool) -> zarr.Array[Any] | zarr.Group:
    """Open a Zarr array or group of a store.

    Raises
    ------
    FileNotFoundError
        Nothing is there, or it is no Zarr.
    """
    with codec_pipeline(fast=fast):
        found = zarr.open(store, path=node, mode=mode)  # type: ignore[arg-type]
    if isinstance(found, zarr.Array):
        require_harmless_codecs(found)
    if isinstance(found, zarr.Array) and not _suits_zarrs(found):
        with codec_pipeline(fast=False):
            found = zarr.open(store, path=node, mode=mode)  # type: ignore[arg-type]
    return found


def _suits_zarrs(array: zarr.Array[Any]) -> bool:
    """Whether zarrs reads the array: it refuses foreign byte order and Fortran order when the first chunk is read."""
    return array.dtype.isnative and getattr(array.metadata, "order", "C") == "C"


def system_error(error: Exception) -> OSError | None:
    """The system's error that a message of a Rust library such as zarrs ends with; None where it ends otherwise.

    Examples
    --------
    >>> system_error(RuntimeError("cannot open the chunk: Too many open files (os error 24)"))
    OSError(24, 'Too many open files')
    """
    number = _OS_ERROR.search(str(error))
    return OSError(int(number[1]), os.strerror(int(number[1]))) if number else None


def stored_lengths(array: zarr.Array[Any]) -> tuple[int, ...]:
    """Lengths of what one stored object holds: a chunk, or a shard."""
    return array.shards or array.chunks


def chunk_keys(array: zarr.Array[Any], selection: tuple[slice, ...]) -> Iterator[str]:
    """Keys, within the array, of the stored objects that a selection touches."""
    ranges = (
        range(part.start // length, -(-part.stop // length))
        for part, length in zip(selection, stored_lengths(array), strict=True)
    )
    for coordinates in product(*ranges):
        yield array.metadata.encode_chunk_key(coordinates)
