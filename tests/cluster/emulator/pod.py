"""Pods: processes forked from one that has all of it imported, so that a pod is there at once."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import sys
from multiprocessing.process import BaseProcess
from pathlib import Path

from tests.cluster.paced import pace

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    [
        *("dask", "distributed.cli.dask_scheduler", "distributed.cli.dask_worker"),
        *("phbatch.computing.drain", "phbatch.running.run", "phbatch.shell.commands", "phbatch.tools.report_page"),
        *("numba", "dask_kubernetes.cli.cli", __name__, "tests.frozen"),  # Dask's command line asks its plugins first
    ]
)


def warm_up() -> None:
    """Have the process that pods are forked from; it imports for seconds."""
    process = _CONTEXT.Process(target=int)
    process.start()
    process.join()


def start_pod(arguments: list[str], variables: dict[str, str], log: Path) -> BaseProcess:
    """Start a Python with these arguments after ``-m``, and these variables beside those of this process."""
    process = _CONTEXT.Process(target=_be, args=(arguments, variables, log))
    process.start()
    return process


def _be(arguments: list[str], variables: dict[str, str], log: Path) -> None:
    said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(said, stream)
    os.chdir(log.parent)
    os.environ |= variables
    import dask

    dask.config.refresh()  # from these variables
    if arguments[:2] == ["dask", "worker"] and "EMULATOR_PACE" in os.environ:
        pace(Path(os.environ["EMULATOR_PACE"]))
    sys.argv = arguments
    runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
