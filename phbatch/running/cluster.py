"""A Dask cluster: its scheduler, asked in bounded time, and its workers, of which only those that fit are used."""

from __future__ import annotations

import asyncio
import logging
import pkgutil
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any, TypeVar

from distributed import Client, Security, rpc

from phbatch.planning.memory import MemoryPlan, format_bytes
from phbatch.running.identity import NUMBERS_VERSION
from phbatch.running.signals import deferring_signals
from phbatch.words.errors import InterruptedRunError, UsageError, first_line
from phbatch.words.events import Listener, Notice

Result = TypeVar("Result")
Stop = Callable[[], bool]

ANSWER_S = 10.0
"""How long a scheduler may take to answer."""

WORKERS_S = 30.0
"""How long a run waits for the first worker, and for another where it lost all."""

PATIENCE_S = 120.0
"""How long a worker may take to import phbatch."""

NUMBERS_NAME = "phbatch.running.identity:NUMBERS_VERSION"
"""What workers are asked for."""

_CLOSING_S, _SLICE_S = 2.0, 0.1
_ASKED_AT_ONCE, _NAMED = 32, 3
_FOREIGN_LOGGERS = (
    *("distributed", "distributed.client", "distributed.comm", "distributed.comm.core", "distributed.comm.tcp"),
    *("distributed.core", "distributed.batched", "distributed.utils", "distributed.utils_comm"),
    *("tornado.application", "tornado.general", "asyncio"),
)


_LENT: ContextVar[Client | None] = ContextVar("client", default=None)


def ask(question: Callable[[], Result], seconds: float, stop: Stop = lambda: False) -> Result:
    """What may wait for a network, called in a thread of its own, so that this one hears signals meanwhile.

    Raises
    ------
    TimeoutError
        There is no answer in time; nobody waits for it any more.
    InterruptedRunError
        `stop` said so.
    """
    answers: SimpleQueue[tuple[bool, Any]] = SimpleQueue()

    def call() -> None:
        try:
            answers.put((True, question()))
        except BaseException as error:  # a cancelled loop's, too
            answers.put((False, error))

    threading.Thread(target=call, name="phbatch-asking", daemon=True).start()
    deadline = monotonic() + seconds
    while monotonic() < deadline:
        with suppress(Empty):
            fine, found = answers.get(timeout=_SLICE_S)
            if fine:
                result: Result = found
                return result
            raise found
        if stop():
            raise InterruptedRunError("stopped; call the same command again to continue.")
    raise TimeoutError(f"no answer within {seconds:g} s")


@contextmanager
def lending(client: Client | None, scheduler: str | None) -> Iterator[str | None]:
    """While inside, `connect` takes a client of the host's, and leaves it open; gives the address of its scheduler.

    Raises
    ------
    UsageError
        The client is closed or asynchronous, or another scheduler is named beside it.
    """
    if client is None:
        yield scheduler
        return
    if scheduler is not None:
        raise UsageError(f"client and scheduler={scheduler!r} both say where to run; leave one out.")
    if client.asynchronous or client.status != "running":
        state = "asynchronous" if client.asynchronous else client.status
        raise UsageError(
            f"the client is {state} and a run waits for its answers; give a running one that is synchronous."
        )
    lent = _LENT.set(client)
    try:
        yield str(client.scheduler.address)
    finally:
        _LENT.reset(lent)


@contextmanager
def connect(scheduler: str, stop: Stop = lambda: False) -> Iterator[Client]:
    """A client of a scheduler, while inside: the host's where it is lent, else one of our own.

    Raises
    ------
    UsageError
        No scheduler answers at that address within `ANSWER_S`.
    """
    lent = _LENT.get()
    if lent is not None and lent.scheduler.address == scheduler:
        yield lent
        return
    with ExitStack() as stack:
        try:
            found = ask(lambda: asyncio.run(_identify(scheduler)), ANSWER_S + 1, stop)
            if "workers" not in found:
                raise ValueError(f"a Dask {found.get('type')} is there")
            make = partial(Client, scheduler, timeout=ANSWER_S, set_as_default=False)
            with warnings.catch_warnings():
                # `phbatch.running.versions` says what matters
                warnings.filterwarnings("ignore", message=r"\s*Mismatched versions found")
                client = ask(make, 2 * ANSWER_S, stop)
            stack.enter_context(_quiet(client))
        except InterruptedRunError:
            raise
        except Exception as error:  # whatever a port that speaks something else makes of it
            raise UsageError(
                f"no Dask scheduler answers at {scheduler} ({first_line(error)}); start one, or leave --scheduler out."
            ) from error
        try:
            yield client
        finally:
            with deferring_signals(), suppress(OSError):
                client.close(timeout=_CLOSING_S)


async def _identify(scheduler: str) -> dict[str, Any]:
    """What a server of Dask says of itself; its own client would wait for ever where one accepts and is silent."""
    arguments = Security().get_connection_args("client")
    async with rpc(scheduler, timeout=ANSWER_S, connection_args=arguments) as there:
        found: dict[str, Any] = await asyncio.wait_for(there.identity(), ANSWER_S)
    return found


@contextmanager
def _quiet(client: Client) -> Iterator[None]:
    """While inside, what distributed logs from this client's thread is not shown: we say what it means."""
    its_thread = ask(lambda: client.sync(_this_thread), ANSWER_S)

    def elsewhere(record: logging.LogRecord) -> bool:
        return bool(record.thread != its_thread)

    loggers = [logging.getLogger(name) for name in _FOREIGN_LOGGERS]
    for logger in loggers:
        logger.addFilter(elsewhere)
    try:
        yield
    finally:
        if all(thread.ident != its_thread for thread in threading.enumerate()):  # else it may still complain
            for logger in loggers:
                logger.removeFilter(elsewhere)


async def _this_thread() -> int:
    return threading.get_ident()


class Crew:
    """The workers of a cluster that may be given units: those that have this phbatch, and memory for a unit.

    Parameters
    ----------
    client : Client
        Of the cluster.
    scheduler : str
        Its address, for messages.
    memory : MemoryPlan or None
        What a process that works on units needs.
    listener : callable
        Called with notices.

    Attributes
    ----------
    threads : dict of str to int
        Of every worker that may be given units, by its address.
    refused : dict of str to str
        Why others may not.
    paused : bool
        Whether Dask holds all of `threads` back, since their memory is full.
    """

    def __init__(self, client: Client, scheduler: str, memory: MemoryPlan | None, listener: Listener) -> None:
        self.client, self.scheduler = client, scheduler
        self.threads: dict[str, int] = {}
        self.refused: dict[str, str] = {}
        self.paused = False
        self._memory, self._listener = memory, listener
        self._asked: dict[str, float] = {}
        self._answers: SimpleQueue[tuple[str, Any]] = SimpleQueue()
        self._offered: dict[str, int] = {}
        self._said: set[str] = set()

    def look(self, stop: Stop = lambda: False) -> None:
        """Meet workers that came, and forget those that went.

        Raises
        ------
        OSError
            The scheduler does not answer.
        """
        client = self.client
        question = partial(client.sync, client.scheduler.identity, callback_timeout=ANSWER_S)
        found: dict[str, Any] = ask(question, ANSWER_S + 1, stop)["workers"]
        for known in (self.threads, self.refused, self._asked, self._offered):
            for address in known.keys() - found.keys():
                del known[address]
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
        UsageError
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
                raise UsageError(
                    f"no worker of the Dask scheduler at {self.scheduler} can be used: {self._reasons()}; mend that,"
                    " or start others."
                )
            if waited > WORKERS_S:
                raise UsageError(
                    f"the Dask scheduler at {self.scheduler} has no workers, {WORKERS_S:g} s long; start some, as with"
                    " `dask worker ADDRESS`."
                )
            if demand is None:  # a cluster that adapts starts workers where there is work
                demand = self.client.submit(int, pure=False)
                self.say(f"waiting up to {WORKERS_S:g} s for workers at {self.scheduler}.")
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
            raise UsageError(f"the Dask scheduler at {self.scheduler} does not answer; start it anew.") from error

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
            found = self.client.run(pkgutil.resolve_name, NUMBERS_NAME, workers=group, on_error="return")
        except Exception as error:  # it is gone, or the client is closed
            found = dict.fromkeys(group, error)
        for answer in found.items():
            self._answers.put(answer)

    def _read_answers(self) -> dict[str, str]:
        """Reasons against workers that answered, empty where there is none, and that waited too long."""
        found = {}
        while not self._answers.empty():
            address, answer = self._answers.get()
            if self._asked.pop(address, None) is not None:
                found[address] = _reason(answer)
                if not found[address]:
                    self.threads[address] = self._offered[address]
        for address, asked in list(self._asked.items()):
            if monotonic() - asked > PATIENCE_S:
                found[address] = f"it does not answer within {PATIENCE_S:g} s"
                del self._asked[address]
        return found

    def _too_small(self, worker: Mapping[str, Any]) -> str:
        limit = worker.get("memory_limit") or 0
        if self._memory is None or not limit:
            return ""
        one = replace(self._memory, in_flight=1).projected_mem
        if limit < one:
            return f"it has {format_bytes(limit)} of memory and a unit takes {format_bytes(one)}"
        threads = worker["nthreads"]
        many = replace(self._memory, in_flight=threads).projected_mem
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


def name_workers(addresses: Iterable[str]) -> str:
    """Names the first few.

    Examples
    --------
    >>> name_workers(["tcp://a:1"]), name_workers(["a", "b", "c", "d", "e"])
    ('worker tcp://a:1', 'workers a, b, c and 2 more')
    """
    named = sorted(addresses)
    more = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
    return f"worker{'s' if len(named) > 1 else ''} {', '.join(named[:_NAMED])}{more}"
