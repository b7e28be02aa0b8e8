"""What is committed is durable and is the last word; what is retracted is not finished."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from phbatch.outputs.creation import ArrayLayout, create_output
from phbatch.outputs.ledger import METADATA, Ledger, encode_record
from phbatch.outputs.writer import Sink
from phbatch.places.place import Place
from phbatch.words.axes import to_region


@pytest.fixture(params=["local", "memory"])
def output(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "out.zarr") if request.param == "local" else f"memory://{tmp_path.name}/ledger.zarr"


@pytest.fixture
def synchronized(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Files and folders in the order in which they were made durable."""
    found: list[Path] = []
    original = os.fsync

    def note(descriptor: int) -> None:
        found.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        original(descriptor)

    if not Path("/proc/self/fd").exists():
        pytest.skip("the system does not say what is open")
    monkeypatch.setattr(os, "fsync", note)
    return found


def test_every_commit_is_kept(output: str) -> None:
    ledger = Ledger(Place.at(output))
    for index in range(4):
        ledger.commit({"unit": f"t{index}"})
    assert [record["unit"] for record in Ledger(Place.at(output))] == ["t0", "t1", "t2", "t3"]


def test_the_last_record_of_a_unit_counts_alone(output: str) -> None:
    ledger = Ledger(Place.at(output))
    for value in (1, 2, 3):
        ledger.commit({"unit": "t0", "value": value})
    assert [record["value"] for record in Ledger(Place.at(output)).current()] == [3]


def test_a_unit_that_is_taken_back_is_not_finished_until_it_is_done_again(output: str) -> None:
    ledger = Ledger(Place.at(output))
    ledger.commit({"unit": "t0"})
    ledger.commit({"unit": "t1"})
    ledger.retract("t0")
    assert set(Ledger(Place.at(output)).records()) == {"t1"}
    assert [record["unit"] for record in Ledger(Place.at(output)).current()] == ["t1"]
    Ledger(Place.at(output)).commit({"unit": "t0", "again": True})
    assert Ledger(Place.at(output)).records()["t0"] == {"unit": "t0", "again": True}


def test_a_later_writer_has_the_last_word_whatever_the_times_of_files_say(output: str, tmp_path: Path) -> None:
    for value in range(12):
        Ledger(Place.at(output)).commit({"unit": "t0", "value": value})
        for path in tmp_path.rglob("*.jsonl"):
            os.utime(path, (1e9 - value, 1e9 - value))
        assert Ledger(Place.at(output)).records()["t0"]["value"] == value


def test_a_line_that_was_torn_swallows_none_after_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger(Place.at(tmp_path))
    ledger.commit({"unit": "t0"})
    (path,) = tmp_path.rglob("*.jsonl")

    def tear(descriptor: int) -> None:
        os.truncate(path, path.stat().st_size - 3)
        raise OSError("the disk is full")

    monkeypatch.setattr(os, "fsync", tear)
    with pytest.raises(OSError, match="full"):
        ledger.commit({"unit": "t1"})
    monkeypatch.undo()
    ledger.commit({"unit": "t2"})
    assert set(Ledger(Place.at(tmp_path)).records()) == {"t0", "t2"}


def test_a_commit_is_durable(tmp_path: Path, synchronized: list[Path]) -> None:
    ledger = Ledger(Place.at(tmp_path))
    ledger.commit({"unit": "t0"})
    (path,) = tmp_path.rglob("*.jsonl")
    assert path in synchronized
    assert path.parent in synchronized[synchronized.index(path) :]  # the folder names it
    synchronized.clear()
    ledger.commit({"unit": "t1"})
    assert synchronized == [path]


def test_records_of_one_commit_are_durable_at_once_and_those_before_a_tear_are_kept(
    tmp_path: Path, synchronized: list[Path]
) -> None:
    ledger = Ledger(Place.at(tmp_path))
    ledger.commit({"unit": "t0"})
    (path,) = tmp_path.rglob("*.jsonl")
    synchronized.clear()
    ledger.commit(*({"unit": f"t{index}"} for index in range(1, 5)))
    assert synchronized == [path]
    ledger.commit()
    assert synchronized == [path]
    assert set(Ledger(Place.at(tmp_path)).records()) == {f"t{index}" for index in range(5)}
    os.truncate(path, path.stat().st_size - 3)
    assert set(Ledger(Place.at(tmp_path)).records()) == {f"t{index}" for index in range(4)}


def test_pixels_are_durable_before_they_have_their_name_and_their_folder_after(
    tmp_path: Path, synchronized: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out.zarr"
    create_output(Place.at(output), 3, {"": {}}, [ArrayLayout("0", "yx", (8, 8), (4, 8), "uint16")])
    sink, replaced = Sink(Place.at(output)), list[int]()
    original = os.replace

    def note(path: str, target: str) -> None:
        replaced.append(len(synchronized))
        assert Path(path) in synchronized
        original(path, target)

    monkeypatch.setattr(os, "replace", note)
    sink.write("0", "yx", to_region((0, 0, 0, 0, 0), (1, 1, 1, 8, 8)), np.ones((1, 1, 1, 8, 8), "uint16"))
    assert len(replaced) == 2
    assert {output / "0", output / "0" / "c", output / "0" / "c" / "1"} <= set(synchronized[replaced[-1] :])


def test_levels_appear_together_once_all_of_them_are_durable(
    tmp_path: Path, synchronized: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out.zarr"
    layouts = [ArrayLayout("0", "yx", (8, 8), (4, 8), "uint16"), ArrayLayout("1/image", "yx", (4, 4), (4, 4), "uint16")]
    create_output(Place.at(output), 3, {"": {}, "1": {}}, layouts)
    sink, seen = Sink(Place.at(output)), list[int]()
    encoded = [
        sink.encode(name, "yx", to_region((0, 0, 0, 0, 0), (1, 1, 1, size, size)), np.ones((1, 1, 1, size, size), "u2"))
        for name, size in (("0", 8), ("1/image", 4))
    ]
    monkeypatch.setattr(sink, "_require_held", lambda: seen.append(len(synchronized)))
    marks = sink.place(*encoded)
    assert seen == [3]
    assert set(marks) == {"0/c/0/0", "0/c/1/0", "1/image/c/0/0"}
    for key, mark in marks.items():
        assert Place.at(output).mark(key) == mark
        assert (output / key).parent in synchronized


def test_what_need_not_outlive_a_power_cut_is_appended_and_not_waited_for(
    tmp_path: Path, synchronized: list[Path]
) -> None:
    place = Place.at(tmp_path / "out.zarr")
    for line in (b"one\n", b"two\n"):
        place.append_loosely(".phbatch/log/a.jsonl", line)
    assert place.read(".phbatch/log/a.jsonl") == b"one\ntwo\n"
    assert synchronized == []


def test_each_of_many_files_is_made_durable_once(tmp_path: Path, synchronized: list[Path]) -> None:
    place, keys = Place.at(tmp_path / "out.zarr"), [f"{index % 7}/{index}" for index in range(50)]
    place.write_loosely(dict.fromkeys(keys, b"a"))
    assert synchronized == []
    place.synchronize(keys)
    assert sorted(synchronized[:50]) == sorted(tmp_path / "out.zarr" / key for key in keys)
    folders = {tmp_path / "out.zarr" / str(index) for index in range(7)}
    assert sorted(synchronized[50:]) == sorted({tmp_path, *folders})


def test_what_others_wrote_is_made_durable_before_its_folders(tmp_path: Path, synchronized: list[Path]) -> None:
    place, keys = Place.at(tmp_path / "out.zarr"), ["a/one", "a/two", "b"]
    for key in keys:
        path = tmp_path / "out.zarr" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"1")
    place.synchronize(keys)
    folders = {tmp_path, tmp_path / "out.zarr", tmp_path / "out.zarr/a"}
    assert set(synchronized[:3]) == {tmp_path / "out.zarr" / key for key in keys}
    assert set(synchronized[3:]) == folders
    assert len(synchronized) == 3 + len(folders)


def test_texts_that_many_documents_share_are_kept_once(output: str) -> None:
    """The metadata of a plate that is followed are committed with every round."""
    documents = {f"A/{well}/0/zarr.json": ("same" if well % 2 else "other") * 1000 for well in range(100)}
    record = {"unit": METADATA, "complete": False, "documents": documents, "objects": {}}
    Ledger(Place.at(output)).commit(record)
    assert Ledger(Place.at(output)).metadata() == record
    assert [*Ledger(Place.at(output)).current()] == [record]
    assert len(encode_record(record)) < 20_000
