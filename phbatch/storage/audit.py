"""Looking after what an output holds besides pixels, and checking everything against its checksums."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import fsspec

from phbatch.errors import first_line
from phbatch.storage.durable import Mark, mark_of, mark_of_file, synchronize
from phbatch.storage.lock import PRIVATE
from phbatch.storage.store import is_url, local_path

_DOCUMENTS = ("zarr.json", ".zgroup", ".zarray", ".zattrs")
_AT_ONCE = 512  # objects whose checksums are under way, so that memory does not grow with their number


def record_small_objects(path: str, images: Iterable[str]) -> dict[str, Any]:
    """What is in an output besides the chunks of its images, made durable: enough to know it again, and to mend it.

    Parameters
    ----------
    path : str
        Local path or fsspec URL of the output.
    images : iterable of str
        Arrays whose chunks are left out.

    Returns
    -------
    dict
        ``documents``: texts of the metadata by key; ``objects``: sizes and checksums of all else.
    """
    filesystem, root = fsspec.core.url_to_fs(path)
    documents, objects = {}, {}
    if not is_url(path):
        synchronize(local_path(path).parent)
    for key in sorted(_small_keys(filesystem, str(root).rstrip("/"), "", frozenset(images))):
        if not is_url(path):
            synchronize(local_path(path) / key)
            synchronize((local_path(path) / key).parent)
        data = filesystem.cat_file(f"{root}/{key}")
        if key.rpartition("/")[2] in _DOCUMENTS:
            documents[key] = data.decode()
        else:
            objects[key] = mark_of(data)
    return {"documents": documents, "objects": objects}


def restore_document(path: str, key: str, text: str) -> None:
    """Write a document of the metadata as it was."""
    if is_url(path):
        filesystem, root = fsspec.core.url_to_fs(path)
        filesystem.pipe_file(f"{root}/{key}", text.encode())
        return
    target = local_path(path) / key
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = target.with_name(f"{target.name}.{os.getpid()}")
    scratch.write_bytes(text.encode())
    synchronize(scratch)
    scratch.replace(target)
    synchronize(target.parent)


def remove_group(path: str, name: str) -> None:
    """Remove a group of an output, with everything inside."""
    filesystem, root = fsspec.core.url_to_fs(path)
    if filesystem.exists(f"{root}/{name}"):
        filesystem.rm(f"{root}/{name}", recursive=True)


@dataclass(frozen=True)
class Expected:
    """An object as it should be.

    Attributes
    ----------
    owner : str
        Unit that wrote it.
    key : str
        Within the output.
    mark : (int, str)
        Its size and checksum.
    """

    owner: str
    key: str
    mark: Mark


def expected_objects(record: Mapping[str, Any]) -> Iterator[Expected]:
    """Every object that a record of the ledger tells of."""
    for key, (size, checksum) in record["objects"].items():
        yield Expected(record["unit"], key, (size, checksum))
    for key, text in record.get("documents", {}).items():
        yield Expected(record["unit"], key, mark_of(text.encode()))


def find_problems(path: str, objects: Iterable[Expected], *, workers: int) -> Iterator[tuple[Expected, str]]:
    """Check objects against their sizes and checksums.

    Parameters
    ----------
    path : str
        Local path or fsspec URL of the output.
    objects : iterable of Expected
        Taken a bounded number at once.
    workers : int
        Objects read at once.

    Yields
    ------
    object : Expected
        One that is not as it should be.
    problem : str
        What is wrong with it, to be read after its key.
    """
    filesystem, root = fsspec.core.url_to_fs(path) if is_url(path) else (None, local_path(path))

    def check(expected: Expected) -> str:
        key = expected.key
        try:
            mark = mark_of(filesystem.cat_file(f"{root}/{key}")) if filesystem else mark_of_file(Path(root) / key)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return "is missing"
        except OSError as error:
            return f"cannot be read ({first_line(error)})"
        if mark == expected.mark:
            return ""
        if mark[0] != expected.mark[0]:
            return f"has {mark[0]} bytes and should have {expected.mark[0]}"
        return f"has the checksum {mark[1]} and should have {expected.mark[1]}"

    waiting = iter(objects)
    with ThreadPoolExecutor(workers) as pool:
        while part := list(islice(waiting, _AT_ONCE)):
            for expected, problem in zip(part, pool.map(check, part), strict=True):
                if problem:
                    yield expected, problem


def _small_keys(filesystem: Any, root: str, folder: str, images: frozenset[str]) -> Iterator[str]:
    for info in filesystem.ls(f"{root}/{folder}" if folder else root, detail=True):
        name = str(info["name"]).rstrip("/").rpartition("/")[2]
        key = f"{folder}/{name}" if folder else name
        if info["type"] != "directory":
            yield key
        elif key != PRIVATE and folder not in images:
            yield from _small_keys(filesystem, root, key, images)
