"""Dask clusters that are not there, are empty, do not fit, fail, or go: no hang, no silence, nothing lost."""

from __future__ import annotations

import ast
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
import zarr
from distributed import Client, LocalCluster, get_worker

import phbatch
from phbatch.computing import cluster, crew
from phbatch.computing.engine import Outcome, execute
from phbatch.computing.tasks import NOWHERE, Job, restore_unit
from phbatch.frames.recipe import Recipe
from phbatch.places.holder import LOCK, held_error
from phbatch.places.place import Place
from phbatch.planning.memory import MemoryPlan
from phbatch.planning.unit import Unit
from phbatch.planning.units import Geometry
from phbatch.running import begin
from phbatch.words.errors import OutputError
from phbatch.words.events import Event, Listener, Notice, UnitFinished
from phbatch.words.normalization import Normalization
from tests.cluster.dask_processes import open_processes
from tests.clusters import open_cluster
from tests.faults.faults import SMALL, small_units
from tests.faults.inputs import make_input, units_of
from tests.forks import Forked

JOB = Job(NOWHERE, None, Recipe(Normalization()))


def make_units(count: int) -> tuple[Unit, ...]:
    return tuple(Geometry((count, 1, 1, 2048, 2048), (1, 1, 1, 2048, 2048), range(count), (0,)).units)


@pytest.fixture(scope="module")
def pair() -> Iterator[LocalCluster]:
    """Two workers."""
    with open_cluster(2) as found:
        yield found


class Complaining(LocalCluster):
    """What is torn down in the middle of its work logs on, once Dask lets it be shown again."""

    async def _close(self) -> None:
        await super()._close()
        logging.getLogger("distributed.batched").info("Batched Comm Closed")


def test_what_we_close_is_quiet_and_others_are_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    logger, heard, handler = logging.getLogger("distributed.batched"), list[str](), logging.Handler()
    monkeypatch.setattr(handler, "emit", lambda record: heard.append(record.getMessage()))
    logging.getLogger("distributed").addHandler(handler)
    try:
        found = Complaining(n_workers=0, processes=False, dashboard_address="127.0.0.1:0")
        heard.clear()
        with cluster.quiet(found):
            logger.info("of the host's own")
            found.close()
        assert heard == ["of the host's own"]
        assert not logger.filters
    finally:
        logging.getLogger("distributed").removeHandler(handler)


def addresses(found: LocalCluster) -> list[str]:
    return [worker.address for worker in found.workers.values()]


def time_lapse(folder: Path, frames: int = 6) -> Path:
    return make_input(folder / "in.zarr", (frames, 40, 40), (1, 40, 40))


# An address where no scheduler is


@contextmanager
def listening(reply: bytes) -> Iterator[int]:
    """A port that accepts, and answers what it hears with these bytes, or not at all."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        accepted: list[socket.socket] = []

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                accepted.append(connection)
                with suppress(OSError):
                    connection.sendall(reply)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join(60)
            for connection in accepted:
                connection.close()


@pytest.mark.parametrize("scheme", ["", "tcp://"])  # of TLS, see tests/cluster/test_tls.py
@pytest.mark.parametrize(
    "reply", [b"", b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"], ids=["silent", "HTTP"]
)
def test_a_port_that_speaks_no_dask_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str, reply: bytes
) -> None:
    monkeypatch.setattr(cluster, "ANSWER_S", 1.0)
    source = time_lapse(tmp_path)
    with (
        listening(reply) as port,
        pytest.raises(phbatch.UsageError, match=r"no Dask scheduler answers at .*scheduler"),
    ):
        phbatch.run(source, model="none", scheduler=f"{scheme}127.0.0.1:{port}")
    assert [path.name for path in tmp_path.iterdir()] == ["in.zarr"]


@pytest.mark.parametrize("address", ["127.0.0.1:9", "nonsense", "http://127.0.0.1:9", "tcp://127.0.0.1:bad"])
def test_an_address_that_leads_nowhere_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setattr(cluster, "ANSWER_S", 1.0)
    source = time_lapse(tmp_path)
    with pytest.raises(phbatch.UsageError, match="no Dask scheduler answers"):
        phbatch.statistics(source, scheduler=address)


def test_the_address_of_a_worker_is_none_of_a_scheduler(pair: LocalCluster) -> None:
    with pytest.raises(phbatch.UsageError, match="a Dask Worker is there"):
        list(execute(echo, JOB, make_units(2), workers=1, scheduler=addresses(pair)[0]))


PATIENT = """\
import sys
from phbatch.computing import cluster
from phbatch.shell import commands as cli
cluster.ANSWER_S = 300
cli.main()
"""


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, None)])
def test_a_run_that_waits_for_a_scheduler_hears_signals(tmp_path: Path, sent: signal.Signals, code: int | None) -> None:
    source = time_lapse(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(120)
        address = f"127.0.0.1:{server.getsockname()[1]}"
        process = Forked(PATIENT, ["run", str(source), "--model", "none", "--scheduler", address])
        connection, _ = server.accept()
        time.sleep(0.2)
        process.send_signal(sent)
        _, errors = process.communicate(timeout=120)
        connection.close()
    assert process.returncode in ((code,) if code is not None else (-signal.SIGTERM, 130, 143))
    assert "Traceback" not in errors


# Workers that are not there, or do not fit


def echo(job: Job, unit: Unit) -> str:
    return unit.key


def test_a_cluster_without_workers_is_awaited_and_refused(tmp_path: Path) -> None:
    source, events = time_lapse(tmp_path), list[Event]()
    with open_cluster(0) as empty, pytest.raises(phbatch.ClusterError, match=r"has no workers, 0.3 s long") as caught:
        phbatch.run(source, model="none", scheduler=empty.scheduler_address, wait_workers=0.3, listener=events.append)
    assert caught.value.exit_code == 3
    (notice,) = events
    assert isinstance(notice, Notice)
    assert notice.warning
    assert "waiting up to 0.3 s for workers" in notice.text
    assert [path.name for path in tmp_path.iterdir()] == ["in.zarr"]


def test_workers_that_come_while_they_are_awaited_are_used() -> None:
    units = make_units(5)
    with open_cluster(0) as growing:

        def start_one(event: Event) -> None:
            growing.scale(1)

        found = list(execute(echo, JOB, units, workers=1, scheduler=growing.scheduler_address, listener=start_one))
    assert {outcome.result for outcome in found} == {unit.key for unit in units}


@pytest.mark.parametrize(
    ("attribute", "value", "reason"),
    [
        ("NUMBERS_NAME", "phbatch_of_nobody:NUMBERS_VERSION", "it has no phbatch"),
        ("NUMBERS_NAME", "phbatch.computing.identity:NOTHING", "cannot be loaded"),
        ("NUMBERS_VERSION", 99, "computes other numbers"),
    ],
)
def test_workers_with_another_phbatch_are_refused(
    tmp_path: Path, pair: LocalCluster, monkeypatch: pytest.MonkeyPatch, attribute: str, value: object, reason: str
) -> None:
    monkeypatch.setattr(crew, attribute, value)
    source = time_lapse(tmp_path)
    with pytest.raises(phbatch.UsageError, match=reason) as caught:
        phbatch.run(source, model="none", scheduler=pair.scheduler_address)
    assert all(address in str(caught.value) for address in addresses(pair))
    assert [path.name for path in tmp_path.iterdir()] == ["in.zarr"]


def test_workers_that_are_too_small_are_refused(pair: LocalCluster) -> None:
    enough = max(worker.memory_manager.memory_limit or 0 for worker in pair.workers.values()) + 1
    job = Job(NOWHERE, None, Recipe(Normalization()), memory=MemoryPlan(0, enough, 0, 1, enough))
    with pytest.raises(phbatch.UsageError, match=r"of memory and a unit takes"):
        list(execute(echo, job, make_units(3), workers=1, scheduler=pair.scheduler_address))


WITHOUT_PHBATCH = """
import sys
sys.modules["phbatch"] = None
sys.argv = ["worker", sys.argv[1], "--no-dashboard", "--no-nanny", "--nthreads", "1", "--host", "127.0.0.1"]
from distributed.cli.dask_worker import main
main()
"""


def test_a_worker_without_phbatch_is_left_out_and_named() -> None:
    units, notices = make_units(30), list[str]()

    def listen(event: Event) -> None:
        assert isinstance(event, Notice)
        notices.append(event.text)

    with open_cluster(1) as mixed:
        command = [sys.executable, "-c", WITHOUT_PHBATCH, mixed.scheduler_address]
        foreign = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            with Client(mixed.scheduler_address, set_as_default=False) as client:
                client.wait_for_workers(2, timeout=180)
            address = mixed.scheduler_address
            found = list(execute(echo, JOB, units, workers=4, scheduler=address, listener=listen))
        finally:
            foreign.kill()
            foreign.wait(60)
        (notice,) = notices
        assert "left out: it has no phbatch" in notice
        assert addresses(mixed)[0] not in notice
    assert {outcome.result for outcome in found} == {unit.key for unit in units}


def test_versions_of_workers_are_recorded_and_what_differs_is_said(
    tmp_path: Path, pair: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    meet = begin.meet_workers

    def with_another_numpy(*arguments: object) -> dict[str, dict[str, str]]:
        first, second = meet(*arguments).items()  # type: ignore[arg-type]
        return dict([first, (second[0], second[1] | {"numpy": "0.1"})])

    monkeypatch.setattr(begin, "meet_workers", with_another_numpy)
    source = time_lapse(tmp_path, 2)
    result = phbatch.run(source, model="none", scheduler=pair.scheduler_address)
    recorded = zarr.open_group(result.output, mode="r").attrs.asdict()["phbatch"]
    assert recorded["worker_versions"]["numpy"] == {"0.1": 1, np.__version__: 1}
    assert recorded["worker_versions"]["zarr"] == {zarr.__version__: 2}
    (notice,) = (notice for notice in result.notices if "numpy" in notice)
    assert "0.1 on worker tcp://" in notice
    assert f"{np.__version__} here" in notice


# Workers that fail

FAILING: set[str] = set()
"""Addresses of workers on which `see` fails."""

CALLS: Counter[str] = Counter()


def see(job: Job, unit: Unit) -> str:
    """What a worker does that does not see the input, and is faster than those that do."""
    CALLS[get_worker().address] += 1
    if get_worker().address in FAILING:
        raise FileNotFoundError("/data/in.zarr does not exist")
    time.sleep(0.01)
    return unit.key


@pytest.fixture
def failing() -> Iterator[set[str]]:
    FAILING.clear()
    CALLS.clear()
    yield FAILING
    FAILING.clear()


def test_units_that_fail_on_one_worker_are_finished_by_another(pair: LocalCluster, failing: set[str]) -> None:
    units, notices = make_units(120), list[Event]()
    bad, good = addresses(pair)
    failing.add(bad)
    address = pair.scheduler_address
    found: list[Outcome[str]] = list(execute(see, JOB, units, workers=1, scheduler=address, listener=notices.append))
    assert sorted(str(outcome.result) for outcome in found) == sorted(unit.key for unit in units)
    assert CALLS[good] == 120
    assert CALLS[bad] < 60
    (notice,) = notices
    assert isinstance(notice, Notice)
    assert f"worker {bad} left out" in notice.text


def test_a_run_whose_units_all_fail_alike_ends_early(pair: LocalCluster, failing: set[str]) -> None:
    failing.update(addresses(pair))
    with pytest.raises(phbatch.InterruptedRunError, match=r"failed alike .*tcp://.*/data/in.zarr does not exist"):
        list(execute(see, JOB, make_units(400), workers=1, scheduler=pair.scheduler_address))
    assert sum(CALLS.values()) < 200


def damaged(job: Job, unit: Unit) -> str:
    if unit.source[0].start % 10 == 0:
        raise ValueError(f"{unit.key} is damaged")
    return unit.key


def test_units_that_fail_everywhere_are_reported_with_their_workers_and_exclude_none(pair: LocalCluster) -> None:
    units, notices = make_units(200), list[Event]()
    address = pair.scheduler_address
    found: list[Outcome[str]] = list(
        execute(damaged, JOB, units, workers=1, scheduler=address, listener=notices.append)
    )
    bad = {outcome.unit.key: outcome for outcome in found if outcome.error is not None}
    assert bad.keys() == {unit.key for unit in units[::10]}
    assert len(found) == 200
    assert notices == []
    for key, outcome in bad.items():
        assert set(outcome.failed_on) == set(addresses(pair))
        assert outcome.attempts == 2
        assert outcome.problem.startswith(f"{key} is damaged (on tcp://")


# Workers that go


def end_workers(found: LocalCluster) -> None:
    """At once: a worker that closes in peace waits 30 s for a thread that leaves its pool meanwhile."""
    for worker in found.workers.values():
        found.sync(worker.close, executor_wait=False, nanny=False)


def test_a_run_that_loses_all_workers_ends_and_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, output, notices = time_lapse(tmp_path, 60), tmp_path / "out.zarr", list[str]()
    with open_cluster(1) as shrinking, small_units():

        def leave(event: Event) -> None:
            if isinstance(event, UnitFinished):
                end_workers(shrinking)
            elif isinstance(event, Notice):
                notices.append(event.text)

        gone = r"all workers of the Dask scheduler at .* are gone, 1 s long \(wait_workers\); what is finished stays"
        with pytest.raises(phbatch.InterruptedRunError, match=gone) as refused:
            slow_run(monkeypatch, source, output, shrinking, leave, wait_workers="1s")
        assert isinstance(refused.value, phbatch.ClusterError)
        assert refused.value.exit_code == 3
        monkeypatch.undo()
        assert any("all workers are gone; waiting up to 1 s" in text for text in notices)
        done = phbatch.run(source, output, model="none", workers=1)
        assert 1 <= done.units_skipped < 60
        assert phbatch.verify(output).damages == ()


def slow_run(
    monkeypatch: pytest.MonkeyPatch,
    source: Path,
    output: Path,
    where: LocalCluster,
    listener: Listener,
    wait_workers: str = "2m",
) -> phbatch.RunResult:
    """A run whose units take a tenth of a second, so that what happens in its middle does."""
    monkeypatch.setattr("phbatch.running.commit.restore_unit", slow_unit)
    return phbatch.run(
        source,
        output,
        model="none",
        scheduler=where.scheduler_address,
        wait_workers=wait_workers,
        listener=listener,
        command="same",
    )


def slow_unit(job: Job, unit: Unit) -> dict[str, object]:
    time.sleep(0.1)
    return restore_unit(job, unit)


def test_a_worker_that_comes_after_all_went_finishes_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, output = time_lapse(tmp_path, 30), tmp_path / "out.zarr"
    with open_cluster(1) as changing, small_units():
        said: list[str] = []

        def change(event: Event) -> None:
            if isinstance(event, UnitFinished) and not said:
                said.append("left")
                end_workers(changing)
            if isinstance(event, Notice) and "all workers are gone" in event.text:
                changing.scale(2)  # the one that went counts, too

        result = slow_run(monkeypatch, source, output, changing, change)
        monkeypatch.undo()
        whole = phbatch.run(source, tmp_path / "whole.zarr", model="none", workers=1, command="same")
    assert (result.exit_code, result.units_done) == (0, 30)
    np.testing.assert_array_equal(zarr.open_array(output, path="0")[:], zarr.open_array(whole.output, path="0")[:])


def test_a_scheduler_that_dies_leaves_one_sentence(tmp_path: Path) -> None:
    source, output = make_input(tmp_path / "in.zarr"), tmp_path / "out.zarr"
    stuck = source / "c" / "3" / "0" / "0"
    stuck.unlink()
    os.mkfifo(stuck)  # whoever reads it waits
    with open_processes(tmp_path / "dask") as processes:
        processes.add("--nthreads", "2")
        with Client(processes.address, set_as_default=False) as client:
            client.wait_for_workers(1, timeout=180)
        process = Forked(SMALL, ["run", str(source), str(output), "--model", "none", "--scheduler", processes.address])
        deadline = time.monotonic() + 180
        while len(units_of(output)) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        processes.scheduler.kill()
        _, errors = process.communicate(timeout=180)
    assert process.returncode == 130, errors
    *progress, last = [line for line in errors.splitlines() if line.strip()]
    assert last.startswith("error: the work was cancelled on the Dask scheduler at "), errors
    assert all("frames/s" in line or line.startswith("dashboard: ") for line in progress), errors


# What a host lends


def test_a_run_within_a_task_of_the_user_keeps_its_thread(tmp_path: Path) -> None:
    """One thread runs one task at a time, also where these call phbatch."""
    for index in range(3):
        make_input(tmp_path / f"in{index}.zarr", (3, 40, 40), (1, 40, 40))
    with open_cluster(1) as single, Client(single, set_as_default=False) as client:
        assert max(client.gather(client.map(run_within, [str(tmp_path)] * 3, range(3), pure=False))) == 1


_within: list[int] = []


def run_within(folder: str, index: int) -> int:
    _within.append(index)
    phbatch.run(f"{folder}/in{index}.zarr", model="none", workers=1)
    time.sleep(0.2)  # so that whoever was let in meanwhile is seen
    met = len(_within)
    _within.remove(index)
    return met


def test_a_lock_that_names_no_process_is_held_all_the_same(tmp_path: Path) -> None:
    for holder in ({"token": "x"}, {"token": "x", "host": "h"}, {"token": "x", "process": 1}):
        with pytest.raises(OutputError, match="is being written by another run"):
            raise held_error(Place.at(tmp_path), LOCK, holder)


def test_no_cluster_of_ours_asks_for_a_port_that_may_be_taken() -> None:
    """Without an address, and with None, distributed binds 8787, and warns where it cannot."""
    root = Path(__file__).parents[2]
    calls = [
        (path.name, {word.arg: ast.unparse(word.value) for word in call.keywords})
        for folder in ("tests", "benchmarks", "phbatch")
        for path in (root / folder).rglob("*.py")
        for text in [path.read_text(encoding="utf-8")]
        if "LocalCluster" in text
        for call in ast.walk(ast.parse(text))
        if isinstance(call, ast.Call) and ast.unparse(call.func).endswith("LocalCluster")
    ]
    assert calls
    assert [name for name, words in calls if words.get("dashboard_address") != "'127.0.0.1:0'"] == []
