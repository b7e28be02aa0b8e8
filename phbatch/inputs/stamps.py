"""Sizes and times of stored objects: by them an input is known to be the one that was read."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property

from phbatch.places.object_store import is_web_server
from phbatch.places.zarr_nodes import REQUESTS_AT_ONCE, is_url, list_files, stat_file
from phbatch.words.settings import StorageOptions

ABSENT = "absent"
"""Stamp of an object that is not there."""


class Stamps:
    """Size and modification time (or etag) of the objects of a store.

    Parameters
    ----------
    path : str
        Local path or fsspec URL.
    options : SecretStr or None
        Of the object store.
    listed : bool
        Whether a URL is listed once and not asked for object by object: right where most of its objects are wanted.
    """

    def __init__(self, path: str, options: StorageOptions = None, *, listed: bool = False) -> None:
        self._path, self._options = path, options
        self._remote = is_url(path)
        self._listed = listed and self._remote and not is_web_server(path)  # which does not list

    def of(self, key: str) -> str:
        """Stamp of one object; `ABSENT` where there is none.

        Raises
        ------
        OSError
            The store cannot be reached.
        """
        try:
            size, stamp = self._listing[key] if self._listed else stat_file(self._path, key, self._options)
        except (FileNotFoundError, NotADirectoryError, KeyError):
            return ABSENT
        return f"{size} {stamp}"

    def digest(self, keys: Sequence[str]) -> str:
        """Digest of the stamps of some objects, in hexadecimal."""
        return digest_stamps(self.of_all(keys))

    def of_all(self, keys: Sequence[str]) -> dict[str, str]:
        """Stamps of some objects by key, several asked for at once."""
        if self._remote and not self._listed:
            with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:
                return dict(zip(keys, pool.map(self.of, keys), strict=True))
        return {key: self.of(key) for key in keys}

    @cached_property
    def _listing(self) -> dict[str, tuple[int, str]]:
        return {key: (size, stamp) for key, size, stamp in list_files(self._path, self._options)}


def digest_stamps(stamps: Mapping[str, str]) -> str:
    """Digest of stamps by key, in hexadecimal."""
    lines = "".join(f"{key} {stamp}\n" for key, stamp in stamps.items())
    return hashlib.blake2b(lines.encode(), digest_size=12).hexdigest()
