"""Processes forked from one that has all of it imported, where a Python of their own would import for seconds."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing import forkserver, resource_tracker
from pathlib import Path
from subprocess import TimeoutExpired
from typing import Any

import dask
from distributed import utils

_CONTEXT = multiprocessing.get_context("forkserver")
_SERVER = forkserver._forkserver  # type: ignore[attr-defined]
_PRELOADED = [
    *("distributed.cli.dask_scheduler", "distributed.cli.dask_worker", "phbatch.computing.drain", "numba", "obstore"),
    *("phbatch.running.run", "phbatch.shell.commands", "phbatch.tools.report_page", "phbatch.report", "rich.console"),
    *("phbatch.tools.parts", "phbatch.network.predictor", "tensorflow", "keras"),
    *("tests.faults.tasks", "tests.faults.kills", __name__, "tests.frozen"),
]
"""Of all that are forked: multiprocessing has one server of forks in a process, and who asks first decides."""


def share(folder: Path) -> None:
    """Let all processes that are given the same folder have one server of forks, which imports for all of them.

    It is started where a first one is forked, and ends with the last of these processes. From Python 3.14 on a server
    hears none but who started it, and each process has its own.
    """
    if sys.version_info >= (3, 14):
        return
    folder.mkdir(exist_ok=True)
    with suppress(FileExistsError):
        os.mkfifo(folder / "alive")
    _SERVER._forkserver_alive_fd = os.open(folder / "alive", os.O_RDWR)
    environment = os.environ | {"XDG_CACHE_HOME": str(folder / "cache")}
    _SERVER.ensure_running = partial(_find_server, folder, environment)


def _find_server(folder: Path, environment: Mapping[str, str]) -> None:
    resource_tracker.ensure_running()
    if _SERVER._forkserver_address is not None:
        return
    address = folder / "server"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not address.exists():
            _start_server(str(address), folder / "alive", environment)
    _SERVER._forkserver_address = str(address)


def _start_server(address: str, alive: Path, environment: Mapping[str, str]) -> None:
    reading = os.open(alive, os.O_RDONLY | os.O_NONBLOCK)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen(128)
        handed = [listener.fileno(), reading]
        for descriptor in handed:
            os.set_inheritable(descriptor, True)
        code = f"from multiprocessing.forkserver import main; main(*{handed}, {_PRELOADED})"
        os.posix_spawn(sys.executable, [sys.executable, "-c", code], environment)
    os.close(reading)


def find_server() -> str | None:
    """Where the server of forks listens, once it runs; None where it hears nobody but this process."""
    if sys.version_info >= (3, 14):
        return None
    _warm_up()
    _SERVER.ensure_running()
    return str(_SERVER._forkserver_address)


def fork(target: Callable[..., object], arguments: tuple[Any, ...]) -> Any:
    """Start a process that calls a function of a module."""
    _warm_up()
    process = _CONTEXT.Process(target=_call_here, args=(dict(os.environ), target, arguments))
    process.start()
    return process


class Forked:
    """What `subprocess.Popen` is, as far as tests ask, of a process that runs some code.

    Parameters
    ----------
    code : str
        Python.
    arguments : sequence of str
        The code's ``sys.argv``, from its second item on.
    environment : mapping of str to str
        Variables beside those of this process.
    folder : Path, optional
        Its working folder.
    log : Path, optional
        Where it says all that it says; else `communicate` returns that.
    """

    def __init__(
        self,
        code: str,
        arguments: Sequence[str] = (),
        *,
        environment: Mapping[str, str] = {},
        folder: Path | None = None,
        log: Path | None = None,
    ) -> None:
        self._kept = tempfile.TemporaryDirectory()
        self._said = [log or Path(self._kept.name) / name for name in ("out", "err")]
        given = (code, ["-c", *arguments], {**os.environ, **environment}, folder or Path.cwd(), self._said)
        self._process = fork(_be, given)
        self.pid = self._process.pid or 0

    @property
    def returncode(self) -> int | None:
        """As of `subprocess.Popen`."""
        return self.poll()

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise TimeoutExpired(str(self.pid), timeout or 0)
        self._kept.cleanup()
        return self._process.exitcode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """What was printed, and the errors."""
        self._process.join(timeout)
        out, err = (path.read_text() if path.exists() else "" for path in self._said)
        self.wait(0)
        return out, err

    def send_signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()


def fork_command(
    *arguments: object, log: Path, environment: Mapping[str, str] = {}, before: str = "", folder: Path | None = None
) -> Forked:
    """Call ``phbatch`` in a process, all that it prints into one file; ``before`` is Python that runs at first."""
    code = f"{before}\nfrom phbatch.shell.commands import main\nmain()\n"
    return Forked(code, [*map(str, arguments)], environment=environment, folder=folder, log=log)


@contextmanager
def forked_workers() -> Iterator[None]:
    """While inside, the workers of a Dask cluster that is opened are such processes."""
    _warm_up()
    with dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}):
        yield


def _warm_up() -> None:
    """The first one decides what is imported; distributed would decide otherwise."""
    utils._forkserver_preload_set = True
    _CONTEXT.set_forkserver_preload(_PRELOADED)


def _call_here(environment: dict[str, str], target: Callable[..., object], arguments: tuple[Any, ...]) -> None:
    """In the environment of who asked; the server has its own."""
    os.environ.clear()
    os.environ |= environment
    target(*arguments)


def _be(code: str, arguments: list[str], environment: dict[str, str], folder: Path, said: list[Path]) -> None:
    for stream, path in enumerate(said, 1):
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(opened, stream)
    os.chdir(folder)
    os.environ.clear()
    os.environ |= environment
    dask.config.refresh()
    sys.argv = arguments
    exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
