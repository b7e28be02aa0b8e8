"""A place where bytes lie: a local disk, an object store, a web server, or another file system.

It carries its storage options and opens, reads, writes, lists and dates what lies there: nobody else looks at a URL.
``s3://``, ``gs://`` and ``http(s)://`` go through obstore (`phbatch.places.object_store`), other URLs through fsspec.
"""

from __future__ import annotations

import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar
from urllib.parse import urlsplit

import fsspec
import zarr
from zarr.abc.store import Store
from zarr.storage import FsspecStore

from phbatch.places.absence import NotesAbsence
from phbatch.places.durable import (
    Data,
    Mark,
    append_durably,
    mark_of,
    mark_of_file,
    replace_file,
    replace_files,
    synchronize,
)
from phbatch.places.object_store import (
    SCHEMES,
    RemoteStore,
    list_object_folder,
    list_objects,
    list_web_folder,
    list_web_objects,
    open_object_store,
    options_of,
    read_object,
    remove_objects,
    require_no_secret,
    stat_object,
    write_object,
)
from phbatch.places.zarr_nodes import codec_pipeline, open_node
from phbatch.words.settings import StorageOptions

REQUESTS_AT_ONCE = 8
"""Of one caller to a remote place."""

_WEB = ("http", "https")

File = tuple[str, int, str]
"""Key below a place, size in bytes, and modification time or etag."""


@dataclass(frozen=True)
class Place(ABC):
    """Where an image, an output, a profile or a table lies; made by `Place.at`.

    Attributes
    ----------
    path : str
        In one spelling: a URL without a trailing slash, or an absolute local path; ``str(place)`` is the same.
    options : SecretStr or None
        Credentials and endpoint, for whoever opens the place, here or on a worker; never shown, and none of a disk.
    """

    path: str
    options: StorageOptions = field(default=None, repr=False)

    remote: ClassVar[bool] = True
    """Whether every look costs a request, so that several are made at once."""

    writable: ClassVar[bool] = True
    lists: ClassVar[bool] = True
    """Whether it says what lies there: a web server names metadata alone."""

    appends: ClassVar[bool] = False
    """Whether files grow at their end."""

    @staticmethod
    def at(path: str | Path, options: StorageOptions = None) -> Place:
        """The place that a path or URL names; nothing is asked of it.

        Raises
        ------
        UsageError
            A URL that holds a credential.

        Examples
        --------
        >>> Place.at("s3://bucket/a.zarr/"), Place.at("file:///data/a.zarr")
        (ObjectPlace(path='s3://bucket/a.zarr'), LocalPlace(path='/data/a.zarr'))
        """
        text = str(path)
        scheme = urlsplit(text).scheme if "://" in text else ""
        if scheme in ("", "file"):
            return LocalPlace(str(Path(text.removeprefix("file://")).expanduser().resolve()))
        kind = WebPlace if scheme in _WEB else ObjectPlace if scheme in SCHEMES else FsspecPlace
        return kind(require_no_secret(text).rstrip("/"), options)

    def __str__(self) -> str:
        return self.path

    def __truediv__(self, name: str) -> Place:
        return replace(self, path=f"{self.path}/{name}") if name else self

    @property
    def name(self) -> str:
        """Last part of the path."""
        return self.path.rpartition("/")[2]

    def holds(self, other: Place) -> bool:
        """Whether another place is this one, or lies inside."""
        return f"{other.path.rstrip('/')}/".startswith(f"{self.path.rstrip('/')}/")

    # --- Zarr

    @abstractmethod
    def store(self) -> Store | str:
        """What zarr opens.

        Raises
        ------
        ImportError, ValueError
            The library of the URL's scheme is missing, or nobody knows the scheme.
        """

    def open(self, node: str = "", mode: str = "r") -> zarr.Array[Any] | zarr.Group:
        """Open a Zarr array or group.

        Raises
        ------
        FileNotFoundError
            Nothing is there, or it is no Zarr.
        """
        return open_node(self.store(), node, mode, fast=not self.remote)

    def pipeline(self, *, fast: bool = True) -> AbstractContextManager[None]:
        """While arrays are opened inside, they get the codec pipeline that suits the place; zarr's own where not."""
        return codec_pipeline(fast=fast and not self.remote)

    # --- listing and dating

    @abstractmethod
    def files(self) -> list[File]:
        """Every file: its key, its size in bytes, and its modification time or etag."""

    def keys(self) -> Iterator[str]:
        """Keys of all files."""
        yield from (key for key, _, _ in self.files())

    @abstractmethod
    def names(self, folder: str = "") -> dict[str, bool]:
        """Names directly inside a folder, and whether each is a folder; empty where nothing is there."""

    @abstractmethod
    def stat(self, key: str) -> tuple[int, str]:
        """Size in bytes and modification time or etag of a file, as in `files`.

        Raises
        ------
        FileNotFoundError
            It is not there.
        """

    def exists(self, key: str = "") -> bool:
        """Whether a file is there, or, without a key, anything at all."""
        if not key:
            return bool(self.names())
        try:
            self.stat(key)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def free_bytes(self) -> int | None:
        """Bytes that a user may still write; None where nobody knows."""
        return None

    # --- bytes

    @abstractmethod
    def read(self, key: str) -> bytes:
        """All bytes of a file."""

    def read_all(self, keys: Sequence[str]) -> list[bytes]:
        """All bytes of some files, several asked for at once."""
        with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:
            return list(pool.map(self.read, keys))

    def mark(self, key: str) -> Mark:
        """Size and checksum of a file."""
        return mark_of(self.read(key))

    @abstractmethod
    def write(self, key: str, data: bytes) -> None:
        """Write a file whole or not at all, and durably: by one request, or aside and by a rename."""

    def write_all(self, folder: str, files: Mapping[str, Data], scratch: str, fence: Callable[[], None]) -> None:
        """Write files into a folder, as `write`; returns when all are durable.

        Parameters
        ----------
        folder : str
            One that is there.
        files : mapping of str to bytes
            By key within the folder.
        scratch : str
            Folder for what is written aside.
        fence : callable
            Called before the first file appears in its place; what it raises leaves all as they were.
        """
        fence()
        with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:
            list(pool.map(lambda key: self.write(f"{folder}/{key}", bytes(files[key])), files))

    def append(self, key: str, data: bytes) -> None:
        """Append to a file, durably; only where the place `appends`."""
        raise NotImplementedError

    def synchronize(self, keys: Sequence[str]) -> None:  # noqa: B027 - most have nothing to do
        """Make files durable that others wrote, such as zarr; a request that was answered is."""

    @abstractmethod
    def remove(self, keys: Sequence[str]) -> None:
        """Remove files."""

    def remove_folder(self, folder: str) -> None:
        """Remove a folder with everything inside; nothing happens where there is none."""
        self.remove([f"{folder}/{key}" for key in (self / folder).keys()])  # noqa: SIM118 - no mapping


class LocalPlace(Place):
    """A folder on a disk."""

    remote: ClassVar[bool] = False
    appends: ClassVar[bool] = True

    @property
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
        found = []
        for file in self.folder.rglob("*"):
            if file.is_file():
                status = file.stat()
                found.append((file.relative_to(self.folder).as_posix(), status.st_size, str(status.st_mtime_ns)))
        return sorted(found)

    def keys(self) -> Iterator[str]:  # noqa: D102 - sizes and times, which `files` asks for, cost most
        for folder, _, names in os.walk(self.path, onerror=_refuse):
            prefix = PurePosixPath(Path(folder).relative_to(self.path).as_posix())
            yield from (str(prefix / name) for name in names)

    def names(self, folder: str = "") -> dict[str, bool]:  # noqa: D102
        try:
            with os.scandir(self.folder / folder) as entries:
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
        return (self.folder / key).read_bytes()

    def mark(self, key: str) -> Mark:  # noqa: D102
        return mark_of_file(self.folder / key)

    def write(self, key: str, data: bytes) -> None:  # noqa: D102
        replace_file(self.folder / key, data)

    def write_all(self, folder: str, files: Mapping[str, Data], scratch: str, fence: Callable[[], None]) -> None:  # noqa: D102
        replace_files(self.folder / folder, files, self.folder / scratch, fence)

    def append(self, key: str, data: bytes) -> None:  # noqa: D102
        append_durably(self.folder / key, data)

    def synchronize(self, keys: Sequence[str]) -> None:  # noqa: D102
        synchronize(self.folder.parent)
        for key in keys:
            synchronize(self.folder / key)
            synchronize((self.folder / key).parent)

    def remove_folder(self, folder: str) -> None:  # noqa: D102
        place = self.folder / folder
        if place.is_symlink():
            place.unlink()
        elif place.exists():
            shutil.rmtree(place)

    def remove(self, keys: Sequence[str]) -> None:  # noqa: D102
        for key in keys:
            (self.folder / key).unlink(missing_ok=True)


class ObjectPlace(Place):
    """A prefix of a bucket."""

    @property
    def client(self) -> Any:
        """obstore's, one per place, options and state of the environment."""
        return open_object_store(self.path, self.options)

    def store(self) -> Store | str:  # noqa: D102
        return RemoteStore(self.client, read_only=not self.writable)

    def files(self) -> list[File]:  # noqa: D102
        return list_objects(self.client)

    def names(self, folder: str = "") -> dict[str, bool]:  # noqa: D102
        return list_object_folder(self.client, folder)

    def stat(self, key: str) -> tuple[int, str]:  # noqa: D102
        return stat_object(self.client, key)

    def read(self, key: str) -> bytes:  # noqa: D102
        return read_object(self.client, key)

    def write(self, key: str, data: bytes) -> None:  # noqa: D102
        write_object(self.client, key, data)

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


def _refuse(error: OSError) -> None:
    raise error
