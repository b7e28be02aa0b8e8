"""Opening Zarr stores, the one door to them: local paths with the fast zarrs codec pipeline, URLs with zarr's own.

The latter is guarded (`phbatch.places.decoding`); of the former, chunks are looked at first (`phbatch.places.guard`).
``s3://``, ``gs://`` and ``http(s)://`` go through obstore (`phbatch.places.object_store`), other URLs through fsspec.
"""

from __future__ import annotations

import os
import re
import shutil
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import fsspec
import zarr
from zarr.abc.store import Store
from zarr.storage import FsspecStore

from phbatch.places.absence import NotesAbsence
from phbatch.places.decoding import GuardedCodecPipeline
from phbatch.places.durable import replace_file
from phbatch.places.guard import require_harmless_codecs
from phbatch.places.object_store import (
    RemoteStore,
    is_object_url,
    is_web_server,
    list_object_folder,
    list_objects,
    open_object_store,
    options_of,
    read_object,
    remove_objects,
    require_no_secret,
    stat_object,
    write_object,
)
from phbatch.words.settings import StorageOptions

REQUESTS_AT_ONCE = 8
"""Of one caller to an object store."""

_OS_ERROR = re.compile(r"os error (\d+)")
_CONFIG_LOCK = threading.RLock()
_PIPELINES = {
    True: "zarrs.ZarrsCodecPipeline",
    False: f"{GuardedCodecPipeline.__module__}.{GuardedCodecPipeline.__qualname__}",
}


class _FsspecStore(NotesAbsence, FsspecStore):
    """zarr's store over fsspec, which also notes what is not there."""


def is_url(path: str) -> bool:
    """Whether a path is an fsspec URL and not a place on a local disk.

    Examples
    --------
    >>> is_url("s3://bucket/a.zarr"), is_url("/data/a.zarr"), is_url("a.zarr")
    (True, False, False)
    """
    return "://" in path and urlsplit(path).scheme not in {"", "file"}


def local_path(path: str) -> Path:
    """Absolute path of a local place, without ``file://``."""
    return Path(path.removeprefix("file://")).expanduser().resolve()


def unresolved_path(path: str) -> Path:
    """As `local_path`, with links as they are spelled; what comes before a ``..`` is followed, since that must be."""
    place = Path.cwd() / Path(path.removeprefix("file://")).expanduser()
    parts = place.parts
    if ".." in parts:
        last = len(parts) - parts[::-1].index("..")
        place = Path(*parts[:last]).resolve().joinpath(*parts[last:])
    return place


def normalize_path(path: str) -> str:
    """One spelling per place: URLs without a trailing slash, local paths absolute.

    Raises
    ------
    UsageError
        A URL that holds a credential.
    """
    return require_no_secret(path).rstrip("/") if is_url(path) else str(local_path(path))


@contextmanager
def codec_pipeline(path: str, *, fast: bool = True) -> Iterator[None]:
    """While arrays are opened inside, they get the codec pipeline that suits the place; zarr's own where not `fast`."""
    with (
        _CONFIG_LOCK,
        zarr.config.set({"codec_pipeline.path": _PIPELINES[fast and not is_url(path)]}),
        warnings.catch_warnings(),
    ):
        # zarrs falls back to zarr's own pipeline for codecs and dtypes that it does not know, and says so.
        warnings.filterwarnings("ignore", message="Array is unsupported by ZarrsCodecPipeline")
        yield


def limit_threads(count: int) -> None:
    """Let codecs use at most so many threads in this process."""
    zarr.config.set({"threading.max_workers": count})


def open_store(path: str, options: StorageOptions = None) -> Store | str:
    """What zarr opens: a store for a URL, the path itself for a local place.

    Raises
    ------
    ImportError, ValueError
        The library of the URL's scheme is missing, or nobody knows the scheme.
    """
    if not is_url(path):
        return path
    if is_object_url(path):
        return RemoteStore(open_object_store(path, options), read_only=is_web_server(path))
    return _FsspecStore.from_url(path, storage_options=options_of(urlsplit(path).scheme, options))


def open_node(
    path: str, node: str = "", mode: str = "r", options: StorageOptions = None
) -> zarr.Array[Any] | zarr.Group:
    """Open a Zarr array or group.

    Raises
    ------
    FileNotFoundError
        Nothing is there, or it is no Zarr.
    """
    store = open_store(path, options)
    with codec_pipeline(path):
        found = zarr.open(store, path=node, mode=mode)  # type: ignore[arg-type]
    if isinstance(found, zarr.Array):
        require_harmless_codecs(found)
    if isinstance(found, zarr.Array) and not _suits_zarrs(found):
        with codec_pipeline(path, fast=False):
            found = zarr.open(store, path=node, mode=mode)  # type: ignore[arg-type]
    return found


def _suits_zarrs(array: zarr.Array[Any]) -> bool:
    """Whether zarrs reads the array: it refuses foreign byte order and Fortran order when the first chunk is read."""
    return array.dtype.isnative and getattr(array.metadata, "order", "C") == "C"


def list_files(path: str, options: StorageOptions = None) -> list[tuple[str, int, str]]:
    """Every file under a place: its key, its size in bytes, and its modification time or etag.

    A web server does not list: of it, the metadata files of the place alone are named.
    """
    if is_object_url(path):
        return list_objects(path, options)
    if is_url(path):
        filesystem, root = _open_filesystem(path, options)
        found = filesystem.find(root, detail=True)
        return sorted((key[len(root) :].lstrip("/"), *_size_and_stamp(info)) for key, info in found.items())
    return list(iterate_files(path, options))


def iterate_files(path: str, options: StorageOptions = None) -> Iterator[tuple[str, int, str]]:
    """As `list_files`, in the same order; of a local place, the names of one folder after the other are in memory."""
    if is_url(path):
        yield from list_files(path, options)
    elif local_path(path).is_dir():
        yield from _walk(local_path(path), "")


def _walk(folder: Path, prefix: str) -> Iterator[tuple[str, int, str]]:
    """Files below a folder in the order of their keys, in which a folder's name ends in a slash."""
    try:
        with os.scandir(folder) as found:
            entries = sorted(f"{each.name}/" if each.is_dir(follow_symlinks=False) else each.name for each in found)
    except PermissionError:
        return
    for name in entries:
        place = folder / name
        if name.endswith("/"):
            yield from _walk(place, prefix + name)
        elif place.is_file():
            status = place.stat()
            yield prefix + name, status.st_size, str(status.st_mtime_ns)


def list_folder(path: str, folder: str = "", options: StorageOptions = None) -> dict[str, bool]:
    """Names directly inside a folder of a place, and whether each is a folder; empty where nothing is there."""
    if is_object_url(path):
        return list_object_folder(path, folder, options)
    filesystem, root = _open_filesystem(path, options)
    try:
        found = filesystem.ls(f"{root}/{folder}" if folder else root, detail=True)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    return {str(info["name"]).rstrip("/").rpartition("/")[2]: info["type"] == "directory" for info in found}


def stat_file(path: str, key: str, options: StorageOptions = None) -> tuple[int, str]:
    """Size in bytes and modification time or etag of a file under a place, as in `list_files`.

    Raises
    ------
    FileNotFoundError
        It is not there.
    """
    if is_object_url(path):
        return stat_object(path, key, options)
    if is_url(path):
        filesystem, root = _open_filesystem(path, options)
        return _size_and_stamp(filesystem.info(f"{root}/{key}"))
    status = (local_path(path) / key).stat()
    return status.st_size, str(status.st_mtime_ns)


def exists(path: str, key: str = "", options: StorageOptions = None) -> bool:
    """Whether a file is under a place, or, without a key, whether anything is at the place."""
    if not key:
        return bool(list_folder(path, "", options)) if is_url(path) else local_path(path).exists()
    try:
        stat_file(path, key, options)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def read_file(path: str, key: str, options: StorageOptions = None) -> bytes:
    """All bytes of a file under a place."""
    if is_object_url(path):
        return read_object(path, key, options)
    if is_url(path):
        filesystem, root = _open_filesystem(path, options)
        return bytes(filesystem.cat_file(f"{root}/{key}"))
    return (local_path(path) / key).read_bytes()


def read_files(path: str, keys: Sequence[str], options: StorageOptions = None) -> list[bytes]:
    """All bytes of some files under a place, several asked for at once."""
    with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:
        return list(pool.map(lambda key: read_file(path, key, options), keys))


def write_file(path: str, key: str, data: bytes, options: StorageOptions = None) -> None:
    """Write a file under a place whole or not at all: by one request under a URL, by a rename on a disk."""
    if is_object_url(path):
        write_object(path, key, data, options)
    elif is_url(path):
        filesystem, root = _open_filesystem(path, options)
        filesystem.pipe_file(f"{root}/{key}", data)
    else:
        replace_file(local_path(path) / key, data)


def write_remote_files(path: str, files: Mapping[str, bytes], options: StorageOptions = None) -> None:
    """Write files under a URL by one request each, several at once; returns when all are there."""
    with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:
        list(pool.map(lambda key: write_file(path, key, files[key], options), files))


def remove_remote_files(path: str, keys: Sequence[str], options: StorageOptions = None) -> None:
    """Remove files under a URL."""
    if not keys:
        return
    if is_object_url(path):
        remove_objects(path, keys, options)
    else:
        filesystem, root = _open_filesystem(path, options)
        filesystem.rm([f"{root}/{key}" for key in keys])


def _open_filesystem(path: str, options: StorageOptions) -> tuple[Any, str]:
    given = options_of(urlsplit(path).scheme, options) if is_url(path) else {}
    filesystem, root = fsspec.core.url_to_fs(path, **given)
    filesystem.invalidate_cache()  # others write, too
    return filesystem, str(root).rstrip("/")


def _size_and_stamp(info: Mapping[str, Any]) -> tuple[int, str]:
    stamp = info.get("ETag") or info.get("created") or info.get("LastModified") or ""
    return int(info["size"] or 0), str(stamp)


def system_error(error: Exception) -> OSError | None:
    """The system's error that a message of a Rust library such as zarrs ends with; None where it ends otherwise.

    Examples
    --------
    >>> system_error(RuntimeError("cannot open the chunk: Too many open files (os error 24)"))
    OSError(24, 'Too many open files')
    """
    number = _OS_ERROR.search(str(error))
    return OSError(int(number[1]), os.strerror(int(number[1]))) if number else None


def free_bytes(path: str) -> int | None:
    """Bytes that a user may still write at a local place, which need not exist yet; None for URLs."""
    if is_url(path):
        return None
    place = local_path(path)
    return shutil.disk_usage(next(folder for folder in (place, *place.parents) if folder.exists())).free


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
