"""A program in the place of Python for jobs of a scheduler: what it runs is forked, and imports nothing.

The program is the job's process: it hands on signals, ends as what it runs does, and does not outlive it, nor the other
way round.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading
from contextlib import suppress
from multiprocessing import connection as connections
from multiprocessing import forkserver as servers
from multiprocessing import get_context, process, reduction, resource_tracker
from pathlib import Path
from shlex import join, quote
from typing import Any

HANDED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def write_program(path: Path, module: str, *given: object) -> None:
    """A program that is called as Python is, and runs a module with what is given and what it is called with."""
    from tests.forks import find_server  # which is seconds of importing

    address, root = find_server(), Path(__file__).parents[2]
    words = [*map(str, given)]
    if address is None:
        text = f'PYTHONPATH="{root}" exec "{sys.executable}" -m {module} {join(words)} "$@"'
    else:
        code = f"import sys; sys.path[:] = {[str(root), *sys.path]}; from tests.cluster import relay; "
        code += f"relay.main({address!r}, {module!r}, {words})"
        text = f'exec "{sys.executable}" -ISc {quote(code)} "$@"'
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def main(address: str, module: str, given: list[str]) -> None:
    """Of the program: fork, and wait for the end."""
    server: Any = servers._forkserver  # type: ignore[attr-defined]
    nothing = os.open(os.devnull, os.O_RDWR)
    tracker: Any = resource_tracker._resource_tracker  # type: ignore[attr-defined]
    server._forkserver_address, server._forkserver_alive_fd, tracker._fd = address, nothing, nothing
    server.ensure_running = int
    said = _Streams()
    forked = get_context("forkserver").Process(target=_be, args=(module, given + sys.argv[1:], dict(os.environ), said))
    signal.pthread_sigmask(signal.SIG_BLOCK, HANDED_ON)
    forked.start()

    def hand_on(number: int, _: object) -> None:
        with suppress(ProcessLookupError):
            os.kill(forked.pid or 0, number)

    for number in HANDED_ON:
        signal.signal(number, hand_on)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDED_ON)
    forked.join()
    code = forked.exitcode or 0
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


class _Streams:
    """What this process prints into, in the one that gets it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _take, tuple(reduction.DupFd(stream) for stream in (1, 2))


def _take(*given: Any) -> list[int]:
    return [each.detach() for each in given]


def _be(module: str, arguments: list[str], environment: dict[str, str], streams: list[int]) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    for stream, opened in enumerate(streams, 1):
        os.dup2(opened, stream)
        os.close(opened)
    os.environ.clear()
    os.environ |= environment
    import dask

    dask.config.refresh()
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _end_with_parent() -> None:
    parent: Any = process.parent_process()
    with suppress(OSError):
        connections.wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGKILL)
