"""An emulated Kubernetes for a test, in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.emulator import HOST, OWNERS, PID

HERE = Path(__file__).parent
ROOT = HERE.parent.parent.parent
DEADLINE_S = 480.0
"""For what takes seconds on a machine that is not busy."""


class Emulator:
    """What a test sees of it.

    Parameters
    ----------
    folder : Path
        Of logs and of the configuration of clients.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        paths = [str(HERE / "names"), str(ROOT), os.environ.get("PYTHONPATH", "")]
        self.environment = os.environ | {
            "EMULATOR_NAMES": str(folder / "names"),
            "KUBECONFIG": str(folder / "kubeconfig"),
            "PYTHONPATH": os.pathsep.join(paths),
        }

    def ask(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        """What the API answers."""
        url = json.loads((self.folder / "kubeconfig").read_text())["clusters"][0]["cluster"]["server"]
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url + path, data, {"Content-Type": kind}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                found: dict[str, Any] = json.load(answer)
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{method} {path}: {error.read().decode()}") from error
        return found

    def create(self, manifest: dict[str, Any]) -> None:
        """As kubectl would."""
        self.ask("POST", path_of(manifest["kind"].lower() + "s"), manifest)

    def patch(self, kind: str, name: str, change: dict[str, Any]) -> None:
        """Merge a change into an object."""
        self.ask("PATCH", f"{path_of(kind)}/{name}", change)

    def delete(self, kind: str, name: str) -> None:
        """Ask for the end of an object."""
        self.ask("DELETE", f"{path_of(kind)}/{name}")

    def get(self, kind: str) -> list[dict[str, Any]]:
        """Objects of a kind."""
        found: list[dict[str, Any]] = self.ask("GET", path_of(kind))["items"]
        return found

    def pods(self, component: str) -> list[dict[str, Any]]:
        """Pods of a component that are ready."""
        found = self.ask("GET", f"{path_of('pods')}?labelSelector=dask.org/component={component}")["items"]
        return [
            pod
            for pod in found
            if {"type": "Ready", "status": "True"} in pod["status"].get("conditions", [])
            and not pod["metadata"].get("deletionTimestamp")
        ]

    def kill(self, pod: dict[str, Any]) -> None:
        """End the process of a pod, as a machine that fails would."""
        os.kill(int(pod["metadata"]["annotations"][PID]), signal.SIGKILL)

    def scheduler(self) -> str:
        """Address of the only one, once there is one."""
        lines = self.wait(lambda: [line.split() for line in (self.folder / "names").read_text().splitlines()])
        return f"tcp://{HOST}:{next(port for _, asked, port in lines if asked == '8786')}"

    def log(self, name: str) -> str:
        """What the processes of pods said, or the operator."""
        return "".join(path.read_text() for path in sorted(self.folder.glob(f"{name}*.log")))

    def wait(self, reached: Callable[[], Any]) -> Any:
        """What is returned first that is true."""
        deadline = time.monotonic() + DEADLINE_S
        while not (found := reached()):
            assert time.monotonic() < deadline, f"it does not happen:\n{self.log('operator')[-4000:]}"
            time.sleep(0.5)
        return found


def kubeconfig(url: str) -> dict[str, Any]:
    """What clients read."""
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "emulator",
        "clusters": [{"name": "emulator", "cluster": {"server": url}}],
        "users": [{"name": "emulator", "user": {"token": "none"}}],
        "contexts": [
            {"name": "emulator", "context": {"cluster": "emulator", "user": "emulator", "namespace": "default"}}
        ],
    }


def path_of(kind: str) -> str:
    """Where objects of a kind are."""
    return f"{OWNERS.get(kind, '/api/v1')}/namespaces/default/{kind}"


@contextmanager
def emulate(folder: Path, pace: Path) -> Iterator[Emulator]:
    """An emulated Kubernetes while inside, whose workers write as `tests.cluster.paced` lets them.

    The test is skipped where something that it needs is missing.
    """
    for module in ("kmock", "kopf", "dask_kubernetes", "kubernetes_validate", "jsonschema"):
        if find_spec(module) is None:
            pytest.skip(f"{module} is not installed; `pip install '.[kubernetes,deploy]'`")
    found = Emulator(folder)
    with (folder / "emulator.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.cluster.emulator", str(folder)],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env=os.environ | {"EMULATOR_PACE": str(pace)},
        )
    try:
        found.wait(lambda: (folder / "kubeconfig").exists() or process.poll() is not None)
        assert process.poll() is None, found.log("emulator")
        yield found
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(120)
