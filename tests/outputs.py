"""Reading what a run wrote besides pixels."""

from __future__ import annotations

from math import isfinite
from typing import Any

from phbatch.places.place import Place
from phbatch.places.table_file import read_rows


def statistics_of(output: str) -> dict[str, list[Any]]:
    """Columns of an output's table, but how they were measured: None where a value is not finite, flags as words."""
    rows = list(read_rows(Place.at(output)))
    return {name: [_plain(row[name]) for row in rows] for name in rows[0] if name != "measured"}


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not isfinite(value) else value
