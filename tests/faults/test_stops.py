"""What passes is retried, a full disk is said, and a run that is asked to stop stops."""

from __future__ import annotations

import errno
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import dask
import pytest
from distributed import Client, LocalCluster

import phbatch
from phbatch.computing import signals
from phbatch.outputs.ledger import Ledger
from phbatch.places import retry
from phbatch.places.place import Place
from phbatch.places.retry import call_with_retries, pause_s
from phbatch.words.errors import InputError, OutputError
from phbatch.words.events import Event, UnitFinished
from tests.clusters import open_cluster
from tests.faults.faults import SMALL, small_units
from tests.faults.inputs import make_input
from tests.forks import Forked, forked_workers


@pytest.mark.parametrize(("failures", "retries"), [(0, 3), (1, 3), (3, 3), (4, 3), (1, 0), (9, 2)])
def test_what_may_pass_is_tried_as_often_as_was_said(failures: int, retries: int) -> None:
    calls = []

    def task() -> str:
        calls.append(1)
        if len(calls) <= failures:
            raise OSError(errno.EIO, "Input/output error")
        return "done"

    found, attempts = call_with_retries(task, retries)
    assert attempts == len(calls) == min(failures, retries) + 1
    assert found == "done" if failures <= retries else isinstance(found, OSError)


@pytest.mark.parametrize(
    "error", [InputError("NaN"), OSError(errno.ENOSPC, "full"), PermissionError(errno.EACCES, "no"), KeyError()]
)
def test_what_will_not_pass_is_tried_once(error: Exception) -> None:
    def task() -> None:
        raise error

    assert call_with_retries(task, 5) == (error, 1)


def test_pauses_double_and_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "BACKOFF_S", 0.5)
    for attempt, least in ((1, 0.5), (2, 1), (3, 2), (9, 8), (90, 8)):
        assert least <= pause_s(attempt) <= 1.5 * least


STUCK = """
import sys, time, phbatch.shell.commands as cli, phbatch.running.commit as commit, phbatch.planning.units as units
from phbatch.computing import signals
units._UNIT_PIXELS, signals.GRACE_S = 1, 1.0
original = commit.restore_unit
def restore_unit(job, unit):
    if unit.key != "t0/c0":
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            WAIT
    return original(job, unit)
commit.restore_unit = restore_unit
sys.argv = ["phbatch", *sys.argv[1:]]
cli.main()
"""


@pytest.mark.parametrize(
    ("workers", "sent", "wait"), [(1, signal.SIGINT, "sum(range(1000))"), (2, signal.SIGTERM, "time.sleep(5)")]
)
def test_a_run_stops_within_ten_seconds_whatever_is_in_flight(
    tmp_path: Path, workers: int, sent: signal.Signals, wait: str
) -> None:
    source, output = make_input(tmp_path / "in.zarr"), tmp_path / "out.zarr"
    arguments = ["run", str(source), str(output), "--model", "none", "--workers", str(workers)]
    process = Forked(STUCK.replace("WAIT", wait), arguments)
    deadline = time.monotonic() + 180
    while b'"t0/c0"' not in b"".join(path.read_bytes() for path in output.glob(".phbatch/ledger/*")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert signals.GRACE_S < 10
    asked = time.monotonic()
    process.send_signal(sent)
    _, errors = process.communicate(timeout=120)
    assert time.monotonic() - asked < 60  # ten seconds, and what a busy machine takes
    assert process.returncode == 130
    assert "stopped after 1 of 6 units; call the same command again to continue" in errors
    with small_units():
        assert phbatch.run(source, output, model="none").units_skipped == 1


def test_a_place_that_takes_no_folder_is_said(tmp_path: Path) -> None:
    source = make_input(tmp_path / "in.zarr", (3, 40, 40), (1, 40, 40))
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OutputError, match="cannot be written"):
        phbatch.run(source, tmp_path / "file" / "out.zarr", model="none")


@pytest.mark.parametrize("sent", [[signal.SIGTERM], [signal.SIGINT, signal.SIGINT]], ids=["SIGTERM", "twice SIGINT"])
def test_a_run_that_is_dropped_on_a_cluster_says_one_line(tmp_path: Path, sent: list[signal.Signals]) -> None:
    source, output = make_input(tmp_path / "in.zarr"), tmp_path / "out.zarr"
    stuck = source / "c" / "3" / "0" / "0"
    stuck.unlink()
    os.mkfifo(stuck)  # whoever reads it waits
    local = {"host": "127.0.0.1", "silence_logs": 50, "threads_per_worker": 2}
    with forked_workers(), LocalCluster(n_workers=1, dashboard_address="127.0.0.1:0", **local) as cluster:
        arguments = ["run", str(source), str(output), "--model", "none", "--scheduler", cluster.scheduler_address]
        process = Forked(SMALL, arguments)
        deadline = time.monotonic() + 180
        while len(Ledger(Place.at(output)).records()) < 6:  # all units but one, and the metadata
            assert time.monotonic() < deadline
            time.sleep(0.02)
        asked = time.monotonic()
        for each in sent:
            process.send_signal(each)
            time.sleep(0.1)
        _, errors = process.communicate(timeout=120)
        assert time.monotonic() - asked < 60  # ten seconds, and what a busy machine takes
        os.close(os.open(stuck, os.O_WRONLY | os.O_NONBLOCK))
    assert process.returncode == 130
    progress = ("dashboard: ", "frames/s")  # where the machine is slow enough for any
    (line,) = [line for line in errors.splitlines() if line.strip() and not any(word in line for word in progress)]
    assert line == "error: stopped after 5 of 6 units; call the same command again to continue."


def test_signals_while_a_command_ends_leave_the_handlers_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(seconds: float) -> None:
        if not seconds:  # the alarm is taken back, and the handlers are next
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(signals, "_set_alarm", interrupt)
    before = [signal.getsignal(number) for number in signals._SIGNALS]
    with signals.stop_on_signal() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop()
    assert [signal.getsignal(number) for number in signals._SIGNALS] == before


@pytest.fixture
def cluster() -> Iterator[str]:
    with LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0", silence_logs=False
    ) as found:
        yield found.scheduler_address


@pytest.mark.parametrize("moment", ["get", "close"])
def test_an_interrupt_within_distributed_waits_until_it_is_done(
    tmp_path: Path,
    cluster: str,
    moment: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    source = make_input(tmp_path / "in.zarr", (3, 40, 40), (1, 40, 40))
    original, done = getattr(Client, moment), []
    monkeypatch.setattr(signals, "GRACE_S", 60)

    def interrupt() -> None:
        for _ in range(2):  # asked to stop, and to stop at once
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.05)  # else both count as one

    def get(self: Client, *arguments: Any, **options: Any) -> Any:
        interrupt()
        found = original(self, *arguments, **options)
        done.append(moment)
        return found

    def close(self: Client, *arguments: Any, **options: Any) -> Any:
        if self.scheduler is None or self.scheduler.address != cluster:  # of an earlier test, when it is forgotten
            return original(self, *arguments, **options)
        interrupting = threading.Timer(0.1, interrupt)
        if not done:
            self.loop.add_callback(time.sleep, 0.3)  # so that the interrupt comes before the closing has begun
            interrupting.start()
        original(self, *arguments, **options)
        if not done:
            interrupting.join()  # however late the thread is: it must interrupt this call and no later one
        done.append(moment)
        return None

    def run() -> None:
        with signals.stop_on_signal() as stop:
            phbatch.run(source, tmp_path / "out.zarr", model="none", scheduler=cluster, stop=stop)

    monkeypatch.setattr(Client, moment, get if moment == "get" else close)
    with small_units(), suppress(phbatch.InterruptedRunError, KeyboardInterrupt):
        run()
    assert done
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []
    monkeypatch.undo()
    with small_units():
        run()
        assert phbatch.verify(tmp_path / "out.zarr").damages == ()


def test_a_scheduler_that_is_gone_is_said(tmp_path: Path) -> None:
    source, output = make_input(tmp_path / "in.zarr"), tmp_path / "out.zarr"
    with small_units(), open_cluster(1) as cluster:

        def leave(event: Event) -> None:
            if isinstance(event, UnitFinished):
                cluster.close()

        with (
            dask.config.set({"distributed.comm.timeouts.connect": "1s"}),
            pytest.raises(
                phbatch.InterruptedRunError, match=r"cancelled on the Dask scheduler at .*call the same command"
            ),
        ):
            phbatch.run(source, output, model="none", scheduler=cluster.scheduler_address, listener=leave)
        assert phbatch.run(source, output, model="none").units_skipped >= 1
