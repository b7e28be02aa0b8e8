"""Two runs never write one output at once, a dead run holds nothing, and what a removal leaves is recognized."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import phbatch
from phbatch.outputs.creation import ArrayLayout, create_output, read_output_attributes, remove_output
from phbatch.outputs.writer import Sink
from phbatch.places import lock
from phbatch.places.holder import encode_holder
from phbatch.places.lock import LOCK, hold_output, read_token
from phbatch.places.place import LocalPlace, Place
from phbatch.words.axes import to_region
from phbatch.words.errors import OutputError
from tests.faults.inputs import files, make_input

LAYOUT = [ArrayLayout("0", "yx", (8, 8), (8, 8), "uint16")]
REGION = to_region((0, 0, 0, 0, 0), (1, 1, 1, 8, 8))


@pytest.fixture(params=["local", "memory"])
def output(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return Place.at(tmp_path / "out.zarr" if request.param == "local" else f"memory://{tmp_path.name}/out.zarr")


def test_the_second_holder_is_refused_and_the_next_is_not(output: Place) -> None:
    with hold_output(output, "first"):
        assert read_token(output) == "first"
        with pytest.raises(OutputError, match=rf"written by another run \(process {os.getpid()} on .*wait for it"):
            hold_output(output, "second").__enter__()
        assert read_token(output) == "first"
    assert read_token(output) is None
    with hold_output(output, "third"):
        assert read_token(output) == "third"


def test_of_many_that_start_at_once_one_holds(output: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "SETTLE_S", 0.5)  # a lease that is read back: a loaded machine is slow to write its own
    held, ready = [], threading.Barrier(8)

    def hold(token: str) -> None:
        ready.wait()
        try:
            with hold_output(output, token):
                held.append(token)
                time.sleep(0.5)
        except OutputError:
            pass

    threads = [threading.Thread(target=hold, args=(str(index),)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(held) == 1


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    output = tmp_path / "out.zarr"
    code = (
        "import sys, time; from phbatch.places.lock import hold_output\n"
        "from phbatch.places.place import Place\n"
        "with hold_output(Place.at(sys.argv[1]), 'dead'): print('held', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(output)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    with pytest.raises(OutputError, match=f"process {process.pid} on"):
        hold_output(Place.at(output), "second").__enter__()
    process.kill()
    process.communicate()
    with hold_output(Place.at(output), "second"):
        assert read_token(Place.at(output)) == "second"


def test_a_process_that_was_forked_meanwhile_does_not_hold_on(tmp_path: Path) -> None:
    output = tmp_path / "out.zarr"
    with hold_output(Place.at(output), "first"):
        (output / "zarr.json").write_text("{}")
        held = next(
            int(link.name)
            for link in Path("/proc/self/fd").iterdir()
            if link.is_symlink() and os.readlink(link) == str(output / LOCK)  # noqa: PTH115
        )
        inherited = os.dup(held)  # as a child has it between fork and exec
    try:
        with hold_output(Place.at(output), "second"):
            assert read_token(Place.at(output)) == "second"
    finally:
        os.close(inherited)


def test_a_lease_that_stands_still_is_taken_over_and_its_holder_fenced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = Place.at(f"memory://{tmp_path.name}/out.zarr")
    create_output(output, 3, {"": {}}, LAYOUT)
    block = np.ones((1, 1, 1, 8, 8), "uint16")
    with monkeypatch.context() as patch:
        patch.setattr(lock, "BEAT_S", 60)  # a holder that is suspended
        first = hold_output(output, "suspended")
        first.__enter__()
    Sink(output, token="suspended").write("0", "yx", REGION, block)
    started = time.monotonic()
    with hold_output(output, "second"):
        assert time.monotonic() - started >= lock.LEASE_S
        with pytest.raises(OutputError, match="not held by this run any more"):
            Sink(output, token="suspended").write("0", "yx", REGION, block)
        Sink(output, token="second").write("0", "yx", REGION, block)


def test_a_file_system_without_locks_gets_a_lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    output = Place.at(tmp_path / "out.zarr")
    with hold_output(output, "first"):
        assert read_token(output) == "first"
        with pytest.raises(OutputError, match="another run"):
            hold_output(output, "second").__enter__()
    with hold_output(output, "third"):
        assert read_token(output) == "third"


def test_a_lease_on_a_disk_is_never_seen_torn(tmp_path: Path) -> None:
    """Else whoever looks while it is rewritten would take it for one that was let go of."""
    output, holder = Place.at(tmp_path / "out.zarr"), {"token": "first", "host": "h", "process": 1}
    output.write(LOCK, encode_holder(holder, 0))
    seen, ended = set(), threading.Event()

    def look() -> None:
        while not ended.is_set():
            seen.add(read_token(output))

    looking = [threading.Thread(target=look) for _ in range(3)]
    for thread in looking:
        thread.start()
    for beat in range(400):
        output.write(LOCK, encode_holder(holder, beat))
    ended.set()
    for thread in looking:
        thread.join()
    assert seen == {"first"}


def test_a_worker_that_outlives_its_run_writes_nothing(tmp_path: Path) -> None:
    output = Place.at(tmp_path / "out.zarr")
    create_output(output, 3, {"": {}}, LAYOUT)
    block = np.ones((1, 1, 1, 8, 8), "uint16")
    with hold_output(output, "first"):
        late = Sink(output, token="first")
        late.write("0", "yx", REGION, block)
        before = files(output.path)
    with pytest.raises(OutputError, match="not held by this run any more"):
        late.write("0", "yx", REGION, block * 2)
    with hold_output(output, "second"), pytest.raises(OutputError, match="not held by this run any more"):
        late.write("0", "yx", REGION, block * 2)
    assert files(output.path) == before


def test_a_refused_run_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make_input(tmp_path / "in.zarr", (2, 20, 20), (1, 20, 20))
    monkeypatch.setattr(LocalPlace, "free_bytes", lambda place: 10)
    with pytest.raises(OutputError, match=r"even if it is compressed 4-fold, and 10 bytes are free"):
        phbatch.run(source, tmp_path / "out.zarr", model="none")
    assert not (tmp_path / "out.zarr").exists()


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_removal_that_is_killed_anywhere_is_recognized(
    tmp_path: Path, zarr_format: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_input(tmp_path / "in.zarr", (3, 30, 30), (1, 30, 30), zarr_format=zarr_format)
    whole = phbatch.run(source, tmp_path / "whole.zarr", model="none", command="same").output
    steps = 0
    while True:
        output = shutil.copytree(whole, tmp_path / f"out{steps}.zarr")
        left = [steps]

        def count(original: Any, left: list[int] = left) -> Any:
            def call(*arguments: Any, **options: Any) -> Any:
                if left[0] == 0:
                    raise KeyboardInterrupt
                left[0] -= 1
                return original(*arguments, **options)

            return call

        with monkeypatch.context() as patch:
            patch.setattr(Path, "unlink", count(Path.unlink))
            patch.setattr(shutil, "rmtree", count(shutil.rmtree))
            try:
                remove_output(Place.at(output))
                break
            except KeyboardInterrupt:
                pass
        attributes = read_output_attributes(Place.at(output))
        assert attributes is not None
        assert "fingerprint" not in attributes or files(output) == files(whole)
        phbatch.run(source, output, model="none", command="same")
        assert files(output) == files(whole)
        steps += 1
    assert steps >= 5
    assert [path.relative_to(output).as_posix() for path in output.rglob("*") if path.is_file()] == [LOCK]


def test_what_is_no_output_is_not_removed(tmp_path: Path) -> None:
    source = make_input(tmp_path / "in.zarr", (2, 20, 20), (1, 20, 20))
    precious = tmp_path / "mine" / "notes.txt"
    precious.parent.mkdir()
    precious.write_text("mine")
    for options in ({}, {"overwrite": True}):
        with pytest.raises(OutputError, match="is not an output of phbatch"):
            phbatch.run(source, precious.parent, model="none", **options)
    assert [path.name for path in precious.parent.iterdir()] == ["notes.txt"]


def test_a_marked_folder_without_a_lock_is_ours_only_where_nothing_else_is_in_it(tmp_path: Path) -> None:
    alone, beside = tmp_path / "alone", tmp_path / "beside"
    (alone / ".phbatch" / "scratch").mkdir(parents=True)
    assert read_output_attributes(Place.at(alone)) == {"status": "creating"}
    (alone / "zarr.0123.partial").write_text("{")  # of a disk that failed while the root was written, for good
    assert read_output_attributes(Place.at(alone)) == {"status": "creating"}
    (beside / ".phbatch" / "scratch").mkdir(parents=True)
    (beside / "0").mkdir()
    with pytest.raises(OutputError, match="is not an output of phbatch"):
        read_output_attributes(Place.at(beside))
