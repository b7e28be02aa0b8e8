"""Looking after what an output holds besides pixels, and checking everything against its checksums."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

from phbatch.places.durable import PARTIAL, Mark, mark_of
from phbatch.places.own import PRIVATE
from phbatch.places.place import Place
from phbatch.places.table_file import STATISTICS
from phbatch.words.errors import first_line

_DOCUMENTS = ("zarr.json", ".zgroup", ".zarray", ".zattrs")
_AT_ONCE = 512  # objects whose checksums are under way, so that memory does not grow with their number


def record_small_objects(
    output: Place, is_image: Callable[[str], bool], durable: Collection[str] = ()
) -> dict[str, Any]:
    """What is in an output besides the chunks of its images, made durable: enough to know it again, and to mend it.

    Parameters
    ----------
    output : Place
        Of the run.
    is_image : callable
        Whether the chunks of the array that has a path are left out.
    durable : collection of str
        Keys of what is durable already.

    Returns
    -------
    dict
        ``documents``: texts of the metadata by key; ``objects``: sizes and checksums of all else.
    """
    documents, objects = {}, {}
    keys = sorted(_small_keys(output, "", is_image))
    if not output.remote:
        output.remove([key for key in keys if key.endswith(PARTIAL)])  # of a process that was killed: we are alone now
        keys = [key for key in keys if not key.endswith(PARTIAL)]
    output.synchronize([key for key in keys if key not in durable])
    for key, data in zip(keys, output.read_all(keys), strict=True):
        if key.rpartition("/")[2] in _DOCUMENTS:
            documents[key] = data.decode()
        else:
            objects[key] = mark_of(data)
    return {"documents": documents, "objects": objects}


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


def find_problems(output: Place, objects: Iterable[Expected], *, workers: int) -> Iterator[tuple[Expected, str]]:
    """Check objects against their sizes and checksums.

    Threads, and no graph of `phbatch.running`: what they do is wait for the store, they answer in the order of the
    objects, and whoever checks an output needs no cluster that computes one.

    Parameters
    ----------
    output : Place
        Of the run.
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

    def check(expected: Expected) -> str:
        key = expected.key
        try:
            mark = output.mark(key)
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


def _small_keys(output: Place, folder: str, is_image: Callable[[str], bool]) -> Iterator[str]:
    for name, is_folder in output.names(folder).items():
        key = f"{folder}/{name}" if folder else name
        if not is_folder:
            yield key
        elif output.remote and name == STATISTICS:  # folder by folder its twenty columns are forty requests
            yield from (found for found in output.keys_in(key) if not any(map(is_image, _around(found))))
        elif key != PRIVATE and not is_image(folder):
            yield from _small_keys(output, key, is_image)


def _around(key: str) -> Iterator[str]:
    """The folders that hold the folder of a key."""
    parts = key.split("/")
    yield from ("/".join(parts[:count]) for count in range(1, len(parts) - 1))
