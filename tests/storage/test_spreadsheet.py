"""Tables that a spreadsheet saved again: the same numbers, or a sentence that names the place."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import phbatch
from phbatch.storage.spreadsheet import read_cells
from tests.handmade import CommandLine


@pytest.fixture
def source(tmp_path: Path, frames: np.ndarray) -> Path:
    zarr.create_array(tmp_path / "in.zarr", data=frames)
    return tmp_path / "in.zarr"


@pytest.fixture
def rows(source: Path) -> list[dict[str, Any]]:
    """Rows of the image; the median of frame 1 is corrected by hand."""
    rows = [dict(row) for row in phbatch.statistics(source)]
    rows[1]["median"] = 1234.5
    return rows


def as_saved(rows: list[dict[str, Any]], *, separator: str, comma: bool, newline: str) -> str:
    """The text of a table as a spreadsheet saves it, with the columns turned round and two empty lines."""
    names = list(rows[0])[::-1]

    def cell(value: Any) -> str:
        text = " ".join(value) if isinstance(value, list) else "" if value is None else repr(value)
        return text.replace(".", ",") if comma else text

    lines = [names, *([cell(row[name]) for name in names] for row in rows), ["" for _ in names], []]
    return newline.join(separator.join(f'"{one}"' if " " in one else one for one in line) for line in lines) + newline


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize(
    ("separator", "comma", "first"),
    [(",", False, ""), (";", False, ""), (";", True, ""), ("\t", True, ""), (";", True, "sep=;\r\n")],
)
def test_what_a_spreadsheet_saves_gives_the_same_numbers(
    tmp_path: Path,
    source: Path,
    rows: list[dict[str, Any]],
    encoding: str,
    separator: str,
    comma: bool,
    first: str,
) -> None:
    text = first + as_saved(rows, separator=separator, comma=comma, newline="\r\n")
    (tmp_path / "edited.csv").write_bytes(text.encode(encoding))
    result = phbatch.run(source, tmp_path / "out.zarr", model="none", stats=tmp_path / "edited.csv")
    raw, written = (zarr.open_array(path, mode="r")[:] for path in (source, Path(result.output) / "0"))
    divisors = np.array([rows[0]["median"], 1234.5, rows[2]["median"]])
    np.testing.assert_allclose(written, raw / divisors[:, None, None], rtol=1e-6)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ('t,median\n0,"1,234"\n', "thousands"),
        ("t;median\n0;1.234,5\n", "thousands"),
        ("t;median\n0;1,5\n1;2.5\n", "point"),
        ("t;median\n0;abc\n", "'abc' in column median"),
        ("t,median\n0.5,7\n", "'0.5' in column t"),
        ("t,median,median\n0,7,8\n", "two of its columns"),
        ("t,median\n0,7,8\n", "line 2"),
        ("frame,median\n0,7\n", "no column 't'"),
        ("", "no row of frame"),
    ],
)
def test_what_is_ambiguous_or_wrong_is_refused_with_its_place(
    tmp_path: Path, source: Path, phbatch_command: CommandLine, text: str, part: str
) -> None:
    (tmp_path / "edited.csv").write_text(text, encoding="utf-8")
    arguments = (source, tmp_path / "out.zarr", "--model", "none", "--stats", tmp_path / "edited.csv")
    assert phbatch_command("run", *arguments) == 3
    assert part in phbatch_command.err
    assert not (tmp_path / "out.zarr").exists()


def test_a_table_in_another_encoding_says_how_to_save_it(tmp_path: Path, source: Path) -> None:
    (tmp_path / "edited.csv").write_bytes("t,médian\n".encode("latin-1"))
    with pytest.raises(phbatch.InputError, match="CSV UTF-8"):
        phbatch.run(source, tmp_path / "out.zarr", model="none", stats=tmp_path / "edited.csv")


def test_cells_keep_what_the_csv_module_reads(tmp_path: Path) -> None:
    with (tmp_path / "a.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["T", "Median", "flags"], [0, 1.5, "black"], [1, "", ""]])
    assert list(read_cells(tmp_path / "a.csv")) == [
        {"t": "0", "median": "1.5", "flags": "black"},
        {"t": "1", "median": "", "flags": ""},
    ]
