"""Times as people write them: 90s, 10m, 1h30m, 4h, 2d; and as people read them."""

from __future__ import annotations

import re

from phbatch.words.errors import UsageError

_CLOCK = re.compile(r"(?:(\d+)-)?(\d+):(\d\d)(?::(\d\d))?")
_UNITS = {"d": 86_400, "h": 3600, "m": 60, "s": 1}
_WRITTEN = re.compile(r"(?:(\d+(?:\.\d+)?)d)?(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m(?:in)?)?(?:(\d+(?:\.\d+)?)s?)?")


def parse_duration(text: str, option: str) -> float:
    """Seconds of a time that was written for an option.

    Raises
    ------
    UsageError
        It is no time above 0.

    Examples
    --------
    >>> [parse_duration(text, "--walltime") for text in ("4h", "1h30m", "1.5 h", "2d", "45", "10 min", "1-04:00:00")]
    [14400.0, 5400.0, 5400.0, 172800.0, 45.0, 600.0, 100800.0]
    >>> parse_duration("soon", "--walltime")
    Traceback (most recent call last):
    phbatch.words.errors.UsageError: walltime='soon' is no time above 0; write it as 4h, 1h30m, 10m or 45s.
    """
    found = _CLOCK.fullmatch(text) or _WRITTEN.fullmatch(re.sub(r"\s", "", text).lower())
    parts = found.groups(default="0") if found else ()
    seconds = sum(float(part) * size for part, size in zip(parts, _UNITS.values(), strict=False))
    if not seconds:
        raise UsageError(f"{option} {text!r} is no time above 0; write it as 4h, 1h30m, 10m or 45s.")
    return seconds


def format_duration(seconds: float) -> str:
    """The two largest units of a time; below ten seconds, two digits and more.

    Examples
    --------
    >>> [format_duration(seconds) for seconds in (0.25, 8.125, 45.4, 3600, 9260, 200_000)]
    ['0.25 s', '8.1 s', '45 s', '1 h', '2 h 34 min', '2 d 7 h']
    """
    if seconds < 10:
        return f"{seconds:.2g} s"
    left, parts = round(seconds), []
    for name, size in (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count} {name}")
        elif parts:
            break
        if len(parts) == 2:
            break
    return " ".join(parts)
