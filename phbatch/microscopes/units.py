"""Lengths and times as microscopes write them, in micrometres and seconds."""

from __future__ import annotations

import math

_MICROMETRES = {
    "pm": 1e-6, "picometer": 1e-6, "å": 1e-4, "angstrom": 1e-4, "nm": 1e-3, "nanometer": 1e-3, "nanometre": 1e-3,
    "µm": 1.0, "um": 1.0, "micron": 1.0, "microns": 1.0, "micrometer": 1.0, "micrometers": 1.0, "micrometre": 1.0,
    "mm": 1e3, "millimeter": 1e3, "millimetre": 1e3, "cm": 1e4, "centimeter": 1e4, "centimetre": 1e4,
    "m": 1e6, "meter": 1e6, "metre": 1e6, "inch": 25_400.0, "in": 25_400.0,
}  # fmt: skip

_SECONDS = {
    "ns": 1e-9, "nanosecond": 1e-9, "µs": 1e-6, "us": 1e-6, "microsecond": 1e-6, "ms": 1e-3, "msec": 1e-3,
    "millisecond": 1e-3, "s": 1.0, "sec": 1.0, "second": 1.0, "seconds": 1.0, "min": 60.0, "minute": 60.0,
    "minutes": 60.0, "h": 3600.0, "hr": 3600.0, "hour": 3600.0, "hours": 3600.0, "d": 86_400.0, "day": 86_400.0,
}  # fmt: skip


def to_micrometres(value: object, unit: object) -> float | None:
    r"""A length in micrometres; None where it is none above 0, or its unit is no length.

    Examples
    --------
    >>> to_micrometres("325", "nm"), to_micrometres(0.65, "\\u00B5m"), to_micrometres(1, "pixel")
    (0.325, 0.65, None)
    """
    return _scaled(value, unit, _MICROMETRES)


def to_seconds(value: object, unit: object) -> float | None:
    """A time in seconds; None where it is none above 0, or its unit is no time.

    Examples
    --------
    >>> to_seconds(5, "min"), to_seconds(0, "s")
    (300.0, None)
    """
    return _scaled(value, unit, _SECONDS)


def _scaled(value: object, unit: object, sizes: dict[str, float]) -> float | None:
    name = str(unit).strip().replace("\\u00B5", "µ").replace("\\u00b5", "µ").replace("μ", "µ").lower()
    try:
        found = float(str(value)) * sizes[name]
    except (ValueError, KeyError):
        return None
    return float(f"{found:.12g}") if math.isfinite(found) and found > 0 else None
