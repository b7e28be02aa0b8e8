"""Sizes and times of stored objects: by them an input is known to be the one that was read."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property

from phbatch.places.place import REQUESTS_AT_ONCE, Place

ABSENT = "absent"
"""Stamp of an object that is not there."""


class Stamps:
    """Size and modification time (or etag) of the objects of a store.

    Parameters
    ----------
    place : Place
        The store.
    listed : bool
        Whether a remote place is listed once and not asked for object by object: right where most of them are wanted.
    """

    def __init__(self, place: Place, *, listed: bool = False) -> None:
        self._place = place
        self._listed = listed and place.remote and place.lists

    def of(self, key: str) -> str:
        """Stamp of one object; `ABSENT` where there is none.

        Raises
        ------
        OSError
            The store cannot be reached.
        """
        try:
            size, stamp = self._listing[key] if self._listed else self._place.stat(key)
        except (FileNotFoundError, NotADirectoryError, KeyError):
            return ABSENT
        return f"{size} {stamp}"

    def digest(self, keys: Sequence[str]) -> str:
        """Digest of the stamps of some objects, in hexadecimal."""
        return digest_stamps(self.of_all(keys))

    def of_all(self, keys: Sequence[str]) -> dict[str, str]:
        """Stamps of some objects by key, several asked for at once.

        By threads, and no graph: it is part of a task of one, and waits for a store.
        """
        if self._place.remote and not self._listed:
            with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:
                return dict(zip(keys, pool.map(self.of, keys), strict=True))
        return {key: self.of(key) for key in keys}

    @cached_property
    def _listing(self) -> dict[str, tuple[int, str]]:
        return {key: (size, stamp) for key, size, stamp in self._place.files()}


def digest_stamps(stamps: Mapping[str, str]) -> str:
    """Digest of stamps by key, in hexadecimal."""
    lines = "".join(f"{key} {stamp}\n" for key, stamp in stamps.items())
    return hashlib.blake2b(lines.encode(), digest_size=12).hexdigest()
