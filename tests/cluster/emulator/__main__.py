"""``python -m tests.cluster.emulator FOLDER``: it writes FOLDER/kubeconfig, and runs until its input is closed."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

from kmock import Server

from tests.cluster.emulator.api import make_api
from tests.cluster.emulator.kubelet import Kubelet
from tests.cluster.emulator.session import kubeconfig

MODULES = ("dask_kubernetes.operator.controller.controller", "tests.cluster.emulator.patience")
HERE = Path(__file__).parent
ROOT = HERE.parent.parent.parent


async def main(folder: Path) -> None:
    """Run all of it."""
    names = folder / "names"
    names.touch()
    environment = os.environ | {
        "EMULATOR_NAMES": str(names),
        "KUBECONFIG": str(folder / "kubeconfig"),
        "PYTHONPATH": f"{HERE / 'names'}{os.pathsep}{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
    }
    async with make_api() as api, Server(api, host="127.0.0.1", port=0):
        url = str(api.url).rstrip("/")
        (folder / "kubeconfig").write_text(json.dumps(kubeconfig(url)))
        os.environ |= environment  # pods are forks of what this process starts
        kubelet = Kubelet(api, folder, environment)
        keeping = asyncio.create_task(kubelet.run())
        operator = [sys.executable, "-m", "kopf", "run", "--all-namespaces", "--log-format", "full"]
        with (folder / "operator.log").open("wb") as log:
            running = subprocess.Popen(
                [*operator, *(word for module in MODULES for word in ("--module", module))],
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            ended = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
            await asyncio.wait([ended, keeping], return_when=asyncio.FIRST_COMPLETED)
            if keeping.done():
                keeping.result()
        finally:
            keeping.cancel()
            running.kill()
            running.wait()
            for process in (*(pod.process for pod in kubelet.pods.values()), *kubelet.leaving):
                process.kill()
                process.join()


asyncio.run(main(Path(sys.argv[1])))
