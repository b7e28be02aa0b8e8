"""A place where bytes lie: a local disk, an object store, a web server, or another file system.

It carries its storage options and opens, reads, writes, lists and dates what lies there: nobody else looks at a URL.
``s3://``, ``gs://`` and ``http(s)://`` go through obstore (`phbatch.places.object_store`), other URLs through fsspec.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

import fsspec
import zarr
from zarr.abc.store import Store
from zarr.storage import FsspecStore

from phbatch.places.absence import NotesAbsence
from phbatch.places.base import KINDS, REQUESTS_AT_ONCE, File, Place, Seen
from phbatch.places.durable import (
    Data,
    Mark,
    append_durably,
    append_loosely,
    mark_of_file,
    replace_file,
    replace_files,
    replace_loosely,
    replace_together,
    synchronize_together,
)
from phbatch.places.object_store import (
    SCHEMES,
    RemoteStore,
    list_object_folder,
    list_objects,
    list_web_folder,
    list_web_objects,
    look_at_object,
    open_object_store,
    options_of,
    read_object,
    remove_objects,
    stat_object,
    swap_object,
    write_object,
)
from phbatch.places.zarr_nodes import open_node

__all__ = ["REQUESTS_AT_ONCE", "FsspecPlace", "LocalPlace", "ObjectPlace", "Place", "Seen", "WebPlace"]


class LocalPlace(Place):
    """A folder on a disk."""

    remote: ClassVar[bool] = False
    appends: ClassVar[bool] = True

    @cached_property
    def folder(self) -> Path:
        """For whoever needs the disk itself."""
        return Path(self.path)

    @property
    def name(self) -> str:  # noqa: D102
        return self.folder.name

    def __truediv__(self, name: str) -> Place:
        return LocalPlace(str(self.folder / name))

    def holds(self, other: Place) -> bool:  # noqa: D102
        return isinstance(other, LocalPlace) and other.folder.is_relative_to(self.folder)

    def store(self) -> Store | str:  # noqa: D102
        return self.path

    def files(self) -> list[File]:  # noqa: D102
        return list(self.iterate_files())

    def iterate_files(self) -> Iterator[File]:  # noqa: D102
        return _walk_files(self.folder, "") if self.folder.is_dir() else iter(())

    def keys(self) -> Iterator[str]:  # noqa: D102 - sizes and times, which `files` asks for, cost most
        return _walk(self.path, "")

    def names(self, folder: str = "") -> dict[str, bool]:  # noqa: D102
        try:
            with os.scandir(self._at(folder)) as entries:
                return {entry.name: entry.is_dir() for entry in entries}
        except (FileNotFoundError, NotADirectoryError):
            return {}

    def stat(self, key: str) -> tuple[int, str]:  # noqa: D102
        status = (self.folder / key).stat()
        return status.st_size, str(status.st_mtime_ns)

    def exists(self, key: str = "") -> bool:  # noqa: D102
        return super().exists(key) if key else self.folder.exists()

    def free_bytes(self) -> int | None:  # noqa: D102
        return shutil.disk_usage(next(at for at in (self.folder, *self.folder.parents) if at.exists())).free

    def read(self, key: str) -> bytes:  # noqa: D102
        with open(self._at(key), "rb", buffering=0) as file:
            return file.readall()

    def read_all(self, keys: Sequence[str]) -> list[bytes]:  # noqa: D102 - a thread for each costs more than to read it
        return list(map(self.read, keys))

    def lines(self, keys: Sequence[str]) -> Iterator[bytes]:  # noqa: D102
        for key in keys:
            with (self.folder / key).open("rb") as file:
                yield from file

    def mark(self, key: str) -> Mark:  # noqa: D102
        return mark_of_file(self.folder / key)

    def write(self, key: str, data: bytes) -> None:  # noqa: D102
        replace_file(self.folder / key, data)

    def write_together(self, files: Mapping[str, bytes]) -> None:  # noqa: D102
        replace_together(self.folder, files)

    def write_loosely(self, files: Mapping[str, bytes]) -> None:  # noqa: D102
        replace_loosely(self.folder, files)

    def write_all(  # noqa: D102
        self, files: Mapping[str, Mapping[str, Data]], scratch: str, fence: Callable[[], None]
    ) -> dict[str, Mark]:
        return replace_files(self.folder, files, self.folder / scratch, fence)

    def append(self, key: str, data: bytes) -> None:  # noqa: D102
        append_durably(self._at(key), data)

    def append_loosely(self, key: str, data: bytes) -> None:  # noqa: D102
        append_loosely(self._at(key), data)

    def synchronize(self, keys: Sequence[str]) -> None:  # noqa: D102
        paths = list(map(self._at, keys))
        synchronize_together(paths)
        synchronize_together({*map(os.path.dirname, (self.path, *paths))})

    def remove_folder(self, folder: str) -> None:  # noqa: D102
        place = self.folder / folder
        if place.is_symlink():
            place.unlink()
        elif place.exists():
            shutil.rmtree(place)

    def remove(self, keys: Sequence[str]) -> None:  # noqa: D102
        for key in keys:
            (self.folder / key).unlink(missing_ok=True)

    def _at(self, key: str) -> str:
        return f"{self.path}/{key}"


class ObjectPlace(Place):
    """A prefix of a bucket."""

    @property
    def client(self) -> Any:
        """obstore's, one per place, options and state of the environment."""
        return open_object_store(self.path, self.options)

    def store(self) -> Store | str:  # noqa: D102
        return RemoteStore(self.client, read_only=not self.writable)

    def open(self, node: str = "", mode: str = "r") -> zarr.Array[Any] | zarr.Group:
        """As of any place, of format 3 by one request: zarr asks for format 2 besides, and of a group for all twice."""
        found = look_at_object(self.client, f"{node}/zarr.json".lstrip("/"))
        return open_node(self.store(), node, mode, fast=False, document=found[0] if found else None)

    def files(self) -> list[File]:  # noqa: D102
        return list_objects(self.client)

    def keys_in(self, folder: str) -> Iterator[str]:  # noqa: D102 - by the same client, which has its connections
        yield from (key for key, _, _ in list_objects(self.client, folder))

    def names(self, folder: str = "") -> dict[str, bool]:  # noqa: D102
        return list_object_folder(self.client, folder)

    def stat(self, key: str) -> tuple[int, str]:  # noqa: D102
        return stat_object(self.client, key)

    def read(self, key: str) -> bytes:  # noqa: D102
        return read_object(self.client, key)

    def write(self, key: str, data: bytes) -> None:  # noqa: D102
        write_object(self.client, key, data)

    def look(self, key: str) -> Seen:  # noqa: D102
        found = look_at_object(self.client, key)
        return Seen(*found) if found else Seen(b"")

    def swap(self, key: str, data: bytes, seen: Seen, *, settle_s: float = 0) -> Seen | None:  # noqa: D102
        try:
            version = swap_object(self.client, key, data, seen.version, prove=settle_s > 0)
        except NotImplementedError:
            return super().swap(key, data, seen, settle_s=settle_s)
        if version is not None:
            return Seen(data, version)
        return found if (found := self.look(key)).data == data else None  # an answer was lost, and we asked again

    def remove(self, keys: Sequence[str]) -> None:  # noqa: D102
        remove_objects(self.client, keys)


class WebPlace(ObjectPlace):
    """A folder of a web server, which can be read and neither listed nor written."""

    writable: ClassVar[bool] = False
    lists: ClassVar[bool] = False

    def files(self) -> list[File]:  # noqa: D102
        return list_web_objects(self.client)

    def names(self, folder: str = "") -> dict[str, bool]:  # noqa: D102
        return list_web_folder(self.client, folder)


class FsspecPlace(Place):
    """A folder of a file system that fsspec knows."""

    def store(self) -> Store | str:  # noqa: D102
        return _FsspecStore.from_url(self.path, storage_options=self._given())

    def files(self) -> list[File]:  # noqa: D102
        filesystem, root = self._filesystem()
        found = filesystem.find(root, detail=True)
        return sorted((key[len(root) :].lstrip("/"), *_size_and_stamp(info)) for key, info in found.items())

    def names(self, folder: str = "") -> dict[str, bool]:  # noqa: D102
        filesystem, root = self._filesystem()
        try:
            found = filesystem.ls(f"{root}/{folder}" if folder else root, detail=True)
        except (FileNotFoundError, NotADirectoryError):
            return {}
        return {str(info["name"]).rstrip("/").rpartition("/")[2]: info["type"] == "directory" for info in found}

    def stat(self, key: str) -> tuple[int, str]:  # noqa: D102
        filesystem, root = self._filesystem()
        return _size_and_stamp(filesystem.info(f"{root}/{key}"))

    def read(self, key: str) -> bytes:  # noqa: D102
        filesystem, root = self._filesystem()
        return bytes(filesystem.cat_file(f"{root}/{key}"))

    def write(self, key: str, data: bytes) -> None:  # noqa: D102
        filesystem, root = self._filesystem()
        filesystem.pipe_file(f"{root}/{key}", data)

    def remove(self, keys: Sequence[str]) -> None:  # noqa: D102
        filesystem, root = self._filesystem()
        if keys:
            filesystem.rm([f"{root}/{key}" for key in keys])

    def _filesystem(self) -> tuple[Any, str]:
        filesystem, root = fsspec.core.url_to_fs(self.path, **self._given())
        filesystem.invalidate_cache()  # others write, too
        return filesystem, str(root).rstrip("/")

    def _given(self) -> dict[str, Any]:
        return options_of(urlsplit(self.path).scheme, self.options)


class _FsspecStore(NotesAbsence, FsspecStore):
    """zarr's store over fsspec, which also notes what is not there."""


def _size_and_stamp(info: Mapping[str, Any]) -> tuple[int, str]:
    stamp = info.get("ETag") or info.get("created") or info.get("LastModified") or ""
    return int(info["size"] or 0), str(stamp)


def _walk(folder: str, prefix: str) -> Iterator[str]:
    """Keys of the files below a folder, one at a time, since there may be a million in it; links are not followed."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.is_dir():
                yield prefix + entry.name
            elif not entry.is_symlink():
                yield from _walk(entry.path, f"{prefix}{entry.name}/")


def _walk_files(folder: Path, prefix: str) -> Iterator[File]:
    """Files below a folder in the order of their keys, in which a folder's name ends in a slash."""
    try:
        with os.scandir(folder) as found:
            entries = sorted(f"{each.name}/" if each.is_dir(follow_symlinks=False) else each.name for each in found)
    except PermissionError:
        return
    for name in entries:
        place = folder / name
        if name.endswith("/"):
            yield from _walk_files(place, prefix + name)
        elif place.is_file():
            status = place.stat()
            yield prefix + name, status.st_size, str(status.st_mtime_ns)


KINDS |= {"file": LocalPlace, "*": FsspecPlace}
KINDS |= {scheme: WebPlace if scheme.startswith("http") else ObjectPlace for scheme in SCHEMES}
