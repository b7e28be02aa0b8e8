"""Tables as spreadsheets leave them: byte order marks, semicolons, decimal commas, quotes, empty lines, other orders.

What can be read in one way only is read; everything else is a `ValueError` that says which cell, and why.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

_ENCODINGS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}  # by the byte order mark
_NUMBER = re.compile(r"[+-]?(\d+[.,]?\d*|[.,]\d+)([eE][+-]?\d+)?")
_MISSING = frozenset({"", "na", "n/a", "nan", "none", "null", "#n/a"})
_WORDS = re.compile(r"[\s,;|\[\]'\"]+")
_GROSS = 10  # times the largest value of a frame: no statistic of it is beyond


def read_csv(path: str) -> Iterator[dict[str, Any]]:
    """Rows of a CSV file by the names of their columns, in lower case; values as in `parse_row`.

    Raises
    ------
    ValueError
        Says which line, and why.
    """
    with Path(path).open("rb") as file:
        encoding = _ENCODINGS.get(file.read(2), "utf-8-sig")
    decimals = Decimals()
    try:
        with Path(path).open(encoding=encoding, newline=None) as file:
            first = next((line for line in file if line.strip()), "")
            if first.lower().startswith("sep="):
                first = next(file, "")
            separator = max(",;\t|", key=first.count)
            names = _names_of(next(csv.reader([first], delimiter=separator), []))
            decimals.separator = separator
            for cells in csv.reader(file, delimiter=separator):
                if any(cell.strip() for cell in cells):
                    if any(cell.strip() for cell in cells[len(names) :]):
                        raise ValueError(f"the row {separator.join(cells[:4])}... has more cells than there are names")
                    row = {name: cell for name, cell in zip(names, cells, strict=False) if name}
                    yield parse_row(row, decimals)
    except UnicodeError:
        raise ValueError("it is not in UTF-8: save it as CSV UTF-8") from None
    except csv.Error as error:
        raise ValueError(str(error)) from None


class Decimals:
    """The decimal sign of a file, which must be one.

    Attributes
    ----------
    separator : str
        Of the cells; empty where there is none.
    sign : str
        What was found so far.
    """

    def __init__(self) -> None:
        self.separator = self.sign = ""

    def parse(self, text: str) -> float:
        """A number as it was typed.

        Raises
        ------
        ValueError
            It is none, or could be two.

        Examples
        --------
        >>> decimals = Decimals()
        >>> decimals.separator = ";"
        >>> decimals.parse("1500,25")
        1500.25
        """
        text = text.strip()
        if _NUMBER.fullmatch(text) is None:
            why = (
                "has separators of thousands"
                if re.fullmatch(r"[+-]?\d{1,3}([., ]\d{3})+([.,]\d*)?", text)
                else "is no number"
            )
            raise ValueError(f"{text!r} {why}")
        sign = "," if "," in text else "." if "." in text else ""
        if sign == "," and self.separator in (",", "") and re.fullmatch(r"[+-]?\d{1,3},\d{3}", text):
            raise ValueError(f"{text!r} may have a decimal comma or a separator of thousands")
        if sign and self.sign and sign != self.sign:
            raise ValueError(f"{text!r} has another decimal sign than the numbers before it")
        self.sign = sign or self.sign
        return float(text.replace(",", "."))


def parse_row(row: Mapping[str, Any], decimals: Decimals | None = None) -> dict[str, Any]:
    """Plain values of a row: t, c and z as int, numbers as float, None where one is missing, words as text or a list.

    Raises
    ------
    ValueError
        Names the cell.

    Examples
    --------
    >>> parse_row({"t": "3", "median": "1500,5", "mode": "", "flags": "black, saturated"})
    {'t': 3, 'median': 1500.5, 'mode': None, 'flags': ['black', 'saturated']}
    """
    decimals = decimals or Decimals()
    parsed: dict[str, Any] = {}
    for name, value in row.items():
        try:
            parsed[name] = _parse(name, value, decimals)
        except (ValueError, TypeError, OverflowError) as error:
            raise ValueError(f"{name} of frame t{row.get('t', '?')}: {error}") from None
    _require_possible(parsed)
    return parsed


def _parse(name: str, value: Any, decimals: Decimals) -> Any:
    if name == "flags":
        words = [value] if isinstance(value, str) else list(value if value is not None else ())
        return [word for part in words for word in _WORDS.split(str(part)) if word and word.lower() not in _MISSING]
    if name in ("measured", "position"):
        return str(value or "").strip()
    if value is None or (isinstance(value, str) and value.strip().lower() in _MISSING):
        return None
    if isinstance(value, bool):
        raise ValueError(f"{value} is no number")
    number = decimals.parse(value) if isinstance(value, str) else float(value)
    if number != number:  # NaN
        return None
    if abs(number) == float("inf"):
        raise ValueError(f"{value} is no number")
    if name not in ("t", "c", "z"):
        return number
    if number != int(number) or number < 0:
        raise ValueError(f"{value} is no index")
    return int(number)


def _require_possible(row: Mapping[str, Any]) -> None:
    """Refuse a statistic far beyond the pixels that it is of: a decimal sign went missing."""
    least, most = row.get("min"), row.get("max")
    if least is None or most is None or row.get("flags"):
        return
    bound = _GROSS * max(abs(least), abs(most))
    for name in ("median", "mode", "mean", *(name for name in row if name.startswith("p") and name[1:2].isdigit())):
        value = row.get(name)
        if value is not None and abs(value) > bound:
            raise ValueError(
                f"{name} of frame t{row.get('t')} is {value:g}, far beyond its pixels, which are {least:g} to {most:g}:"
                " a spreadsheet may have taken a decimal point away"
            )


def _names_of(cells: list[str]) -> list[str]:
    names = [cell.strip().lower() for cell in cells]
    names = [re.sub(r"(?<=\d),(?=\d)", ".", name) for name in names]  # p99,8
    doubled = next((name for name in names if name and names.count(name) > 1), None)
    if doubled is not None:
        raise ValueError(f"the column {doubled!r} is there twice")
    return names
