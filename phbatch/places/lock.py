"""One live run per output, or one live task per part of it.

On a local disk the run holds `flock` on a file inside the output: the kernel lets go of it when the process dies,
however it dies. Where a system or a file system has no locks (Windows, some network mounts), and elsewhere than on
disks, the run keeps a lease: an object that it rewrites every few seconds. Whoever finds a lease watches it: one that
is rewritten belongs to a live run, one that stands still for `LEASE_S` belonged to a dead one. No two clocks are
compared. A lease is taken, kept and let go of by `Place.swap`: on an object store one conditional request, so that of
any number of runs that start at once exactly one gets it; where there is none, a write that is read back.

The holder's token is also a fence: `phbatch.outputs.writer.Sink` moves nothing into place unless the output is still
held by the run that it writes for, so that a worker that outlived its run cannot write over the next one.

The tasks of an array write one output together. Its lock then names the array and no process, each task holds a part
of its own, and all of them share the lock: a run, a repair and whoever finishes the output hold it alone. Where leases
stand for locks, a task takes its part and then looks at the lock, and who wants the output alone takes the lock and
then looks at the parts: of two that meet, one at least sees the other and gives way.

Not defended: where a place has no conditional request, two runs of which one is held up by more than `SETTLE_S` between
its look at the lease and its write; a holder that is suspended for longer than `LEASE_S` and wakes between the fence
and the write; and a file system that claims to lock and does not (some network mounts).
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeGuard

from phbatch.places.holder import (
    LOCK,
    PARTS,
    Array,
    HeldError,
    Hold,
    Holder,
    Parts,
    array_of,
    encode_holder,
    held_error,
    is_held,
    lives,
    new_holder,
    new_token,
    parse_holder,
    read_array,
    read_holder,
    read_parts,
    read_token,
    require_array,
    unwritable,
    void_error,
)
from phbatch.places.own import PRIVATE, ROOT_DOCUMENTS, find_strangers
from phbatch.places.place import LocalPlace, Place, Seen
from phbatch.words.errors import OutputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["LOCK", "HeldError", "hold_output", "hold_part", "holds", "is_held", "new_token", "read_array", "read_token"]

BEAT_S = 5.0
"""How often a lease is rewritten."""

LEASE_S = 20.0
"""How long a lease must stand still until its holder counts as dead."""

SETTLE_S = 0.5
"""How long after a lease was taken it is read back, where the place has no conditional request."""

MERGE_S = 60.0
"""How long a task waits for whoever holds the output alone in the name of its array."""

_PATIENCE_S = 5.0  # for letting go of a lease: a store that is gone does not keep a run from ending
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}


@contextmanager
def hold_output(output: Place, token: str, *, array: Array | None = None) -> Iterator[Hold]:
    """Hold an output while inside; it need not exist yet, and nothing is put into a folder that is something else.

    Parameters
    ----------
    output : Place
        On a disk or elsewhere.
    token : str
        Of this holder.
    array : Array, optional
        In whose name it is held, and whose it is again afterwards, unless `Hold.left` is emptied.

    Raises
    ------
    HeldError
        Another live run holds it, or the tasks of an array do.
    OutputError
        Something else is there, it is of another array, or the place cannot be written.
    """
    _require_output(output)
    hold = Hold(array.as_holder() if array else {})
    with _hold(output, LOCK, new_holder(token) | ({"array": array.parts} if array else {}), hold):
        yield hold


@contextmanager
def hold_part(output: Place, part: int) -> Iterator[str]:
    """Hold one part of the output of an array while inside; the token of the holder.

    Parameters
    ----------
    output : Place
        Of an array.
    part : int
        From 1 to the number of parts.

    Raises
    ------
    HeldError
        Another live task holds the part, or somebody the whole output.
    OutputError
        The output is of no array, or not any more.
    """
    array = require_array(output)
    if not 1 <= part <= array.parts:
        raise OutputError(f"part {part} is none of {output}, whose parts are 1 to {array.parts}; give one of them.")
    token = f"{array.token}/{part}/{new_token()[:8]}"
    with _hold(output, f"{PARTS}/{part}", new_holder(token), Hold()), _share(output, array):
        yield token


def holds(output: Place, token: str) -> bool:
    """Whether an output, or that part of it, is still held with a token."""
    whole, _, part = token.partition("/")
    if read_token(output) != whole:
        return False
    return not part or (read_holder(output, f"{PARTS}/{part.partition('/')[0]}") or {}).get("token") == token


def _require_output(output: Place) -> None:
    try:
        names = set(output.names())
    except OSError as error:
        raise unwritable(output, error) from error
    strangers = find_strangers(names)
    if strangers and not names & {PRIVATE, *ROOT_DOCUMENTS}:
        raise OutputError(f"{output} is no output of phbatch: it holds {strangers[0]}; choose another place.")


@contextmanager
def _hold(output: Place, key: str, holder: Holder, hold: Hold) -> Iterator[None]:
    with _locked(output, key, holder, hold) if _has_locks(output) else _lease(output, key, holder, hold):
        yield


def _has_locks(output: Place) -> TypeGuard[LocalPlace]:
    return isinstance(output, LocalPlace) and fcntl is not None


# --- where the system locks files


@contextmanager
def _locked(output: LocalPlace, key: str, holder: Holder, hold: Hold) -> Iterator[None]:
    path = output.folder / key
    descriptor = _open(path, output)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise held_error(output, key, read_holder(output, key)) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise unwritable(output, error) from error
            with _lease(output, key, holder, hold):
                yield
            return
        _require_same_array(output, holder, read_holder(output, key))
        try:
            _rewrite(descriptor, encode_holder(holder))
        except OSError as error:
            raise unwritable(output, error) from error
        if not _is_at(descriptor, path):  # its last holder removed it while we opened it
            raise held_error(output, key, None)
        try:
            yield
        finally:
            with suppress(OSError):
                _rewrite(descriptor, encode_holder(hold.left))
                if key == LOCK and not hold.left:
                    _remove_where_alone(path)
            _unlock(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _share(output: Place, array: Array) -> Iterator[None]:
    """Share the lock of an output with the other tasks of its array."""
    if not _has_locks(output):
        _await_array(output, array)
        yield
        return
    path = output.folder / LOCK
    descriptor = _open(path, output)
    try:
        deadline = time.monotonic() + MERGE_S
        while not _lock_shared(descriptor, output, array):
            if time.monotonic() > deadline:
                raise held_error(output, LOCK, read_holder(output))
            time.sleep(BEAT_S / 50)
        if read_array(output) != array or not _is_at(descriptor, path):
            raise void_error(output)
        yield
    finally:
        _unlock(descriptor)
        os.close(descriptor)


def _lock_shared(descriptor: int, output: Place, array: Array) -> bool:
    """Try to share the lock; who has it alone may be another run, or finish the output in the name of the array."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = read_holder(output)
        if holder is not None and array_of(holder) != array:
            raise held_error(output, LOCK, holder) from None
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise unwritable(output, error) from error
        _await_array(output, array)
    return True


def _unlock(descriptor: int) -> None:
    with suppress(OSError):  # closing does not suffice: a process that was just forked has the file open, too
        fcntl.flock(descriptor, fcntl.LOCK_UN)


def _open(path: Path, output: Place) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise unwritable(output, error) from error


def _is_at(descriptor: int, path: Path) -> bool:
    with suppress(OSError):
        return os.path.samestat(os.fstat(descriptor), path.stat())
    return False


def _remove_where_alone(path: Path) -> None:
    """Leave no trace of a run that was refused before it wrote anything."""
    folder, output = path.parent, path.parent.parent
    if [*folder.iterdir()] == [path] and [*output.iterdir()] == [folder]:
        path.unlink()
        folder.rmdir()
        output.rmdir()


def _rewrite(descriptor: int, data: bytes) -> None:
    """Replace what a lock says, which others may read meanwhile: JSON passes over blanks."""
    os.pwrite(descriptor, data.ljust(os.fstat(descriptor).st_size), 0)
    os.ftruncate(descriptor, len(data))


# --- where a lease stands for a lock


@contextmanager
def _lease(output: Place, key: str, holder: Holder, hold: Hold) -> Iterator[None]:
    try:
        found, dead = _await_expiry(output, key)
        _require_same_array(output, holder, parse_holder(found.data))
        seen = output.swap(key, encode_holder(holder, 0), found, settle_s=SETTLE_S)
        if seen is None:
            raise held_error(output, key, read_holder(output, key))
        if array_of(parse_holder(found.data)) and _live_beside(dead, read_parts(output)):  # a task began meanwhile
            output.swap(LOCK, found.data, seen)
            raise held_error(output, LOCK, parse_holder(found.data))
    except OSError as error:
        raise unwritable(output, error) from error
    done = threading.Event()
    renewing = threading.Thread(target=_renew, args=(output, key, holder, seen, done, hold), daemon=True)
    renewing.start()
    try:
        yield
    finally:
        done.set()
        renewing.join(_PATIENCE_S)
        if isinstance(output, LocalPlace) and key == LOCK and not hold.left:
            with suppress(OSError):
                _remove_where_alone(output.folder / LOCK)


def _await_expiry(output: Place, key: str) -> tuple[Seen, Parts]:
    """The lease once nobody holds it, nor, of an array, a part of it; raises as soon as somebody renews one.

    The leases of parts that stood still come with it.
    """
    first = now = output.look(key)
    watched = read_parts(output) if array_of(parse_holder(first.data)) else {}
    parts = watched
    deadline = time.monotonic() + LEASE_S
    while (lives(parse_holder(now.data)) or any(map(lives, parts.values()))) and time.monotonic() < deadline:
        time.sleep(BEAT_S / 5)
        now = output.look(key)
        holder = parse_holder(now.data)
        if lives(holder) and now.data != first.data:
            raise held_error(output, key, holder)
        parts = read_parts(output) if array_of(parse_holder(first.data)) else {}
        if _live_beside(watched, parts):
            raise held_error(output, key, holder)
    return now, parts


def _live_beside(known: Parts, found: Parts) -> bool:
    """Whether a part is held by another than those that are known."""
    return any(lives(holder) and holder != known.get(name) for name, holder in found.items())


def _await_array(output: Place, array: Array) -> None:
    """Return once nobody holds the output alone; raises where it is not of the array any more."""
    try:
        first = now = output.look(LOCK)
        started = changed = time.monotonic()
        while lives(holder := parse_holder(now.data)) and array_of(holder) == array:
            if time.monotonic() - started > MERGE_S:
                raise held_error(output, LOCK, holder)
            if time.monotonic() - changed > LEASE_S:
                output.swap(LOCK, encode_holder(array.as_holder()), now)
            time.sleep(BEAT_S / 5)
            now = output.look(LOCK)
            if now.data != first.data:
                first, changed = now, time.monotonic()
    except OSError as error:
        raise unwritable(output, error) from error
    if array_of(holder) != array:
        raise held_error(output, LOCK, holder) if lives(holder) else void_error(output)


def _renew(output: Place, key: str, holder: Holder, seen: Seen, done: threading.Event, hold: Hold) -> None:
    """Rewrite the lease until it is over and let go of it, or until it is no longer ours."""
    beat = 0
    while not done.wait(BEAT_S):
        beat += 1
        with suppress(OSError):  # a beat that is lost is made up for by the next
            seen = output.swap(key, encode_holder(holder, beat), seen) or output.look(key)
            if (parse_holder(seen.data) or holder)["token"] != holder["token"]:
                return
    with suppress(OSError):
        seen = output.look(key)
        if (parse_holder(seen.data) or {}).get("token") == holder["token"]:
            output.swap(key, encode_holder(hold.left) or b"{}", seen)


def _require_same_array(output: Place, holder: Holder, found: Holder | None) -> None:
    """Refuse to hold an output in the name of an array that it is not of any more."""
    if "array" in holder and array_of(found) != array_of(holder):
        raise void_error(output)
