"""What of an output is finished."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from phbatch.frames.table import StatisticsTable
from phbatch.kernels.display import Extent
from phbatch.outputs.ledger import METADATA
from phbatch.planning.positions import PositionUnits
from phbatch.planning.unit import Unit
from phbatch.planning.units import Geometry, Units
from phbatch.words.bits import Bits


class Finished:
    """The units of an output that are finished, a bit each, and the statistics of their frames.

    Parameters
    ----------
    geometry : Geometry
        Of the run.
    units : Units, optional
        Those that count; all of the run by default.

    Attributes
    ----------
    total : int
        How many units there are, finished or not.
    table : StatisticsTable
        Of the frames that are finished.
    shown : StatisticsTable
        Extents of what was written of them (`phbatch.kernels.display`), where these are measured.
    pieces : int
        Frames that are finished, or bands of them.
    bands : int
        Of a frame.
    clipped : int
        Pixels that the output's dtype could not hold.
    complete : bool
        Whether tables and attributes are written, too.
    stages : dict of str to float
        Seconds that the units of this call spent in each stage, see `phbatch.frames.clock`.
    """

    def __init__(self, geometry: Geometry, units: Units | PositionUnits | None = None) -> None:
        self.complete = False
        self.table, self.shown = StatisticsTable(geometry.grid), StatisticsTable(geometry.grid)
        self.stages: dict[str, float] = {}
        self.pieces = self.clipped = 0
        self.bands = geometry.bands
        self._units = geometry.units if units is None else units
        self.total = len(self._units)
        self._done = Bits(self.total)

    def __contains__(self, unit: str) -> bool:
        position = self._units.find(unit)
        return position is not None and position in self._done

    def __len__(self) -> int:
        return len(self._done)

    @property
    def missing(self) -> int:
        """How many units are not finished."""
        return self.total - len(self._done)

    @property
    def frames(self) -> int:
        """How many frames are finished, bands of others taken together."""
        return self.pieces // self.bands

    def counts(self, unit: str) -> bool:
        """Whether a unit is one of these."""
        return self._units.find(unit) is not None

    def todo(self) -> Iterator[Unit]:
        """The units that are not finished, in their order."""
        return map(self._units.__getitem__, self._done.absent())

    def todo_indices(self) -> Iterator[int]:
        """Where among all units those are that are not finished."""
        return self._done.absent()

    def spend(self, stages: Mapping[str, float]) -> None:
        """Count where the time of a unit went."""
        for stage, seconds in stages.items():
            self.stages[stage] = self.stages.get(stage, 0.0) + seconds

    def add(self, record: Mapping[str, Any]) -> None:
        """Take in what the ledger says of a unit; of one that is none of the run's, nothing."""
        if record["unit"] == METADATA:
            self.complete = record["complete"]
            return
        position = self._units.find(record["unit"])
        if position is None or not self._done.add(position):
            return
        self.clipped += record["clipped"]
        self.pieces += len(record["statistics"])
        table, shown = self._tables_of(position)
        for row in record["statistics"]:
            table.put(row)
        for row, extent in zip(record["statistics"], record.get("shown", ()), strict=False):
            values = extent or [None] * len(Extent._fields)
            shown.put({name: row[name] for name in ("t", "c", "z")} | dict(zip(Extent._fields, values, strict=True)))

    def _tables_of(self, position: int) -> tuple[StatisticsTable, StatisticsTable]:
        """Where the statistics of a unit go, and its extents."""
        return self.table, self.shown


class FinishedPositions(Finished):
    """The same of several images: `tables` and `all_shown` have one for each of them, by its path."""

    def __init__(self, units: PositionUnits) -> None:
        self.tables, self.all_shown = (
            {path: StatisticsTable(geometry.grid) for path, geometry in units.geometries.items()} for _ in range(2)
        )
        super().__init__(next(iter(units.geometries.values())), units)
        self.units = units

    def _tables_of(self, position: int) -> tuple[StatisticsTable, StatisticsTable]:
        path = self.units.place(position)[0]
        return self.tables[path], self.all_shown[path]
