"""What Kubernetes is asked for: a cluster of Dask's operator, its autoscaler, and the run as a job."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from phbatch.clusters.base import Submission
from phbatch.clusters.settings import TYPED, ClusterSettings
from phbatch.words.errors import UsageError

SPOT = (
    "cloud.google.com/gke-spot=true:NoSchedule",
    "kubernetes.azure.com/scalesetpriority=spot:NoSchedule",
)
"""Taints of the spot machines of two providers."""

IDLE_S = 900
"""A cluster goes by itself after so long without work: whoever asked for it may be gone."""

_NOBODY = {
    "runAsNonRoot": True,
    "runAsUser": 1000,
    "runAsGroup": 1000,
    "fsGroup": 1000,
    "seccompProfile": {"type": "RuntimeDefault"},
}
_LOCKED = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
_SCRATCH = [{"name": "XDG_CACHE_HOME", "value": "/tmp"}, {"name": "DASK_TEMPORARY_DIRECTORY", "value": "/tmp"}]  # noqa: S108
_KEPT = {"annotations": {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false"}}
_PORTS = {"tcp-comm": 8786, "http-dashboard": 8787}
_OPTIONS = "/etc/phbatch"

Manifest = dict[str, Any]


def cluster_manifest(name: str, cluster: ClusterSettings) -> Manifest:
    """Scheduler and workers, as the operator of Dask takes them."""
    container = _worker(cluster)
    worker = _pod(cluster, container) | {"restartPolicy": "Always", "terminationGracePeriodSeconds": cluster.drain}
    gpus = ["nvidia.com/gpu:NoSchedule"] if cluster.gpus_per_worker else []
    taints = [*gpus, *(SPOT if cluster.spot else ()), *cluster.toleration]
    if taints:
        worker["tolerations"] = [toleration(taint) for taint in taints]
    if cluster.node_label:
        worker["nodeSelector"] = dict(_pair("--node-label", label, "=") for label in cluster.node_label)
    scheduler = _pod(cluster, _scheduler(cluster))
    ports = [{"name": port, "protocol": "TCP", "port": number, "targetPort": port} for port, number in _PORTS.items()]
    selector = {"dask.org/cluster-name": name, "dask.org/component": "scheduler"}
    return {
        "apiVersion": "kubernetes.dask.org/v1",
        "kind": "DaskCluster",
        "metadata": _metadata(name, cluster),
        "spec": {
            "idleTimeout": IDLE_S,
            "worker": {"replicas": cluster.workers, "spec": worker},
            "scheduler": {
                "metadata": _KEPT,
                "spec": scheduler,
                "service": {"type": "ClusterIP", "selector": selector, "ports": ports},
            },
        },
    }


def autoscaler_manifest(name: str, cluster: ClusterSettings) -> Manifest:
    """As many workers as there is work for."""
    return {
        "apiVersion": "kubernetes.dask.org/v1",
        "kind": "DaskAutoscaler",
        "metadata": _metadata(name, cluster),
        "spec": {"cluster": name, "minimum": cluster.min_workers, "maximum": cluster.workers},
    }


def options_manifest(name: str, submission: Submission) -> Manifest:
    """The options of the run, for the job.

    Raises
    ------
    UsageError
        They hold secrets.
    """
    if "storage_options" in submission.options:
        raise UsageError(
            "--storage-options would stand in a manifest that others can read; put them into a secret, and give its"
            " name as --secret."
        )
    given = {option: value for option, value in submission.options.items() if value is not None}
    lines = [f"{option} = {json.dumps(value, ensure_ascii=False, default=str)}" for option, value in given.items()]
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _metadata(name, submission.cluster),
        "data": {"run.toml": "".join(f"{line}\n" for line in lines)},
    }


def job_manifest(name: str, submission: Submission) -> Manifest:
    """The run. A pod that is lost is replaced, and continues; a command that is wrong is not tried again.

    Raises
    ------
    UsageError
        More is asked for than the run.
    """
    if submission.verify:
        raise UsageError("--verify is not done by a pod; leave it out, and call `phbatch verify` once the run is over.")
    cluster = submission.cluster
    labels = {"app.kubernetes.io/name": "phbatch", "app.kubernetes.io/component": "controller"}
    command = ["phbatch", "run", submission.input, submission.output.path, "--scheduler"]
    command += [f"tcp://{name}-scheduler:{_PORTS['tcp-comm']}", "--config", f"{_OPTIONS}/run.toml"]
    command += [] if submission.report else ["--no-report"]
    pod = _pod(cluster, _container("controller", cluster, command, cpu=1, memory=2 * 2**30))
    pod["restartPolicy"] = "Never"
    pod["containers"][0].setdefault("env", []).append({"name": TYPED, "value": submission.command})
    pod["containers"][0]["volumeMounts"].append({"name": "options", "mountPath": _OPTIONS})
    pod["volumes"].append({"name": "options", "configMap": {"name": name}})
    spec: Manifest = {
        "backoffLimit": 6,
        "ttlSecondsAfterFinished": 86400,
        "podFailurePolicy": {
            "rules": [
                {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [2]}},
                {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]},
            ]
        },
        "template": {"metadata": {"labels": labels, **_KEPT}, "spec": pod},
    }
    if "walltime" in cluster.model_fields_set:
        spec["activeDeadlineSeconds"] = cluster.walltime
    metadata = _metadata(name, cluster) | {"labels": labels}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}


def toleration(taint: str) -> Manifest:
    """What tolerates a taint as it is written: ``key=value:effect``, ``key:effect`` or ``key``.

    Examples
    --------
    >>> toleration("nvidia.com/gpu:NoSchedule")
    {'key': 'nvidia.com/gpu', 'operator': 'Exists', 'effect': 'NoSchedule'}
    >>> toleration("spot=true")
    {'key': 'spot', 'operator': 'Equal', 'value': 'true'}
    """
    what, _, effect = taint.partition(":")
    key, equals, value = what.partition("=")
    operator = {"operator": "Equal", "value": value} if equals else {"operator": "Exists"}
    return {"key": key, **operator, **({"effect": effect} if effect else {})}


def quantity(size: int) -> str:
    """Bytes as Kubernetes writes them.

    Examples
    --------
    >>> quantity(8 * 2**30), quantity(4_000_000_000), quantity(1001)
    ('8Gi', '4G', '1001')
    """
    units = {"Gi": 2**30, "Mi": 2**20, "G": 10**9, "M": 10**6}
    return next((f"{size // unit}{name}" for name, unit in units.items() if size % unit == 0), str(size))


def _metadata(name: str, cluster: ClusterSettings) -> Manifest:
    return {"name": name, **({"namespace": cluster.namespace} if cluster.namespace else {})}


def _worker(cluster: ClusterSettings) -> Manifest:
    command = ["dask", "worker", "--name", "$(DASK_WORKER_NAME)", "--no-nanny"]
    command += ["--nthreads", str(cluster.cores_per_worker), "--memory-limit", str(int(cluster.memory_per_worker))]
    command += ["--preload", "phbatch.computing.drain"]
    if cluster.gpus_per_worker:
        command += ["--resources", f"GPU={cluster.gpus_per_worker}"]
    container = _container("worker", cluster, command, cpu=cluster.cores_per_worker, memory=cluster.memory_per_worker)
    if cluster.gpus_per_worker:
        container["resources"]["limits"]["nvidia.com/gpu"] = str(cluster.gpus_per_worker)
    return container


def _scheduler(cluster: ClusterSettings) -> Manifest:
    health = {"httpGet": {"port": "http-dashboard", "path": "/health"}}
    return _container("scheduler", cluster, ["dask", "scheduler"], cpu=1, memory=2 * 2**30) | {
        "ports": [{"name": port, "containerPort": number, "protocol": "TCP"} for port, number in _PORTS.items()],
        "readinessProbe": health | {"periodSeconds": 5},
        "livenessProbe": health | {"initialDelaySeconds": 15, "periodSeconds": 20},
    }


def _container(name: str, cluster: ClusterSettings, command: list[str], *, cpu: int, memory: int) -> Manifest:
    claims = dict(_pair("--volume", volume, ":") for volume in cluster.volume)
    mounts = [{"name": claim, "mountPath": path} for claim, path in claims.items()]
    secrets = [{"secretRef": {"name": secret}} for secret in cluster.secret if name != "scheduler"]
    return {
        "name": name,
        "image": cluster.image or f"phbatch:{version('phbatch')}",
        "args": command,
        "env": [dict(variable) for variable in _SCRATCH],
        **({"envFrom": secrets} if secrets else {}),
        "resources": {
            "requests": {"cpu": str(cpu), "memory": quantity(memory)},
            "limits": {"memory": quantity(memory)},
        },
        "securityContext": _LOCKED,
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}, *mounts],  # noqa: S108
    }


def _pod(cluster: ClusterSettings, container: Mapping[str, Any]) -> Manifest:
    claims = dict(_pair("--volume", volume, ":") for volume in cluster.volume)
    volumes: list[Manifest] = [{"name": claim, "persistentVolumeClaim": {"claimName": claim}} for claim in claims]
    return {
        "automountServiceAccountToken": False,
        "securityContext": _NOBODY,
        "containers": [container],
        "volumes": [{"name": "tmp", "emptyDir": {}}, *volumes],
    }


def _pair(option: str, text: str, between: str) -> tuple[str, str]:
    first, found, second = text.partition(between)
    if not (first and found and second):
        raise UsageError(f"{option} {text} has no {between!r} between two words; write it as in the help of submit.")
    return first, second
