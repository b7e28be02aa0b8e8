"""What is submitted: profiles, options, and the scripts that `--dry-run` shows."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import zarr

import phbatch
from phbatch.clusters.profiles import Profile, read_profile, write_profile
from phbatch.clusters.settings import CLUSTER, TYPED, parse_cluster
from phbatch.shell.plain import recorded_command
from phbatch.words.settings import SETTINGS
from tests.handmade import CommandLine

PROFILE = """\
kind = "slurm"
workers = 8
gpus_per_worker = 1
walltime = "4h"
partition = "gpu"
setup = ["module load cuda", "source env/bin/activate"]

[run]
model = "none"
tile = 512
"""


@pytest.fixture
def source(tmp_path: Path, frames: np.ndarray) -> Path:
    zarr.create_array(tmp_path / "in.zarr", data=frames, chunks=(1, 40, 36))
    return tmp_path / "in.zarr"


@pytest.mark.parametrize("name", CLUSTER)
def test_no_name_means_two_things(name: str) -> None:
    """`workers` alone is also a setting of runs, and the cluster's own where it decides."""
    assert name == "workers" or name not in SETTINGS


@pytest.mark.parametrize(
    ("given", "seconds"),
    [("4h", 14400), ("90m", 5400), ("1h 30m", 5400), ("2d", 172800), ("00:10:00", 600), ("1-00:00", 86400), (60, 60)],
)
def test_durations(given: str | int, seconds: int) -> None:
    assert parse_cluster({"walltime": given}).walltime == seconds


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"walltime": "soon"}, "walltime='soon' is not valid: a time is written as 4h"),
        ({"walltime": "3s"}, "walltime=3 is not valid: give 60 or more."),
        ({"workers": "two"}, "workers='two' is not valid: give a whole number"),
        ({"gpus_per_worker": -1}, "gpus_per_worker=-1 is not valid: give 0 or more."),
        ({"memory_per_worker": "much"}, "memory_per_worker='much' is not valid: give a size as 8GB"),
    ],
)
def test_what_is_wrong_is_one_sentence(options: dict[str, object], said: str) -> None:
    with pytest.raises(phbatch.UsageError) as found:
        parse_cluster(options)
    assert str(found.value).startswith(said)


def test_a_profile_is_found_by_its_name_here_then_in_the_users_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, here = tmp_path / "config", tmp_path / "here"
    (home / "phbatch").mkdir(parents=True)
    here.mkdir()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home))
    monkeypatch.chdir(here)
    with pytest.raises(phbatch.UsageError, match=r"euler is not there; write euler\.toml into one of"):
        read_profile("euler")
    (home / "phbatch" / "euler.toml").write_text(PROFILE)
    found = read_profile("euler")
    assert found.kind == "slurm"
    assert parse_cluster(found.cluster).walltime == 14400
    assert found.run == {"model": "none", "tile": 512}
    (here / "euler.toml").write_text('kind = "kubernetes"\n')
    assert read_profile("euler") == Profile("kubernetes")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kind = ", "cannot be read as TOML"),
        ("wokers = 3\n", "'wokers' in"),
        ("[run]\ntyle = 3\n", "'tyle' in"),
    ],
)
def test_a_profile_that_is_wrong_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "site.toml").write_text(text)
    with pytest.raises(phbatch.UsageError, match=said):
        read_profile(str(tmp_path / "site.toml"))


def test_a_profile_that_was_written_reads_the_same(tmp_path: Path) -> None:
    cluster = parse_cluster({"workers": 3, "memory_per_worker": "8GB", "directive": ("--comment='ä \"b\"'", "-x n1")})
    run = {"model": "none", "percentiles": [1, 99.5], "tile": 512, "illumination": Path("/a/é.zarr"), "rescale": True}
    (tmp_path / "again.toml").write_text(write_profile("slurm", cluster, run), encoding="utf-8")
    found = read_profile(str(tmp_path / "again.toml"))
    assert (found.kind, parse_cluster(found.cluster)) == ("slurm", cluster)
    assert found.run == run | {"illumination": "/a/é.zarr"}


def test_the_command_line_wins_over_a_profile_and_a_dry_run_writes_nothing(
    tmp_path: Path, source: Path, phbatch_command: CommandLine
) -> None:
    if find_spec("dask_jobqueue") is None:
        pytest.skip("dask-jobqueue is missing")
    (tmp_path / "site.toml").write_text(PROFILE)
    before = sorted(tmp_path.rglob("*"))
    arguments = [str(source), str(tmp_path / "out.zarr"), "--profile", str(tmp_path / "site.toml")]
    options = ["--walltime", "90m", "--tile", "64", "--controller-directive", "--partition=cpu"]
    assert phbatch_command("submit", *arguments, *options, "--detach", "--dry-run") == 0
    assert sorted(tmp_path.rglob("*")) == before
    for line in ("-p gpu", "-t 01:30:00", "--gres=gpu:1", "module load cuda", "--resources GPU=1", "#SBATCH --signal"):
        assert line in phbatch_command.out
    text, _, controller = phbatch_command.out.partition("# submission.toml\n")[2].partition("# controller.sh")
    assert controller.index("--partition=gpu") < controller.index("--partition=cpu")  # of which the last one counts
    assert tomllib.loads(text)["run"] == {"model": "none", "tile": "64"}


def test_dask_jobqueue_does_not_keep_the_signals_that_it_takes() -> None:
    """Its import does so, in the middle of a command that listens to them."""
    if find_spec("dask_jobqueue") is None:
        pytest.skip("dask-jobqueue is missing")
    code = """
import signal
from phbatch.clusters.slurm import _jobqueue
for number in (2, 15):
    signal.signal(number, lambda *_: None)
mine = [signal.getsignal(number) for number in (2, 15)]
_jobqueue()
print([signal.getsignal(number) for number in (2, 15)] == mine)
"""
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "True"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "no cluster is named"),
        (["--cluster", "pbs"], "--cluster pbs is no kind of cluster"),
        (["--cluster", "none.toml"], "--cluster none.toml cannot be read"),
    ],
)
def test_a_cluster_that_is_none_is_refused(
    source: Path, arguments: list[str], said: str, phbatch_command: CommandLine
) -> None:
    assert phbatch_command("submit", source, *arguments) == 2
    assert said in phbatch_command.err


def fake_sbatch(folder: Path, monkeypatch: pytest.MonkeyPatch, *, refuses: bool) -> None:
    """A command that says what SLURM says, and keeps the scripts that it is given."""
    folder.mkdir()
    answer = "echo 'invalid partition specified' >&2; exit 1" if refuses else "echo 7"
    (folder / "sbatch").write_text(f"#!/bin/sh\n{answer}\n")
    (folder / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)


@pytest.mark.parametrize(("kind", "detach"), [("slurm", True), ("slurm", False), ("slurm-array", False)])
def test_what_the_cluster_refuses_leaves_nothing_behind(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, detach: bool
) -> None:
    fake_sbatch(tmp_path / "bin", monkeypatch, refuses=True)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(phbatch.UsageError, match="sbatch refuses: invalid partition specified"):
        phbatch.submit(source, tmp_path / "out.zarr", cluster=kind, detach=detach, model="none", partition="x")
    assert sorted(tmp_path.iterdir()) == before


def test_jobs_record_what_was_typed(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_sbatch(tmp_path / "bin", monkeypatch, refuses=False)
    typed = "phbatch submit in.zarr out.zarr --cluster slurm-array --model none"
    options = {"model": "none", "storage_options": None, "workers": 2}
    done = phbatch.submit(source, tmp_path / "out.zarr", cluster="slurm-array", command=typed, **options)
    assert phbatch.info(done.output)["phbatch"]["command"] == typed
    shown = phbatch.submit(source, tmp_path / "b.zarr", cluster="slurm", detach=True, dry_run=True, **options)
    said = f"phbatch.submit({str(source)!r}, {str(tmp_path / 'b.zarr')!r}, cluster='slurm', detach=True, model='none'"
    assert f"export {TYPED}={shlex.quote(f'{said}, workers=2)')}" in shown.scripts["controller.sh"]
    monkeypatch.setenv(TYPED, typed)
    assert recorded_command() == typed
