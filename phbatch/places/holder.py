"""Who holds an output, or a part of one: what its lock says, and what is said to others."""

from __future__ import annotations

import json
import os
import socket
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import psutil

from phbatch.places.own import PRIVATE
from phbatch.places.place import REQUESTS_AT_ONCE, Place
from phbatch.words.errors import OutputError

LOCK = f"{PRIVATE}/lock"
"""The lock or lease of an output; it is made first and removed last, and marks a folder as an output of phbatch."""

PARTS = f"{PRIVATE}/parts"
"""Folder of the locks or leases of parts, by their numbers."""

Holder = dict[str, Any]

Parts = dict[str, Holder | None]
"""Who holds, or held, each part, by its number."""


class HeldError(OutputError):
    """Another live run, or another task, holds what was asked for."""


@dataclass(frozen=True)
class Array:
    """Tasks that write one output together.

    Attributes
    ----------
    token : str
        That all of them have in common.
    parts : int
        How many there are.
    """

    token: str
    parts: int

    def as_holder(self) -> Holder:
        """What the lock says while no task holds the output alone."""
        return {"token": self.token, "array": self.parts}


@dataclass
class Hold:
    """An output, or a part of one, that is held.

    Attributes
    ----------
    left : dict
        What the lock says once it is let go of: nothing, or of which array the output is.
    """

    left: Holder = field(default_factory=dict)


def new_token() -> str:
    """A token that no other run has."""
    return uuid.uuid4().hex


def read_array(output: Place) -> Array | None:
    """The array that an output is of; None where it is of none."""
    return array_of(read_holder(output))


def require_array(output: Place) -> Array:
    """As `read_array`, but an output of no array is refused."""
    array = read_array(output)
    if array is None:
        raise OutputError(
            f"{output} is of no array of tasks, or not any more; `phbatch begin-parts` makes it one, and `phbatch run`"
            " does what is left."
        )
    return array


def read_token(output: Place) -> str | None:
    """Token of the run that holds an output, or held it when it died; None where none does."""
    holder = read_holder(output)
    return holder.get("token") if holder else None


def new_holder(token: str) -> Holder:
    """What a lock says of this process, with a token."""
    return {"token": token, "host": socket.gethostname(), "process": os.getpid()}


def array_of(holder: Holder | None) -> Array | None:
    """The array in whose name something is held."""
    parts = (holder or {}).get("array")
    return Array(holder["token"], parts) if holder and isinstance(parts, int) else None


def is_held(output: Place) -> bool:
    """Whether a run, or a task, seems to be writing an output now: one on another machine may have died."""
    with suppress(OSError):
        holder = read_holder(output)
        return lives(holder) or (array_of(holder) is not None and any(map(lives, read_parts(output).values())))
    return False


def lives(holder: Holder | None) -> bool:
    """Whether somebody may hold it still: a process of this machine that is gone does not, nor an array as such."""
    if holder is None or "process" not in holder:
        return holder is not None and "array" not in holder
    try:
        return holder.get("host") != socket.gethostname() or psutil.pid_exists(int(holder["process"]))
    except (TypeError, ValueError, OverflowError):
        return True


def encode_holder(holder: Holder, beat: int | None = None) -> bytes:
    """What a lock or lease says; nothing of nobody."""
    if not holder:
        return b""
    return json.dumps(holder | ({} if beat is None else {"beat": beat})).encode()


def read_holder(output: Place, key: str = LOCK) -> Holder | None:
    """Who holds an output, or a part of it, or held it last; None where nobody did."""
    return parse_holder(output.look(key).data)


def read_parts(output: Place) -> Parts:
    """Who holds, or held, each part."""
    names = [name for name, is_folder in output.names(PARTS).items() if name.isdecimal() and not is_folder]
    with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:
        return dict(zip(names, pool.map(lambda name: read_holder(output, f"{PARTS}/{name}"), names), strict=True))


def parse_holder(data: bytes) -> Holder | None:
    """The inverse of `encode_holder`; None of what is empty or torn."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and "token" in found else None


def held_error(output: Place, key: str, holder: Holder | None) -> HeldError:
    """What is said to whoever asks for what another holds."""
    named = holder is not None and {"process", "host"} <= holder.keys()
    who = f"process {holder['process']} on {holder['host']}" if holder and named else "another process"
    if key != LOCK:
        return HeldError(
            f"part {key.rpartition('/')[2]} of {output} is being done by another task ({who}); let it end."
        )
    if (array := array_of(holder)) and not named:
        return HeldError(
            f"{output} is being written by an array of {array.parts} tasks; wait for them or cancel them, and call"
            " again."
        )
    return HeldError(f"{output} is being written by another run ({who}); wait for it or stop it, and call again.")


def void_error(output: Place) -> OutputError:
    """What is said to a task whose array is over."""
    return OutputError(
        f"{output} is not of this array any more, since another run held it; call `phbatch run` to do what is left."
    )


def unwritable(output: Place, error: OSError) -> OutputError:
    """What is said where a lock cannot be written."""
    return OutputError(f"{output} cannot be written ({error}); check its folder's permissions and the space left.")
