"""Sizes and times of stored objects: by them an input is known to be the one that was read."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any

import fsspec

from phbatch.storage.store import is_url, local_path

ABSENT = "absent"
"""Stamp of an object that is not there."""

_REQUESTS_AT_ONCE = 8


class Stamps:
    """Size and modification time (or etag) of the objects of a store.

    Parameters
    ----------
    path : str
        Local path or fsspec URL.
    listed : bool
        Whether a URL is listed once and not asked for object by object: right where most of its objects are wanted.
    """

    def __init__(self, path: str, *, listed: bool = False) -> None:
        self._remote = is_url(path)
        self._listed = listed and not path.startswith("http")  # a listing of HTTP has no etags
        if self._remote:
            self._filesystem, self._prefix = fsspec.core.url_to_fs(path)
            self._filesystem.invalidate_cache()
        else:
            self._root = local_path(path)

    def of(self, key: str) -> str:
        """Stamp of one object; `ABSENT` where there is none.

        Raises
        ------
        OSError
            The store cannot be reached.
        """
        try:
            if not self._remote:
                status = (self._root / key).stat()
                return f"{status.st_size} {status.st_mtime_ns}"
            info = self._listing[key] if self._listed else self._filesystem.info(f"{self._prefix}/{key}")
        except (FileNotFoundError, NotADirectoryError, KeyError):
            return ABSENT
        time = info.get("ETag") or info.get("created") or info.get("LastModified") or ""
        return f"{int(info['size'] or 0)} {time}"

    def digest(self, keys: Sequence[str]) -> str:
        """Digest of the stamps of some objects, in hexadecimal."""
        if self._remote and not self._listed:
            with ThreadPoolExecutor(_REQUESTS_AT_ONCE) as pool:
                stamps = list(pool.map(self.of, keys))
        else:
            stamps = [self.of(key) for key in keys]
        lines = "".join(f"{key} {stamp}\n" for key, stamp in zip(keys, stamps, strict=True))
        return hashlib.blake2b(lines.encode(), digest_size=12).hexdigest()

    @cached_property
    def _listing(self) -> dict[str, Any]:
        found = self._filesystem.find(self._prefix, detail=True)
        return {key[len(self._prefix) :].lstrip("/"): info for key, info in found.items()}
