"""A Dask worker that ends in peace: it takes no more, finishes what it computes, hands over what it holds, and closes.

For workers that end at a known time, or by SIGTERM: a job with a walltime, a pod, a spot machine. distributed's own
``--lifetime`` drops what is being computed. It is a preload of workers, and of their nannies where there are any::

    dask worker ADDRESS --nthreads 1 --no-nanny --preload phbatch.computing.drain
    dask worker ADDRESS --nthreads 1 --preload phbatch.computing.drain --preload-nanny phbatch.computing.drain

It takes no arguments, so that it goes beside other preloads, and one value of Dask's configuration:

``phbatch.drain.after`` (in the environment ``DASK_PHBATCH__DRAIN__AFTER``)
    How long after its start a worker drains, such as ``3500``, in seconds, or ``3h 50m``: the walltime, less what the
    longest unit takes and a minute. Without it, a worker drains on SIGTERM alone.

A second SIGTERM ends the process at once. A worker that is ended before its units are finished loses these alone:
others do them again.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import Any

import dask
from distributed import Nanny, Status, Worker

from phbatch.words.durations import parse_duration

AFTER = "phbatch.drain.after"
"""Where Dask's configuration says when a worker drains."""

FETCHING_S = 30.0
"""How long a worker that is the last one waits for its results to be fetched."""

_SLICE_S = 0.05
_LOG = logging.getLogger("distributed.worker")  # where a worker's own sentences go


def drain_after() -> float | None:
    """Seconds from the start of a worker until it drains; None: never by itself.

    Examples
    --------
    >>> with dask.config.set({"phbatch.drain.after": "1h 30m"}):
    ...     drain_after()
    5400.0
    """
    value = dask.config.get(AFTER, None)
    return None if value in (None, "") else parse_duration(str(value), AFTER)


async def dask_setup(server: Worker | Nanny) -> None:
    """Dask calls it as a worker, or a nanny, starts."""
    loop = asyncio.get_running_loop()
    if isinstance(server, Nanny):
        _on_sigterm(loop, lambda: _pass_on(server))
        return

    begun: list[asyncio.Task[None]] = []

    def begin(why: str) -> None:
        if not begun:
            begun.append(loop.create_task(drain(server, why)))

    _on_sigterm(loop, lambda: begin("SIGTERM"))
    after = drain_after()
    if after is not None:
        loop.call_later(after, begin, f"{after:g} s are over")


async def drain(worker: Worker, why: str = "asked to") -> None:
    """Take no more tasks, finish those that are computed, hand their results over, and close.

    Parameters
    ----------
    worker : distributed.Worker
        In this process.
    why : str
        For its log.
    """
    if worker.status not in (Status.running, Status.paused):
        return
    started = monotonic()
    _LOG.info("phbatch drains %s: %s", worker.address, why)
    worker.status = Status.closing_gracefully  # told to the scheduler, too; Dask itself ends a pause
    while worker.state.executing or worker.state.long_running:
        await asyncio.sleep(_SLICE_S)
    computed, moved = monotonic(), False
    with suppress(OSError):  # the scheduler is gone
        while worker.data and not moved and monotonic() - computed < FETCHING_S:
            moved = await _hand_over(worker, remove=False)
            if not moved:  # there is no other worker
                await asyncio.sleep(_SLICE_S)
        await _hand_over(worker, remove=True)
    _LOG.info("phbatch drained %s in %.1f s", worker.address, monotonic() - started)
    await worker.close(nanny=True, reason=f"phbatch drained it: {why}")


async def _hand_over(worker: Worker, *, remove: bool) -> bool:
    """Have others take what this worker holds, and its queue where it is removed; returns whether there was anybody."""
    arguments = {"workers": [worker.address], "close_workers": False, "remove": remove}
    found: dict[str, Any] = await worker.scheduler.retire_workers(**arguments)
    return worker.address in found


def _pass_on(nanny: Nanny) -> None:
    """A nanny that heard SIGTERM lets its worker drain, which tells it to close."""
    if nanny.pid is not None:
        with suppress(ProcessLookupError):
            os.kill(nanny.pid, signal.SIGTERM)


def _on_sigterm(loop: asyncio.AbstractEventLoop, react: Callable[[], None]) -> None:
    """React to the first one, in place of Dask, which would close at once; a second one is left to who was there."""
    if threading.current_thread() is not threading.main_thread():  # of a cluster within somebody's process
        return
    before = signal.getsignal(signal.SIGTERM)

    def hear(number: int, frame: Any) -> None:
        signal.signal(signal.SIGTERM, before)
        loop.call_soon_threadsafe(react)

    signal.signal(signal.SIGTERM, hear)
