"""The controller of a run on a cluster, with workers in this process in the place of jobs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from distributed import LocalCluster

import phbatch
from phbatch.clusters import controller
from phbatch.clusters.base import Kind, Submission
from phbatch.clusters.beside import Jobs
from phbatch.clusters.kinds import KINDS
from phbatch.computing.cluster import SilentSchedulerError
from phbatch.places.place import Place
from phbatch.words.events import RunStarted, UnitFinished
from tests.clusters import open_cluster

CHANNELS = 150
OPTIONS = {"cluster": "here", "axes": "tcyx", "model": "none", "memory_per_worker": "1GB"}


class Here(Kind):
    """A cluster of this process, whose jobs are always out of time."""

    def __init__(self) -> None:
        self.asked_again, self.over = 0, True

    def render(self, submission: Submission, *, detach: bool) -> dict[str, str]:
        return {}

    def launch(self, submission: Submission) -> dict[str, object]:
        raise NotImplementedError

    @contextmanager
    def open(self, submission: Submission) -> Iterator[Opened]:
        with open_cluster(1) as cluster:
            yield Opened(cluster)

    def is_over(self, submission: Submission) -> bool:
        return self.over

    def again(self) -> None:
        self.asked_again += 1


class Opened:
    def __init__(self, cluster: LocalCluster) -> None:
        self._cluster = cluster

    @property
    def address(self) -> str:
        return str(self._cluster.scheduler_address)

    def workers(self) -> int:
        return len(self._cluster.scheduler_info["workers"])

    def tend(self) -> str:
        return ""


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Here:
    kind = Here()
    monkeypatch.setitem(KINDS, "here", kind)
    monkeypatch.setattr(controller, "LOOK_S", 0.02)
    return kind


@pytest.fixture
def source(tmp_path: Path) -> Path:
    data = np.random.default_rng(5).integers(400, 600, (1, CHANNELS, 16, 16)).astype("uint16")
    zarr.create_array(tmp_path / "in.zarr", data=data, chunks=(1, 1, 16, 16))
    return tmp_path / "in.zarr"


def test_a_run_is_controlled_verified_and_said(tmp_path: Path, source: Path, here: Here) -> None:
    done = phbatch.submit(source, tmp_path / "out.zarr", verify=True, **OPTIONS)
    assert done.result is not None
    assert done.verification is not None
    assert (done.result.units_done, done.verification.finished, done.exit_code) == (CHANNELS, CHANNELS, 0)
    assert dict(Jobs(Place.at(tmp_path / "out.zarr")).states())["controller"]["state"] == "done"
    assert here.asked_again == 0


def test_a_scheduler_that_is_too_busy_to_answer_is_asked_again(
    tmp_path: Path, source: Path, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, original = list[object](), controller.run

    def run(*arguments: Any, **options: Any) -> phbatch.RunResult:
        asked.append(options["scheduler"])
        if len(asked) == 1:
            raise SilentSchedulerError("no Dask scheduler answers; start one.")
        return original(*arguments, **options)

    monkeypatch.setattr(controller, "run", run)
    assert phbatch.submit(source, tmp_path / "out.zarr", **OPTIONS).exit_code == 0
    assert len(asked) == 2


def test_who_cancels_beside_the_output_stops_it_and_it_is_not_queued_again(
    tmp_path: Path, source: Path, here: Here
) -> None:
    output = tmp_path / "out.zarr"

    def cancel_once(event: object) -> None:
        if isinstance(event, UnitFinished) and not jobs.cancelled():
            jobs.cancel()
            time.sleep(1)  # it looks every LOOK_S

    jobs = Jobs(Place.at(output))
    with pytest.raises(phbatch.InterruptedRunError):
        phbatch.submit(source, output, as_job=True, listener=cancel_once, **OPTIONS)
    found = phbatch.status(output)
    assert (found.state, 0 < found.done < CHANNELS, here.asked_again) == ("cancelled", True, 0)
    assert phbatch.submit(source, output, **OPTIONS).exit_code == 0  # what was asked before is over
    assert phbatch.status(output).state == "complete"


def test_a_job_whose_time_is_over_is_queued_again_unless_nothing_comes_of_it(
    tmp_path: Path, source: Path, here: Here
) -> None:
    output, seen = tmp_path / "out.zarr", []

    def control(*stops: type) -> None:
        seen.clear()
        with pytest.raises(phbatch.InterruptedRunError):
            phbatch.submit(
                source,
                output,
                as_job=True,
                listener=lambda event: seen.append(type(event)),
                stop=lambda: any(stop in seen for stop in stops),
                **OPTIONS,
            )

    control(UnitFinished)
    assert here.asked_again == 1
    assert phbatch.status(output).state == "queued again"
    for times in (2, 3, 3):
        control(RunStarted)  # no unit is begun
        assert here.asked_again == times
    assert phbatch.status(output).state == "stopped"
    here.over = False
    control(UnitFinished)
    assert here.asked_again == 3
