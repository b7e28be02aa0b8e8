"""Several GPUs of one machine: a Dask cluster of our own, with a process for each, that ends with the run.

It is reached on loopback alone, and by those alone who hold the certificate that is made for it: on a machine that
people share, whoever reaches a Dask scheduler could compute as somebody else.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from threading import Event as Flag
from time import monotonic
from typing import IO, TYPE_CHECKING

import dask
import psutil

from phbatch.computing.certificates import make_certificates
from phbatch.computing.cluster import ask, lending, quiet
from phbatch.computing.crew import PATIENCE_S
from phbatch.computing.devices import DEVICE, environment_of, name_devices, sees_device
from phbatch.computing.signals import deferring_signals
from phbatch.planning.memory import MemoryPlan
from phbatch.running.begin import AcceptedRun
from phbatch.words.choices import Backend
from phbatch.words.errors import InterruptedRunError, PhbatchError, UsageError
from phbatch.words.events import Listener, Notice, Stop

if TYPE_CHECKING:
    from distributed import Client, LocalCluster, Security

_HOST = "127.0.0.1"
_PAGES = f"{_HOST}:0"  # Dask serves some whether they are wanted or not, and to all the world unless told otherwise
_NO_PAGES = {"DASK_DISTRIBUTED__WORKER__HTTP__ROUTES": "[]"}
_LOOK_S = 0.1
_CERTIFIES = "cryptography"  # which Dask makes its certificates with
_PAUSED_ABOVE = 0.8  # of its memory, a worker of Dask begins nothing


@contextmanager
def on_devices(
    accepted: AcceptedRun, devices: Sequence[str], stop: Stop, listener: Listener, units: int = 0
) -> Iterator[AcceptedRun]:
    """While inside, a run has a process for each of these devices, of a cluster that is its scheduler.

    Raises
    ------
    UsageError
        They do not start, or a device that was named is none for the backend.
    """
    devices = devices[: units or len(accepted.resolved.geometry.units)]
    if not devices or (len(devices) == 1 and accepted.settings.devices is None):
        yield accepted
        return
    settings, said = accepted.settings, ", ".join(devices)
    if settings.devices is None and find_spec(_CERTIFIES) is None:
        text = f"of the GPUs {said} one is used, since the package {_CERTIFIES} is missing; install it to use all."
        listener(Notice(text, warning=True))
        yield accepted
        return
    with process_per_device(devices, accepted.job.backend, accepted.resolved.memory, stop) as (client, seen):
        blind = [name for name in devices if not seen[name]]
        if blind and (settings.devices is not None or len(blind) < len(devices)):
            raise UsageError(
                f"{accepted.job.backend} sees no GPU where {blind[0]} alone is visible; leave it out with --devices, or"
                " mend its driver or its libraries."
            )
        if not blind:
            listener(Notice(f"{name_devices(devices)}."))  # and recorded nowhere: the output is the same
            with lending(client, None) as scheduler:
                settings = settings.model_copy(update={"scheduler": scheduler})
                yield replace(accepted, settings=settings)
            return
    text = f"there are GPUs ({said}) and {accepted.job.backend} sees none; the network computes on the cores."
    listener(Notice(text, warning=True))
    yield accepted


@contextmanager
def process_per_device(
    devices: Sequence[str], backend: Backend, memory: MemoryPlan, stop: Stop
) -> Iterator[tuple[Client, Mapping[str, bool]]]:
    """While inside, a process for each device, of which it sees no other.

    Parameters
    ----------
    devices : sequence of str
        Their names.
    backend : {"tensorflow", "jax"}
        What is asked for its device in each process.
    memory : MemoryPlan
        Of one process.
    stop : callable
        Asked while they start.

    Yields
    ------
    client : Client
        Of their cluster.
    seen : mapping of str to bool
        Whether the backend sees the device, by the device's name.

    Raises
    ------
    UsageError
        A process does not start, the backend is not installed, or there is nothing to make certificates with.
    InterruptedRunError
        `stop` said so.
    """
    from distributed import Client, LocalCluster

    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="phbatch-", ignore_cleanup_errors=True)))
        security = make_certificates("--devices", "name one GPU with CUDA_VISIBLE_DEVICES")
        with deferring_signals(), dask.config.set({"distributed.scheduler.http.routes": []}):
            cluster = LocalCluster(
                n_workers=0,
                host=_HOST,
                dashboard_address="127.0.0.1:0",
                scheduler_kwargs={"dashboard": False},
                security=security,
                silence_logs="CRITICAL",
            )
            stack.enter_context(quiet(cluster))
            stack.callback(_quietly, cluster.close)
        log = stack.enter_context(TemporaryFile("w+"))
        limit = max(psutil.virtual_memory().total // len(devices), int(memory.projected_mem / _PAUSED_ABOVE))
        started = []
        for device in devices:
            command = _command(cluster.scheduler_address, device, memory.in_flight, limit, folder, security)
            with deferring_signals():
                started.append(_start(command, os.environ | _NO_PAGES | environment_of(device), log))
                stack.callback(_end, started[-1])
        _wait_for(cluster, started, stop, log)
        with deferring_signals():
            client = Client(cluster, security=security, set_as_default=False)
            stack.callback(_quietly, client.close)
        seen = ask(partial(client.run, sees_device, backend, on_error="return"), PATIENCE_S, stop)
        for answer in seen.values():
            if isinstance(answer, PhbatchError):
                raise answer
        addresses = {worker.name: address for address, worker in cluster.scheduler.workers.items()}
        yield client, {device: seen.get(addresses.get(f"gpu-{device}")) is True for device in devices}


def _command(address: str, device: str, threads: int, limit: int, folder: Path, security: Security) -> list[str]:
    """Of a worker with one device."""
    options = {
        "host": _HOST,
        "name": f"gpu-{device}",
        "nthreads": threads,
        "memory-limit": limit,
        "resources": f"{DEVICE}=1",
        "local-directory": folder,
        "death-timeout": int(PATIENCE_S),
        "dashboard-address": _PAGES,
        "no-dashboard": None,
    }
    for name, text in security.get_tls_config_for_role("worker").items():
        if name != "ciphers":
            (folder / name).write_text(text, encoding="ascii")  # which nobody else reads: the folder is ours
            options[f"tls-{name.replace('_', '-')}"] = folder / name
    given = [[f"--{name}"] if value is None else [f"--{name}", str(value)] for name, value in options.items()]
    return [sys.executable, "-P", "-m", "dask", "worker", address, *(word for words in given for word in words)]


def _start(command: Sequence[str], environment: Mapping[str, str], log: IO[str]) -> subprocess.Popen[str]:
    """In a session of its own, which Ctrl-C does not reach: what is in flight is finished."""
    return subprocess.Popen(  # noqa: S603
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        text=True,
        start_new_session=True,
    )


def _wait_for(cluster: LocalCluster, started: Sequence[subprocess.Popen[str]], stop: Stop, log: IO[str]) -> None:
    """Return once all processes are there."""
    deadline = monotonic() + PATIENCE_S
    while len(cluster.scheduler.workers) < len(started):
        if any(process.poll() is not None for process in started) or monotonic() > deadline:
            log.seek(0)
            said = [line.strip() for line in log if line.strip()]
            raise UsageError(
                f"the processes for the GPUs do not start ({said[-1] if said else 'they say nothing'}); mend that, or"
                " name one GPU with CUDA_VISIBLE_DEVICES."
            )
        if stop():
            raise InterruptedRunError("stopped; call the same command again to continue.")
        Flag().wait(_LOOK_S)


def _quietly(close: Callable[[], object]) -> None:
    with deferring_signals(), suppress(OSError):
        close()


def _end(process: subprocess.Popen[str]) -> None:
    """End a worker at once: what it has in flight, if anything, was dropped by the run, and commits stand a kill."""
    with deferring_signals(), suppress(psutil.NoSuchProcess):
        its_own = psutil.Process(process.pid).children(recursive=True)
        process.kill()  # before its child, which it would start anew
        for child in its_own:
            with suppress(psutil.NoSuchProcess):
                child.kill()
        process.wait()
