"""Kubernetes: a cluster of Dask's operator, which replaces what is lost, and the controller as a job."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import yaml

from phbatch.clusters.base import Kind, Opened, Submission
from phbatch.clusters.manifests import (
    Manifest,
    autoscaler_manifest,
    cluster_manifest,
    job_manifest,
    options_manifest,
)
from phbatch.computing.cluster import quiet
from phbatch.words.errors import UsageError, first_line

ELSEWHERE = (
    "partition",
    "account",
    "directive",
    "controller_directive",
    "setup",
    "python",
    "interface",
    "host",
    "scratch",
    "tls",
)
"""What is asked of a queue of jobs alone."""

_ASKED = (
    ("batch/v1", "Job"),
    ("v1", "ConfigMap"),
    ("kubernetes.dask.org/v1", "DaskAutoscaler"),
    ("kubernetes.dask.org/v1", "DaskCluster"),
)
"""What a submission asks for, in the order in which it is ended."""

_LONGEST = 40  # names of services and pods are made of it
_ANSWER_S = 300  # until the operator has looked at a cluster that was asked for; the machine may be busy


class Kubernetes(Kind):
    """Workers, scheduler and, where it is detached, the controller are pods."""

    extra = "kubernetes"

    def render(self, submission: Submission, *, detach: bool) -> dict[str, str]:  # noqa: D102
        return {name: write_yaml(each) for name, each in manifests(submission, detach=detach).items()}

    def launch(self, submission: Submission) -> dict[str, Any]:  # noqa: D102
        with _asking():
            for manifest in manifests(submission, detach=True).values():
                _create(manifest)
        name = cluster_name(submission.name)
        return {"job": name, "name": name, "namespace": submission.cluster.namespace}

    @contextmanager
    def open(self, submission: Submission) -> Iterator[Opened]:  # noqa: D102
        asked = manifests(submission, detach=False)
        with _asking():
            cluster = _operator().KubeCluster(
                custom_cluster_spec=asked["cluster.yaml"],
                namespace=submission.cluster.namespace,
                resource_timeout=_ANSWER_S,
                shutdown_on_close=True,
                quiet=True,
            )
        with quiet(cluster), cluster:
            if "autoscaler.yaml" in asked:
                with _asking():
                    _create(asked["autoscaler.yaml"])
            else:  # that of a call before this one may have another size
                cluster.scale(submission.cluster.workers)
            yield _Workers(cluster)

    def cancel(self, record: Mapping[str, Any]) -> bool:  # noqa: D102
        try:
            make = partial(_kr8s().objects.object_from_spec, allow_unknown_type=True)
        except UsageError:
            return False
        space = {"namespace": record["namespace"]} if record.get("namespace") else {}
        with _asking():
            for version, kind in _ASKED:
                found = make({"apiVersion": version, "kind": kind, "metadata": {"name": record["name"], **space}})
                if found.exists():
                    found.delete(propagation_policy="Background")
        return True


class _Workers:
    """Pods that the operator keeps up."""

    def __init__(self, cluster: Any) -> None:
        self._cluster = cluster

    @property
    def address(self) -> str:
        return str(self._cluster.scheduler_address)

    def workers(self) -> int:
        return len(self._cluster.scheduler_info["workers"])

    def tend(self) -> str:
        return ""


def manifests(submission: Submission, *, detach: bool) -> dict[str, Manifest]:
    """All that is asked for, by the names of files.

    Raises
    ------
    UsageError
        Something is asked for that is not for Kubernetes.
    """
    cluster, name = submission.cluster, cluster_name(submission.name)
    for option in ELSEWHERE:
        if option in cluster.model_fields_set:
            raise UsageError(f"--{option} is not for --cluster kubernetes; leave it out.")
    found = {"cluster.yaml": cluster_manifest(name, cluster)}
    if cluster.min_workers is not None:
        found["autoscaler.yaml"] = autoscaler_manifest(name, cluster)
    if detach:
        found |= {"options.yaml": options_manifest(name, submission), "job.yaml": job_manifest(name, submission)}
    return found


def write_yaml(manifest: Manifest) -> str:
    """A document of YAML, in which nothing stands for what was said before."""
    plain = json.loads(json.dumps(manifest))
    return "---\n" + str(yaml.safe_dump(plain, sort_keys=False, width=120))


def cluster_name(name: str) -> str:
    """A name as Kubernetes takes it, of what identifies a submission.

    Examples
    --------
    >>> cluster_name("phbatch-Plate_3.restored-1a2b3c4d")
    'phbatch-plate-3-restored-1a2b3c4d'
    """
    stem, _, check = re.sub("[^a-z0-9]+", "-", name.lower()).rpartition("-")
    return f"{stem[: _LONGEST - len(check) - 1].strip('-')}-{check}"


@contextmanager
def _asking() -> Iterator[None]:
    """Errors of those who are asked as one of ours."""
    try:
        yield
    except (UsageError, KeyboardInterrupt):
        raise
    except Exception as error:
        raise UsageError(
            f"Kubernetes does not do it ({first_line(error)}); see that `kubectl get daskclusters` answers, which needs"
            " KUBECONFIG and the operator of Dask."
        ) from error


def _create(manifest: Manifest) -> None:
    """Have it there, where it is there already as it is said now."""
    made = partial(_kr8s().objects.object_from_spec, manifest, allow_unknown_type=True)
    found = made()
    if found.exists() and manifest["kind"] == "Job":  # which cannot be changed
        found.delete(propagation_policy="Background")
        found.wait("delete")
        made().create()
    elif found.exists():
        found.patch({part: manifest[part] for part in ("spec", "data") if part in manifest})
    else:
        found.create()


def _operator() -> Any:
    try:
        import dask_kubernetes.operator
    except ImportError as error:
        raise UsageError("--cluster kubernetes needs dask-kubernetes; `pip install 'phbatch[kubernetes]'`.") from error
    return dask_kubernetes.operator


def _kr8s() -> Any:
    try:
        import kr8s
        import kr8s.objects
    except ImportError as error:
        raise UsageError("--cluster kubernetes needs kr8s; `pip install 'phbatch[kubernetes]'`.") from error
    return kr8s
