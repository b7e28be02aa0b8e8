"""A Dask scheduler and workers, each a process of its own on this machine, as on machines of a cluster."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.forks import Forked

DEADLINE_S = 240.0
"""For what takes seconds on a machine that is not busy."""


def wait_until(reached: Callable[[], Any]) -> None:
    """Return once it is so."""
    deadline = time.monotonic() + DEADLINE_S
    while not reached():
        assert time.monotonic() < deadline, "it does not happen"
        time.sleep(0.05)


class Processes:
    """A scheduler, and workers that are started and ended one by one.

    Parameters
    ----------
    folder : Path
        Of scratch files and logs.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.file = folder, folder / "scheduler.json"
        self.workers: list[Forked | subprocess.Popen[bytes]] = []
        self._all: list[Forked | subprocess.Popen[bytes]] = []
        self.scheduler = self._start("scheduler", "--port", "0")
        wait_until(lambda: self.file.exists() and self.file.read_text().rstrip().endswith("}"))
        self.address = str(json.loads(self.file.read_text())["address"])

    def add(
        self,
        *arguments: str,
        environment: Mapping[str, str] = {},
        nanny: bool = False,
        script: str = "",
        preload: str = "",
    ) -> Forked | subprocess.Popen[bytes]:
        """Start a worker of one thread; `script` is Python that runs before Dask, `preload` as it starts."""
        options = ["--nthreads", "1", "--local-directory", str(self.folder), *([] if nanny else ["--no-nanny"])]
        if preload:
            file = self.folder / f"preload{len(self._all)}.py"
            file.write_text(preload)
            options += ["--preload", str(file)]
        worker = self._start("worker", *options, *arguments, environment=environment, script=script)
        self.workers.append(worker)
        return worker

    def log(self, process: Forked | subprocess.Popen[bytes]) -> str:
        """What a process said."""
        return (self.folder / f"{self._all.index(process)}.log").read_text()

    def close(self) -> None:
        """End all of them."""
        for process in reversed(self._all):
            process.kill()
            process.wait(60)

    def _start(
        self, what: str, *arguments: str, environment: Mapping[str, str] = {}, script: str = ""
    ) -> Forked | subprocess.Popen[bytes]:
        command = [what, "--host", "127.0.0.1", "--no-dashboard", "--scheduler-file", str(self.file)]
        code = f"import sys\n{script}\nsys.argv = {[*command, *arguments]!r}\n"
        code += f"from distributed.cli.dask_{what} import main\nmain()\n"
        path, variables = self.folder / f"{len(self._all)}.log", {"PYTHONPATH": str(Path(__file__).parents[2])}
        variables |= environment
        process: Forked | subprocess.Popen[bytes]
        if script:  # before anything is imported
            with path.open("wb") as log:
                process = subprocess.Popen(
                    [sys.executable, "-c", code],
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, **variables},
                    cwd=self.folder,
                )
        else:
            process = Forked(code, environment=variables, folder=self.folder, log=path)
        self._all.append(process)
        return process


@contextmanager
def open_processes(folder: Path) -> Iterator[Processes]:
    """A scheduler without workers, while inside."""
    folder.mkdir(exist_ok=True)
    found = Processes(folder)
    try:
        yield found
    finally:
        found.close()
