"""What was asked for under a URL and is not there: Zarr reads it as the fill value, whatever became of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from zarr.abc.store import Store

if TYPE_CHECKING:
    from zarr.abc.buffer import Buffer, BufferPrototype
    from zarr.abc.store import ByteRequest

_NOTED: ContextVar[set[str] | None] = ContextVar("noted", default=None)


@contextmanager
def noting_absence() -> Iterator[set[str]]:
    """While inside, the keys are noted that this thread reads of a store that `NotesAbsence`, and that are not there.

    zarr reads on a thread of its own, to which asyncio hands the context of the thread that asks.

    Yields
    ------
    set of str
        Keys within the store; it grows while arrays are read.
    """
    noted = set[str]()
    token = _NOTED.set(noted)
    try:
        yield noted
    finally:
        _NOTED.reset(token)


class NotesAbsence(Store):
    """Mixin of a store: what is read of it and is not there is told to `noting_absence`."""

    async def get(  # noqa: D102
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        found = await super().get(key, prototype, byte_range)  # type: ignore[safe-super]
        noted = _NOTED.get()
        if found is None and noted is not None:
            noted.add(key)
        return found
