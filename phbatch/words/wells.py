"""Wells and fields of a plate as people write them: ``A1,B3-B6`` and ``0,2``."""

from __future__ import annotations

import re
from collections.abc import Iterable

_WELL = re.compile(r"([A-Za-z]{1,2})0*([0-9]{1,3})")
_FIELD = re.compile(r"([0-9]{1,6})(?:-([0-9]{1,6}))?")


def parse_wells(value: object) -> str:
    """The text, once all of its parts are wells or ranges of them.

    Examples
    --------
    >>> parse_wells(["a1", "B3-B6"])
    'A1,B3-B6'
    """
    parts = [part.strip().upper() for part in _texts(value)]
    for part in parts:
        _corners(part)
    return ",".join(parts)


def parse_fields(value: object) -> str:
    """The text, once all of its parts are numbers or ranges of them.

    Examples
    --------
    >>> parse_fields([0, 2]), parse_fields("0-3")
    ('0,2', '0-3')
    """
    parts = [part.strip() for part in _texts(value)]
    for part in parts:
        found = _FIELD.fullmatch(part)
        if found is None or (found[2] and int(found[2]) < int(found[1])):
            raise ValueError("fields are numbers and ranges, such as 0,2 or 0-3")
    return ",".join(parts)


def canonical_well(path: str) -> str:
    """Name of a well by its path in a plate; the path itself where that is not a row and a column.

    Examples
    --------
    >>> canonical_well("B/03"), canonical_well("whole/slide")
    ('B3', 'whole/slide')
    """
    found = _WELL.fullmatch(path.replace("/", "", 1))
    return f"{found[1].upper()}{int(found[2])}" if found else path


def field_name(path: str) -> str:
    """Name of a file of a field, by its path in a plate.

    Examples
    --------
    >>> field_name("B/3/0"), field_name("AA/12/x"), field_name("whole/slide/2")
    ('B03_f0', 'AA12_fx', 'whole_slide_2')
    """
    well, _, field = path.rpartition("/")
    found = _WELL.fullmatch(well.replace("/", "", 1))
    return f"{found[1].upper()}{int(found[2]):02}_f{field}" if found else path.replace("/", "_")


def in_wells(name: str, chosen: str) -> str | None:
    """The first part of what was chosen that a well is in; a range is a rectangle.

    Examples
    --------
    >>> in_wells("C4", "A1,B3-D6"), in_wells("C7", "A1,B3-D6")
    ('B3-D6', None)
    """
    well = _WELL.fullmatch(name)
    if well is None:
        return None
    row, column = _row(well[1]), int(well[2])
    for part in chosen.split(","):
        (first_row, first_column), (last_row, last_column) = _corners(part)
        if first_row <= row <= last_row and first_column <= column <= last_column:
            return part
    return None


def in_fields(name: str, chosen: str) -> str | None:
    """The first part of what was chosen that a field is in, by its name in the well.

    Examples
    --------
    >>> in_fields("2", "0,2"), in_fields("3", "0,2"), in_fields("3", "1-4")
    ('2', None, '1-4')
    """
    if not name.isdecimal():
        return None
    for part in chosen.split(","):
        first, _, last = part.partition("-")
        if int(first) <= int(name) <= int(last or first):
            return part
    return None


def _texts(value: object) -> Iterable[str]:
    if isinstance(value, str | int):
        return str(value).split(",")
    if isinstance(value, Iterable):
        return [str(each) for each in value]
    raise ValueError("it is text, such as A1,B3-B6 for wells and 0,2 for fields")


def _corners(part: str) -> tuple[tuple[int, int], tuple[int, int]]:
    """Row and column of the first and the last well of a range, which for one well are the same."""
    first, dash, last = part.partition("-")
    found = _WELL.fullmatch(first), _WELL.fullmatch(last if dash else first)
    if found[0] is None or found[1] is None:
        raise ValueError("wells are a row and a column, or a range of these, such as A1,B3-B6")
    start, stop = ((_row(each[1]), int(each[2])) for each in found if each)
    if start[0] > stop[0] or start[1] > stop[1]:
        raise ValueError(f"the range {part} is empty; write its upper left well first, such as B3-D6")
    return start, stop


def row_letters(row: int) -> str:
    """Name of a row by its number, from 0 on.

    Examples
    --------
    >>> [row_letters(row) for row in (0, 25, 26, 31)]
    ['A', 'Z', 'AA', 'AF']
    """
    found, row = "", row + 1
    while row:
        row, letter = divmod(row - 1, 26)
        found = chr(ord("A") + letter) + found
    return found


def _row(letters: str) -> int:
    """Number of a row, from A to ZZ."""
    number = 0
    for letter in letters.upper():
        number = number * 26 + ord(letter) - ord("A") + 1
    return number
