"""One output by many tasks, whichever of them die, in any order: the bytes of the plain run, whole and verified."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import reduce
from pathlib import Path
from random import Random
from typing import Any

import dask
import numpy as np
import pytest
import zarr

import phbatch
from phbatch.kernels.state_record import read_state, record_state
from phbatch.kernels.stats import finalize, frame_state, merge
from phbatch.outputs.creation import read_output_attributes
from phbatch.outputs.ledger import Ledger
from phbatch.outputs.writer import Sink
from phbatch.places import lock
from phbatch.places.holder import PARTS, Array, HeldError, is_held
from phbatch.places.lock import LOCK, hold_output, hold_part, holds, read_array
from phbatch.places.place import Place
from phbatch.running import commit, finishing
from phbatch.words.errors import OutputError, UsageError
from phbatch.words.given import parse_storage_options
from tests.faults.faults import small_units
from tests.faults.inputs import files, make_input, units_of
from tests.faults.s3_server import run_s3
from tests.faults.stores import VARIABLES, Bucket, local_bytes, new_bucket
from tests.faults.tasks import Tasks
from tests.handmade import write_model

pytestmark = pytest.mark.usefixtures("small")


@pytest.fixture
def small() -> Iterator[None]:
    with small_units():
        yield


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Tasks:
    return Tasks(tmp_path_factory.mktemp("tasks"))


@pytest.mark.parametrize("number", range(1, 6))
def test_parts_in_any_order_are_the_plain_run(tasks: Tasks, number: int) -> None:
    output = tasks.begin(number)
    order = Random(number).sample(range(1, number + 1), number)
    results = [tasks.do(output, part) for part in order]
    assert [result.units for result in results] == [len(range(part - 1, len(tasks.units), number)) for part in order]
    assert [result.complete for result in results] == [False] * (number - 1) + [True]
    verified = results[-1].verified
    assert verified is not None
    assert verified.complete
    tasks.require_whole(output)
    again = tasks.do(output, 1)
    assert (again.complete, again.units_done, again.exit_code) == (True, 0, 0)


@pytest.mark.parametrize("layout", ["zarr 2", "zarr 3, sharded", "zarr 3, sharded output"])
def test_other_layouts(tmp_path: Path, layout: str) -> None:
    tasks = Tasks(tmp_path, layout)
    output = tasks.begin(3)
    for part in (3, 1, 2):
        tasks.do(output, part)
    tasks.require_whole(output)


class Killed(BaseException):
    """Stands for the end of a process: nobody handles it."""


@pytest.mark.parametrize("seed", range(6))
def test_any_subset_may_die_anywhere_and_be_started_again(
    tasks: Tasks, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before a unit is written, between that and its commit, and while the output is finished."""
    draw = Random(seed)
    number = draw.randint(1, 5)
    output = tasks.begin(number)
    originals = {name: getattr(module, name) for module, name in ((commit, "Ledger"), (finishing, "finish_image"))}

    class Dying(originals["Ledger"]):  # type: ignore[name-defined,misc]
        def commit(self, *records: Any) -> None:
            if draw.random() < 0.3:
                raise Killed
            super().commit(*records)
            if draw.random() < 0.1:
                raise Killed

    def finish_image(*arguments: Any) -> None:
        if draw.random() < 0.5:
            raise Killed
        originals["finish_image"](*arguments)
        if draw.random() < 0.5:
            raise Killed

    monkeypatch.setattr(commit, "Ledger", Dying)
    monkeypatch.setattr(finishing, "finish_image", finish_image)
    deaths, ended = 0, False
    for _ in range(200):
        try:
            ended = tasks.do(output, draw.randint(1, number)).complete
        except Killed:
            deaths += 1
        if ended:
            break
    assert ended
    assert deaths
    tasks.require_whole(output)


@pytest.mark.parametrize("where", ["disk", "s3"])
def test_processes_that_are_killed(tmp_path: Path, where: str, request: pytest.FixtureRequest) -> None:
    bucket: Bucket | None = request.getfixturevalue("bucket") if where == "s3" else None
    Tasks(tmp_path, bucket=bucket).stop_at_random(Random(5), stops=2)


def test_the_second_task_of_a_part_and_a_run_are_refused_while_one_works(tasks: Tasks) -> None:
    output = tasks.begin(3)
    place = Place.at(output)
    before = files(output)
    with hold_part(place, 2) as token:
        assert holds(place, token)
        with pytest.raises(HeldError, match=r"part 2 of .* is being done by another task \(process \d+"):
            tasks.do(output, 2)
        with pytest.raises(OutputError, match="is being written by an array of 3 tasks; wait for them or cancel"):
            phbatch.run(tasks.source, output, command="same", **tasks.options)
        with pytest.raises(OutputError, match="is being written by an array of 3 tasks"):
            phbatch.repair(output)
        with pytest.raises(OutputError, match="is being written by an array of 3 tasks"):
            phbatch.begin_parts(tasks.source, output, parts=3, **tasks.options)
        assert phbatch.verify(output).running
        assert files(output) == before
        tasks.do(output, 1)
    assert not phbatch.verify(output).running
    assert [tasks.do(output, part).complete for part in (3, 2)] == [False, True]
    tasks.require_whole(output)


def test_a_run_takes_over_from_tasks_that_died_and_these_are_refused(tasks: Tasks) -> None:
    output = tasks.begin(2)
    tasks.do(output, 1)
    place = Place.at(output)
    token = str(read_array(place) and read_array(place).token)  # type: ignore[union-attr]
    with hold_output(place, "a run"):
        with pytest.raises(OutputError, match="is of no array of tasks"):
            tasks.do(output, 2)
        assert not holds(place, f"{token}/2/x")
    with pytest.raises(OutputError, match="is of no array of tasks"):
        tasks.do(output, 2)
    result = phbatch.run(tasks.source, output, command="same", **tasks.options)
    assert result.units_skipped == -(-len(tasks.units) // 2)
    tasks.require_whole(output)
    assert tasks.do(output, 2).complete


def test_a_run_finishes_what_the_last_task_did_not(tasks: Tasks, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tasks.begin(1)

    def die(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(finishing, "finish_image", die)
        with pytest.raises(Killed):
            tasks.do(output, 1)
    assert phbatch.run(tasks.source, output, command="same", **tasks.options).units_done == 0
    tasks.require_whole(output)


def test_the_number_of_parts_is_what_the_output_says(tasks: Tasks) -> None:
    output = tasks.begin(3)
    for part, message in (
        (4, "part 4 is none of .*1 to 3"),
        ("2/5", "--part 2/5 is none of .* has 3 parts|part='2/5'"),
    ):
        with pytest.raises(OutputError, match=message):
            phbatch.run_part(output, part)
    for part in (0, "x", "1/x", "-1"):
        with pytest.raises(UsageError, match="is no part"):
            phbatch.run_part(output, part)
    assert phbatch.run_part(output, "1/3").part == 1
    begun = phbatch.begin_parts(tasks.source, output, parts=2, command="same", **tasks.options)
    assert (begun.parts, begun.units_done) == (2, len(tasks.units) // 3)
    for part in (1, 2):
        tasks.do(output, part)
    tasks.require_whole(output)
    assert phbatch.begin_parts(tasks.source, output, parts=2, command="same", **tasks.options).complete
    assert read_array(Place.at(output)) is None


def test_a_task_that_outlived_its_part_writes_nothing(tasks: Tasks) -> None:
    output = tasks.begin(2)
    place, before = Place.at(output), files(output)
    with hold_part(place, 1) as first:
        pass
    block = np.zeros((1, 1, 1, 96, 80), "float32")
    region = (slice(0, 1), slice(0, 1), slice(0, 1), slice(0, 96), slice(0, 80))
    with hold_part(place, 1), pytest.raises(OutputError, match="not held by this run any more"):
        Sink(place, token=first).write("0", "tyx", region, block)
    assert files(output) == before


def test_a_task_computes_here_whatever_dask_is_configured_with(tasks: Tasks) -> None:
    with dask.config.set({"scheduler-address": "tcp://127.0.0.1:1"}):
        output = tasks.begin(1)
        assert tasks.do(output, 1).complete
    tasks.require_whole(output)


def test_an_input_that_was_changed_is_refused(tmp_path: Path) -> None:
    tasks = Tasks(tmp_path)
    output = tasks.begin(2)
    tasks.do(output, 1)
    zarr.open_array(tasks.source)[0] = 7
    with pytest.raises(OutputError, match="input of t0/c0 was changed"):
        tasks.do(output, 1)


def test_a_unit_that_fails_is_told_and_left_to_the_next(tmp_path: Path) -> None:
    tasks = Tasks(tmp_path)
    output, chunk = tasks.begin(2), tasks.source / "c/2/0/0"
    kept = chunk.read_bytes()
    chunk.write_bytes(b"torn")
    result = phbatch.run_part(output, 1, retries=0)
    assert [*result.failed] == ["t2/c0"]
    assert result.exit_code == 4
    assert tasks.do(output, 2).missing == 1
    chunk.write_bytes(kept)
    assert tasks.do(output, 1).complete
    tasks.require_whole(output)


def test_what_an_array_cannot_do(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="must be 1 or more"):
        phbatch.begin_parts(tmp_path / "in.zarr", parts=0)
    with pytest.raises(UsageError, match="does nothing where tasks share an output"):
        phbatch.begin_parts(tmp_path / "in.zarr", parts=1, scheduler="tcp://127.0.0.1:1")
    with pytest.raises(OutputError, match="no output that was begun"):
        phbatch.run_part(tmp_path / "nothing.zarr", 1)


def test_tasks_compute_the_network_that_was_settled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever begins chooses its form, precision and tile; tasks take what is recorded, and ask for nothing."""
    source = make_input(tmp_path / "in.zarr", (3, 96, 80), (1, 96, 80))
    options: dict[str, Any] = {"model": write_model(tmp_path / "model"), "workers": 1}
    begun = phbatch.begin_parts(source, tmp_path / "out.zarr", parts=2, **options)
    with monkeypatch.context() as patch:
        patch.setattr("phbatch.running.begin.choose_network", None)
        patch.setattr("phbatch.running.begin.settle_precision", None)
        for part in (2, 1):
            result = phbatch.run_part(begun.output, part, workers=1)
    assert result.complete
    settled = read_output_attributes(Place.at(begun.output))
    assert settled is not None
    again = {name: settled[name] for name in ("network", "batch")} | {"tile": settled["tile"]["shape"][-1]}
    precision = settled["precision"]["precision"]
    plain = phbatch.run(source, tmp_path / "plain.zarr", precision=precision, **again, **options)
    assert local_bytes(begun.output) == local_bytes(plain.output)
    assert phbatch.verify(begun.output, deep=2).damages == ()


STATISTICS: list[dict[str, Any]] = [
    {"smooth_time": 3},
    {"scope": "position"},
    {"scope": "series"},
    {"illumination": "temporal"},
    {"illumination": "temporal", "scope": "series"},
]


@pytest.mark.parametrize("options", STATISTICS, ids=lambda options: "-".join(map(str, options.values())))
def test_statistics_first(tmp_path: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """All parts are run again until all is restored: as often as was said, or more where tasks die."""
    tasks = Tasks(tmp_path, **options)
    begun = phbatch.begin_parts(tasks.source, tmp_path / "seen.zarr", parts=3, command="same", **tasks.options)
    draw = Random(3)
    passes = [[tasks.do(begun.output, part) for part in draw.sample((1, 2, 3), 3)] for _ in range(begun.passes)]
    assert bool(passes[0][0].waiting) == (begun.passes > 1)
    assert passes[-1][-1].complete
    tasks.require_whole(begun.output)
    kill_while_measuring(tasks, Random(7), monkeypatch)


def kill_while_measuring(tasks: Tasks, draw: Random, monkeypatch: pytest.MonkeyPatch) -> None:
    original, output = Ledger.commit, tasks.begin(4)

    def commit_or_die(self: Ledger, *records: Any) -> None:
        if draw.random() < 0.1:
            raise Killed
        original(self, *records)

    monkeypatch.setattr(Ledger, "commit", commit_or_die)
    ended = False
    for _ in range(200):
        try:
            ended = tasks.do(output, draw.randint(1, 4)).complete
        except Killed:
            continue
        if ended:
            break
    tasks.require_whole(output)


def test_who_cannot_go_on_names_the_parts_that_must_be_measured(tmp_path: Path) -> None:
    tasks = Tasks(tmp_path, smooth_time=3)
    output = tasks.begin(3)
    first, again = tasks.do(output, 2), tasks.do(output, 2)
    assert (first.measured, first.waiting, first.exit_code) == (3, (1, 3), 0)
    assert (again.measured, again.waiting, again.exit_code) == (0, (1, 3), 4)
    assert tasks.do(output, 1).waiting == (3,)
    last = tasks.do(output, 3)
    assert (last.measured, last.waiting, last.units_done, last.missing) == (3, (), 3, 6)


def test_statistics_of_what_a_run_or_fewer_tasks_did_before(tmp_path: Path) -> None:
    tasks = Tasks(tmp_path, scope="series")
    output = str(tmp_path / "out.zarr")
    done: list[int] = []

    def stop() -> bool:
        done.append(len(units_of(output)) if Path(output).exists() else 0)
        return done[-1] >= 3

    with pytest.raises(phbatch.InterruptedRunError):
        phbatch.run(tasks.source, output, command="same", stop=stop, **tasks.options)
    for number in (4, 9, 12, 12, 12):
        phbatch.begin_parts(tasks.source, output, parts=number, command="same", **tasks.options)
        results = [tasks.do(output, part) for part in range(1, number + 1)]
    assert results[-1].complete
    tasks.require_whole(output)


@pytest.mark.parametrize("dtype", ["uint16", "uint32", "float32"])
def test_states_of_parts_come_back_as_they_were(dtype: str) -> None:
    draw = np.random.default_rng(5)
    frames = [draw.integers(0, 200, (40, 36)).astype(dtype) for _ in range(3)]
    states = [frame_state(frame, 2) for frame in frames]
    back = [read_state(json.loads(json.dumps(record_state(state)))) for state in states]
    assert finalize(reduce(merge, back)) == finalize(reduce(merge, states))


def test_a_state_of_a_frame_that_is_not_finite_comes_back() -> None:
    state = frame_state(np.full((8, 8), np.nan, "float32"), 2)
    assert not read_state(json.loads(json.dumps(record_state(state)))).finite


@pytest.fixture(scope="module")
def server() -> Iterator[int]:
    with run_s3() as port:
        yield port


@pytest.fixture
def bucket(server: int, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    return new_bucket(server)


@pytest.mark.parametrize("options", [{}, {"smooth_time": 3}], ids=["at once", "statistics first"])
def test_parts_on_an_object_store(tmp_path: Path, bucket: Bucket, options: dict[str, Any]) -> None:
    tasks = Tasks(tmp_path, bucket=bucket, **options)
    output = tasks.begin(3)
    with hold_part(tasks.place(output), 2):
        with pytest.raises(HeldError, match="part 2 of"):
            tasks.do(output, 2)
        with pytest.raises(OutputError, match="is being written by an array of 3 tasks"):
            tasks.run(output)
        tasks.do(output, 1)
    while not tasks.do(output, 1).complete:
        for part in (2, 3):
            tasks.do(output, part)
    tasks.require_whole(output)


@pytest.fixture(params=["memory", "s3"])
def elsewhere(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Of an array of 3, where leases stand for locks."""
    if request.param == "memory":
        place = Place.at(f"memory://{tmp_path.name}/out.zarr")
    else:
        bucket: Bucket = request.getfixturevalue("bucket")
        place = Place.at(bucket.url("out.zarr"), parse_storage_options(bucket.options()))
    with hold_output(place, "array") as hold:
        hold.left = Array("array", 3).as_holder()
    return place


def test_a_lease_of_a_part_that_stands_still_is_taken_over(elsewhere: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "LEASE_S", 0.5)
    dead = {"token": "array/2/dead", "host": "elsewhere", "process": 1, "beat": 7}
    elsewhere.write(f"{PARTS}/2", json.dumps(dead).encode())
    assert is_held(elsewhere)
    with hold_part(elsewhere, 2) as token:
        assert holds(elsewhere, token)
        assert not holds(elsewhere, "array/2/dead")
        assert is_held(elsewhere)
    assert not is_held(elsewhere)
    elsewhere.write(f"{PARTS}/2", json.dumps(dead).encode())
    with hold_output(elsewhere, "run"):
        assert not holds(elsewhere, token)
        with pytest.raises(OutputError, match="is of no array"), hold_part(elsewhere, 1):
            pass


def test_who_died_while_it_finished_an_output_holds_nothing(elsewhere: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "LEASE_S", 0.5)
    dead = {"token": "array", "array": 3, "host": "elsewhere", "process": 1, "beat": 7}
    elsewhere.write(LOCK, json.dumps(dead).encode())
    with hold_part(elsewhere, 2):
        assert read_array(elsewhere) == Array("array", 3)
    with hold_output(elsewhere, "array", array=Array("array", 3)) as hold:
        hold.left = {}
    assert read_array(elsewhere) is None
    with pytest.raises(OutputError, match="not of this array any more"):
        hold_output(elsewhere, "array", array=Array("array", 3)).__enter__()


def test_of_a_run_and_a_task_that_begin_at_once_at_most_one_holds(
    elsewhere: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each writes its own lease before it looks at the other's."""
    monkeypatch.setattr(lock, "MERGE_S", 2.0)
    for _ in range(5):
        held, ready = list[str](), threading.Barrier(2)

        def task(held: list[str] = held, ready: threading.Barrier = ready) -> None:
            ready.wait()
            with suppress(OutputError), hold_part(elsewhere, 1):
                held.append("task")
                time.sleep(0.3)
                assert read_array(elsewhere) == Array("array", 3)
                held.append("task ended")

        def run(held: list[str] = held, ready: threading.Barrier = ready) -> None:
            ready.wait()
            with suppress(OutputError), hold_output(elsewhere, "run") as hold:
                hold.left = Array("array", 3).as_holder()
                held.append("run")
                time.sleep(0.3)
                held.append("run ended")

        threads = [threading.Thread(target=each) for each in (task, run)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for first, second in zip(held[::2], held[1::2], strict=True):
            assert second == f"{first} ended"
