"""What of an output is finished."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from phbatch.frames.table import StatisticsTable
from phbatch.outputs.ledger import METADATA
from phbatch.planning.units import Geometry


class Finished:
    """The units of an output that are finished, and the statistics of their frames.

    Parameters
    ----------
    geometry : Geometry
        Of the run.

    Attributes
    ----------
    table : StatisticsTable
        Of the frames that are finished.
    inputs : dict of str to str
        Digest of what each unit was read from.
    complete : bool
        Whether tables and attributes are written, too.
    stages : dict of str to float
        Seconds that the units of this call spent in each stage, see `phbatch.frames.clock`.
    """

    def __init__(self, geometry: Geometry) -> None:
        self.complete = False
        self.table = StatisticsTable(geometry.grid)
        self.stages: dict[str, float] = {}
        self.inputs: dict[str, str] = {}
        self._clipped: dict[str, int] = {}

    def __contains__(self, unit: str) -> bool:
        return unit in self._clipped

    def __len__(self) -> int:
        return len(self._clipped)

    @property
    def clipped(self) -> int:
        """Pixels that the output's dtype could not hold."""
        return sum(self._clipped.values())

    def spend(self, stages: Mapping[str, float]) -> None:
        """Count where the time of a unit went."""
        for stage, seconds in stages.items():
            self.stages[stage] = self.stages.get(stage, 0.0) + seconds

    def add(self, record: Mapping[str, Any]) -> None:
        """Take in what the ledger says of a unit."""
        if record["unit"] == METADATA:
            self.complete = record["complete"]
            return
        self._clipped[record["unit"]] = record["clipped"]
        self.inputs[record["unit"]] = record["input"]
        for row in record["statistics"]:
            self.table.put(row)
