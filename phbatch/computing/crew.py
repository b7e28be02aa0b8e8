"""The workers of a Dask cluster, met before they are given anything: those that do not fit are left out, and named."""

from __future__ import annotations

import pkgutil
import threading
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from queue import SimpleQueue
from time import monotonic
from typing import TYPE_CHECKING, Any

from phbatch.computing.cluster import ANSWER_S, ask, name_workers
from phbatch.computing.devices import declares_device
from phbatch.computing.identity import NUMBERS_VERSION
from phbatch.computing.sight import look_there
from phbatch.computing.tasks import Job
from phbatch.planning.memory import format_bytes
from phbatch.words.durations import format_duration
from phbatch.words.errors import ClusterError, first_line
from phbatch.words.events import Listener, Notice, Stop, never

if TYPE_CHECKING:
    from distributed import Client

PATIENCE_S = 120.0
"""How long a worker may take to import phbatch."""

NUMBERS_NAME = "phbatch.computing.identity:NUMBERS_VERSION"
"""What workers are asked for."""

_ASKED_AT_ONCE, _SLICE_S = 32, 0.1
_LEAVING = ("closing_gracefully", "closing", "closed")


class Crew:
    """The workers of a cluster that may be given units: they have this phbatch, memory, and see what the client sees.

    Parameters
    ----------
    client : Client
        Of the cluster.
    scheduler : str
        Its address, for messages.
    job : Job or None
        What they are to do: the memory that it takes, and what they must see.
    listener : callable
        Called with notices.
    wait_s : float
        How long a cluster without workers is waited for.

    Attributes
    ----------
    threads : dict of str to int
        Of every worker that may be given units, by its address.
    refused : dict of str to str
        Why others may not.
    paused : bool
        Whether Dask holds all of `threads` back, since their memory is full.
    devices : set of str
        Addresses of workers that declare a resource `DEVICE`.
    """

    def __init__(self, client: Client, scheduler: str, job: Job | None, listener: Listener, wait_s: float) -> None:
        self.client, self.scheduler, self.wait_s = client, scheduler, wait_s
        self.threads: dict[str, int] = {}
        self.refused: dict[str, str] = {}
        self.devices: set[str] = set()
        self.paused = False
        self._job, self._listener = job, listener
        self._asked: dict[str, float] = {}
        self._answers: SimpleQueue[tuple[str, str]] = SimpleQueue()
        self._offered: dict[str, int] = {}
        self._said: set[str] = set()

    def look(self, stop: Stop = never) -> None:
        """Meet workers that came, and forget those that went.

        Raises
        ------
        OSError
            The scheduler does not answer.
        """
        client = self.client
        question = partial(client.sync, client.scheduler.identity, callback_timeout=ANSWER_S)
        workers: dict[str, Any] = ask(question, ANSWER_S + 1, stop)["workers"]
        found = {address: each for address, each in workers.items() if each.get("status") not in _LEAVING}
        for known in (self.threads, self.refused, self._asked, self._offered):
            for address in known.keys() - found.keys():
                del known[address]
        self.devices = {address for address, worker in found.items() if declares_device(worker)}
        new = found.keys() - self.threads.keys() - self.refused.keys() - self._asked.keys()
        refusals = {}
        for address in new:
            self._offered[address] = found[address]["nthreads"]
            refusals[address] = self._too_small(found[address])
        self._ask([address for address in new if not refusals[address]])
        refusals |= self._read_answers()
        self._refuse({address: why for address, why in refusals.items() if why})
        self.paused = all(found[address].get("status") == "paused" for address in self.threads)

    def wait(self, stop: Stop) -> None:
        """Return once there are workers and all of them are met.

        Raises
        ------
        ClusterError
            There is none, or none that may be used.
        """
        started, demand = monotonic(), None
        while True:
            self._look_before(stop)
            waited = monotonic() - started
            if self._asked and waited < PATIENCE_S:
                threading.Event().wait(_SLICE_S)
                continue
            if self.threads:
                return
            if self.refused:
                raise ClusterError(
                    f"no worker of the Dask scheduler at {self.scheduler} can be used: {self._reasons()}; mend that,"
                    " or start others."
                )
            if waited > self.wait_s:
                raise ClusterError(
                    f"the Dask scheduler at {self.scheduler} has no workers, {format_duration(self.wait_s)} long"
                    " (--wait-workers); start some, as with `dask worker ADDRESS`."
                )
            if demand is None:  # a cluster that adapts starts workers where there is work
                demand = self.client.submit(int, pure=False)
                self.say(f"waiting up to {format_duration(self.wait_s)} for workers at {self.scheduler}.")
            threading.Event().wait(_SLICE_S)

    def say(self, text: str) -> None:
        """Tell the listener, once."""
        if text not in self._said:
            self._said.add(text)
            self._listener(Notice(text, warning=True))

    def exclude(self, address: str, why: str) -> None:
        """Give a worker no more units, unless it is the last one."""
        if len(self.threads) > 1 and address in self.threads:
            del self.threads[address]
            self._refuse({address: why})

    def _look_before(self, stop: Stop) -> None:
        try:
            self.look(stop)
        except (OSError, TimeoutError) as error:
            raise ClusterError(f"the Dask scheduler at {self.scheduler} does not answer; start it anew.") from error

    def _ask(self, addresses: list[str]) -> None:
        """Ask workers for their phbatch, without waiting; a function of the standard library needs none to be called.

        In groups, since one that hangs keeps the others of its group.
        """
        for group in (addresses[first::_ASKED_AT_ONCE] for first in range(_ASKED_AT_ONCE)):
            if group:
                self._asked |= dict.fromkeys(group, monotonic())
                threading.Thread(target=self._ask_group, args=(group,), name="phbatch-asking", daemon=True).start()

    def _ask_group(self, group: list[str]) -> None:
        try:
            answers = self.client.run(pkgutil.resolve_name, NUMBERS_NAME, workers=group, on_error="return")
            found = {address: _reason(answer) for address, answer in answers.items()}
            fitting = [address for address, why in found.items() if not why]
            if self._job is not None:
                found |= look_there(self.client, fitting, self._job)
        except Exception as error:  # it is gone, or the client is closed
            found = dict.fromkeys(group, f"it does not answer ({first_line(error)})")
        for answer in found.items():
            self._answers.put(answer)

    def _read_answers(self) -> dict[str, str]:
        """Reasons against workers that answered, empty where there is none, and that waited too long."""
        found = {}
        while not self._answers.empty():
            address, answer = self._answers.get()
            if self._asked.pop(address, None) is not None:
                found[address] = answer
                if not answer:
                    self.threads[address] = self._offered[address]
        for address, asked in list(self._asked.items()):
            if monotonic() - asked > PATIENCE_S:
                found[address] = f"it does not answer within {PATIENCE_S:g} s"
                del self._asked[address]
        return found

    def _too_small(self, worker: Mapping[str, Any]) -> str:
        limit = worker.get("memory_limit") or 0
        memory = self._job.memory if self._job is not None else None
        if memory is None or not limit:
            return ""
        one = replace(memory, in_flight=1).projected_mem
        if limit < one:
            return f"it has {format_bytes(limit)} of memory and a unit takes {format_bytes(one)}"
        threads = worker["nthreads"]
        many = replace(memory, in_flight=threads).projected_mem
        if limit < many:
            self.say(
                f"workers with {threads} threads and {format_bytes(limit)} of memory, and {threads} units take"
                f" {format_bytes(many)}: start them with fewer threads or more memory, or Dask may end them."
            )
        return ""

    def _refuse(self, reasons: Mapping[str, str]) -> None:
        self.refused |= reasons
        for why in dict.fromkeys(reasons.values()):
            named = [address for address in reasons if reasons[address] == why]
            self.say(f"{name_workers(named)} left out: {why}.")

    def _reasons(self) -> str:
        reasons = dict.fromkeys(self.refused.values())
        return "; ".join(
            f"{name_workers([a for a in self.refused if self.refused[a] == why])}: {why}" for why in reasons
        )


def _reason(answer: Any) -> str:
    """Why a worker that gave this answer for `NUMBERS_NAME` cannot be used; empty where it can."""
    if isinstance(answer, ModuleNotFoundError):
        return f"it has no phbatch ({first_line(answer)}); install phbatch {version('phbatch')} there"
    if isinstance(answer, BaseException):
        return f"its phbatch cannot be loaded ({first_line(answer)})"
    if answer != NUMBERS_VERSION:
        return f"its phbatch computes other numbers (version {answer} of them, and {NUMBERS_VERSION} here)"
    return ""
