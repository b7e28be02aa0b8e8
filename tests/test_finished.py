"""Finished units and the ledger's index as bits equal what dictionaries say; a ledger is read line by line."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

import phbatch
from phbatch.outputs.finished import Finished
from phbatch.outputs.ledger import METADATA, Ledger, encode_record
from phbatch.places.place import Place
from phbatch.planning.units import Geometry
from phbatch.words.bits import Bits
from phbatch.words.events import Event, UnitFinished

GEOMETRY = Geometry((9, 2, 1, 2048, 2048), (1, 1, 1, 2048, 2048), range(9), (0, 1))
KEYS = [*(unit.key for unit in GEOMETRY.units), METADATA, "t77/c0", 'odd "name"\n']


class Lines(Ledger):
    """A ledger of lines in memory."""

    def __init__(self, lines: list[bytes]) -> None:
        super().__init__(Place.at("/nowhere"))
        self.lines = lines

    def _lines(self) -> Iterator[bytes]:
        return iter(self.lines)


def current_by_name(records: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    last = {record["unit"]: index for index, record in enumerate(records)}
    for index, record in enumerate(records):
        if last[record["unit"]] == index and "retracted" not in record:
            yield record


def record_of(unit: str, number: int, retracted: bool) -> Mapping[str, Any]:
    if retracted:
        return {"unit": unit, "retracted": True}
    if unit == METADATA:
        return {"unit": unit, "complete": number % 2 == 0}
    t, c = number % 9, number // 9 % 2
    row = {"t": t, "c": c, "z": 0, "median": float(number), "flags": []}
    return {"unit": unit, "clipped": number, "statistics": [row]}


steps = st.lists(st.tuples(st.sampled_from(KEYS), st.integers(0, 99), st.booleans(), st.booleans()), max_size=40)


@given(steps)
def test_the_ledgers_index_equals_that_of_a_dictionary(found: list[tuple[str, int, bool, bool]]) -> None:
    lines, records = [], []
    for unit, number, retracted, torn in found:
        record = dict(record_of(unit, number, retracted))
        line = encode_record(record)
        if torn:
            lines.append(line[:-3] + b"\n")
        else:
            lines.append(line)
            records.append(record)
    ledger, expected = Lines(lines), list(current_by_name(records))
    assert list(ledger) == records
    assert list(ledger.current(GEOMETRY.units)) == list(ledger.current()) == expected
    assert ledger.records() == {record["unit"]: record for record in expected}
    if not any(unit == METADATA and retracted for unit, _, retracted, _ in found):  # which nobody does
        assert ledger.metadata() == next((record for record in expected if record["unit"] == METADATA), None)
    assert_finished(expected)


def assert_finished(records: list[dict[str, Any]]) -> None:
    finished = Finished(GEOMETRY)
    clipped: dict[str, int] = {}
    for record in records:
        finished.add(record)
        if record["unit"] in GEOMETRY.units:
            clipped[record["unit"]] = record["clipped"]
    keys = [unit.key for unit in GEOMETRY.units]
    assert [key in finished for key in (*keys, METADATA, "t77/c0")] == [key in clipped for key in (*keys, "", "")]
    assert (len(finished), finished.frames, finished.clipped) == (len(clipped), len(clipped), sum(clipped.values()))
    assert [unit.key for unit in finished.todo()] == [key for key in keys if key not in clipped]


@given(st.integers(0, 200), st.lists(st.integers(0, 250)))
def test_bits_equal_a_set(bound: int, numbers: list[int]) -> None:
    bits, expected = Bits(bound), set[int]()
    for number in numbers:
        if number < bound:
            assert bits.add(number) == (number not in expected)
            expected.add(number)
    assert (list(bits), len(bits)) == (sorted(expected), len(expected))
    assert list(bits.absent()) == sorted(set(range(bound)) - expected)
    assert all((number in bits) == (number in expected) for number in range(-3, bound + 9))


def test_a_long_ledger_is_gone_through_in_little_memory(tmp_path: Path) -> None:
    """Of 3,000 units: their records are 6 MB."""
    count = 3_000
    units = Geometry((count, 1, 1, 2048, 2048), (1, 1, 1, 2048, 2048), range(count), (0,)).units
    ledger = Ledger(Place.at(tmp_path))
    ledger.commit({"unit": METADATA})
    (file,) = (tmp_path / ".phbatch" / "ledger").iterdir()
    with file.open("ab") as written:
        written.writelines(encode_record({"unit": unit.key, "statistics": "x" * 2000}) for unit in units)
    tracemalloc.start()
    try:
        assert sum(1 for _ in ledger.current(units)) == count + 1
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("options", [{}, {"smooth_time": 3}], ids=str)
@pytest.mark.parametrize("asked", [6, 9])
def test_units_of_several_frames_continue_after_a_torn_ledger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: int, options: dict[str, Any]
) -> None:
    monkeypatch.setattr("phbatch.planning.units._UNIT_PIXELS", 3 * 32 * 40)
    frames = np.random.default_rng(0).normal(1000, 30, (14, 2, 32, 40)).astype("uint16")
    zarr.create_array(tmp_path / "in.zarr", data=frames, chunks=(1, 1, 32, 40))
    settings: dict[str, Any] = {"axes": "tcyx", "model": "none", "command": "-", "frames": "1::2", "workers": 1}
    whole = phbatch.run(tmp_path / "in.zarr", tmp_path / "whole.zarr", **settings, **options)
    done: list[str] = []
    said = iter([False] * asked)

    def listen(event: Event) -> None:
        if isinstance(event, UnitFinished) and (tmp_path / "out.zarr" / ".phbatch" / "ledger").exists():
            done.append(event.unit)

    with pytest.raises(phbatch.InterruptedRunError):
        phbatch.run(
            *(tmp_path / "in.zarr", tmp_path / "out.zarr"),
            **settings,
            **options,
            listener=listen,
            stop=lambda: (tmp_path / "out.zarr").exists() and next(said, True),
        )
    (ledger,) = [
        path for path in (tmp_path / "out.zarr" / ".phbatch" / "ledger").glob("*.jsonl") if b'"t0' in path.read_bytes()
    ]
    ledger.write_bytes(ledger.read_bytes()[:-5])  # as a crash tears the last line
    found = phbatch.run(tmp_path / "in.zarr", tmp_path / "out.zarr", **settings, **options)
    assert 1 <= len(done) < whole.units  # it is asked before each unit
    assert (found.units_skipped, found.units_done) == (len(done) - 1, whole.units - len(done) + 1)
    assert 0 < found.pixels < whole.pixels
    assert written(tmp_path / "out.zarr") == written(tmp_path / "whole.zarr")
    assert phbatch.verify(tmp_path / "out.zarr", deep=2).damages == ()


def written(output: Path) -> dict[str, bytes]:
    paths = (path for path in output.rglob("*") if path.is_file() and ".phbatch" not in path.parts)
    return {str(path.relative_to(output)): path.read_bytes() for path in paths}
