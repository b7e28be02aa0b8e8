"""Job arrays on the real SLURM: tasks are cancelled, queued again, run out of time; the bytes are the plain run's."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import phbatch
from phbatch.clusters.beside import Jobs
from phbatch.clusters.job_array import array_script
from phbatch.clusters.submit import prepare_submission
from phbatch.places.lock import read_array
from phbatch.places.place import Place
from tests.cluster.relay import write_program
from tests.cluster.slurm import SlurmCluster
from tests.faults.faults import small_units
from tests.faults.inputs import files, make_input, units_of
from tests.handmade import CommandLine
from tests.test_plates import make_plate

FRAMES = 24
WAIT_S = 300
RUN: dict[str, Any] = {"model": "none"}
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    with small_units():
        yield


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_input(tmp_path_factory.mktemp("array") / "in.zarr", (FRAMES, 96, 80), (1, 96, 80))


@pytest.fixture(scope="module")
def plain(source: Path) -> Path:
    return Path(phbatch.run(source, source.with_name("plain.zarr"), **RUN).output)


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """A Python whose phbatch is slow, see `tests.cluster.slow_units`."""
    path = tmp_path / "python"
    write_program(path, "tests.cluster.slow_units")
    return path


def submit(source: Path, output: Path, python: Path, unit_s: float, workers: int = 3, **options: Any) -> str:
    """Submit an array whose units take a while; its number."""
    return phbatch.submit(
        source,
        output,
        cluster="slurm-array",
        workers=workers,
        memory_per_worker="2GB",
        drain="30s",
        python=str(python),
        setup=[f"export SLOW_S={unit_s}", f"cd {ROOT}"],
        **RUN,
        **options,
    ).job


def contents(output: Path) -> dict[str, bytes]:
    """All files; the root says by which call it was made, too."""
    found = files(output)
    root = json.loads(found["zarr.json"])
    root["attributes"]["phbatch"].pop("command")
    return found | {"zarr.json": json.dumps(root).encode()}


def require_whole(output: Path, plain: Path) -> None:
    assert contents(output) == contents(plain)
    assert sorted(units_of(output)) == sorted(units_of(plain))
    assert phbatch.verify(output).damages == ()
    assert phbatch.verify(output).complete
    assert read_array(Place.at(output)) is None


def await_units(slurm: SlurmCluster, output: Path, number: int) -> None:
    slurm.wait(lambda: len(units_of(output)) >= number, WAIT_S, f"{number} units")


def await_end(slurm: SlurmCluster) -> None:
    slurm.wait(lambda: not slurm.jobs(), WAIT_S, "the array has ended")


def test_an_array_ends_by_itself(slurm: SlurmCluster, source: Path, plain: Path, tmp_path: Path, python: Path) -> None:
    output = tmp_path / "out.zarr"
    job = submit(source, output, python, 0.3)
    await_units(slurm, output, 1)
    assert phbatch.status(output).state == "running"
    with pytest.raises(phbatch.OutputError, match="is being written by an array of 3 tasks"):
        phbatch.run(source, output, **RUN)
    await_end(slurm)
    assert phbatch.status(output).state == "complete", [path.read_text() for path in phbatch.logs(output)]
    require_whole(output, plain)
    assert len([path for path in phbatch.logs(output) if path.suffix == ".log"]) == 3
    assert sum("the output is whole" in path.read_text() for path in phbatch.logs(output)) == 1
    assert slurm.state(f"{job}_2") == "COMPLETED"
    assert (tmp_path / "out.report.html").is_file()
    assert submit(source, output, python, 0.3) == ""


def test_tasks_that_are_cancelled_and_queued_again(
    slurm: SlurmCluster, source: Path, plain: Path, tmp_path: Path, python: Path
) -> None:
    output = tmp_path / "out.zarr"
    job = submit(source, output, python, 1.0)
    await_units(slurm, output, 2)
    slurm.command("scancel", f"{job}_1")
    slurm.command("scontrol", "requeue", f"{job}_2")
    slurm.command("scancel", "--signal=USR1", "--batch", f"{job}_3")  # as before the end of its time
    await_end(slurm)
    assert [slurm.field(f"{job}_{part}", "Restarts") for part in (1, 2, 3)] == ["0", "1", "1"]
    assert slurm.state(f"{job}_1") == "CANCELLED"
    assert phbatch.status(output).state != "complete"
    again = submit(source, output, python, 1.0)
    slurm.wait(lambda: bool(slurm.jobs("RUNNING")), WAIT_S, "a task begins")
    phbatch.cancel(output)
    await_end(slurm)
    assert {slurm.state(f"{again}_{part}") for part in (1, 2, 3)} <= {"CANCELLED", "FAILED", "COMPLETED"}
    assert slurm.field(f"{again}_1", "Restarts") == "0"
    submit(source, output, python, 0.1, workers=2, report=False)
    await_end(slurm)
    require_whole(output, plain)


def test_a_task_whose_time_is_over_is_queued_again(
    slurm: SlurmCluster, source: Path, plain: Path, tmp_path: Path, python: Path
) -> None:
    output = tmp_path / "out.zarr"
    job = submit(source, output, python, 2.5, workers=1, report=False)
    await_units(slurm, output, 1)
    slurm.command("scontrol", "update", f"JobId={job}_1", "EndTime=now+31")
    slurm.wait(lambda: slurm.field(f"{job}_1", "Restarts") != "0", WAIT_S, "it is queued again")
    slurm.command("scontrol", "update", f"JobId={job}_1", "TimeLimit=10")
    await_end(slurm)
    require_whole(output, plain)


def test_statistics_first(slurm: SlurmCluster, source: Path, tmp_path: Path, python: Path) -> None:
    plain = Path(phbatch.run(source, tmp_path / "plain.zarr", **RUN, smooth_time=3).output)
    output = tmp_path / "out.zarr"
    submit(source, output, python, 0.0, workers=2, smooth_time=3, report=False)
    assert len(Jobs(Place.at(output)).submitted()["jobs"]) == 2
    await_end(slurm)
    require_whole(output, plain)


def test_a_plate_is_an_array_too(slurm: SlurmCluster, tmp_path: Path, python: Path) -> None:
    plate, output = make_plate(tmp_path / "p.zarr"), tmp_path / "out.zarr"
    plain = Path(phbatch.run(plate, tmp_path / "plain.zarr", **RUN).output)
    job = submit(plate, output, python, 0.5, workers=2, report=False)
    await_units(slurm, output, 2)
    assert phbatch.status(output).state == "running"
    slurm.command("scontrol", "requeue", f"{job}_2")
    await_end(slurm)
    assert phbatch.status(output).state == "complete", [path.read_text() for path in phbatch.logs(output)]
    require_whole(output, plain)
    assert not (tmp_path / "out.report.html").exists()


def test_the_script_is_one_of_bash(tmp_path: Path, frames: np.ndarray, phbatch_command: CommandLine) -> None:
    zarr.create_array(tmp_path / "in.zarr", data=frames, chunks=(1, 40, 36))
    arguments = [tmp_path / "in.zarr", tmp_path / "out.zarr", "--cluster", "slurm-array", "--workers", 3]
    arguments += ["--partition", "gpu", "--gpus-per-worker", 1, "--setup", "module load cuda", "--model", "none"]
    assert phbatch_command("submit", *arguments, "--memory", "3GB", "--dry-run") == 0
    for line in ("--array=1-3", "--signal=B:USR1@", "--requeue", "--partition=gpu", "--gres=gpu:1", "module load cuda"):
        assert line in phbatch_command.out
    assert "--no-report" not in phbatch_command.out
    assert phbatch_command("submit", *arguments, "--no-report", "--dry-run") == 0
    assert "--no-report" in phbatch_command.out
    given: dict[str, Any] = {"workers": 3, "model": "none"}
    submission = prepare_submission(tmp_path / "in.zarr", tmp_path / "out.zarr", "slurm-array", None, given)
    (tmp_path / "array.sh").write_text(array_script(submission))
    assert subprocess.run(["bash", "-n", tmp_path / "array.sh"], check=False).returncode == 0


def test_an_array_is_sent_for_every_pass(
    tmp_path: Path, frames: np.ndarray, monkeypatch: pytest.MonkeyPatch, phbatch_command: CommandLine
) -> None:
    """Without SLURM: who is asked is a function that notes it, and the tasks are called one after the other."""
    asked: list[tuple[str, ...]] = []

    def ask(*arguments: str) -> str:
        asked.append(arguments)
        return f"{len(asked)};cluster\n"

    monkeypatch.setattr("phbatch.clusters.job_array.ask_slurm", ask)
    monkeypatch.setattr("phbatch.clusters.slurm.ask_slurm", lambda *_: "")  # whether it would take the script
    zarr.create_array(tmp_path / "in.zarr", data=frames, chunks=(1, 40, 36))
    output = tmp_path / "out.zarr"
    given: dict[str, Any] = {"model": "none", "scope": "series"}
    assert phbatch.submit(tmp_path / "in.zarr", output, cluster="slurm-array", workers=3, **given).job == "1"
    assert [arguments[2] for arguments in asked[1:]] == ["--dependency=afterany:1", "--dependency=afterany:2"]
    for part in (1, 2, 3) * 3:
        code = phbatch_command("run-part", output, "--part", part, "--quiet")
    assert code == 0
    assert (tmp_path / "out.report.html").is_file()
    assert phbatch.verify(output).complete
    assert phbatch.status(output).state == "complete"
