"""Comma-separated tables as spreadsheets save them: byte order marks, semicolons or tabs, decimal commas."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

_SEPARATORS = (",", ";", "\t")
_TEXT = frozenset({"flags"})
"""Columns whose cells are words."""


def read_cells(path: Path) -> Iterator[dict[str, str]]:
    """Rows of a table of numbers by column, with decimal points, however a spreadsheet saved it.

    Parameters
    ----------
    path : Path
        UTF-8 or UTF-16 with a byte order mark, or UTF-8 without; cells are separated by commas, semicolons or tabs;
        Excel's first line ``sep=;`` is understood. Empty lines are passed over, cells that lack at the end of a line
        are empty.

    Yields
    ------
    dict
        Stripped cells by the name of their column in lower case.

    Raises
    ------
    ValueError
        It is no such text, a column is named twice, a line has more cells than there are columns, or a comma may be
        of thousands as well as of decimals.
    OSError
        It cannot be read.
    """
    with path.open("rb") as file:
        start = file.read(2)
    encoding = "utf-16" if start in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        with path.open(encoding=encoding, newline="") as file:
            yield from _read_lines(_Lines(file))
    except UnicodeError:
        raise ValueError("it is not UTF-8; save it as 'CSV UTF-8'") from None
    except csv.Error as error:
        raise ValueError(f"it is no table of separated values: {error}") from error


class _Lines(Iterator[str]):
    """Lines of a file, and the number of the last one."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines
        self.number = 0

    def __next__(self) -> str:
        self.number += 1
        return next(self._lines)


def _read_lines(lines: _Lines) -> Iterator[dict[str, str]]:
    header = next(lines, "")
    separator = ""
    if header.lower().startswith("sep="):
        separator = header[4:].strip("\r\n")[:1]
        header = next(lines, "")
    separator = separator or max(_SEPARATORS, key=header.count)
    names = [cell.strip().lower() for cell in next(csv.reader([header], delimiter=separator), [])]
    repeated = next((name for at, name in enumerate(names) if name and name in names[:at]), None)
    if repeated is not None:
        raise ValueError(f"two of its columns are named {repeated!r}")
    marks: set[str] = set()
    for cells in csv.reader(lines, delimiter=separator):
        if any(cell.strip() for cell in cells):
            if any(cell.strip() for cell in cells[len(names) :]):
                raise ValueError(
                    f"line {lines.number} has {len(cells)} cells and the first line names {len(names)} columns"
                )
            row = dict(zip(names, [*cells, *[""] * (len(names) - len(cells))], strict=False))
            yield {name: _cell(name, cell.strip(), separator, marks, lines.number) for name, cell in row.items()}


def _cell(name: str, text: str, separator: str, marks: set[str], line: int) -> str:
    """A cell with a decimal point; `marks` are the decimal marks that the table was seen to use."""
    if name in _TEXT:
        return text
    marks.update(mark for mark in ".," if mark in text)
    if "," in text and (separator == "," or "." in marks or text.count(",") > 1):
        raise ValueError(f"{text!r} in line {line}, column {name}, may mean thousands; write it with a point")
    if "." in text and "," in marks:
        raise ValueError(f"{text!r} in line {line}, column {name}, has a point where others have commas")
    return text.replace(",", ".")
