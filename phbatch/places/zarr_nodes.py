"""Opening Zarr arrays and groups, the one door to them: on a disk with the codecs of zarrs, elsewhere with zarr's own.

The latter is guarded (`phbatch.places.decoding`); of the former, chunks are looked at first (`phbatch.places.guard`).
"""

from __future__ import annotations

import os
import re
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import zarr
from zarr.abc.store import Store
from zarr.buffer.cpu import Buffer
from zarr.storage import LocalStore, MemoryStore, StorePath

from phbatch.places.decoding import GuardedCodecPipeline
from phbatch.places.guard import require_harmless_codecs

_OS_ERROR = re.compile(r"os error (\d+)")
ONE_AT_A_TIME = threading.RLock()
"""Held while what holds for the whole process is changed for a moment: zarr's configuration, and what is warned of."""

_PIPELINES = {
    True: "zarrs.ZarrsCodecPipeline",
    False: f"{GuardedCodecPipeline.__module__}.{GuardedCodecPipeline.__qualname__}",
}


@contextmanager
def codec_pipeline(*, fast: bool) -> Iterator[None]:
    """While arrays are opened inside, they get the codec pipeline of local places where `fast`, and else zarr's own.

    Chunks of nothing but the fill value are left out when they are written, whatever the process is configured to do.
    """
    with (
        ONE_AT_A_TIME,
        zarr.config.set({"codec_pipeline.path": _PIPELINES[fast], "array.write_empty_chunks": False}),
        warnings.catch_warnings(),
    ):
        # zarrs falls back to zarr's own pipeline for codecs and dtypes that it does not know, and says so.
        warnings.filterwarnings("ignore", message="Array is unsupported by ZarrsCodecPipeline")
        yield


_DOCUMENTS = ("zarr.json", ".zgroup", ".zarray", ".zattrs", ".zmetadata")
_MOST_OPENED = 64
_opened: dict[tuple[tuple[bytes | None, ...], bool], zarr.Array[Any] | zarr.Group] = {}
"""Nodes that were opened to be read, by their documents: of a plate, hundreds have the same."""


def limit_threads(count: int) -> None:
    """Let codecs use at most so many threads in this process."""
    zarr.config.set({"threading.max_workers": count})


def open_node(
    store: Store | str, node: str, mode: str, *, fast: bool, document: bytes | None = None
) -> zarr.Array[Any] | zarr.Group:
    """Open a Zarr array or group of a store.

    Parameters
    ----------
    store, node, mode
        As zarr takes them.
    fast : bool
        Whether with the codecs of zarrs.
    document : bytes, optional
        What lies in its ``zarr.json``, which then is not asked for.

    Raises
    ------
    FileNotFoundError
        Nothing is there, or it is no Zarr.
    """
    documents = _read_documents(Path(store) / node) if isinstance(store, str) and mode == "r" else ()
    if any(documents):
        alike = _opened.get((documents, fast))
        if alike is not None:
            return _copied(alike, StorePath(LocalStore(str(store), read_only=True), node))
    found = _open(store, node, mode, document, fast=fast)
    if any(documents) and _read_documents(Path(str(store)) / node) == documents:
        with ONE_AT_A_TIME:
            while len(_opened) >= _MOST_OPENED:
                del _opened[next(iter(_opened))]
            _opened[documents, fast] = _copied(found, found.store_path)
    return found


def _copied(node: zarr.Array[Any] | zarr.Group, at: StorePath) -> zarr.Array[Any] | zarr.Group:
    """The node at a place; whoever changes its attributes changes no other's."""
    if isinstance(node, zarr.Array):
        return reopen(node, at)
    metadata = replace(node.metadata, attributes=deepcopy(node.metadata.attributes))
    return zarr.Group(zarr.AsyncGroup(metadata, at))


def reopen(alike: zarr.Array[Any], at: StorePath, *, empty_chunks: bool = False) -> zarr.Array[Any]:
    """The array at another place whose metadata are those of one that is open: nothing is read or parsed.

    Parameters
    ----------
    alike : zarr.Array
        The one that is open.
    at : StorePath
        The place.
    empty_chunks : bool
        Whether chunks of nothing but the fill value are written, too.
    """
    fast = isinstance(at.store, LocalStore) and _suits_zarrs(alike)
    metadata: Any = alike.metadata.update_attributes(deepcopy(alike.metadata.attributes))
    with codec_pipeline(fast=fast):
        return zarr.Array(zarr.AsyncArray(metadata, at, {"write_empty_chunks": empty_chunks}))


def _read_documents(folder: Path) -> tuple[bytes | None, ...]:
    """What the metadata of a node say, byte by byte."""
    found: list[bytes | None] = []
    for name in _DOCUMENTS:
        try:
            found.append((folder / name).read_bytes())
        except OSError:
            found.append(None)
    return tuple(found)


def _open(
    store: Store | str, node: str, mode: str, document: bytes | None, *, fast: bool
) -> zarr.Array[Any] | zarr.Group:
    with codec_pipeline(fast=fast):
        found = None
        if document is not None and not isinstance(store, str):
            found = _open_by_document(document, store, node, mode)
        if found is None:
            found = zarr.open(store, path=node, mode=mode)  # type: ignore[arg-type]
    if isinstance(found, zarr.Array):
        require_harmless_codecs(found)
    if isinstance(found, zarr.Array) and not _suits_zarrs(found):
        with codec_pipeline(fast=False):
            found = zarr.open(store, path=node, mode=mode)  # type: ignore[arg-type]
    return found


def _open_by_document(document: bytes, store: Store, node: str, mode: str) -> zarr.Array[Any] | zarr.Group | None:
    """The node; None where something is wrong with its document, which zarr says."""
    if store.read_only and mode != "r":
        return None
    try:
        found = zarr.open(MemoryStore({"zarr.json": Buffer.from_bytes(document)}), mode="r")
    except Exception:
        return None
    return _copied(found, StorePath(store if mode != "r" or store.read_only else store.with_read_only(True), node))


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


def naming(dimensions: Sequence[str], zarr_format: int) -> dict[str, Any]:
    """Names of an array's dimensions, as xarray finds them, as arguments of zarr's ``create_array``.

    Examples
    --------
    >>> naming("yx", 3), naming("yx", 2)
    ({'dimension_names': ['y', 'x']}, {'attributes': {'_ARRAY_DIMENSIONS': ['y', 'x']}})
    """
    names = list(dimensions)
    return {"attributes": {"_ARRAY_DIMENSIONS": names}} if zarr_format == 2 else {"dimension_names": names}


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
