"""Memory and cores of whoever will compute: this machine, the slot of a task that calls us, or a cluster's workers."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from os import cpu_count
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, TypeVar

import dask
import psutil

from phbatch.computing.cluster import ANSWER_S, identify, lending
from phbatch.computing.devices import declares_device
from phbatch.words.errors import MemoryLimitError, UsageError, first_line
from phbatch.words.events import Listener, Notice, Stop, never

if TYPE_CHECKING:
    from distributed import Client

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

_DASK_PAUSES = 0.8  # of a worker's memory, above which Dask gives it nothing more
_SLICE_S = 0.1
_DASK_CLUSTERS = "distributed"  # takes a while to load, and where nobody has loaded it there is no client and no worker

Plan = TypeVar("Plan")


@dataclass(frozen=True)
class Machine:
    """What a process may take, of which a run plans half; see `phbatch.planning.resolve`.

    Attributes
    ----------
    available_bytes : int
        Memory that is free.
    cores : int
        Units that compute at once.
    """

    available_bytes: int
    cores: int

    def shared(self, processes: int) -> Machine:
        """The share of each of several processes.

        Examples
        --------
        >>> Machine(8 << 30, 6).shared(4)
        Machine(available_bytes=2147483648, cores=1)
        """
        return Machine(self.available_bytes // processes, max(1, self.cores // processes))


def available_bytes() -> int:
    """Memory of the machine that is free now."""
    return int(psutil.virtual_memory().available)


def machine_of(scheduler: str | None, stop: Stop = never) -> Machine:
    """Where units will be computed.

    Parameters
    ----------
    scheduler : str or None
        Address of a Dask scheduler: the worker counts that has the least memory for a thread. None is this process; in
        a task on a worker of somebody else's cluster it is one of that worker's slots.
    stop : callable
        Asked while a scheduler does not answer.

    Raises
    ------
    UsageError
        No scheduler answers.
    """
    if scheduler is not None:
        return _machines(identify(scheduler, stop)["workers"])[0]
    worker = _worker()
    if worker is None:
        return Machine(available_bytes(), cpu_count() or 1)
    threads = max(1, int(worker.state.nthreads))
    limit = getattr(worker.memory_manager, "memory_limit", None)
    return Machine(_planned(limit) // threads if limit else available_bytes() // threads, 1)


def plan_for(scheduler: str | None, resolve: Callable[..., Plan], stop: Stop = never, *, processes: int = 1) -> Plan:
    """What is planned with the memory and cores of where units will be computed.

    Parameters
    ----------
    scheduler : str or None
        As for `machine_of`. Where nothing fits the worker that has the least memory for a thread, the plan is made for
        the next: those that are too small are left out when they are met.
    resolve : callable
        Plans with `available_bytes` and `cores`.
    stop : callable
        Asked while a scheduler does not answer.
    processes : int
        That share the machine.

    Raises
    ------
    MemoryLimitError
        It does not fit the largest worker.
    """
    machines = [machine_of(None)] if scheduler is None else _machines(identify(scheduler, stop)["workers"])
    for number, machine in enumerate(machines, 1):
        one = machine.shared(processes)
        try:
            return resolve(available_bytes=one.available_bytes, cores=one.cores)
        except MemoryLimitError:
            if number == len(machines):
                raise
    raise AssertionError("there is always a machine")


def have_devices(scheduler: str | None) -> bool:
    """Whether a worker of a cluster declares a device; False without a cluster."""
    return scheduler is not None and any(map(declares_device, identify(scheduler)["workers"].values()))


def may_leave() -> bool:
    """Whether a call may compute in other processes: neither in a task, which has its slot, nor if Dask is not to."""
    return _worker() is None and dask.config.get("scheduler", None) in (None, "dask.distributed", "distributed")


def active_client() -> Client | None:
    """The host's client that Dask itself would compute on in this place."""
    if _DASK_CLUSTERS not in sys.modules or not may_leave():
        return None
    from distributed import Client

    try:
        client = Client.current(allow_global=True)
    except ValueError:
        return None
    return None if client.asynchronous or client.status != "running" else client


@contextmanager
def going_to(
    client: Client | None, scheduler: str | None, stop: Stop = never, listener: Listener | None = None
) -> Iterator[str | None]:
    """While inside, work goes to a client of the host's, or to the active one where no scheduler is named.

    Gives the address of the scheduler; None: work stays in this process.
    """
    if client is None and scheduler is None:
        client = active_client()
    with lending(client, scheduler) as found:
        yield find_scheduler(found, stop, listener)


def find_scheduler(given: str | None, stop: Stop = never, listener: Listener | None = None) -> str | None:
    """Address of the Dask scheduler that a run goes to; None: to this process.

    Parameters
    ----------
    given : str or None
        An address, or the JSON file that a scheduler writes (``dask scheduler --scheduler-file FILE``). None is what
        Dask is configured with, `scheduler-address` or `scheduler-file`, as from ``DASK_SCHEDULER_ADDRESS`` in the
        environment; in a task on a worker it is this process.
    stop : callable
        Asked while the file is not there yet.
    listener : callable, optional
        Hears that a file is waited for, up to `ANSWER_S`; without it nobody waits.

    Raises
    ------
    UsageError
        The file is not there, or names no address.

    Examples
    --------
    >>> find_scheduler("tcp://127.0.0.1:8786")
    'tcp://127.0.0.1:8786'
    """
    if given is None and may_leave():
        given = dask.config.get("scheduler-address", None) or dask.config.get("scheduler-file", None)
    if given is None or not _is_file(given):
        return given
    file, said = Path(given).expanduser(), False
    deadline = monotonic() + (ANSWER_S if listener is not None and file.parent.is_dir() else 0)
    while True:
        try:
            return str(json.loads(file.read_text(encoding="utf-8"))["address"])
        except FileNotFoundError:
            failure = "it is not there"
        except (OSError, ValueError, TypeError, KeyError) as error:
            failure = f"{type(error).__name__}: {first_line(error)}"
        if monotonic() > deadline or stop():
            raise UsageError(
                f"--scheduler {given} names no Dask scheduler ({failure}); give the file that"
                " `dask scheduler --scheduler-file` writes, or an address."
            )
        if listener is not None and not said:  # a scheduler that starts writes it soon
            listener(Notice(f"--scheduler {given}: {failure}; waiting {ANSWER_S:g} s for it."))
            said = True
        sleep(_SLICE_S)


def _is_file(given: str) -> bool:
    return given.endswith(".json") or Path(given).expanduser().is_file()


def _worker() -> Any:
    """The worker of the cluster whose task this is; None elsewhere."""
    if _DASK_CLUSTERS not in sys.modules:
        return None
    from distributed import get_worker

    try:
        return get_worker()
    except ValueError:
        return None


def _machines(workers: Mapping[str, Mapping[str, Any]]) -> list[Machine]:
    """Kinds of workers, from the least memory for a thread to the most.

    Examples
    --------
    >>> one, other = {"nthreads": 4, "memory_limit": 8 << 30}, {"nthreads": 1, "memory_limit": 4 << 30}
    >>> [machine.cores for machine in _machines({"tcp://a:1": one, "tcp://a:2": other})]
    [4, 1]
    """
    known = {(int(worker["nthreads"]), worker.get("memory_limit") or 0) for worker in workers.values()}
    threads = max((count for count, _ in known), default=cpu_count() or 1)
    limited = [(limit, count) for count, limit in known if limit]
    if not limited:
        return [Machine(available_bytes(), threads)]
    return [Machine(_planned(limit), count) for limit, count in sorted(limited, key=lambda each: each[0] / each[1])]


def _planned(limit: int) -> int:
    """Half of it is what a worker with this limit may take before Dask pauses it."""
    return int(2 * _DASK_PAUSES * limit)


def peak_rss_bytes() -> int:
    """Peak resident memory of this process, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count the parent's memory at the fork
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) * 1024
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
