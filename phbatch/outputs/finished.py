"""What of an output is finished."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from phbatch.frames.table import StatisticsTable
from phbatch.kernels.display import Extent
from phbatch.outputs.ledger import METADATA
from phbatch.planning.positions import PositionUnits
from phbatch.planning.unit import Unit
from phbatch.planning.units import Geometry, Units
from phbatch.words.bits import Bits

FrameIndex = tuple[int, int, int | None]


def shown_frames(
    measured: Sequence[FrameIndex], channels: int, written: int
) -> Iterator[tuple[FrameIndex, Sequence[int]]]:
    """The frames that are written of some that were measured, each with the places of those that it is made of.

    Parameters
    ----------
    measured : sequence of (t, c, z)
        Of the input.
    channels, written : int
        Number of channels of the input, and of the output; where they are equal, each is made of one.

    Examples
    --------
    >>> list(shown_frames([(0, 0, 0), (0, 1, 0)], 2, 2))
    [((0, 0, 0), [0]), ((0, 1, 0), [1])]
    >>> list(shown_frames([(4, 0, 0), (4, 1, 0)], 2, 1))
    [((4, 0, 0), [0, 1])]
    """
    if channels == written:
        yield from ((frame, [at]) for at, frame in enumerate(measured))
        return
    made_of: dict[tuple[int, int | None], list[int]] = {}
    for at, (t, _, z) in enumerate(measured):
        made_of.setdefault((t, z), []).append(at)
    for (t, z), places in made_of.items():
        yield from (((t, c, z), places) for c in range(written))


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
        self.table, self.shown = StatisticsTable(geometry.grid), StatisticsTable(geometry.shown_grid)
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
        frames = [(row["t"], row["c"], row["z"]) for row in record["statistics"]]
        channels = len(table.grid.channels), len(shown.grid.channels)
        for ((t, c, z), _), extent in zip(shown_frames(frames, *channels), record.get("shown", ()), strict=False):
            values = extent or [None] * len(Extent._fields)
            shown.put({"t": t, "c": c, "z": z} | dict(zip(Extent._fields, values, strict=True)))

    def _tables_of(self, position: int) -> tuple[StatisticsTable, StatisticsTable]:
        """Where the statistics of a unit go, and its extents."""
        return self.table, self.shown


class FinishedPositions(Finished):
    """The same of several images: `tables` and `all_shown` have one for each of them, by its path."""

    def __init__(self, units: PositionUnits) -> None:
        geometries = units.geometries.items()
        self.tables = {path: StatisticsTable(geometry.grid) for path, geometry in geometries}
        self.all_shown = {path: StatisticsTable(geometry.shown_grid) for path, geometry in geometries}
        super().__init__(next(iter(units.geometries.values())), units)
        self.units = units

    def _tables_of(self, position: int) -> tuple[StatisticsTable, StatisticsTable]:
        path = self.units.place(position)[0]
        return self.tables[path], self.all_shown[path]
