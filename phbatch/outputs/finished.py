"""What of an output is finished."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from phbatch.frames.table import StatisticsTable
from phbatch.outputs.ledger import METADATA
from phbatch.planning.units import Geometry, Unit
from phbatch.words.bits import Bits


class Finished:
    """The units of an output that are finished, a bit each, and the statistics of their frames.

    Parameters
    ----------
    geometry : Geometry
        Of the run.

    Attributes
    ----------
    table : StatisticsTable
        Of the frames that are finished.
    frames : int
        How many these are.
    clipped : int
        Pixels that the output's dtype could not hold.
    complete : bool
        Whether tables and attributes are written, too.
    stages : dict of str to float
        Seconds that the units of this call spent in each stage, see `phbatch.frames.clock`.
    """

    def __init__(self, geometry: Geometry) -> None:
        self.complete = False
        self.table = StatisticsTable(geometry.grid)
        self.stages: dict[str, float] = {}
        self.frames = self.clipped = 0
        self._units = geometry.units
        self._done = Bits(len(self._units))

    def __contains__(self, unit: str) -> bool:
        place = self._units.find(unit)
        return place is not None and place in self._done

    def __len__(self) -> int:
        return len(self._done)

    def todo(self) -> Iterator[Unit]:
        """The units that are not finished, in their order."""
        return map(self._units.__getitem__, self._done.absent())

    def spend(self, stages: Mapping[str, float]) -> None:
        """Count where the time of a unit went."""
        for stage, seconds in stages.items():
            self.stages[stage] = self.stages.get(stage, 0.0) + seconds

    def add(self, record: Mapping[str, Any]) -> None:
        """Take in what the ledger says of a unit; of one that is none of the run's, nothing."""
        if record["unit"] == METADATA:
            self.complete = record["complete"]
            return
        place = self._units.find(record["unit"])
        if place is None or not self._done.add(place):
            return
        self.clipped += record["clipped"]
        self.frames += len(record["statistics"])
        for row in record["statistics"]:
            self.table.put(row)
