"""When units were finished, where their time went, and which of them were clipped: what records of a ledger tell."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phbatch.frames.clock import STAGES
from phbatch.outputs.finished import Finished

_CLIPPED_LISTED = 50


@dataclass(frozen=True, eq=False)
class UnitTimes:
    """When units were committed, how many frames they hold, and where their time went; in the order of time.

    Attributes
    ----------
    at : (n,) ndarray
        Seconds since 1970.
    frames, seconds : (n,) ndarray
        Of every unit.
    stages : mapping of str to (n,) ndarray
        Seconds in each stage.
    clipped : mapping of str to int
        Pixels that were clipped, of the units with most of them.
    """

    at: NDArray[np.float64]
    frames: NDArray[np.float64]
    seconds: NDArray[np.float64]
    stages: Mapping[str, NDArray[np.float64]]
    clipped: Mapping[str, int]


def read_units(records: Iterable[Mapping[str, Any]], finished: Finished) -> UnitTimes:
    """Go through the records of a ledger once, and take them into what is finished."""
    columns = {name: array("d") for name in ("at", "frames", "seconds", *STAGES)}
    clipped = Counter[str]()
    for record in records:
        finished.add(record)
        if "statistics" not in record or not finished.counts(record["unit"]):
            continue
        columns["at"].append(record.get("at", 0.0))
        columns["frames"].append(len(record["statistics"]) / finished.bands)
        columns["seconds"].append(record.get("seconds", 0.0))
        for stage in STAGES:
            columns[stage].append(record.get("stages", {}).get(stage, 0.0))
        if record["clipped"]:
            clipped[record["unit"]] = record["clipped"]
            if len(clipped) > 2 * _CLIPPED_LISTED:
                clipped = Counter(dict(clipped.most_common(_CLIPPED_LISTED)))
    order = np.argsort(np.asarray(columns["at"]), kind="stable")
    found = {name: np.asarray(values)[order] for name, values in columns.items()}
    return UnitTimes(
        found["at"],
        found["frames"],
        found["seconds"],
        {name: found[name] for name in STAGES},
        dict(clipped.most_common(_CLIPPED_LISTED)),
    )
