"""What is asked of a Kubernetes: manifests that a server takes, and options that have no place in them."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
import zarr

import phbatch
from tests.cluster.emulator.session import kubeconfig
from tests.cluster.manifests import faults
from tests.handmade import CommandLine

BASE = Path(__file__).parent.parent.parent / "deploy" / "kubernetes" / "base"
FULL = """\
kind = "kubernetes"
workers = 8
min_workers = 1
gpus_per_worker = 1
cores_per_worker = 4
memory_per_worker = "16GiB"
image = "registry.example.org/phbatch:0.1.0-cuda"
namespace = "plates"
spot = true
node_label = ["nvidia.com/gpu.product=A100"]
toleration = ["only=phbatch:NoExecute"]
secret = ["store"]
volume = ["plates:/data"]
walltime = "12h"

[run]
model = "none"
tile = 512
"""


@pytest.fixture
def source(tmp_path: Path, frames: np.ndarray) -> Path:
    zarr.create_array(tmp_path / "in.zarr", data=frames, chunks=(1, 40, 36))
    return tmp_path / "in.zarr"


def shown(source: Path, **options: Any) -> dict[str, dict[str, Any]]:
    """What a dry run shows, by kind."""
    found = phbatch.submit(source, cluster="kubernetes", dry_run=True, **options)
    return {each["kind"]: each for text in found.scripts.values() for each in yaml.safe_load_all(text)}


def test_a_dry_run_prints_what_a_server_takes(tmp_path: Path, source: Path, phbatch_command: CommandLine) -> None:
    (tmp_path / "site.toml").write_text(FULL)
    before = sorted(tmp_path.rglob("*"))
    profile = str(tmp_path / "site.toml")
    assert phbatch_command("submit", source, "--profile", profile, "--detach", "--dry-run") == 0
    assert sorted(tmp_path.rglob("*")) == before
    found = {each["kind"]: each for each in yaml.safe_load_all(phbatch_command.out)}
    assert found.keys() == {"DaskCluster", "DaskAutoscaler", "ConfigMap", "Job"}
    assert {kind: faults(each) for kind, each in found.items() if faults(each)} == {}
    assert {each["metadata"]["namespace"] for each in found.values()} == {"plates"}
    pods = found["DaskCluster"]["spec"]
    worker, scheduler = pods["worker"]["spec"], pods["scheduler"]["spec"]
    (container,) = worker["containers"]
    assert (pods["worker"]["replicas"], found["DaskAutoscaler"]["spec"]["maximum"]) == (8, 8)
    assert container["resources"]["limits"] == {"memory": "16Gi", "nvidia.com/gpu": "1"}
    assert {one["key"] for one in worker["tolerations"]} >= {"nvidia.com/gpu", "cloud.google.com/gke-spot", "only"}
    assert worker["nodeSelector"] == {"nvidia.com/gpu.product": "A100"}
    controller = found["Job"]["spec"]["template"]["spec"]
    assert found["Job"]["spec"]["activeDeadlineSeconds"] == 12 * 3600
    for pod in (worker, scheduler, controller):
        (container,) = pod["containers"]
        assert container["image"] == "registry.example.org/phbatch:0.1.0-cuda"
        assert pod is scheduler or container["envFrom"] == [{"secretRef": {"name": "store"}}]
        assert {"name": "plates", "mountPath": "/data"} in container["volumeMounts"]
        assert pod is worker or "tolerations" not in pod
    assert found["ConfigMap"]["data"]["run.toml"] == 'model = "none"\ntile = 512\n'


def test_what_is_deployed_by_hand_is_what_is_submitted(source: Path) -> None:
    options = {"workers": 4, "cores_per_worker": 4, "memory_per_worker": "8GiB", "secret": "phbatch-store"}
    found = shown(source, **options)["DaskCluster"]
    written = yaml.safe_load((BASE / "cluster.yaml").read_text())
    name = found["metadata"]["name"]
    again = yaml.safe_load(yaml.safe_dump(found).replace(name, "phbatch").replace("phbatch:0.1.0", "phbatch"))
    assert again == written


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"partition": "gpu"}, "partition is not for cluster"),
        ({"volume": "plates"}, "volume.*plates.* has no ':'"),
        ({"node_label": "gpu"}, "node_label.*gpu.* has no '='"),
        ({"verify": True, "detach": True}, "verify is not done by a pod"),
        ({"storage_options": {"key": "k"}, "detach": True}, "storage_options would stand in a manifest"),
    ],
)
def test_what_has_no_place_in_a_manifest_is_refused(source: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(phbatch.UsageError, match=said):
        shown(source, **options)


def test_a_kubernetes_that_does_not_answer_is_said_so(
    tmp_path: Path, source: Path, phbatch_command: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("dask_kubernetes")
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
    (tmp_path / "kubeconfig").write_text(json.dumps(kubeconfig(url)))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    assert phbatch_command("submit", source, "--cluster", "kubernetes", "--model", "none", "--detach") == 2
    assert "kubectl get daskclusters" in phbatch_command.err
