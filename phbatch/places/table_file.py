"""Tables of rows on disk: CSV, JSON or Parquet by the file's suffix, and the table that an output of phbatch holds."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import zarr
from zarr.errors import BaseZarrError

from phbatch.places.guard import read_whole, require_harmless_codecs
from phbatch.places.place import LocalPlace, Place
from phbatch.places.spreadsheet import parse_row, read_csv
from phbatch.words.errors import InputError, OutputError, UsageError

SUFFIXES = (".csv", ".json", ".parquet")
STATISTICS = "statistics"
"""Group of an output that holds its table, one array per column."""

MEASURED = "measured"
"""Column of a file that says how its frames were measured, as `describe_measurement` words it."""

POSITION = "position"
"""Column of a file of many images: path of the image among them."""

_ROWS_AT_ONCE = 10_000

Row = Mapping[str, Any]


def require_table_name(path: str) -> str:
    """Suffix of a table's file name in lower case.

    Raises
    ------
    UsageError
        The suffix is none of `SUFFIXES`, or its library is not installed.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise UsageError(f"{path} ends in {suffix!r}; give a table whose name ends in .csv, .json or .parquet.")
    if suffix == ".parquet" and find_spec("pyarrow") is None:
        raise UsageError(f"{path} needs the library pyarrow; install it with `pip install 'phbatch[parquet]'`.")
    return suffix


def arrow_stream(columns: Mapping[str, Any], requested_schema: object = None) -> object:
    """Columns as a stream of Arrow's PyCapsule protocol.

    Raises
    ------
    UsageError
        pyarrow is not installed.
    """
    try:
        import pyarrow
    except ImportError as error:
        raise UsageError(
            "Arrow needs the library pyarrow; install it with `pip install 'phbatch[parquet]'`."
        ) from error
    found: object = pyarrow.table(dict(columns)).__arrow_c_stream__(requested_schema)
    return found


def csv_lines(names: Sequence[str], rows: Iterable[Row]) -> Iterator[str]:
    """Lines of comma-separated values; lists of words are joined with blanks, and no text begins a formula."""
    writer = csv.writer(_Line(), lineterminator="\n")
    yield writer.writerow([_cell(name) for name in names])
    for row in rows:
        yield writer.writerow([_cell(row.get(name)) for name in names])


def _cell(value: Any) -> Any:
    """A value as a cell: text that a spreadsheet would run is quoted (https://owasp.org/www-community/attacks/CSV_Injection)."""
    if isinstance(value, list):
        value = " ".join(value)
    if not isinstance(value, str):
        return value
    text = " ".join(value.split())
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


def describe_measurement(
    input: str, shape: Sequence[int], sigma: float, downscale: int, illumination: str, illumination_mode: str
) -> str:
    """How frames were measured, in a cell that every spreadsheet keeps.

    Examples
    --------
    >>> describe_measurement("/data/in.zarr", (9, 1, 1, 40, 36), 2.0, 1, "none", "divide")
    'sigma=2 downscale=1 illumination=none illumination-mode=divide shape=9x1x1x40x36 input=in.zarr'
    """
    facts = {
        "sigma": f"{sigma:g}",
        "downscale": str(downscale),
        "illumination": quote(illumination.rstrip("/").rpartition("/")[2], safe=""),
        "illumination-mode": illumination_mode,
        "shape": "x".join(map(str, shape)),
        "input": quote(input.rstrip("/").rpartition("/")[2], safe=""),
    }
    return " ".join(f"{name}={value}" for name, value in facts.items())


def parse_measurement(text: str) -> dict[str, str]:
    """The inverse of `describe_measurement`, in words."""
    return {name: unquote(value) for name, _, value in (part.partition("=") for part in text.split()) if value}


def write_rows(path: str, names: Sequence[str], rows: Iterable[Row]) -> None:
    """Write a table, a bounded number of rows in memory at once.

    Parameters
    ----------
    path : str
        Ends in one of `SUFFIXES`.
    names : sequence of str
        Columns.
    rows : iterable of mapping
        Plain values; lists of words, None where a value is missing.

    Raises
    ------
    OutputError
        The place cannot be written.
    """
    suffix = require_table_name(path)
    try:
        if suffix == ".parquet":
            _write_parquet(Path(path), names, rows)
        else:
            lines = csv_lines(names, rows) if suffix == ".csv" else _json_lines(names, rows)
            with Path(path).open("w", encoding="utf-8") as file:
                file.writelines(lines)
    except OSError as error:
        raise OutputError(f"{path} cannot be written ({error.strerror}); choose another place.") from error


def read_rows(place: Place) -> Iterator[dict[str, Any]]:
    """Read a table that `write_rows` made or a person edited, or the table of an output of phbatch.

    Yields
    ------
    dict
        Numbers as int or float, None where a value is missing, ``flags`` as a list of words; ``measured`` says how the
        frames were measured (`describe_measurement`) where the table does.

    Raises
    ------
    InputError
        It cannot be read, or a value is no number.
    """
    if not isinstance(place, LocalPlace) or place.folder.is_dir():
        yield from _read_output(place)
        return
    path = place.path
    suffix = require_table_name(path)
    try:
        if suffix == ".csv":
            yield from read_csv(path)
        elif suffix == ".json":
            yield from (parse_row(row) for row in json.loads(Path(path).read_text(encoding="utf-8-sig")))
        else:
            from pyarrow import parquet

            for batch in parquet.ParquetFile(path).iter_batches(_ROWS_AT_ONCE):
                yield from (parse_row(row) for row in batch.to_pylist())
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{path} cannot be read as a table of statistics ({error}); make it with `phbatch stats`."
        ) from error


class _Line:
    """A file for `csv.writer` whose writerow returns the line."""

    def write(self, text: str) -> str:
        return text


def _json_lines(names: Sequence[str], rows: Iterable[Row]) -> Iterator[str]:
    separator = "[\n"
    for row in rows:
        yield separator + json.dumps({name: row.get(name) for name in names})
        separator = ",\n"
    yield "[]\n" if separator == "[\n" else "\n]\n"


def _write_parquet(path: Path, names: Sequence[str], rows: Iterable[Row]) -> None:
    import pyarrow
    from pyarrow import parquet

    kinds: dict[str, Any] = {name: pyarrow.int64() for name in ("t", "c", "z")}
    kinds |= {"flags": pyarrow.list_(pyarrow.string()), MEASURED: pyarrow.string(), POSITION: pyarrow.string()}
    schema = pyarrow.schema([(name, kinds.get(name, pyarrow.float64())) for name in names])
    waiting = iter(rows)
    with parquet.ParquetWriter(path, schema) as writer:
        while part := list(islice(waiting, _ROWS_AT_ONCE)):
            writer.write_table(pyarrow.Table.from_pylist([dict(row) for row in part], schema=schema))


def _read_output(place: Place) -> Iterator[dict[str, Any]]:
    try:
        group = place.open(STATISTICS)
        if not isinstance(group, zarr.Group):
            raise TypeError(f"{STATISTICS} is no group")
        attributes: dict[str, Any] = dict(group.attrs.asdict())
        columns = {}
        for name, array in group.arrays():
            require_harmless_codecs(array)
            columns[name] = read_whole(array)
        if {len(columns["t"]), len(columns["z"]), len(columns["flags"])} != {*map(len, columns.values())}:
            raise ValueError("its columns differ in length")
        words: list[str] = attributes["flag_bits"]
        images: list[str] = attributes.get("positions", [""])
        if not {*columns.get(POSITION, ())} <= {*range(len(images))}:
            raise ValueError(f"its column {POSITION} numbers images that it does not list")
        measured = _measurements_of(place)
    except (OSError, BaseZarrError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{place} holds no table of statistics ({error}); give a finished output of phbatch, or a file of"
            " `phbatch stats`."
        ) from error
    for first in range(0, len(columns["t"]), _ROWS_AT_ONCE):
        parts = [values[first : first + _ROWS_AT_ONCE].tolist() for values in columns.values()]
        for values in zip(*parts, strict=True):
            row = dict(zip(columns, values, strict=True))
            row["z"] = None if row["z"] < 0 else row["z"]
            image = images[row.pop(POSITION, 0)]
            yield (
                ({POSITION: image} if image else {})
                | row
                | {
                    "flags": [word for bit, word in enumerate(words) if row["flags"] >> bit & 1],
                    MEASURED: measured.get(image, ""),
                }
            )


def _measurements_of(place: Place) -> dict[str, str]:
    """How the frames of an output were measured, by the path of the image, empty of one alone; where it is recorded."""
    recorded: Any = place.open().attrs.asdict().get("phbatch")
    try:
        names = ("downscale", "illumination", "illumination_mode")
        downscale, illumination, mode = (recorded["settings"][name] for name in names)
        sigma, kinds = recorded["normalization"]["sigma"], recorded.get("kinds", [recorded])
        images = recorded.get("positions", {"": {"input": recorded["input"], "kind": 0}})
        shapes = {path: kinds[image["kind"]]["geometry"]["shape"] for path, image in images.items()}
        return {
            path: describe_measurement(images[path]["input"], shape, sigma, downscale, illumination, mode)
            for path, shape in shapes.items()
        }
    except (KeyError, TypeError, IndexError):
        return {}
