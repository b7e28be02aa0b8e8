"""Opening Zarr stores: local paths with the fast zarrs codec pipeline, URLs through fsspec with zarr's own."""

from __future__ import annotations

import shutil
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import fsspec
import zarr

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
    """One spelling per place: URLs without a trailing slash, local paths absolute."""
    return path.rstrip("/") if is_url(path) else str(local_path(path))


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


def open_node(path: str, node: str = "", mode: str = "r") -> zarr.Array[Any] | zarr.Group:
    """Open a Zarr array or group.

    Raises
    ------
    FileNotFoundError
        Nothing is there, or it is no Zarr.
    """
    with codec_pipeline(path):
        found = zarr.open(path, path=node, mode=mode)  # type: ignore[arg-type]
    if isinstance(found, zarr.Array) and not _suits_zarrs(found):
        with codec_pipeline(path, fast=False):
            found = zarr.open(path, path=node, mode=mode)  # type: ignore[arg-type]
    return found


def _suits_zarrs(array: zarr.Array[Any]) -> bool:
    """Whether zarrs reads the array: it refuses foreign byte order and Fortran order when the first chunk is read."""
    return array.dtype.isnative and getattr(array.metadata, "order", "C") == "C"


def list_files(path: str) -> list[tuple[str, int, str]]:
    """Every file under a place: its key, its size in bytes, and its modification time or etag."""
    if is_url(path):
        filesystem, root = fsspec.core.url_to_fs(path)
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
