"""A table that a spreadsheet saved is read with the numbers that were in it, or refused in words."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

import phbatch
from phbatch.places.place import Place
from phbatch.places.spreadsheet import Decimals
from phbatch.places.table_file import describe_measurement, parse_measurement, read_rows
from phbatch.report import save_statistics
from phbatch.words.errors import InputError

Rows = list[dict[str, str]]


@pytest.fixture
def source(tmp_path: Path, frames: np.ndarray) -> Path:
    zarr.create_array(tmp_path / "in.zarr", data=frames, chunks=(1, 40, 36))
    return tmp_path / "in.zarr"


@pytest.fixture
def table(source: Path, tmp_path: Path) -> Path:
    """The table of the image, in which a frame is flagged in two words."""
    rows = phbatch.statistics(source)
    rows.flag(np.array([1]), "black")
    rows.flag(np.array([1]), "saturated")
    save_statistics(str(tmp_path / "plain.csv"), rows)
    return tmp_path / "plain.csv"


def rewrite(
    table: Path,
    *,
    separator: str = ",",
    end: str = "\n",
    encoding: str = "utf-8",
    decimal: str = ".",
    quoting: Any = csv.QUOTE_MINIMAL,
    change: Callable[[Rows], Rows] = lambda rows: rows,
) -> Path:
    """Save a table again as a spreadsheet would."""
    with table.open(newline="") as file:
        rows = change(list(csv.DictReader(file)))
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), delimiter=separator, lineterminator=end, quoting=quoting)
    writer.writeheader()
    for row in rows:
        texts = ("flags", "measured")
        writer.writerow({name: value if name in texts else value.replace(".", decimal) for name, value in row.items()})
    path = table.with_name("edited.csv")
    path.write_bytes(text.getvalue().encode(encoding))
    return path


def reordered(rows: Rows) -> Rows:
    return [{name: row[name] for name in reversed(row)} for row in reversed(rows)]


def padded(rows: Rows) -> Rows:
    return [row | {"": "", " ": ""} for row in rows] + [dict.fromkeys((*rows[0], "", " "), "")] * 3


def shouted(rows: Rows) -> Rows:
    return [{f" {name.upper()} ": f" {value} " for name, value in row.items()} for row in rows]


def as_floats(rows: Rows) -> Rows:
    return [row | {name: f"{row[name]}.0" for name in "tcz"} for row in rows]


def listed(rows: Rows) -> Rows:
    return [row | {"flags": str(row["flags"].split())} for row in rows]


def with_commas(rows: Rows) -> Rows:
    return [row | {"flags": ", ".join(row["flags"].split())} for row in rows]


@pytest.mark.parametrize(
    "kind",
    [
        {"encoding": "utf-8-sig"},
        {"encoding": "utf-16", "separator": "\t"},
        {"separator": ";"},
        {"separator": ";", "decimal": ",", "encoding": "utf-8-sig", "end": "\r\n"},
        {"separator": "\t", "decimal": ","},
        {"decimal": ",", "quoting": csv.QUOTE_ALL},
        {"end": "\r\n"},
        {"end": "\r"},
        {"quoting": csv.QUOTE_ALL},
        {"change": reordered},
        {"change": padded},
        {"change": padded, "separator": ";", "decimal": ",", "end": "\r\n"},
        {"change": shouted},
        {"change": as_floats},
        {"change": as_floats, "separator": ";", "decimal": ","},
        {"change": listed},
        {"change": with_commas, "separator": ";"},
    ],
    ids=lambda kind: ", ".join(getattr(value, "__name__", repr(value)) for value in kind.values()),
)
def test_a_table_that_was_saved_again_has_the_same_numbers(table: Path, source: Path, kind: dict[str, Any]) -> None:
    expected = sorted(read_rows(Place.at(table)), key=lambda row: row["t"])
    found = sorted(read_rows(Place.at(rewrite(table, **kind))), key=lambda row: row["t"])
    assert [{name: row[name] for name in expected[0]} for row in found] == expected
    assert expected[1]["flags"] == ["black", "saturated"]
    options: dict[str, Any] = {"model": "none", "bad_frames": "copy"}
    plain = phbatch.run(source, table.with_name("plain.zarr"), stats=table, **options)
    edited = phbatch.run(source, table.with_name("edited.zarr"), stats=table.with_name("edited.csv"), **options)
    np.testing.assert_array_equal(*(zarr.open_array(f"{result.output}/0")[:] for result in (plain, edited)))
    assert edited.flagged == {"t1/c0/z0": ["black", "saturated"]}


def test_the_first_line_of_a_spreadsheet_may_name_the_separator(table: Path) -> None:
    path = rewrite(table, separator=";", decimal=",")
    path.write_text(f"sep=;\n{path.read_text()}")
    assert list(read_rows(Place.at(path))) == list(read_rows(Place.at(table)))


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("median", "1.234,5", "thousands"),
        ("median", "1 234.5", "thousands"),
        ("median", "1,234", "thousands"),
        ("median", "many", "'many' is no number"),
        ("median", "05. Mai", "no number"),
        ("median", "5%", "no number"),
        ("median", "1_000", "no number"),
        ("median", "inf", "no number"),
        ("median", "#DIV/0!", "no number"),
        ("median", "500,5", "another decimal sign"),
        ("median", "500123", "decimal point"),
        ("p99.8", "500123", "decimal point"),
        ("t", "1.5", "no index"),
        ("t", "-1", "no index"),
        ("flags", "dead", "'dead' is no flag"),
        ("median", "NaN", "no median of frame t2"),
    ],
)
def test_a_cell_that_can_be_read_in_two_ways_or_none_is_named(
    table: Path, source: Path, name: str, value: str, words: str
) -> None:
    def change(rows: Rows) -> Rows:
        rows[2][name] = value
        return rows

    path = rewrite(table, change=change, quoting=csv.QUOTE_ALL)
    with pytest.raises(InputError, match=words):
        phbatch.run(source, table.with_name("out.zarr"), model="none", stats=path)
    assert not table.with_name("out.zarr").exists()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda data: data.replace(b"median,", b"mode,", 1), "twice"),
        (lambda data: data + b"\xff\xfe\xfa", "UTF-8"),
        (lambda data: data.replace(b"\n", b",9\n").replace(b"measured,9", b"measured", 1), "more cells"),
        (lambda data: b"", "no row of frame"),
    ],
)
def test_a_file_that_is_no_table_is_refused(
    table: Path, source: Path, damage: Callable[[bytes], bytes], words: str
) -> None:
    table.write_bytes(damage(table.read_bytes()))
    with pytest.raises(InputError, match=words):
        phbatch.run(source, table.with_name("out.zarr"), model="none", stats=table)


def test_two_rows_of_a_frame_are_refused_where_they_differ(table: Path, source: Path) -> None:
    def double(rows: Rows) -> Rows:
        return [*rows, rows[0] | {"median": "444"}]

    phbatch.plan(source, model="none", stats=rewrite(table, change=lambda rows: [*rows, rows[0]]))
    with pytest.raises(InputError, match="two rows of frame t0"):
        phbatch.plan(source, model="none", stats=rewrite(table, change=double))


@given(st.floats(-1e9, 1e9), st.sampled_from(".,"))
def test_a_number_is_read_as_it_was_written(number: float, sign: str) -> None:
    decimals = Decimals()
    decimals.separator = ";"
    assert decimals.parse(repr(number).replace(".", sign)) == number


@given(st.text(min_size=1).filter(lambda name: "/" not in name))
def test_what_was_measured_survives_any_name(name: str) -> None:
    text = describe_measurement(f"/data/{name}", (1, 2, 3, 4, 5), 2.5, 2, f"/light/{name}", "divide")
    assert parse_measurement(text)["input"] == name
    assert parse_measurement(text)["illumination"] == name
    assert not set(text) & set(',;"\n\t')


@pytest.mark.parametrize("suffix", ["csv", "json", "parquet", "zarr"])
@pytest.mark.parametrize(
    ("measured", "run", "words"),
    [
        ({"sigma": 3}, {}, "sigma 3 and this run has sigma 2"),
        ({"downscale": 2}, {}, "downscale 2"),
        ({"illumination": "gaussian"}, {}, "illumination gaussian"),
        ({}, {"illumination": "polynomial"}, "illumination none"),
        (
            {"illumination": "gaussian", "illumination_mode": "subtract"},
            {"illumination": "gaussian"},
            "illumination-mode subtract",
        ),
        ({"sigma": 3}, {"normalize": "percentile"}, ""),
        ({"sigma": 3}, {"sigma": 3}, ""),
    ],
)
def test_a_table_of_other_preparations_is_refused(
    source: Path, tmp_path: Path, suffix: str, measured: dict[str, Any], run: dict[str, Any], words: str
) -> None:
    path = tmp_path / f"table.{suffix}"
    if suffix == "zarr":
        phbatch.run(source, path, model="none", **measured)
    else:
        save_statistics(str(path), phbatch.statistics(source, **measured))
    if not words:
        assert not [
            text for text in phbatch.plan(source, model="none", stats=path, **run).notices if "same image" in text
        ]
        return
    with pytest.raises(InputError, match=words):
        phbatch.plan(source, model="none", stats=path, **run)


def test_a_table_of_another_image_is_refused_or_warned_of(
    source: Path, table: Path, tmp_path: Path, frames: np.ndarray
) -> None:
    zarr.create_array(tmp_path / "wide.zarr", data=np.pad(frames, ((0, 0), (0, 0), (0, 4)), mode="edge"))
    with pytest.raises(InputError, match=r"3x1x1x40x36 .* 3x1x1x40x40"):
        phbatch.plan(tmp_path / "wide.zarr", model="none", stats=table)
    zarr.create_array(tmp_path / "other.zarr", data=frames + np.uint16(7))
    notices = phbatch.plan(tmp_path / "other.zarr", model="none", stats=table).notices
    assert any("input in.zarr" in text for text in notices)
    assert not any("in.zarr" in text for text in phbatch.plan(source, model="none", stats=table).notices)
    anonymous = rewrite(table, change=lambda rows: [row | {"measured": ""} for row in rows])
    assert phbatch.plan(tmp_path / "wide.zarr", model="none", stats=anonymous).frames == 3
    with pytest.raises(InputError, match="no row of frame t1"):
        phbatch.plan(
            source, model="none", stats=rewrite(table, change=lambda rows: [row for row in rows if row["t"] != "1"])
        )


def test_json_with_a_byte_order_mark_and_numbers_as_text(source: Path, tmp_path: Path) -> None:
    save_statistics(str(tmp_path / "table.json"), phbatch.statistics(source))
    expected = list(read_rows(Place.at(tmp_path / "table.json")))
    rows = [
        {name: str(value) if isinstance(value, float) else value for name, value in row.items()} for row in expected
    ]
    (tmp_path / "text.json").write_text("\ufeff" + json.dumps(rows), encoding="utf-8")
    assert list(read_rows(Place.at(tmp_path / "text.json"))) == expected
