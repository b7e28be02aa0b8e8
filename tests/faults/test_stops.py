"""What passes is retried, a full disk is said, and a run that is asked to stop stops."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import phbatch
from phbatch import retry
from phbatch.errors import InputError, OutputError
from phbatch.retry import call_with_retries, pause_s
from tests.faults.inputs import make_input


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
import sys, time, phbatch.cli as cli, phbatch.commit as commit
original = commit.restore_unit
def restore_unit(job, unit):
    if unit.key != "t0/c0":
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            sum(range(1000))
    return original(job, unit)
commit.restore_unit = restore_unit
sys.argv = ["phbatch", *sys.argv[1:]]
cli.main()
"""


@pytest.mark.parametrize(("workers", "sent"), [(1, signal.SIGINT), (2, signal.SIGTERM)])
def test_a_run_stops_within_ten_seconds_whatever_is_in_flight(
    tmp_path: Path, workers: int, sent: signal.Signals
) -> None:
    source, output = make_input(tmp_path / "in.zarr"), tmp_path / "out.zarr"
    arguments = ["run", str(source), str(output), "--model", "none", "--workers", str(workers)]
    process = subprocess.Popen([sys.executable, "-c", STUCK, *arguments], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while b'"t0/c0"' not in b"".join(path.read_bytes() for path in output.glob(".phbatch/ledger/*")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    asked = time.monotonic()
    process.send_signal(sent)
    _, errors = process.communicate(timeout=30)
    assert time.monotonic() - asked < 10
    assert process.returncode == 130
    assert "stopped after 1 of 6 units; call the same command again to continue" in errors
    assert phbatch.run(source, output, model="none").units_skipped == 1


def test_a_place_that_takes_no_folder_is_said(tmp_path: Path) -> None:
    source = make_input(tmp_path / "in.zarr", (3, 40, 40), (1, 40, 40))
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OutputError, match="cannot be written"):
        phbatch.run(source, tmp_path / "file" / "out.zarr", model="none")
