"""Opening Zarr stores, the one door to them: local paths with the fast zarrs codec pipeline, URLs with zarr's own.

``s3://``, ``gs://`` and ``http(s)://`` go through obstore (`phbatch.storage.remote`), other URLs through fsspec.
"""

from __future__ import annotations

import shutil
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import fsspec
import zarr
from zarr.abc.store import Store
from zarr.storage import FsspecStore

from phbatch.config import StorageOptions
from phbatch.storage.guard import require_harmless_codecs
from phbatch.storage.remote import (
    RemoteStore,
    is_object_url,
    is_web_server,
    list_objects,
    open_object_store,
    options_of,
    read_object,
    remove_objects,
    require_no_secret,
    write_object,
)

_CONFIG_LOCK = threading.RLock()
_PIPELINES = {True: "zarrs.ZarrsCodecPipeline", False: "zarr.core.codec_pipeline.BatchedCodecPipeline"}


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
    return FsspecStore.from_url(path, storage_options=options_of(urlsplit(path).scheme, options))


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
        return sorted(
            (
                key[len(root) :].lstrip("/"),
                int(info["size"] or 0),
                str(info.get("ETag") or info.get("created") or info.get("LastModified") or ""),
            )
            for key, info in found.items()
        )
    root_path = local_path(path)
    files = []
    for file in root_path.rglob("*"):
        if file.is_file():
            status = file.stat()
            files.append((file.relative_to(root_path).as_posix(), status.st_size, str(status.st_mtime_ns)))
    return sorted(files)


def exists(path: str, options: StorageOptions = None) -> bool:
    """Whether anything lies at a place."""
    if is_object_url(path):
        return bool(list_files(path, options))
    if is_url(path):
        filesystem, root = _open_filesystem(path, options)
        return bool(filesystem.exists(root))
    return local_path(path).exists()


def read_file(path: str, key: str, options: StorageOptions = None) -> bytes:
    """All bytes of a file under a place."""
    if is_object_url(path):
        return read_object(path, key, options)
    if is_url(path):
        filesystem, root = _open_filesystem(path, options)
        return bytes(filesystem.cat_file(f"{root}/{key}"))
    return (local_path(path) / key).read_bytes()


def write_remote_file(path: str, key: str, data: bytes, options: StorageOptions = None) -> None:
    """Write a file under a URL by one request."""
    if is_object_url(path):
        write_object(path, key, data, options)
    else:
        filesystem, root = _open_filesystem(path, options)
        filesystem.pipe_file(f"{root}/{key}", data)


def remove_files(path: str, options: StorageOptions = None) -> None:
    """Remove everything at a place."""
    if is_object_url(path):
        remove_objects(path, options)
    elif is_url(path):
        filesystem, root = _open_filesystem(path, options)
        filesystem.rm(root, recursive=True)
    else:
        shutil.rmtree(local_path(path))


def _open_filesystem(path: str, options: StorageOptions) -> tuple[Any, str]:
    filesystem, root = fsspec.core.url_to_fs(path, **options_of(urlsplit(path).scheme, options))
    return filesystem, root
