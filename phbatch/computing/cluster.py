"""A Dask cluster: where its scheduler is, and what it says, asked in bounded time."""

from __future__ import annotations

import asyncio
import logging
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from contextvars import ContextVar
from functools import partial
from queue import Empty, SimpleQueue
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

from phbatch.computing.certificates import require_certificates
from phbatch.computing.signals import deferring_signals
from phbatch.words.errors import InterruptedRunError, UsageError, first_line
from phbatch.words.events import Stop, never

if TYPE_CHECKING:
    from distributed import Client

Result = TypeVar("Result")

ANSWER_S = 10.0
"""How long a scheduler may take to answer."""

_CLOSING_S, _SLICE_S = 2.0, 0.1
_NAMED = 3
_FOREIGN_LOGGERS = (
    *("distributed", "distributed.client", "distributed.comm", "distributed.comm.core", "distributed.comm.tcp"),
    *("distributed.core", "distributed.batched", "distributed.utils", "distributed.utils_comm"),
    *("tornado.application", "tornado.general", "asyncio"),
)


_LENT: ContextVar[Client | None] = ContextVar("client", default=None)


class SilentSchedulerError(UsageError):
    """No Dask scheduler answers: the address is wrong, or whoever is there is too busy."""


def ask(question: Callable[[], Result], seconds: float, stop: Stop = never) -> Result:
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
def connect(scheduler: str, stop: Stop = never) -> Iterator[Client]:
    """A client of a scheduler, while inside: the host's where it is lent, else one of our own.

    Raises
    ------
    UsageError
        No scheduler answers at that address within `ANSWER_S`.
    """
    lent = _LENT.get()
    if lent is not None and _is_lent(scheduler):
        yield lent
        return
    from distributed import Client

    with ExitStack() as stack:
        identify(scheduler, stop)
        try:
            make = partial(Client, scheduler, timeout=ANSWER_S, set_as_default=False)
            with warnings.catch_warnings():
                # `phbatch.computing.versions` says what matters
                warnings.filterwarnings("ignore", message=r"\s*Mismatched versions found")
                client = ask(make, 2 * ANSWER_S, stop)
            stack.enter_context(quiet(client))
        except InterruptedRunError:
            raise
        except Exception as error:  # it went meanwhile
            raise _silent(scheduler, error) from error
        try:
            yield client
        finally:
            with deferring_signals(), suppress(OSError):
                client.close(timeout=_CLOSING_S)


def identify(scheduler: str, stop: Stop = never) -> dict[str, Any]:
    """What a scheduler says of itself and of its workers.

    Raises
    ------
    UsageError
        No scheduler answers at that address within `ANSWER_S`, or there are no certificates for it.
    """
    if not _is_lent(scheduler):
        require_certificates(scheduler)
    try:
        found = ask(partial(_ask_for_identity, scheduler, _LENT.get()), ANSWER_S + 1, stop)
        if "workers" not in found:
            raise ValueError(f"a Dask {found.get('type')} is there")
    except InterruptedRunError:
        raise
    except Exception as error:  # whatever a port that speaks something else makes of it
        raise _silent(scheduler, error) from error
    return found


def _is_lent(scheduler: str) -> bool:
    lent = _LENT.get()
    return lent is not None and bool(lent.scheduler.address == scheduler)


def _silent(scheduler: str, error: Exception) -> SilentSchedulerError:
    return SilentSchedulerError(
        f"no Dask scheduler answers at {scheduler} ({first_line(error)}); start one, or leave --scheduler out."
    )


def _ask_for_identity(scheduler: str, lent: Client | None) -> dict[str, Any]:
    if lent is not None and lent.scheduler.address == scheduler:
        found: dict[str, Any] = lent.sync(lent.scheduler.identity, callback_timeout=ANSWER_S)
        return found
    return asyncio.run(_identify(scheduler))


async def _identify(scheduler: str) -> dict[str, Any]:
    """What a server of Dask says of itself; its own client would wait for ever where one accepts and is silent."""
    from distributed import Security, rpc

    arguments = Security().get_connection_args("client")
    async with rpc(scheduler, timeout=ANSWER_S, connection_args=arguments) as there:
        found: dict[str, Any] = await asyncio.wait_for(there.identity(), ANSWER_S)
    return found


@contextmanager
def quiet(owner: Any) -> Iterator[None]:
    """While inside, what distributed logs from the thread of a client or cluster of our own is not shown.

    We say what it means. It ends after the owner is closed: what is torn down in the middle of its work complains, and
    a cluster of Dask lets that be shown again before its last connections are closed. Others in this process, which
    have threads of their own, are heard as before.
    """
    its_thread = ask(lambda: owner.sync(_this_thread), ANSWER_S)

    def elsewhere(record: logging.LogRecord) -> bool:
        return bool(record.thread != its_thread)

    known = [name for name in logging.root.manager.loggerDict if name.startswith("distributed.")]
    loggers = [logging.getLogger(name) for name in {*_FOREIGN_LOGGERS, *known}]
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
