"""What every `Place` does, whatever its kind; the kinds are in `phbatch.places.place`, where others import it from."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

import zarr
from zarr.abc.store import Store

from phbatch.places.durable import Data, Mark, mark_of
from phbatch.places.object_store import require_no_secret
from phbatch.places.zarr_nodes import codec_pipeline, open_node
from phbatch.words.given import StorageOptions

REQUESTS_AT_ONCE = 8
"""Of one caller to a remote place."""

_READ_AHEAD = 256  # small files

KINDS = dict[str, "type[Place]"]()
"""Of places, by scheme: ``file`` of a disk, and ``*`` of all that are not named."""

File = tuple[str, int, str]
"""Key below a place, size in bytes, and modification time or etag."""


@dataclass(frozen=True)
class Seen:
    """A file as it was found; empty where there was none.

    Attributes
    ----------
    data : bytes
        All of it.
    version : mapping or None
        By which an object store knows it again.
    """

    data: bytes
    version: Mapping[str, Any] | None = None


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
            return KINDS["file"](str(Path(text.removeprefix("file://")).expanduser().resolve()))
        return KINDS.get(scheme, KINDS["*"])(require_no_secret(text).rstrip("/"), options)

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

    def iterate_files(self) -> Iterator[File]:
        """`files`, one at a time, in the order of their keys; of a disk, the names of one folder are in memory."""
        yield from self.files()

    def keys(self) -> Iterator[str]:
        """Keys of all files."""
        yield from (key for key, _, _ in self.files())

    def keys_in(self, folder: str) -> Iterator[str]:
        """Those of `keys` that lie in a folder, at any depth: of a store by one request for a thousand."""
        yield from (f"{folder}/{key}" for key in (self / folder).keys())  # noqa: SIM118 - no mapping

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
        """All bytes of some files, several asked for at once: by threads, since requests that wait need no graph."""
        with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:
            return list(pool.map(self.read, keys))

    def lines(self, keys: Sequence[str]) -> Iterator[bytes]:
        """Lines of some files, one file after the other; no more than a few files are in memory."""
        for first in range(0, len(keys), _READ_AHEAD):
            for data in self.read_all(keys[first : first + _READ_AHEAD]):
                yield from data.split(b"\n")

    def mark(self, key: str) -> Mark:
        """Size and checksum of a file."""
        return mark_of(self.read(key))

    @abstractmethod
    def write(self, key: str, data: bytes) -> None:
        """Write a file whole or not at all, and durably: by one request, or aside and by a rename."""

    def write_together(self, files: Mapping[str, bytes]) -> None:
        """Write files, by key, each as `write` does; returns when all are durable."""
        with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:
            list(pool.map(self.write, files.keys(), files.values()))

    def write_loosely(self, files: Mapping[str, bytes]) -> None:
        """Write files, by key, each whole or not at all; on a disk they are durable once `synchronize` returns."""
        self.write_together(files)

    def write_all(
        self, files: Mapping[str, Mapping[str, Data]], scratch: str, fence: Callable[[], None]
    ) -> dict[str, Mark]:
        """Write files into folders, as `write`; returns when all are durable.

        Parameters
        ----------
        files : mapping of str to mapping of str to bytes
            By folders that are there, and keys within.
        scratch : str
            Folder for what is written aside.
        fence : callable
            Called before the first file appears in its place; what it raises leaves all as they were.

        Returns
        -------
        dict of str to Mark
            Of every file, by its path: folder and key.
        """
        fence()
        by_key = {f"{folder}/{key}": data for folder, found in files.items() for key, data in found.items()}
        with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:
            list(pool.map(lambda key: self.write(key, bytes(by_key[key])), by_key))
        return {key: mark_of(data) for key, data in by_key.items()}

    def look(self, key: str) -> Seen:
        """A small file, for `swap`."""
        try:
            return Seen(self.read(key))
        except (FileNotFoundError, NotADirectoryError):
            return Seen(b"")

    def swap(self, key: str, data: bytes, seen: Seen, *, settle_s: float = 0) -> Seen | None:
        """Write a file if it is still as it was seen; None where it is another by now.

        Where the place has no such request, the file is looked at, written, and looked at again `settle_s` later.
        """
        if self.look(key).data not in (seen.data, data):
            return None
        self.write(key, data)
        time.sleep(settle_s)
        return found if (found := self.look(key)).data == data else None

    def append(self, key: str, data: bytes) -> None:
        """Append to a file, durably; only where the place `appends`."""
        raise NotImplementedError

    def append_loosely(self, key: str, data: bytes) -> None:
        """As `append`, of what need not outlive a power cut; only where the place `appends`."""
        raise NotImplementedError

    def synchronize(self, keys: Sequence[str]) -> None:  # noqa: B027 - most have nothing to do
        """Make files durable that `write_loosely` or zarr wrote; a request that was answered is."""

    @abstractmethod
    def remove(self, keys: Sequence[str]) -> None:
        """Remove files."""

    def remove_folder(self, folder: str) -> None:
        """Remove a folder with everything inside; nothing happens where there is none."""
        self.remove([*self.keys_in(folder)])
