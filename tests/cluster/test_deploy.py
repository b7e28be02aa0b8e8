"""What lies in deploy/ is valid, by the tools that would read it; each check skips where its tool is not installed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
import zarr

import phbatch
from phbatch.clusters.profiles import read_profile
from phbatch.clusters.settings import parse_cluster
from phbatch.words.settings import parse_settings
from tests.cluster.manifests import faults
from tests.cluster.slurm import SlurmCluster
from tests.test_dependencies import EXTRAS, PROJECT, name_of

ROOT = Path(__file__).parent.parent.parent
DEPLOY = ROOT / "deploy"
DOCKER, KUBERNETES, SLURM = DEPLOY / "docker", DEPLOY / "kubernetes", DEPLOY / "slurm"
STYLE = """
extends: default
rules:
  line-length: {max: 120}
  document-start: disable
  comments: {min-spaces-from-content: 1}
"""


def tool(name: str) -> str:
    """A command of this environment or of the machine; the test is skipped where there is none."""
    found = shutil.which(name, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if found is None:
        pytest.skip(f"{name} is not installed; `pip install '.[deploy]'`")
    return found


def check(*command: str | Path, given: str | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(map(str, command)), input=given, capture_output=True, text=True, env=os.environ | environment
    )


def valid(*command: str | Path, given: str | None = None, **environment: str) -> None:
    done = check(*command, given=given, **environment)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", sorted(DEPLOY.rglob("Dockerfile")), ids=lambda path: str(path.relative_to(DEPLOY)))
def test_dockerfiles(path: Path) -> None:
    valid(tool("hadolint"), "--failure-threshold", "info", path)


def test_a_wrong_dockerfile_is_seen() -> None:
    assert check(tool("hadolint"), "-", given="FROM python\nRUN cd /tmp\n").returncode != 0


@pytest.mark.parametrize("path", sorted(DEPLOY.rglob("*.yaml")), ids=lambda path: str(path.relative_to(DEPLOY)))
def test_the_style_of_yaml(path: Path) -> None:
    valid(tool("yamllint"), "--strict", "-d", STYLE, path)


def test_the_compose_file_and_one_with_a_misspelt_key() -> None:
    command = (tool("docker-compose"), "--file", "-", "config", "--quiet")
    text = (DEPLOY / "compose.yaml").read_text()
    valid(*command, given=text, PHBATCH_SECRET="a-secret")
    assert check(*command, given=text, PHBATCH_SECRET="").returncode != 0, "a secret has a default"
    assert check(*command, given=text.replace("replicas:", "replica:"), PHBATCH_SECRET="a-secret").returncode != 0


def test_the_image_holds_what_is_locked_and_runs_as_nobody_of_the_host() -> None:
    text = (DOCKER / "Dockerfile").read_text()
    assert len(re.findall("^FROM ", text, re.MULTILINE)) == 2
    assert re.search(r"^ARG BASE=\S+:\d+\.\d+\.\d+-\S+$", text, re.MULTILINE), "the base has no whole version"
    assert re.search(r"^USER [1-9]\d*:[1-9]\d*$", text, re.MULTILINE)
    assert text.count("--require-hashes") == text.count("--requirement ") == 2


@pytest.mark.parametrize("name", ["build", "cpu", "cuda"])
def test_every_wheel_has_its_version_and_its_checksum(name: str) -> None:
    heading, *lines = (DOCKER / f"requirements-{name}.txt").read_text().splitlines()
    assert "lock.py" in heading
    assert [line for line in lines if not re.fullmatch(r"[\w.-]+==\S+ --hash=sha256:[0-9a-f]{64}", line)] == []
    assert lines == sorted(set(lines))


def test_the_locks_hold_what_phbatch_needs() -> None:
    for lock, extras in {"cpu": ["s3", "parquet"], "cuda": ["s3", "parquet", "cuda"]}.items():
        lines = (DOCKER / f"requirements-{lock}.txt").read_text().splitlines()[1:]
        held = {name_of(line) for line in lines}
        needed = [*PROJECT["dependencies"], *(one for extra in extras for one in EXTRAS[extra])]
        assert {name_of(requirement) for requirement in needed} <= held
    assert any(name.startswith("nvidia-") for name in held)


def built(folder: str) -> list[dict[str, Any]]:
    """What kustomize makes of a folder."""
    done = check(tool("kubectl"), "kustomize", KUBERNETES / folder)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


@pytest.mark.parametrize("folder", ["base", "overlays/gpu-spot"])
def test_what_kustomize_builds_is_what_a_server_takes(folder: str) -> None:
    found = {manifest["kind"]: manifest for manifest in built(folder)}
    assert {"DaskCluster", "Job", "NetworkPolicy"} <= found.keys()
    assert {kind: faults(manifest) for kind, manifest in found.items() if faults(manifest)} == {}


def test_a_wrong_type_and_a_misspelt_key_are_seen() -> None:
    found = {manifest["kind"]: manifest for manifest in built("base")}
    worker = found["DaskCluster"]["spec"]["worker"]
    worker["replicas"], worker["spec"]["nodeSelectors"] = "four", {}
    assert len(faults(found["DaskCluster"])) == 2
    found["Job"]["spec"]["backofLimit"] = 1
    assert len(faults(found["Job"])) == 1


def test_workers_are_on_spot_gpus_and_nothing_else_is() -> None:
    found = {manifest["kind"]: manifest for manifest in built("overlays/gpu-spot")}
    worker, scheduler = (found["DaskCluster"]["spec"][part]["spec"] for part in ("worker", "scheduler"))
    (container,) = worker["containers"]
    assert container["image"].endswith("-cuda")
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert container["args"][-2:] == ["--resources", "GPU=1"]
    assert {one["key"] for one in worker["tolerations"]} >= {"nvidia.com/gpu", "cloud.google.com/gke-spot"}
    assert worker["nodeSelector"] == {"nvidia.com/gpu.present": "true"}
    controller = found["Job"]["spec"]["template"]["spec"]
    for pod in (scheduler, controller):
        assert not {"tolerations", "nodeSelector"} & pod.keys()
        assert "nvidia.com/gpu" not in pod["containers"][0]["resources"]["limits"]
    for pod in (worker, scheduler, controller):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["containers"][0]["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert found["DaskAutoscaler"]["spec"]["cluster"] == found["DaskCluster"]["metadata"]["name"]


@pytest.mark.parametrize("path", sorted(DEPLOY.rglob("*.sh")), ids=lambda path: str(path.relative_to(DEPLOY)))
def test_scripts_of_shell(path: Path) -> None:
    valid(tool("shellcheck"), "--exclude=SC2250", "--enable=all", path)
    assert os.access(path, os.X_OK)


def test_the_profile_of_a_site_is_one() -> None:
    found = read_profile(str(SLURM / "site.toml"))
    assert found.kind == "slurm"
    assert parse_cluster(found.cluster).workers > 1
    parse_settings(found.run)


def test_scheduler_run_and_workers_in_one_allocation(slurm: SlurmCluster, tmp_path: Path, frames: np.ndarray) -> None:
    pytest.importorskip("dask_jobqueue")
    zarr.create_array(tmp_path / "in.zarr", data=frames, chunks=(1, 40, 36))
    given = {"PYTHON": sys.executable, "PYTHONPATH": str(ROOT), "PHBATCH_DEPLOY": str(SLURM), "PHBATCH_INTERFACE": "lo"}
    small = ["--ntasks=4", "--cpus-per-task=1", "--mem-per-cpu=2500M", f"--output={tmp_path / 'job.log'}", "--wait"]
    command = ["sbatch", *small, SLURM / "runner.sh", tmp_path / "in.zarr", tmp_path / "out.zarr"]
    done = subprocess.run(
        [*map(str, command)], cwd=tmp_path, env=slurm.environment | given, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr + (tmp_path / "job.log").read_text()
    assert phbatch.verify(tmp_path / "out.zarr").exit_code == 0
