"""phbatch as a guest in other programs: their signals, timers, tasks, ports and loggers are theirs."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import numpy as np
import pytest
import zarr
from dask import delayed
from distributed import Client, get_task_stream

import phbatch
from phbatch.words.errors import UsageError
from phbatch.words.events import Event, UnitFinished
from tests.clusters import open_cluster
from tests.faults.faults import small_units
from tests.faults.inputs import files
from tests.handmade import CommandLine

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Path]:
    """Units of one frame."""
    image = np.random.default_rng(0).integers(400, 600, (12, 260, 258), dtype="uint16")
    zarr.create_array(tmp_path / "in.zarr", data=image, chunks=(1, 260, 258))
    with small_units():
        yield tmp_path / "in.zarr"


@pytest.fixture
def own_signals() -> Iterator[list[int]]:
    """Handlers and a timer of a host."""
    met: list[int] = []

    def handle(number: int, _: FrameType | None) -> None:
        met.append(number)

    before = {number: signal.signal(number, handle) for number in SIGNALS}
    signal.setitimer(signal.ITIMER_REAL, 1000)
    yield met
    signal.setitimer(signal.ITIMER_REAL, 0)
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("workers", [1, 2])
def test_signals_and_the_timer_stay_the_hosts(source: Path, own_signals: list[int], workers: int) -> None:
    handlers = [signal.getsignal(number) for number in SIGNALS]
    seen = []

    def listen(event: Event) -> None:
        seen.append([signal.getsignal(number) for number in SIGNALS])
        if isinstance(event, UnitFinished) and not own_signals:
            os.kill(os.getpid(), signal.SIGTERM)

    result = phbatch.run(source, model="none", workers=workers, listener=listen)
    phbatch.statistics(source, listener=listen)
    assert result.units_done == 12
    assert own_signals == [signal.SIGTERM]
    assert all(found == handlers for found in seen)
    assert signal.getitimer(signal.ITIMER_REAL)[0] > 500


def test_a_run_is_stopped_by_whom_it_asks(source: Path) -> None:
    asked = threading.Event()

    def listen(event: Event) -> None:
        if isinstance(event, UnitFinished):
            asked.set()

    with pytest.raises(phbatch.InterruptedRunError, match="same command again"):
        phbatch.run(source, model="none", workers=2, listener=listen, stop=asked.is_set)
    last = phbatch.run(source, model="none")
    assert 1 <= last.units_skipped < 12
    assert last.units_done == 12 - last.units_skipped
    asked.set()
    with pytest.raises(phbatch.InterruptedRunError):
        phbatch.statistics(source, stop=asked.is_set)


def test_an_interrupt_of_the_host_commits_what_was_finished_and_leaves_nothing_running(source: Path) -> None:
    """As Ctrl-C in a notebook: while two threads compute, and the main thread waits for them."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell in the background ignores it
    finished = []

    def listen(event: Event) -> None:
        if isinstance(event, UnitFinished):
            finished.append(event.unit)
            if len(finished) == 1:
                os.kill(os.getpid(), signal.SIGINT)

    try:
        with pytest.raises(KeyboardInterrupt):
            phbatch.run(source, model="none", workers=2, listener=listen)
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(finished) < 12
    last = phbatch.run(source, model="none", workers=2)
    assert last.units_skipped >= len(finished)
    assert phbatch.verify(last.output).damages == ()


def test_warnings_of_a_run_are_logged_and_choices_are_said_quietly(
    source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "phbatch"):
        result = phbatch.run(source, tmp_path / "out.zarr", normalize="percentile", frames="0:1", tile=256, batch=1)
    logged = {record.getMessage(): record.levelno for record in caplog.records if record.name.startswith("phbatch.")}
    assert set(result.notices) == set(logged)
    (trained,) = [text for text in logged if "was trained with" in text]
    assert logged[trained] == logging.WARNING
    assert [level for text, level in logged.items() if text != trained and "model:" in text] == [logging.INFO]
    caplog.clear()
    phbatch.plan(source, tmp_path / "other.zarr", normalize="percentile", frames="0:1")
    assert trained in [record.getMessage() for record in caplog.records]


def test_the_command_line_prints_a_notice_once(source: Path, tmp_path: Path, phbatch_command: CommandLine) -> None:
    phbatch_command("plan", source, tmp_path / "out.zarr", "--normalize", "percentile", "--frames", "0:1")
    assert (phbatch_command.out + phbatch_command.err).count("was trained with") == 1
    assert phbatch_command.err == ""


def test_a_warning_is_seen_where_nobody_configured_logging(source: Path, tmp_path: Path) -> None:
    code = f"import phbatch; phbatch.plan({str(source)!r}, {str(tmp_path / 'out.zarr')!r}, normalize='percentile')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.count("was trained with") == 1


def test_errors_name_options_for_who_reads_them(source: Path, tmp_path: Path, phbatch_command: CommandLine) -> None:
    with pytest.raises(phbatch.UsageError, match=r"dtype='uint8'.*rescale=True") as caught:
        phbatch.plan(source, dtype="uint8")
    assert "--" not in str(caught.value)
    with pytest.raises(phbatch.UsageError, match=r"^bad_frames='worse' is not valid"):
        phbatch.plan(source, bad_frames="worse")  # type: ignore[arg-type]
    with pytest.raises(phbatch.InputError, match=r"^channel=7 is not there"):
        phbatch.plan(source, channel=7)
    assert phbatch_command("plan", source, "--dtype", "uint8") == 2
    assert "--dtype=uint8" in phbatch_command.err
    assert "--rescale" in phbatch_command.err


tasks: set[Path] = set()
at_once: set[int] = set()
"""How many tasks of the host were found to run."""


def restore(source: Path, output: Path) -> int:
    """A task of a host."""
    tasks.add(output)
    at_once.add(len(tasks))
    done = phbatch.run(source, output, model="none", workers=1, frames="0:3").units_done
    at_once.add(len(tasks))
    tasks.remove(output)
    at_once.add(len(tasks))
    return done


def test_a_run_in_a_task_of_the_host_keeps_its_thread(source: Path, tmp_path: Path) -> None:
    """With one worker phbatch is a plain loop in the host's task, which must not leave the host's pool."""
    with (
        open_cluster(1) as cluster,
        Client(cluster),
    ):
        assert (
            delayed(sum)([delayed(restore)(source, tmp_path / f"{index}.zarr") for index in range(4)]).compute() == 12
        )
    assert at_once == {0, 1}


def test_a_client_of_the_host_is_used_and_stays_open(source: Path, tmp_path: Path) -> None:
    alone = phbatch.run(source, tmp_path / "alone.zarr", model="none", workers=1, command="same")
    with (
        open_cluster(1) as cluster,
        Client(cluster) as client,
    ):
        with get_task_stream(client) as stream:
            there = phbatch.run(source, tmp_path / "there.zarr", model="none", command="same", client=client)
        with pytest.raises(UsageError, match="leave one out"):
            phbatch.run(source, tmp_path / "no.zarr", model="none", client=client, scheduler=cluster.scheduler_address)
        with get_task_stream(client) as others:
            table = phbatch.statistics(source, client=client)
            proof = phbatch.verify(tmp_path / "there.zarr", deep=2, client=client)
            assert phbatch.plan(source, model="none", client=client).units == 12
            shutil.rmtree(tmp_path / "there.zarr" / "0" / "c" / "0")
            assert phbatch.repair(tmp_path / "there.zarr", client=client).units_done > 0
        assert {task["key"].partition("-")[0] for task in others.data} >= {"measure", "compare", "restore"}
        with pytest.raises(UsageError, match="client acts on units that are computed again"):
            phbatch.verify(tmp_path / "there.zarr", client=client)
        assert client.submit(sum, [1, 2]).result() == 3
    assert (len(table), proof.damages, proof.recomputed) == (12, (), 2)
    assert there.units_done == alone.units_done == 12
    assert any(task["key"].startswith("restore-t0/c0") for task in stream.data)
    for key in ("0", "statistics"):
        assert files(tmp_path / "alone.zarr" / key) == files(tmp_path / "there.zarr" / key)
    with pytest.raises(UsageError, match="closed"):
        phbatch.run(source, tmp_path / "no.zarr", model="none", client=client)
    assert not (tmp_path / "no.zarr").exists()
