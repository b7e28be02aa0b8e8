"""The units of many images as one sequence: what the key of one begins with says which image it is of."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import overload

from phbatch.planning.unit import Unit
from phbatch.planning.units import Geometry


class PositionUnits(Sequence[Unit]):
    """Units of several images, one image after the other.

    Parameters
    ----------
    geometries : mapping of str to Geometry
        Of every image, by its path.
    within : range, optional
        Of all units, by their indices, those that count. Default: all.

    Examples
    --------
    >>> small = Geometry((3, 1, 1, 2048, 2048), (1, 1, 1, 2048, 2048), range(3), (0,))
    >>> units = PositionUnits({"A/1/0": small, "A/1/1": small})
    >>> len(units), units[3].key, units.find("A/1/1/t2/c0"), units.place(3)
    (6, 'A/1/1/t0/c0', 5, ('A/1/1', 0))
    >>> [unit.key for unit in units.part(2, 3)]
    ['A/1/0/t2/c0', 'A/1/1/t0/c0']
    """

    def __init__(self, geometries: Mapping[str, Geometry], within: range | None = None) -> None:
        self.geometries = dict(geometries)
        self._paths = list(self.geometries)
        self._order = {path: index for index, path in enumerate(self._paths)}
        self._units = [geometry.units for geometry in self.geometries.values()]
        self._starts = list(accumulate(map(len, self._units), initial=0))
        self._within = range(self._starts[-1]) if within is None else within

    def part(self, number: int, parts: int) -> PositionUnits:
        """One of some parts, from 1 on: units that follow each other, so that images lie together."""
        first, last = (len(self) * edge // parts for edge in (number - 1, number))
        return PositionUnits(self.geometries, self._within[first:last])

    @property
    def images(self) -> list[str]:
        """Paths of the images that these units are of."""
        if not len(self):
            return []
        first, last = (self._paths.index(self.place(index)[0]) for index in (0, -1))
        return self._paths[first : last + 1]

    def __len__(self) -> int:
        return len(self._within)

    @overload
    def __getitem__(self, index: int) -> Unit: ...
    @overload
    def __getitem__(self, index: slice) -> list[Unit]: ...
    def __getitem__(self, index: int | slice) -> Unit | list[Unit]:
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(len(self)))]
        path, at = self.place(index)
        unit = self._units[self._order[path]][at]
        return replace(unit, key=f"{path}/{unit.key}")

    def __iter__(self) -> Iterator[Unit]:
        return map(self.__getitem__, range(len(self)))

    def __contains__(self, unit: object) -> bool:
        return self.find(unit) is not None

    def place(self, index: int) -> tuple[str, int]:
        """Path of the image that a unit is of, and the unit's index within that image."""
        index = self._within[index]
        at = bisect_right(self._starts, index) - 1
        return self._paths[at], index - self._starts[at]

    def find(self, unit: object) -> int | None:
        """Index of a unit, or of the one that has a key; None where it is none of these."""
        key = unit.key if isinstance(unit, Unit) else unit
        if not isinstance(key, str):
            return None
        path, key = split_key(key)
        at = self._order.get(path)
        found = None if at is None else self._units[at].find(key)
        position = None if at is None or found is None else self._starts[at] + found
        return self._within.index(position) if position is not None and position in self._within else None


def split_key(key: str) -> tuple[str, str]:
    """Path of the image in the key of a unit, and the key within that image.

    Examples
    --------
    >>> split_key("A/1/0/t0/c0/z4"), split_key("t0/c0"), split_key("t0/c0/z4/y0-1023")
    (('A/1/0', 't0/c0/z4'), ('', 't0/c0'), ('', 't0/c0/z4/y0-1023'))
    """
    parts = key.split("/")
    count = 2 + sum(part.startswith(("z", "y")) for part in parts[-2:])
    return "/".join(parts[:-count]), "/".join(parts[-count:])
