"""Runs on the real SLURM that lose jobs, nodes and their controller: the bytes are those of a plain run.

Several faults share a run, since each costs the seconds in which SLURM and Dask notice it.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import psutil
import pytest
import zarr

import phbatch
from phbatch.clusters import slurm as slurm_kind
from phbatch.outputs.ledger import Ledger
from phbatch.places.place import Place
from tests.cluster.slow import make_python
from tests.cluster.slurm import SlurmCluster
from tests.forks import Forked, fork_command

pytestmark = pytest.mark.skipif(find_spec("dask_jobqueue") is None, reason="dask-jobqueue is missing")

CHANNELS = 160
LONG_S = 240.0
"""Until something must have happened that takes a tenth of it."""


class Site:
    """An image, what a plain run makes of it, and workers that are slow until they may be fast."""

    def __init__(self, folder: Path, image: Path, slurm: SlurmCluster) -> None:
        self.slurm, self.source, self.plain = slurm, image, image.with_name("plain.zarr")
        self.python, self.gate = make_python(folder)
        self.output = folder / "out.zarr"
        self.calls: list[Forked] = []

    def submit(self, *options: str, workers: int) -> Forked:
        """Call ``phbatch submit``, and do not wait for its end."""
        command = ["submit", self.source, self.output, "--cluster", "slurm"]
        command += ["--axes", "tcyx", "--model", "none", "--workers", workers, "--memory-per-worker", "1GB"]
        command += ["--interface", "lo", "--walltime", "10m", "--drain", "1m", "--python", self.python, *options]
        environment = self.slurm.environment | {"PYTHONPATH": str(Path(__file__).parent.parent.parent)}
        log = self.output.with_name(f"call{len(self.calls)}.log")
        call = fork_command(*command, log=log, environment=environment)
        self.calls.append(call)
        return call

    def await_done(self, more: int) -> None:
        """Return once so many units more are committed."""
        least = self.done() + more
        self.slurm.wait(lambda: self.done() >= least, LONG_S, f"{least} units are done")

    def done(self) -> int:
        return sum(1 for _ in Ledger(Place.at(self.output)))

    def finish(self, call: Forked) -> None:
        """Let the units be fast, and expect that the call succeeds."""
        self.gate.touch()
        said, _ = call.communicate(timeout=LONG_S)
        assert call.returncode == 0, said

    def require_equal(self) -> None:
        """Expect the bytes of the plain run, and that the output is whole."""
        assert contents(self.output / "0") == contents(self.plain / "0")
        found = phbatch.verify(self.output)
        assert (found.finished, found.exit_code) == (CHANNELS, 0)

    def close(self) -> None:
        for call in self.calls:
            if call.poll() is None:
                call.kill()
            call.wait()
        if jobs := self.slurm.jobs():
            self.slurm.command("scancel", *jobs)
        self.slurm.wait(lambda: not self.slurm.jobs(), LONG_S, "no jobs are left")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Beside which is what a plain run makes of it."""
    path = tmp_path_factory.mktemp("image") / "in.zarr"
    draw = np.random.default_rng(3)
    data = (500 + 20 * draw.standard_normal((2, CHANNELS, 32, 32))).astype("uint16")
    zarr.create_array(path, data=data, chunks=(1, 1, 32, 32))
    phbatch.run(path, path.with_name("plain.zarr"), axes="tcyx", model="none")
    return path


@pytest.fixture
def site(tmp_path: Path, image: Path, slurm: SlurmCluster) -> Iterator[Site]:
    found = Site(tmp_path, image, slurm)
    try:
        yield found
    finally:
        found.close()


def test_workers_that_are_cancelled_out_of_time_or_on_a_lost_node_are_replaced(site: Site) -> None:
    slurm = site.slurm
    call = site.submit("--tls", workers=3)
    site.await_done(6)
    cancelled, late, lost = slurm.jobs("RUNNING")
    slurm.command("scancel", cancelled)
    slurm.command("scontrol", "update", f"JobId={late}", "EndTime=now+1")
    node = int(slurm.field(lost, "NodeList").removeprefix("n"))
    stop_node_of(slurm, lost, node)
    slurm.wait(lambda: slurm.state(late) == "TIMEOUT", LONG_S, "a worker's time is over")
    slurm.wait(lambda: slurm.state(lost) == "NODE_FAIL", LONG_S, "a worker's node is lost")
    assert slurm.state(cancelled) == "CANCELLED"
    slurm.start_node(node)
    slurm.wait(lambda: len(slurm.jobs("RUNNING")) == 3, LONG_S, "all are replaced")
    site.await_done(3)
    slurm.command("scancel", *slurm.jobs())  # and all at once
    site.finish(call)
    site.require_equal()
    assert phbatch.status(site.output).state == "complete"
    slurm.wait(lambda: not slurm.jobs(), LONG_S, "the workers' jobs are ended")


def test_a_controller_that_is_out_of_time_or_requeued_goes_on_and_can_be_cancelled(site: Site) -> None:
    slurm = site.slurm
    said, _ = site.submit("--detach", workers=2).communicate(timeout=LONG_S)
    found = phbatch.status(site.output)
    assert found.job in said
    assert found.state in ("queued", "asking for workers")
    controller = found.job
    site.await_done(4)
    slurm.command("scontrol", "update", f"JobId={controller}", "EndTime=now+70")  # USR1 comes before the end
    slurm.wait(lambda: restarts(slurm, controller) >= 1, LONG_S, "it has itself queued again")
    site.await_done(4)
    assert phbatch.status(site.output).state == "running"
    slurm.command("scontrol", "update", f"JobId={controller}", "EndTime=now+1")  # and here hardly so
    slurm.wait(lambda: restarts(slurm, controller) >= 2, LONG_S, "it has itself queued again")
    slurm.command("scontrol", "update", f"JobId={controller}", "TimeLimit=10")
    site.await_done(4)
    before = restarts(slurm, controller)
    slurm.command("scontrol", "requeue", controller)
    slurm.wait(lambda: restarts(slurm, controller) > before, LONG_S, "it is queued again")
    site.await_done(4)
    stopped = phbatch.cancel(site.output)
    assert (stopped.state, 0 < stopped.done < CHANNELS) == ("cancelled", True)
    slurm.wait(lambda: not slurm.jobs(), LONG_S, "its jobs are ended")
    call = site.submit("--verify", "--walltime", "1m", "--drain", "45s", workers=1)
    slurm.wait(lambda: drained(site) != "", LONG_S, "a worker drains before its time is over")
    slurm.wait(lambda: slurm.state(drained(site)) == "COMPLETED", LONG_S, "and ends of itself")
    site.finish(call)
    site.require_equal()
    assert site.output.with_name(f"{site.output.stem}.report.html").is_file()
    printed = [path for path in phbatch.logs(site.output) if path.suffix != ".jsonl"]
    assert {path.name.split("-")[0] for path in printed} == {"controller", "worker"}


def test_jobs_that_end_before_their_worker_comes_are_said(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm_kind, "TEND_S", 0.5)
    with pytest.raises(phbatch.UsageError, match=r"jobs ended, and none of their workers came; see `phbatch logs"):
        phbatch.submit(
            site.source,
            site.output,
            cluster="slurm",
            axes="tcyx",
            model="none",
            interface="lo",
            memory_per_worker="1GB",
            setup="exit 1",
        )
    assert phbatch.status(site.output).state == "failed"


@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("wrong", [{"partition": "nope"}, {"memory_per_worker": "500TB"}], ids=str)
def test_what_slurm_refuses_of_a_worker_is_said_at_once(site: Site, wrong: dict[str, str], *, detach: bool) -> None:
    options = {"axes": "tcyx", "model": "none", "interface": "lo"} | wrong
    with pytest.raises(phbatch.UsageError, match=r"^sbatch refuses: .*correct the cluster's options"):
        phbatch.submit(site.source, site.output, cluster="slurm", detach=detach, **options)
    assert not site.output.exists()


def drained(site: Site) -> str:
    """Job of a worker that says that it has drained, since its time was nearly over."""
    for path in phbatch.logs(site.output):
        if path.name.startswith("worker") and " s are over" in path.read_text():
            return path.stem.partition("-")[2]
    return ""


def restarts(slurm: SlurmCluster, job: str) -> int:
    return int(slurm.field(job, "Restarts"))


def stop_node_of(slurm: SlurmCluster, job: str, node: int) -> None:
    """A node goes down with all that runs there; the controller would notice that after minutes, and is told."""
    processes = [
        process
        for process in psutil.process_iter(["environ"])
        if (process.info["environ"] or {}).get("SLURM_JOB_ID") == job
    ]
    slurm.stop_node(node)
    for process in processes:
        process.kill()
    slurm.command("scontrol", "update", f"NodeName=n{node}", "State=DOWN", "Reason=test")
