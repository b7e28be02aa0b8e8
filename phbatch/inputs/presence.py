"""Whether the chunks of an input are there: Zarr reads a chunk that is not there as the fill value, mostly as zeros.

Writers leave out chunks of nothing but the fill value, so that some may be absent by right; all of them, or those under
keys that the metadata do not say, are an input that was lost on the way.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from math import prod

from phbatch.inputs.image import Source
from phbatch.places.place import REQUESTS_AT_ONCE
from phbatch.places.zarr_nodes import stored_lengths
from phbatch.words.axes import CANONICAL, FrameKey
from phbatch.words.errors import InputError

MAX_LISTED = {"local": 1_000_000, "remote": 50_000}
"""Objects of an array that are listed; of one with more, and on a web server, some are asked for."""

MAX_ASKED = 64
"""Objects that are asked for where nothing is listed, spread over the array."""

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
    whole, partial : tuple of FrameKey
        Frames of which every object is absent, and those of which some are.
    others : tuple of str
        Keys of files beside the metadata where no object is present.
    """

    expected: int
    absent: int
    whole: tuple[FrameKey, ...]
    partial: tuple[FrameKey, ...]
    others: tuple[str, ...]
    total: int


def look_for_chunks(source: Source, times: Sequence[int], channels: Sequence[int]) -> Presence:
    """Find what is stored of some frames, by listings and without reading a pixel.

    Raises
    ------
    OSError
        The store cannot be reached.
    """
    place = source.place / source.node
    grid = _object_grid(source, times, channels)
    total = prod(map(len, grid))
    found = None
    if total <= MAX_LISTED["remote" if place.remote else "local"] and place.lists:
        with suppress(PermissionError):  # whoever may read objects of a bucket need not be allowed to list them
            found = set(place.keys())
    if found is not None:
        keys = _object_keys(source, grid, range(total))
    else:
        keys = _object_keys(
            source, grid, sorted({round(at * (total - 1) / (MAX_ASKED - 1)) for at in range(MAX_ASKED)})
        )
        asked = [key for objects in keys.values() for key in objects]
        with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:
            there = pool.map(place.exists, asked)
            found = {key for key, is_there in zip(asked, there, strict=True) if is_there}
    expected = sum(map(len, keys.values()))
    missing = {index: sum(key not in found for key in objects) for index, objects in keys.items()}
    full = {index for index, count in missing.items() if expected == total and count == len(keys[index])}
    all_of = [index for index in missing if index in full]
    part_of = [index for index, count in missing.items() if count and index not in full]
    absent = sum(missing.values())
    others = [key for key in sorted(found) if key.rpartition("/")[2] not in _METADATA] if absent == expected else []
    return Presence(
        expected,
        absent,
        _frames(source, all_of, times, channels),
        _frames(source, part_of, times, channels),
        tuple(others),
        total,
    )


def require_chunks(source: Source, times: Sequence[int], channels: Sequence[int]) -> tuple[str, ...]:
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
        key = _first_key(source, times, channels)
        lie = (
            f"files such as {found.others[0]!r} lie there and the metadata say keys such as {key!r}: correct the"
            " separator or the encoding of the keys in the metadata"
            if found.others
            else f"there is no file such as {key!r}: restore them from a copy, or choose frames that are stored"
        )
        raise InputError(
            f"{place} holds none of the {found.expected} {kind}s{looked} of its frames, which would all be read as"
            f" {fill}; {lie}."
        )
    parts = [
        f"{what} of {', '.join(map(str, frames[:_SHOWN]))}"
        + (f" and {len(frames) - _SHOWN} more frames" if len(frames) > _SHOWN else "")
        for what, frames in (("all", found.whole), ("part", found.partial))
        if frames
    ]
    return (
        f"{found.absent} of {found.expected} {kind}s{looked} of the input do not exist ({'; '.join(parts)}): they are"
        f" read as {fill}, which is right where the writer left out empty {kind}s.",
    )


def _object_lengths(source: Source) -> dict[str, int]:
    return dict(zip(source.stored_axes, stored_lengths(source.array), strict=True))


def _object_grid(source: Source, times: Sequence[int], channels: Sequence[int]) -> list[Sequence[int]]:
    """Indices, along ``tczyx``, of the objects that hold some frames."""
    lengths = _object_lengths(source)
    grid: list[Sequence[int]] = [
        range(-(-size // lengths.get(axis, 1))) for axis, size in zip(CANONICAL, source.shape, strict=True)
    ]
    grid[0] = sorted({t // lengths.get("t", 1) for t in times})
    grid[1] = sorted({c // lengths.get("c", 1) for c in channels})
    return grid


def _object_keys(source: Source, grid: Sequence[Sequence[int]], places: Sequence[int]) -> dict[Index, list[str]]:
    """Keys of the objects at some places of a grid, counted in its order, by their index along t, c and z."""
    keys: dict[Index, list[str]] = {}
    order = [CANONICAL.index(axis) for axis in source.stored_axes]
    for place in places:
        at, rest = [0] * len(grid), place
        for axis in reversed(range(len(grid))):
            rest, index = divmod(rest, len(grid[axis]))
            at[axis] = grid[axis][index]
        key = source.array.metadata.encode_chunk_key(tuple(at[axis] for axis in order))
        keys.setdefault((at[0], at[1], at[2]), []).append(key)
    return keys


def _frames(
    source: Source, indices: Sequence[Index], times: Sequence[int], channels: Sequence[int]
) -> tuple[FrameKey, ...]:
    """Frames, of those wanted, that objects hold."""
    lengths = _object_lengths(source)
    wanted = (times, channels, range(source.shape[2]))
    found = []
    for index in indices:
        spans = [
            [at for at in range(start * length, (start + 1) * length) if at in kept]
            for start, length, kept in zip(index, (lengths.get(axis, 1) for axis in "tcz"), wanted, strict=True)
        ]
        found += [FrameKey(t, c, z) for t, c, z in product(*spans)]
    return tuple(sorted(found))


def _first_key(source: Source, times: Sequence[int], channels: Sequence[int]) -> str:
    ((key,),) = _object_keys(source, _object_grid(source, times, channels), [0]).values()
    return key
