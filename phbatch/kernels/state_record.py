"""States of statistics as plain values and back, exactly: what one process measured, another merges."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from phbatch.kernels.float_state import FloatState, Moments
from phbatch.kernels.frame_state import FrameState
from phbatch.kernels.histogram import Histogram
from phbatch.kernels.saturation import Brightest
from phbatch.kernels.sketch import Sketch
from phbatch.kernels.stats import State

_KINDS: dict[str, Any] = {
    kind.__name__: kind for kind in (FrameState, FloatState, Moments, Histogram, Brightest, Sketch)
}


def record_state(state: State) -> dict[str, Any]:
    """A state as values that JSON takes.

    Examples
    --------
    >>> from phbatch.kernels.stats import finalize, frame_state
    >>> state = frame_state(np.arange(64, dtype="uint16").reshape(8, 8), 1)
    >>> finalize(read_state(record_state(state))) == finalize(state)
    True
    """
    found: dict[str, Any] = _record(state)
    return found


def read_state(record: dict[str, Any]) -> State:
    """The inverse of `record_state`."""
    found: State = _read(record)
    return found


def _record(value: Any) -> Any:
    if is_dataclass(value):
        parts = {field.name: _record(getattr(value, field.name)) for field in fields(value)}
        return {"kind": type(value).__name__} | parts
    if isinstance(value, np.ndarray):
        return {"dtype": value.dtype.str, "numbers": value.tolist()}
    if isinstance(value, tuple):
        return [_record(part) for part in value]
    return value.item() if isinstance(value, np.generic) else value


def _read(record: Any) -> Any:
    if isinstance(record, list):
        return tuple(_read(part) for part in record)
    if not isinstance(record, dict):
        return record
    if "dtype" in record:
        return np.array(record["numbers"], record["dtype"])
    return _KINDS[record["kind"]](**{name: _read(part) for name, part in record.items() if name != "kind"})
