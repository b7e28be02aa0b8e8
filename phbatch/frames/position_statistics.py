"""The statistics tables of many images, one below the other."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from phbatch.frames.table import Rows, StatisticsTable
from phbatch.places.table_file import MEASURED, POSITION


class PositionStatistics(Rows):
    """Statistics of every frame of many images: the rows of each as it has them alone, after its ``position``.

    Parameters
    ----------
    tables : mapping of str to StatisticsTable
        Of every image, by its path.
    left_out : mapping of str to str
        Why an image has no table, by its path.

    Examples
    --------
    >>> from phbatch.words.axes import FrameGrid
    >>> tables = {path: StatisticsTable(FrameGrid(range(1), (0,), None)) for path in ("A/1/0", "A/2/0")}
    >>> tables["A/2/0"].put({"t": 0, "c": 0, "z": None, "median": 7.0, "flags": []})
    >>> found = PositionStatistics(tables)
    >>> found[1]
    {'position': 'A/2/0', 't': 0, 'c': 0, 'z': None, 'median': 7.0, 'flags': []}
    >>> found.column("median"), found.column("position").tolist()
    (array([nan,  7.]), ['A/1/0', 'A/2/0'])
    """

    def __init__(self, tables: Mapping[str, StatisticsTable], left_out: Mapping[str, str] | None = None) -> None:
        self.tables, self.left_out = dict(tables), dict(left_out or {})
        self._paths = list(self.tables)
        self._starts = list(accumulate(map(len, self.tables.values()), initial=0))

    def __len__(self) -> int:
        return self._starts[-1]

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, index: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        if isinstance(index, slice):
            return [self[at] for at in range(len(self))[index]]
        index = range(len(self))[index]
        at = bisect_right(self._starts, index) - 1
        path = self._paths[at]
        return {POSITION: path, **self.tables[path][index - self._starts[at]]}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return ({POSITION: path, **row} for path, table in self.tables.items() for row in table)

    @property
    def names(self) -> tuple[str, ...]:
        """Columns of the table, in the order of the rows."""
        return (POSITION, *max((table.names for table in self.tables.values()), key=len, default=()))

    def column(self, name: str) -> NDArray[Any]:
        """One statistic of all frames, as `StatisticsTable.column`; ``position`` is text."""
        if name == POSITION:
            return np.repeat(np.array(self._paths, object), [len(table) for table in self.tables.values()])
        return np.concatenate(
            [
                table.column(name) if name in table.names else np.full(len(table), np.nan)
                for table in self.tables.values()
            ]
        )

    @property
    def exit_code(self) -> int:  # type: ignore[override]
        """4 where an image could not be measured, as of a run of which units failed."""
        return 4 if self.left_out else 0

    def _plain_columns(self) -> dict[str, Any]:
        each = [table._plain_columns() for table in self.tables.values()]
        columns = {name: [found.get(name, np.full(len(found["t"]), np.nan)) for found in each] for name in self.names}
        flags = [words for found in columns.pop("flags") for words in found]
        return {name: np.concatenate(parts) for name, parts in columns.items()} | {
            POSITION: self.column(POSITION),
            "flags": flags,
        }

    def as_written(self) -> tuple[tuple[str, ...], Iterator[Mapping[str, Any]]]:
        """Names and rows of a file, which says how the frames of each image were measured."""
        measured = {path: table.measured for path, table in self.tables.items()}
        return (*self.names, MEASURED), (row | {MEASURED: measured[row[POSITION]]} for row in self)
