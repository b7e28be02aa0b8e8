"""Names of numbered files: which number is which axis, natural order, and what is missing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from phbatch.words.errors import UsageError

Value = int | str

_FIELD = re.compile(r"\{(\w+)(?::0?(\d+)d?)?\}")
_WORDS = "cp"
"""Axes whose values may be words: names of channels and positions."""


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """Regular expression of names such as ``t{t:04}_c{c}_xy{p}.tif``; ``*`` stands for anything.

    Raises
    ------
    UsageError
        It names no axis, one twice, or one that is not there.

    Examples
    --------
    >>> compile_pattern("t{t:04}_c{c}.tif").fullmatch("t0012_cPH.TIF").groupdict()
    {'t': '0012', 'c': 'PH'}
    """
    parts, end, seen = [], 0, set[str]()
    for field in _FIELD.finditer(pattern):
        axis, width = field[1].lower(), field[2]
        if axis not in "tczp" or len(axis) > 1:
            raise UsageError(f"--pattern {pattern} has {field[0]}, which is none of {{t}}, {{c}}, {{z}} and {{p}}.")
        if axis in seen:
            raise UsageError(f"--pattern {pattern} has {{{axis}}} twice; name each axis once, and put * elsewhere.")
        seen.add(axis)
        digits = rf"\d{{{width},}}" if width else r"\d+"
        value = digits if width or axis not in _WORDS else r"[^/]+?"
        parts += [_literal(pattern[end : field.start()]), f"(?P<{axis}>{value})"]
        end = field.end()
    rest = pattern[end:]
    if not seen or set("{}") & set(_FIELD.sub("", pattern)):
        raise UsageError(
            f"--pattern {pattern} does not say where the numbers are; write it as t{{t:04}}_c{{c}}_xy{{p}}.tif, with"
            " {t}, {c}, {z} or {p}, and * for anything."
        )
    return re.compile("".join(parts) + _literal(rest), re.IGNORECASE)


def _literal(text: str) -> str:
    return "[^/]*?".join(re.escape(part) for part in text.split("*"))


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sorts ``a2`` before ``a10``.

    Examples
    --------
    >>> sorted(["a10", "a2", "b1"], key=natural_key)
    ['a2', 'a10', 'b1']
    """
    return tuple((0, int(part), "") if part.isdecimal() else (1, 0, part.lower()) for part in re.split(r"(\d+)", name))


def sort_values(values: Sequence[str]) -> list[Value]:
    """Distinct values of an axis in order: as numbers where all are, else as words."""
    if all(value.isdecimal() for value in values):
        return sorted({int(value) for value in values})
    words: list[str] = sorted(set(values), key=natural_key)
    return [*words]


def varying_numbers(names: Sequence[str]) -> list[list[int]]:
    """Of names that differ in numbers alone, each number that varies, one list for every place; else nothing."""
    parts = [re.split(r"(\d+)", name) for name in names]
    if len({tuple(part.lower() for part in each[::2]) for each in parts}) != 1:
        return []
    columns = list(zip(*(each[1::2] for each in parts), strict=True))
    return [[int(text) for text in column] for column in columns if len(set(column)) > 1]


def missing_numbers(numbers: Sequence[int]) -> str:
    """What lacks between the smallest and the largest of some numbers, in steps that most have; empty where nothing.

    Examples
    --------
    >>> missing_numbers([1, 2, 5, 7]), missing_numbers([0, 10, 20]), missing_numbers([1, 22, 23, 24])
    ('3-4, 6', '', '2-21')
    """
    found = sorted(set(numbers))
    if len(found) < 3:
        return ""
    steps = [after - before for before, after in pairwise(found)]
    step = max(sorted(set(steps)), key=steps.count)
    gaps = [(before + step, after - step) for before, after in pairwise(found) if after - before > step]
    shown = [f"{first}-{last}" if last > first else f"{first}" for first, last in gaps]
    return ", ".join(shown[:5]) + (f" and {len(shown) - 5} more gaps" if len(shown) > 5 else "")
