"""Looking after what an output holds besides pixels, and checking everything against its checksums."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

from phbatch.places.durable import PARTIAL, Mark, mark_of, mark_of_file, synchronize
from phbatch.places.lock import PRIVATE
from phbatch.places.zarr_nodes import (
    is_url,
    list_files,
    list_folder,
    local_path,
    read_file,
    read_files,
    remove_remote_files,
    write_file,
)
from phbatch.words.errors import first_line
from phbatch.words.settings import StorageOptions

_DOCUMENTS = ("zarr.json", ".zgroup", ".zarray", ".zattrs")
_AT_ONCE = 512  # objects whose checksums are under way, so that memory does not grow with their number


def record_small_objects(path: str, images: Iterable[str], options: StorageOptions = None) -> dict[str, Any]:
    """What is in an output besides the chunks of its images, made durable: enough to know it again, and to mend it.

    Parameters
    ----------
    path : str
        Local path or fsspec URL of the output.
    images : iterable of str
        Arrays whose chunks are left out.
    options : SecretStr or None
        Of the object store.

    Returns
    -------
    dict
        ``documents``: texts of the metadata by key; ``objects``: sizes and checksums of all else.
    """
    documents, objects = {}, {}
    keys = sorted(_small_keys(path, "", frozenset(images), options))
    if not is_url(path):
        for key in keys:
            if key.endswith(PARTIAL):  # of a process that was killed: whoever holds the output now is alone
                (local_path(path) / key).unlink()
        keys = [key for key in keys if not key.endswith(PARTIAL)]
        synchronize(local_path(path).parent)
        for key in keys:
            synchronize(local_path(path) / key)
            synchronize((local_path(path) / key).parent)
    for key, data in zip(keys, read_files(path, keys, options), strict=True):
        if key.rpartition("/")[2] in _DOCUMENTS:
            documents[key] = data.decode()
        else:
            objects[key] = mark_of(data)
    return {"documents": documents, "objects": objects}


def restore_document(path: str, key: str, text: str, options: StorageOptions = None) -> None:
    """Write a document of the metadata as it was."""
    write_file(path, key, text.encode(), options)


def remove_group(path: str, name: str, options: StorageOptions = None) -> None:
    """Remove a group of an output, with everything inside."""
    if is_url(path):
        keys = [f"{name}/{key}" for key, _, _ in list_files(f"{path}/{name}", options)]
        remove_remote_files(path, keys, options)
    elif (local_path(path) / name).exists():
        shutil.rmtree(local_path(path) / name)


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


def find_problems(
    path: str, objects: Iterable[Expected], *, workers: int, options: StorageOptions = None
) -> Iterator[tuple[Expected, str]]:
    """Check objects against their sizes and checksums.

    Parameters
    ----------
    path : str
        Local path or fsspec URL of the output.
    objects : iterable of Expected
        Taken a bounded number at once.
    workers : int
        Objects read at once.
    options : SecretStr or None
        Of the object store.

    Yields
    ------
    object : Expected
        One that is not as it should be.
    problem : str
        What is wrong with it, to be read after its key.
    """
    remote = is_url(path)

    def check(expected: Expected) -> str:
        key = expected.key
        try:
            mark = mark_of(read_file(path, key, options)) if remote else mark_of_file(local_path(path) / key)
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


def _small_keys(path: str, folder: str, images: frozenset[str], options: StorageOptions) -> Iterator[str]:
    for name, is_folder in list_folder(path, folder, options).items():
        key = f"{folder}/{name}" if folder else name
        if not is_folder:
            yield key
        elif key != PRIVATE and folder not in images:
            yield from _small_keys(path, key, images, options)
