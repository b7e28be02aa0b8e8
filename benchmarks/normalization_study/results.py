"""The cells of a study as one compact document, and the values of its conditions seed by seed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from phbatch.places.durable import replace_file

PUBLISHED = Path(__file__).parent / "results.json"
"""What docs/benchmarks/normalization-study.md tells of."""


@dataclass(frozen=True)
class Results:
    """A study, or as much of it as was computed.

    Attributes
    ----------
    settings : dict
        That all cells share.
    cells : list of dict
        With `group`, `condition`, `seed`, `measures` and `real`.
    """

    settings: dict[str, Any]
    cells: list[dict[str, Any]]

    @classmethod
    def collect(cls, records: Sequence[dict[str, Any]]) -> Results:
        """Of the files of the cells."""
        return cls(records[0]["settings"], [_short(record) for record in records])

    @classmethod
    def read(cls, path: Path = PUBLISHED) -> Results:
        """Of a document."""
        document = json.loads(path.read_text(encoding="utf-8"))
        return cls(document["settings"], document["cells"])

    def write(self, path: Path) -> None:
        """A cell a line."""
        lines = ",\n".join(json.dumps(cell, separators=(",", ":")) for cell in self.cells)
        replace_file(path, f'{{"settings":{json.dumps(self.settings)},\n"cells":[\n{lines}\n]}}\n'.encode())

    def conditions(self, group: str) -> list[str]:
        """In the order of the design."""
        return list(dict.fromkeys(cell["condition"] for cell in self.cells if cell["group"] == group))

    def cells_of(self, group: str, condition: str) -> list[dict[str, Any]]:
        """One for each seed, in their order."""
        found = [cell for cell in self.cells if (cell["group"], cell["condition"]) == (group, condition)]
        return sorted(found, key=lambda cell: int(cell["seed"]))

    def values(self, group: str, condition: str, measure: str) -> list[float]:
        """Of a measure, seed by seed; of ``"real:drift"`` the mean over the sets of real frames."""
        return [found for cell in self.cells_of(group, condition) if (found := _value(cell, measure)) is not None]


def _value(cell: dict[str, Any], measure: str) -> float | None:
    if not measure.startswith("real:"):
        return float(cell["measures"][measure])
    sets: Iterable[dict[str, float]] = cell["real"].values()
    values = [found[measure.removeprefix("real:")] for found in sets]
    return fmean(values) if values else None


def _short(record: dict[str, Any]) -> dict[str, Any]:
    cell = record["cell"]
    return {
        "group": cell["group"],
        "condition": cell["condition"],
        "seed": cell["training"]["seed"],
        "seconds": record["seconds"],
        "background_share": _rounded(record["background_share"]),
        "measures": _rounded(record["measures"]),
        "real": _rounded(record["real"]),
    }


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_rounded(each) for each in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value
