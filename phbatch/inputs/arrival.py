"""Which frames of an input are there while a microscope is still writing it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from phbatch.inputs.image import Source
from phbatch.inputs.stamps import ABSENT, Stamps
from phbatch.places.zarr_nodes import stored_lengths

_MOST_AT_ONCE = 256  # stretches whose objects are asked for together


@dataclass(frozen=True)
class Arrived:
    """What a look at an input found.

    Attributes
    ----------
    frames : int
        Along t, from the first on, that are there and will not change.
    length : int
        Of the input along t, as its metadata say.
    changed : bool
        Whether anything came since the look before.
    full : bool
        Whether every frame is there of an input whose length was known before.
    """

    frames: int
    length: int
    changed: bool
    full: bool


class Arrival:
    """Looks at an input again and again.

    A stretch of frames along t that lie in the same stored objects is there once all of these exist, for every channel
    that is wanted, and the next stretch is there, too; or, where a stretch is one frame, once they did not change from
    one look to the next.

    Parameters
    ----------
    open : callable
        Opens the input anew.
    channels : sequence of int
        That are wanted.
    """

    def __init__(self, open: Callable[[], Source], channels: Sequence[int]) -> None:
        self._open, self._channels = open, channels
        self._there = 0  # stretches of which every object exists
        self._tail: dict[str, str] | None = None
        self._length = self._known_length = 0

    def look(self) -> Arrived:
        """Find what is there now.

        Raises
        ------
        InputError
            The input cannot be opened.
        """
        source = self._open()
        length, stretch, first = source.shape[0], _stretch(source), self._tail is None
        with source.refusing_errors():
            for number, stamps in self._stretches(source, self._there):
                if ABSENT in stamps.values():
                    break
                self._there = number + 1
            numbers = range(max(0, self._there - 1), min(self._there + 1, -(-length // stretch)))
            last, *begun = self._stamps(source, numbers)
            tail = last.copy()
            for stamps in begun:
                tail.update(stamps)
        settled = stretch == 1 and self._tail is not None and last.items() <= self._tail.items()
        there = self._there if settled else max(0, self._there - 1)
        changed = tail != self._tail or length != self._length
        if first and length > self._there * stretch + 1:  # its writer made it as long as it will be
            self._known_length = length
        self._tail, self._length = tail, length
        frames = min(there * stretch, length)
        return Arrived(frames, length, changed, full=frames == length == self._known_length)

    def count(self) -> int:
        """Frames along t up to the last of which anything is there: all of them, once nothing comes any more."""
        source = self._open()
        last = self._there
        with source.refusing_errors():
            for number, stamps in self._stretches(source, self._there):
                if set(stamps.values()) != {ABSENT}:
                    last = number + 1
        return min(last * _stretch(source), source.shape[0])

    def _stretches(self, source: Source, first: int) -> Iterator[tuple[int, dict[str, str]]]:
        """Number and stamps of every stretch from one on; more and more are asked for at once."""
        total, at_once = -(-source.shape[0] // _stretch(source)), 1
        while first < total:
            numbers = range(first, min(first + at_once, total))
            yield from zip(numbers, self._stamps(source, numbers), strict=True)
            first, at_once = numbers.stop, min(2 * at_once, _MOST_AT_ONCE)

    def _stamps(self, source: Source, numbers: Sequence[int]) -> list[dict[str, str]]:
        stretch, (_, _, *lengths) = _stretch(source), source.shape
        rest = tuple(slice(0, size) for size in lengths)
        keys = []
        for number in numbers:
            times = slice(number * stretch, min((number + 1) * stretch, source.shape[0]))
            regions = ((times, slice(c, c + 1), *rest) for c in self._channels)
            keys.append(list(dict.fromkeys(key for region in regions for key in source.objects(region))))  # type: ignore[arg-type]
        found = Stamps(source.place).of_all([key for some in keys for key in some])
        return [{key: found[key] for key in some} for some in keys]


def _stretch(source: Source) -> int:
    """Frames along t that lie in the same stored objects."""
    return stored_lengths(source.array)[source.stored_axes.index("t")] if "t" in source.stored_axes else 1
