"""Worker processes over TCP that are killed, and units that kill them: nothing is lost, and nobody is blamed for it."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from distributed import Client, LocalCluster

import phbatch
from phbatch.words.events import Event, UnitFinished
from tests.cluster.dask_processes import open_processes
from tests.faults.faults import small_units
from tests.faults.inputs import files, make_input
from tests.forks import forked_workers

FRAMES = 40

PATCH = """
import os, time
from phbatch.computing import tasks
tasks.original = getattr(tasks, "original", tasks.restore_unit)  # Dask reads this file twice
def restore_unit(job, unit):
    {0}
    return tasks.original(job, unit)
tasks.restore_unit = restore_unit
"""

SLOW = PATCH.format("time.sleep(0.05)")
"""So that a kill meets a unit."""

DEADLY = PATCH.format("unit.key.startswith('t3/') and os._exit(9)")
"""As a frame that takes more memory than a worker has."""


def test_four_workers_killed_at_random_lose_nothing(tmp_path: Path) -> None:
    source = make_input(tmp_path / "in.zarr", (FRAMES, 40, 40), (1, 40, 40))
    draw = random.Random(7)
    with small_units(), open_processes(tmp_path / "dask") as processes:
        whole = phbatch.run(source, tmp_path / "whole.zarr", model="none", workers=1, command="same")
        for _ in range(4):
            processes.add(preload=SLOW)
        with Client(processes.address, set_as_default=False) as client:
            client.wait_for_workers(4, timeout=240)
        finished: list[str] = []

        def kill_some(event: Event) -> None:
            if isinstance(event, UnitFinished):
                finished.append(event.unit)
                if len(finished) % 8 == 4:  # five of them
                    victim = processes.workers.pop(draw.randrange(len(processes.workers)))
                    victim.kill()
                    processes.add(preload=SLOW)

        result = phbatch.run(
            source,
            tmp_path / "out.zarr",
            model="none",
            scheduler=processes.address,
            listener=kill_some,
            command="same",
        )
        assert (result.exit_code, result.units_done, result.failed) == (0, FRAMES, {})
        assert sorted(finished) == sorted(set(finished))
        assert files(result.output) == files(whole.output)
        assert phbatch.verify(result.output).damages == ()


def test_a_unit_that_kills_its_workers_is_tried_alone_and_set_aside_and_the_others_finish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("phbatch.computing.dispatch.SUSPECT", 1)
    monkeypatch.setattr("phbatch.computing.dispatch.GUILTY", 1)
    source = make_input(tmp_path / "in.zarr", (12, 40, 40), (1, 40, 40))
    (tmp_path / "deadly.py").write_text(DEADLY)
    nannies = {"processes": True, "preload": str(tmp_path / "deadly.py"), "silence_logs": 50}
    with (
        small_units(),
        forked_workers(),
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0", **nannies) as cluster,
    ):
        result = phbatch.run(source, tmp_path / "out.zarr", model="none", scheduler=cluster.scheduler_address)
    assert result.exit_code == 4
    assert (list(result.failed), result.units_done) == (["t3/c0"], 11)
    assert "also those that had nothing else to do" in result.failed["t3/c0"]
