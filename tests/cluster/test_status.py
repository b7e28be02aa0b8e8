"""What is said of a run from beside its output: on a disk and on an object store, whoever computes."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
import zarr

import phbatch
from phbatch.clusters import status as module
from phbatch.clusters.base import Kind, Submission
from phbatch.clusters.beside import Jobs
from phbatch.clusters.kinds import KINDS
from phbatch.outputs.ledger import Ledger
from phbatch.places.place import Place
from phbatch.words.events import UnitFinished
from tests.handmade import CommandLine


class Nowhere(Kind):
    """A kind whose jobs never begin."""

    ended = 0

    def render(self, submission: Submission, *, detach: bool) -> dict[str, str]:
        return {"job.sh": f"# {submission.name}\n"}

    def launch(self, submission: Submission) -> dict[str, object]:
        return {"job": "7", "name": submission.name}

    def cancel(self, record: object) -> bool:
        self.ended += 1
        return True


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch) -> Nowhere:
    kind = Nowhere()
    monkeypatch.setitem(KINDS, "nowhere", kind)
    return kind


@pytest.fixture
def source(tmp_path: Path) -> Path:
    zarr.create_array(tmp_path / "in.zarr", data=np.full((1, 6, 32, 32), 700, "uint16"), chunks=(1, 1, 32, 32))
    return tmp_path / "in.zarr"


def test_of_nothing_there_is_nothing_to_say(tmp_path: Path) -> None:
    with pytest.raises(phbatch.OutputError, match="is no output of phbatch and none was submitted there"):
        phbatch.status(tmp_path / "out.zarr")
    for function in (phbatch.cancel, phbatch.logs):
        with pytest.raises(phbatch.UsageError, match="was not submitted"):
            function(tmp_path / "out.zarr")


def test_a_plain_run_is_seen_while_it_runs_and_after(tmp_path: Path, source: Path) -> None:
    seen = []

    def look(event: object) -> None:
        if isinstance(event, UnitFinished):
            seen.append(phbatch.status(tmp_path / "out.zarr"))

    phbatch.run(source, tmp_path / "out.zarr", axes="tcyx", model="none", workers=1, listener=look)
    assert {(each.state, each.units) for each in seen} == {("running", 6)}
    counts = [each.done for each in seen]
    assert counts == sorted(counts)  # units that ended meanwhile are committed together
    assert all(heard <= done <= 6 for heard, done in enumerate(counts, 1))
    found = phbatch.status(tmp_path / "out.zarr")
    assert (found.state, found.done, found.seconds_left, found.job) == ("complete", 6, None, "")


def test_what_is_submitted_is_queued_speaks_falls_silent_and_is_cancelled(
    tmp_path: Path, source: Path, nowhere: Nowhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out.zarr"
    done = phbatch.submit(source, output, cluster="nowhere", detach=True, axes="tcyx", model="none")
    assert (done.job, done.result, done.exit_code) == ("7", None, 0)
    assert not output.exists()
    found = phbatch.status(output)
    assert (found.state, found.job, found.kind, found.units) == ("queued", "7", "nowhere", 0)
    jobs = Jobs(Place.at(output))
    jobs.say("controller", {"state": "running", "host": "n1", "process": 4, "workers": 3, "failed": {"t0/c1": "bad"}})
    found = phbatch.status(output)
    assert (found.state, found.failed) == ("running", {"t0/c1": "bad"})
    assert found.where == ("controller: process 4 on n1, 3 workers",)
    with pytest.raises(phbatch.OutputError, match=r"is being computed .*controller: process 4 on n1.*phbatch cancel"):
        phbatch.submit(source, output, cluster="nowhere", detach=True, axes="tcyx", model="none")
    monkeypatch.setattr(module, "PATIENCE_S", 0.1)
    monkeypatch.setattr(module, "SILENT_S", -1.0)
    assert phbatch.status(output).state == "silent"
    assert not jobs.cancelled()
    assert phbatch.cancel(output).state == "cancelled"
    assert (jobs.cancelled(), nowhere.ended) == (True, 1)
    phbatch.submit(source, output, cluster="nowhere", detach=True, axes="tcyx", model="none")
    assert not jobs.cancelled()
    assert phbatch.status(output).state == "queued"


def test_the_rate_is_that_of_the_records(tmp_path: Path, source: Path) -> None:
    output = tmp_path / "out.zarr"
    phbatch.run(source, output, axes="tcyx", model="none", workers=1)
    times = [record["at"] for record in Ledger(Place.at(output)) if record["unit"] != "metadata"]
    assert times == sorted(times)
    assert all(0 <= time.time() - at < 600 for at in times)
    assert module.rate_of(range(0, 100, 2)) == 0.5


def test_the_commands_print_the_same(
    tmp_path: Path, source: Path, nowhere: Nowhere, phbatch_command: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE_S", 0.1)
    output = tmp_path / "out.zarr"
    options = ("--cluster", "nowhere", "--detach", "--axes", "tcyx", "--model", "none")
    assert phbatch_command("submit", source, output, *options) == 0
    assert "job       7 (nowhere)" in phbatch_command.out
    assert phbatch_command("status", output, "--json") == 0
    assert json.loads(phbatch_command.out)["state"] == "queued"
    (tmp_path / "out.jobs" / "controller-7.log").write_text("one\ntwo\nthree\n")
    assert phbatch_command("logs", output, "--lines", 2) == 0
    assert phbatch_command.out == f"== {tmp_path}/out.jobs/controller-7.log\ntwo\nthree\n"
    assert phbatch_command("cancel", output) == 0
    assert "state     cancelled" in phbatch_command.out
    assert phbatch_command("run", source, output, "--axes", "tcyx", "--model", "none", "--quiet") == 0
    assert phbatch_command("status", output) == 0
    assert "state     complete\nunits     6 of 6\n" in phbatch_command.out
    ended = nowhere.ended
    assert phbatch_command("cancel", output) == 0  # workers may wait for more
    assert ("state     complete" in phbatch_command.out, nowhere.ended) == (True, ended + 1)
    assert phbatch_command("verify", output) == 0


def test_beside_an_object_store_there_is_a_folder_too(source: Path, nowhere: Nowhere) -> None:
    output = "memory://bucket/out.zarr"
    phbatch.submit(source, output, cluster="nowhere", detach=True, axes="tcyx", model="none")
    found = phbatch.status(output)
    assert (found.state, Path(found.logs)) == ("queued", Path.cwd() / "out.jobs")
    assert Place.at("memory://bucket").names()["out.jobs"]
    assert not Path(found.logs).exists()


def test_credentials_are_not_written_into_scripts(source: Path, nowhere: Nowhere, tmp_path: Path) -> None:
    options = {"cluster": "nowhere", "axes": "tcyx", "model": "none", "storage_options": {"secret": "hunter2"}}
    with pytest.raises(phbatch.UsageError, match="would be written into a script"):
        phbatch.submit(source, tmp_path / "out.zarr", detach=True, **options)
    shown = phbatch.submit(source, tmp_path / "out.zarr", detach=True, dry_run=True, **options | {"cluster": "slurm"})
    assert "hunter2" not in str(shown)
