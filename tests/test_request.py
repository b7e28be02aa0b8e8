"""What to ask a cluster for: the arithmetic holds for any unit, and the probe writes nothing and says what it saw."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

import phbatch
from phbatch.computing.tasks import Job
from phbatch.frames.clock import StageClock
from phbatch.planning.request import HEADROOM_S, MARGIN, Probe, expected_seconds, fewest_workers, make_request
from phbatch.planning.unit import Unit
from phbatch.running import probe as probe_module
from phbatch.words.errors import InputError, UsageError
from tests.clusters import open_cluster
from tests.handmade import CommandLine, write_model
from tests.test_plates import make_plate

PROBES = st.builds(
    Probe,
    units=st.integers(1, 1000),
    seconds=st.floats(0.01, 100),
    start_s=st.floats(0, 100),
    read_bytes=st.integers(0, 10**9),
    written_bytes=st.integers(0, 10**9),
    memory_bytes=st.integers(1, 10**12),
    gpus=st.integers(0, 1),
    at_once=st.integers(1, 64),
    measuring=st.floats(0, 2),
)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    frames = np.random.default_rng(0).normal(1000, 30, (6, 1024, 1024)).astype("uint16")
    path = tmp_path_factory.mktemp("written") / "in.zarr"
    zarr.create_array(path, data=frames, chunks=(1, 1024, 1024))
    return path


@pytest.fixture
def source(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "in.zarr"))


@given(PROBES, st.integers(1, 10**8), st.floats(600, 1e6))
def test_the_fewest_workers_keep_the_walltime_and_one_less_does_not(
    probe: Probe, units: int, walltime_s: float
) -> None:
    try:
        workers = fewest_workers(probe, units, walltime_s)
    except UsageError:
        assert MARGIN * probe.fixed_s + HEADROOM_S >= walltime_s
        return

    def kept(count: int) -> bool:
        return MARGIN * expected_seconds(probe, units, count) + HEADROOM_S <= walltime_s * (1 + 1e-9)

    assert kept(workers) or workers == units
    assert workers == 1 or not kept(workers - 1)


@given(PROBES, st.integers(1, 10**8), st.integers(1, 10**5), st.floats(0, 100))
def test_a_request_for_workers_is_whole(probe: Probe, units: int, workers: int, price: float) -> None:
    request = make_request(probe, units, workers=workers, price=price)
    assert request.workers == min(workers, units)
    assert request.jobs_per_worker == 1
    assert request.walltime_s % 300 == 0
    assert request.walltime_s >= MARGIN * request.run_s + HEADROOM_S
    assert request.memory_bytes >= probe.memory_bytes
    assert request.cost == pytest.approx(request.workers * request.run_s / 3600 * price)
    assert len(request.arithmetic) == 8
    json.dumps(request.as_dict(), allow_nan=False)


def test_a_walltime_that_workers_do_not_keep_takes_several_jobs() -> None:
    probe = Probe(units=1, seconds=10, start_s=0, read_bytes=1, written_bytes=1, memory_bytes=1)
    request = make_request(probe, 1000, workers=2, walltime_s=1800)
    assert request.jobs_per_worker == 6
    assert any("6 jobs of each worker" in line for line in request.arithmetic)
    with pytest.raises(UsageError, match="too short for a unit"):
        make_request(probe, 1000, workers=2, walltime_s=300)


def test_the_probe_measures_units_and_writes_nothing(
    phbatch_command: CommandLine, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe_module, "PROBE_S", 0.2)
    before = sorted(path for path in tmp_path.rglob("*"))
    asked = ("--probe", "--workers", 3, "--price", 2, "--cluster", "slurm")
    assert phbatch_command("plan", source, "--model", "none", *asked) == 0
    assert sorted(path for path in tmp_path.rglob("*")) == before
    shown = phbatch_command.out.splitlines()
    heads = ["unit", "workers", "time", "walltime", "memory", "GPUs", "storage", "cost"]
    at = next(index for index, line in enumerate(shown) if line.startswith("unit "))
    assert [line.split()[0] for line in shown[at : at + 8]] == heads
    assert shown[-1].startswith(f"phbatch submit {source} {tmp_path}/in.phbatch.zarr --cluster slurm --workers 3 ")
    assert phbatch_command("plan", source, "--model", "none", *asked, "--json") == 0
    request = json.loads(phbatch_command.out)["request"]
    assert (request["workers"], request["gpus_per_worker"], request["jobs_per_worker"]) == (3, 0, 1)
    assert request["cost"] == pytest.approx(2 * request["worker_hours"])
    assert len(request["arithmetic"]) == 8


def test_the_probe_measures_units_of_all_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe_module, "PROBE_S", 1.0)
    plate, computed = make_plate(tmp_path / "p.zarr"), set[str]()
    compute = probe_module.compute_unit

    def watch(job: Job, unit: Unit, clock: StageClock) -> Any:
        computed.add(unit.key)
        return compute(job, unit, clock)

    monkeypatch.setattr(probe_module, "compute_unit", watch)
    found = phbatch.request_cluster(plate, tmp_path / "out.zarr", model="none", workers=1, walltime="1h")
    assert "12 units" in " ".join(found.arithmetic)
    assert {"A/1/0", "A/1/1"} <= {key.rpartition("/t")[0] for key in computed}
    assert [path.name for path in tmp_path.iterdir()] == ["p.zarr"]
    (plate / "A/1/0/0/c/0/0/0/0").write_bytes(b"torn")
    with pytest.raises(InputError, match="unit A/1/0/t0"):
        phbatch.request_cluster(plate, model="none", workers=1, retries=0)


@pytest.mark.parametrize("options", [("--price", "2"), ("--walltime", "4h"), ("--cluster", "slurm")])
def test_what_says_nothing_without_a_probe_is_refused(
    phbatch_command: CommandLine, source: Path, options: tuple[str, str]
) -> None:
    assert phbatch_command("plan", source, "--model", "none", *options) == 2
    assert "add --probe" in phbatch_command.err


def test_the_probe_is_of_the_workers_of_a_cluster(source: Path) -> None:
    with open_cluster(2) as cluster:
        request = phbatch.request_cluster(
            source,
            model="none",
            illumination="temporal",
            smooth_time=3,
            scheduler=cluster.scheduler_address,
            seconds=0.1,
            walltime="1h",
        )
    assert f"workers at {cluster.scheduler_address}" in request.arithmetic[0]
    assert "for what is measured first" in request.arithmetic[0]
    assert request.workers == 1


def test_the_probe_computes_the_network(source: Path, tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    request = phbatch.request_cluster(
        source, model=model, frames="0:2", network="plain", precision="float32", seconds=0
    )
    assert request.written_bytes_per_s > 0
    assert "cores" in request.arithmetic[0]


def test_units_that_cannot_be_read_are_named(source: Path) -> None:
    for chunk in (source / "c").rglob("*"):
        if chunk.is_file():
            chunk.write_bytes(chunk.read_bytes()[:50])
    with pytest.raises(InputError, match="unit t0/c0 cannot be measured"):
        phbatch.request_cluster(source, model="none", seconds=0)
