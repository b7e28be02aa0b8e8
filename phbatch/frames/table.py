"""The statistics table: one row per frame, kept as columns of numbers, which are on disk where there are many."""

from __future__ import annotations

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from phbatch.frames.columns import Columns
from phbatch.kernels.stats import FLAG_NAMES, FrameStatistics, flag_bits
from phbatch.places.table_file import MEASURED, arrow_stream
from phbatch.words.axes import FrameGrid, FrameKey
from phbatch.words.errors import UsageError

_KEY_NAMES = ("t", "c", "z")
_LEADING = ("median", "mode", "mad", "mean", "std", "min", "max")
_TRAILING = ("saturated", "zero", "focus", "background", "padding")
_SMOOTHED = ("median_smooth", "mode_smooth")
_POOLED = "pooled_"
_RELEASED_AFTER = 1 << 13  # rows that were put
_PERCENTILE = re.compile(r"p\d+(\.\d+)?")

Positions = slice | NDArray[np.intp]
"""Of some frames in the order of t, c, z."""


@dataclass(frozen=True)
class StatisticsRow:
    """One row of the statistics table: the frame and its statistics."""

    key: FrameKey
    statistics: FrameStatistics

    def as_dict(self) -> dict[str, Any]:
        """The row as plain values, one column each; percentiles as ``p2``, ``p99.8``."""
        s = self.statistics
        row: dict[str, Any] = {"t": self.key.t, "c": self.key.c, "z": self.key.z}
        row |= {name: getattr(s, name) for name in _LEADING}
        row |= {f"p{p:g}": value for p, value in s.percentiles.items()}
        row |= {name: getattr(s, name) for name in _TRAILING}
        if s.median_smooth is not None:
            row |= {name: getattr(s, name) for name in _SMOOTHED}
        if s.pooled is not None:
            row |= {f"{_POOLED}{name}": getattr(s.pooled, name) for name in _LEADING}
            row |= {f"{_POOLED}p{p:g}": value for p, value in s.pooled.percentiles.items()}
        return row | {"flags": list(s.flags)}

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> StatisticsRow:
        """The inverse of `as_dict`; what the row lacks is NaN, and columns that it does not know are ignored."""
        statistics = _read_statistics(row, "")
        if any(row.get(f"{_POOLED}{name}") is not None for name in _LEADING):
            statistics = replace(statistics, pooled=_read_statistics(row, _POOLED))
        if row.get("median_smooth") is not None:
            median, mode = (None if row.get(name) is None else float(row[name]) for name in _SMOOTHED)
            statistics = replace(statistics, median_smooth=median, mode_smooth=mode)
        z = row.get("z")
        key = FrameKey(int(row["t"]), int(row.get("c") or 0), None if z is None else int(z))
        flags = tuple(row.get("flags") or ())
        unknown = sorted(set(flags) - set(FLAG_NAMES))
        if unknown:
            raise ValueError(f"{unknown[0]!r} is no flag; the flags are {', '.join(FLAG_NAMES)}")
        return cls(key, replace(statistics, flags=flags))


class Rows(Sequence[dict[str, Any]], ABC):
    """Rows of statistics, one of each frame, which other libraries take as columns."""

    exit_code = 0

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """Columns of the table, in the order of the rows."""

    @abstractmethod
    def column(self, name: str) -> NDArray[Any]:
        """One column of all rows."""

    @abstractmethod
    def as_written(self) -> tuple[tuple[str, ...], Iterator[Mapping[str, Any]]]:
        """Names and rows of a file, which says how its frames were measured."""

    def to_pandas(self) -> Any:
        """The table as a pandas.DataFrame, one row per frame; flags are words with blanks between, as in CSV.

        Raises
        ------
        UsageError
            pandas is not installed.
        """
        try:
            from pandas import DataFrame
        except ImportError as error:
            raise UsageError(
                "to_pandas needs the library pandas; install it with `pip install 'phbatch[pandas]'`, or take columns"
                " with column()."
            ) from error
        return DataFrame(self._plain_columns())

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """The table by the Arrow PyCapsule protocol, which pyarrow, polars, DuckDB and pandas 3 take."""
        return arrow_stream(self._plain_columns(), requested_schema)

    @abstractmethod
    def _plain_columns(self) -> dict[str, Any]:
        """Columns for other libraries: numbers as arrays, NaN where one is not known; flags as text."""


class StatisticsTable(Rows):
    """Statistics of every frame of a run, in the order of t, c, z.

    A sequence of rows, each a dict of plain values that is made when it is asked for: ``t``, ``c``, ``z`` (None where a
    frame is a volume), the statistics (None where they are not finite), and ``flags``, a list of words. `column` has
    one statistic of all frames.

    Parameters
    ----------
    grid : FrameGrid
        Which frames.

    Attributes
    ----------
    measured : str
        How the frames were measured (`phbatch.places.table_file.describe_measurement`); empty where that is not known.
    known : int
        Number of frames whose statistics are there.

    Examples
    --------
    >>> table = StatisticsTable(FrameGrid(range(2), (0,), None))
    >>> table.put({"t": 1, "c": 0, "z": None, "median": 7.0, "flags": ["black"]})
    >>> table[1]
    {'t': 1, 'c': 0, 'z': None, 'median': 7.0, 'flags': ['black']}
    >>> table.column("median")
    array([nan,  7.])
    """

    def __init__(self, grid: FrameGrid) -> None:
        self.grid = grid
        self.measured = ""
        self.known = 0
        self._storage = Columns(len(grid))
        self._columns: dict[str, NDArray[np.float64]] = {}
        self._flags: NDArray[np.uint16] = self._storage.new(np.uint16, 0)
        self._known: NDArray[np.bool_] = self._storage.new(bool, 0)

    def __len__(self) -> int:
        return len(self.grid)

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, index: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        if isinstance(index, slice):
            return [self._row(at) for at in range(len(self))[index]]
        return self._row(range(len(self))[index])

    @property
    def names(self) -> tuple[str, ...]:
        """Columns of the table, in the order of the rows."""
        return (*_KEY_NAMES, *self._columns, "flags")

    def knows(self, key: FrameKey) -> bool:
        """Whether the statistics of a frame are there."""
        return bool(self._known[self.grid.index(key)])

    def first_unknown(self) -> FrameKey | None:
        """Key of the first frame whose statistics are not there."""
        return None if self.known == len(self) else self.grid.key(int(np.argmin(self._known)))

    @property
    def flag_bits(self) -> NDArray[np.uint16]:
        """Flags of every frame as bits, in the order of `phbatch.kernels.stats.FLAG_NAMES`."""
        return self._flags

    def column(self, name: str) -> NDArray[Any]:
        """One statistic of all frames: float64, NaN where it is not known; t, c and z are int64, z -1 for volumes."""
        if name not in _KEY_NAMES:
            self._storage.reach(len(self) - 1)
            return self._columns[name]
        axis = _KEY_NAMES.index(name)
        planes = range(self.grid.planes) if self.grid.planes is not None else [-1]
        lengths: list[Sequence[int]] = [self.grid.times, self.grid.channels, planes]
        return np.broadcast_to(
            np.array(lengths[axis], np.int64).reshape([-1 if at == axis else 1 for at in range(3)]), self.grid.shape
        ).ravel()

    def plain_column(self, name: str) -> list[Any]:
        """A column as the rows have it: None where a value is not finite or a frame has no z, flags as lists of words.

        Examples
        --------
        >>> table = StatisticsTable(FrameGrid(range(2), (0,), None))
        >>> table.put({"t": 1, "c": 0, "z": None, "median": 7.0, "flags": ["black"]})
        >>> table.plain_column("median"), table.plain_column("flags")
        ([None, 7.0], [[], ['black']])
        """
        if name == "flags":
            return [flag_words(bits) for bits in self._flags.tolist()]
        if name == "z" and self.grid.planes is None:
            return [None] * len(self)
        values = self.column(name)
        return [value if known else None for value, known in zip(values.tolist(), np.isfinite(values), strict=True)]

    def _plain_columns(self) -> dict[str, Any]:
        """Columns for other libraries: numbers as arrays, NaN where one is not known; flags as text."""
        columns: dict[str, Any] = {name: self.column(name) for name in self.names if name != "flags"}
        if self.grid.planes is None:
            columns["z"] = np.full(len(self), np.nan)
        return columns | {"flags": [" ".join(flag_words(bits)) for bits in self._flags.tolist()]}

    def as_written(self) -> tuple[tuple[str, ...], Iterator[Mapping[str, Any]]]:
        """Names and rows of a file, which says how its frames were measured."""
        if not self.measured:
            return self.names, iter(self)
        return (*self.names, MEASURED), (row | {MEASURED: self.measured} for row in self)

    def put(self, row: Mapping[str, Any]) -> None:
        """Set the row of a frame from plain values, as `StatisticsRow.as_dict` makes them."""
        z = row.get("z")
        index = self.grid.index(FrameKey(row["t"], row["c"], z))
        self._storage.reach(index)
        for name, value in row.items():
            if name == "flags":
                self._flags[index] = flag_bits(value)
            elif name not in _KEY_NAMES:
                self._column(name)[index] = np.nan if value is None else value
        if not self._known[index]:
            self._known[index] = True
            self.known += 1
            if self.known % _RELEASED_AFTER == 0:
                self._storage.release()

    def statistics(self, key: FrameKey) -> FrameStatistics:
        """Statistics of one frame."""
        return StatisticsRow.from_dict(self._row(self.grid.index(key))).statistics

    def digest(self) -> str:
        """Hexadecimal SHA-256 of every column and flag."""
        self._storage.reach(len(self) - 1)
        found = hashlib.sha256(self._flags.data)
        for name in sorted(self._columns):
            found.update(name.encode())
            found.update(self._columns[name].data)
            self._storage.release()
        return found.hexdigest()

    def series(self) -> Iterator[slice]:
        """Positions of the frames of every channel and plane, in the order of time."""
        _, n_c, n_z = self.grid.shape
        for first in range(n_c * n_z):
            yield slice(first, None, n_c * n_z)

    def assign(self, name: str, positions: Positions, values: NDArray[np.float64] | float) -> None:
        """Set a statistic of some frames."""
        self._storage.reach(len(self) - 1)
        self._column(name)[positions] = values
        self._storage.release()

    def flag(self, positions: Positions, word: str, where: NDArray[np.bool_] | bool = True) -> None:
        """Add a word to the flags of some frames."""
        self._storage.reach(len(self) - 1)
        self._flags[positions] |= np.where(where, flag_bits((word,)), 0).astype(np.uint16)

    def series_statistics(self, positions: Positions) -> Mapping[str, NDArray[np.float64]]:
        """Every statistic that was measured, of some frames; each is copied when it is asked for."""
        self._storage.reach(len(self) - 1)
        return _Part(self._columns, positions, self._storage)

    def _column(self, name: str) -> NDArray[np.float64]:
        if name not in self._columns:
            self._columns[name] = self._storage.new(np.float64, np.nan)
        return self._columns[name]

    def _row(self, index: int) -> dict[str, Any]:
        key = self.grid.key(index)
        self._storage.reach(index)
        values = {name: float(values[index]) for name, values in self._columns.items()}
        finite = {name: value if np.isfinite(value) else None for name, value in values.items()}
        return {"t": key.t, "c": key.c, "z": key.z, **finite, "flags": flag_words(int(self._flags[index]))}


class _Part(Mapping[str, NDArray[np.float64]]):
    """Some rows of columns."""

    def __init__(self, columns: Mapping[str, NDArray[np.float64]], positions: Positions, storage: Columns) -> None:
        self._columns, self._positions, self._storage = columns, positions, storage

    def __getitem__(self, name: str) -> NDArray[np.float64]:
        found = np.array(self._columns[name][self._positions])
        self._storage.release()
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)


def flag_words(bits: int) -> list[str]:
    """Words of the flags of a frame."""
    return [name for bit, name in enumerate(FLAG_NAMES) if bits >> bit & 1]


def _read_statistics(row: Mapping[str, Any], prefix: str) -> FrameStatistics:
    def value(name: str) -> float:
        found = row.get(f"{prefix}{name}")
        return np.nan if found is None else float(found)

    percentiles = {
        float(name.removeprefix(prefix)[1:]): value(name.removeprefix(prefix))
        for name in row
        if name.startswith(prefix) and _PERCENTILE.fullmatch(name.removeprefix(prefix))
    }
    names = _LEADING if prefix else (*_LEADING, *_TRAILING)
    values: dict[str, Any] = {name: value(name) for name in names}
    return FrameStatistics(percentiles=percentiles, **values)
