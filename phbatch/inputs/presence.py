"""Whether the chunks of an input are there: Zarr reads a chunk that is not there as the fill value, mostly as zeros.

Writers leave out chunks of nothing but the fill value, so that some may be absent by right; all of them, or those under
keys that the metadata do not say, are an input that was lost on the way.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby, product
from math import prod

from phbatch.inputs.image import Source
from phbatch.places.place import REQUESTS_AT_ONCE, Place
from phbatch.places.zarr_nodes import stored_lengths
from phbatch.words.axes import CANONICAL, FrameKey
from phbatch.words.bits import Bits
from phbatch.words.errors import InputError
from phbatch.words.groups import TimeGroups

MAX_LISTED = {"local": 1_000_000, "remote": 50_000}
"""Objects of an array that are listed; of one with more, and on a web server, some are asked for."""

MAX_ASKED = 64
"""Objects that are asked for where nothing is listed, spread over the array."""

MANY, NEARLY_ALL = 1_000_000, 1 - 1 / 32
"""Of more objects than the first, of which more than the second share is absent, nobody wants an output: their number
is wrong."""

_METADATA = ("zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata")
_SHOWN = 4

Index = tuple[int, int, int]
"""Of stored objects along t, c and z."""


@dataclass(frozen=True)
class Presence:
    """What is there of the frames that are wanted.

    Attributes
    ----------
    expected, absent : int
        Objects (chunks, or shards) that were looked for, and those of them that are not there.
    total : int
        Objects that hold the frames: more than `expected` where only some were looked for.
    whole, partial : Absent
        Frames of which every object is absent, and those of which some are.
    other : str or None
        Key of a file beside the metadata where no object is present.
    """

    expected: int
    absent: int
    total: int
    whole: Absent
    partial: Absent
    other: str | None = None


@dataclass
class Absent:
    """Frames that are absent: how many, and the first few."""

    count: int = 0
    first: list[FrameKey] = field(default_factory=list)

    def add(self, frames: Iterable[FrameKey]) -> None:
        """Count some more."""
        frames = list(frames)
        self.count += len(frames)
        self.first = sorted([*self.first, *frames])[:_SHOWN]


class _Objects:
    """The stored objects that hold some frames, in the order of ``tczyx``, by arithmetic."""

    def __init__(self, source: Source, times: range, channels: Sequence[int]) -> None:
        self._source, self._wanted = source, (times, frozenset(channels), range(source.shape[2]))
        lengths = dict(zip(source.stored_axes, stored_lengths(source.array), strict=True))
        self._lengths = [lengths.get(axis, 1) for axis in CANONICAL]
        self._times = TimeGroups(times, self._lengths[0])
        self._channels = sorted({c // self._lengths[1] for c in channels})
        rest = (-(-size // length) for size, length in zip(source.shape[2:], self._lengths[2:], strict=True))
        self._counts = (len(self._times), len(self._channels), *rest)
        self._order = [CANONICAL.index(axis) for axis in source.stored_axes]

    def __len__(self) -> int:
        return prod(self._counts)

    @property
    def of_an_index(self) -> int:
        """Objects with the same index along t, c and z."""
        return prod(self._counts[3:])

    def index(self, position: int) -> Index:
        """Index of an object along t, c and z."""
        t, c, z, _, _ = self._at(position)
        return t, c, z

    def key(self, position: int) -> str:
        """Key of an object, within the array."""
        at = self._at(position)
        return str(self._source.array.metadata.encode_chunk_key(tuple(at[axis] for axis in self._order)))

    def find(self, key: str) -> int | None:
        """The object that has a key; None where it is none of these."""
        numbers = [int(part) for part in re.findall("[0-9]{1,18}", key)[-len(self._order) :]]
        if len(numbers) < len(self._order) or self._source.array.metadata.encode_chunk_key(tuple(numbers)) != key:
            return None
        at = [0] * len(CANONICAL)
        for axis, number in zip(self._order, numbers, strict=True):
            at[axis] = number
        t = self._times.find(at[0])
        if t is None or at[1] not in self._channels:
            return None
        position = 0
        for number, count in zip((t, self._channels.index(at[1]), *at[2:]), self._counts, strict=True):
            if number >= count:
                return None
            position = position * count + number
        return position

    def frames(self, index: Index) -> Iterator[FrameKey]:
        """Frames, of those wanted, that the objects of an index hold."""
        spans = [
            [at for at in range(start * length, (start + 1) * length) if at in wanted]
            for start, length, wanted in zip(index, self._lengths, self._wanted, strict=False)
        ]
        return (FrameKey(t, c, z) for t, c, z in product(*spans))

    def _at(self, position: int) -> list[int]:
        at = [0] * len(CANONICAL)
        for axis in reversed(range(len(at))):
            position, at[axis] = divmod(position, self._counts[axis])
        return [self._times.stretch(at[0]), self._channels[at[1]], *at[2:]]


def look_for_chunks(source: Source, times: range, channels: Sequence[int]) -> Presence:
    """Find what is stored of some frames, by listings and without reading a pixel; in a bit for each object.

    Where a store is too large to be listed, threads ask for some objects at once; requests that wait need no graph.

    Raises
    ------
    OSError
        The store cannot be reached.
    """
    place = source.place / source.node
    objects, other = _Objects(source, times, channels), None
    total, found = len(objects), None
    if total <= MAX_LISTED["remote" if place.remote else "local"] and place.lists:
        with suppress(PermissionError):  # whoever may read objects of a bucket need not be allowed to list them
            found, other = _list_objects(place, objects)
    if found is not None:
        expected, count, absent = total, total - len(found), found.absent()
    else:
        asked = sorted({round(at * (total - 1) / (MAX_ASKED - 1)) for at in range(MAX_ASKED)})
        with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:
            there = list(pool.map(lambda at: place.exists(objects.key(at)), asked))
        lacking = [at for at, is_there in zip(asked, there, strict=True) if not is_there]
        expected, count, absent = len(asked), len(lacking), iter(lacking)
    whole, partial = Absent(), Absent()
    if count == expected:
        return Presence(expected, count, total, whole, partial, other)
    for index, positions in groupby(absent, objects.index):
        full = expected == total and sum(1 for _ in positions) == objects.of_an_index
        (whole if full else partial).add(objects.frames(index))
    return Presence(expected, count, total, whole, partial)


def _list_objects(place: Place, objects: _Objects) -> tuple[Bits, str | None]:
    """Which objects are listed, and the first other key that is none of the metadata."""
    found, other = Bits(len(objects)), None
    for key in place.keys():  # noqa: SIM118 - no mapping
        at = objects.find(key)
        if at is not None:
            found.add(at)
        elif key.rpartition("/")[2] not in _METADATA and (other is None or key < other):
            other = key
    return found, other


def require_chunks(source: Source, times: range, channels: Sequence[int]) -> tuple[str, ...]:
    """Refuse frames of which nothing is stored; returns what is to be said where a part is not.

    Raises
    ------
    InputError
        Says whether there are files under other keys.
    """
    try:
        with source.refusing_errors():
            found = look_for_chunks(source, times, channels)
    except InputError as error:
        if isinstance(error.__cause__, PermissionError) and source.place.remote:
            return ()  # a store that hides what is not there: the run will say what it meets
        raise
    if found.absent == 0:
        return ()
    kind = "shard" if source.array.shards else "chunk"
    place = source.place / source.node
    fill = 0 if source.array.fill_value is None else source.array.fill_value
    looked = "" if found.expected == found.total else f" that were asked for, of {found.total},"
    if found.absent == found.expected:
        key = _Objects(source, times, channels).key(0)
        lie = (
            f"files such as {found.other!r} lie there and the metadata say keys such as {key!r}: correct the"
            " separator or the encoding of the keys in the metadata"
            if found.other is not None
            else f"there is no file such as {key!r}: restore them from a copy, or choose frames that are stored"
        )
        raise InputError(
            f"{place} holds none of the {found.expected} {kind}s{looked} of its frames, which would all be read as"
            f" {fill}; {lie}."
        )
    if found.total > MANY and found.absent > NEARLY_ALL * found.expected:
        raise InputError(
            f"{place} holds {found.expected - found.absent} of {found.expected} {kind}s{looked} of its frames, and all"
            f" others would be read as {fill}; correct the shape in its metadata, or choose frames that are stored with"
            " --frames."
        )
    parts = [
        f"{what} of {', '.join(map(str, frames.first))}"
        + (f" and {frames.count - _SHOWN} more frames" if frames.count > _SHOWN else "")
        for what, frames in (("all", found.whole), ("part", found.partial))
        if frames.count
    ]
    return (
        f"{found.absent} of {found.expected} {kind}s{looked} of the input do not exist ({'; '.join(parts)}): they are"
        f" read as {fill}, which is right where the writer left out empty {kind}s.",
    )
