"""One live run per output.

On a local disk the run holds `flock` on a file inside the output: the kernel lets go of it when the process dies,
however it dies. Where a system or a file system has no locks (Windows, some network mounts), and elsewhere than on
disks, the run keeps a lease: an object that it rewrites every few seconds. Whoever finds a lease watches it: one that
is rewritten belongs to a live run, one that stands still for `LEASE_S` belonged to a dead one. No two clocks are
compared. A lease is taken, kept and let go of by `Place.swap`: on an object store one conditional request, so that of
any number of runs that start at once exactly one gets it; where there is none, a write that is read back.

The holder's token is also a fence: `phbatch.outputs.writer.Sink` moves nothing into place unless the output is still
held by the run that it writes for, so that a worker that outlived its run cannot write over the next one.

Not defended: where a place has no conditional request, two runs of which one is held up by more than `SETTLE_S` between
its look at the lease and its write; a holder that is suspended for longer than `LEASE_S` and wakes between the fence
and the write; and a file system that claims to lock and does not (some network mounts).
"""

from __future__ import annotations

import errno
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from phbatch.places.durable import PARTIAL
from phbatch.places.place import LocalPlace, Place, Seen
from phbatch.words.errors import OutputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

PRIVATE = ".phbatch"
"""Group inside the output that holds the lock, the ledger, and scratch files while a run is going on."""

LOCK = f"{PRIVATE}/lock"
"""The lock or lease of an output; it is made first and removed last, and marks a folder as an output of phbatch."""

ROOT_DOCUMENTS = ("zarr.json", ".zgroup", ".zattrs", ".zmetadata")
"""Metadata of the output group, in the order in which they are removed."""

OWN_NAMES = frozenset({*ROOT_DOCUMENTS, PRIVATE, "uncertainty", "statistics", "illumination"})
"""What runs write directly into an output, besides levels (``0``): nothing else in there is ever removed."""

_DROPPINGS = frozenset({".DS_Store", "Thumbs.db", "desktop.ini", ".directory"})

BEAT_S = 5.0
"""How often a lease is rewritten."""

LEASE_S = 20.0
"""How long a lease must stand still until its holder counts as dead."""

SETTLE_S = 0.5
"""How long after a lease was taken it is read back, where the place has no conditional request."""

_PATIENCE_S = 5.0  # for letting go of a lease: a store that is gone does not keep a run from ending
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}

Holder = dict[str, Any]


def new_token() -> str:
    """A token that no other run has."""
    return uuid.uuid4().hex


def is_own(name: str) -> bool:
    """Whether runs write what has this name directly into an output.

    Examples
    --------
    >>> is_own("zarr.json"), is_own("0"), is_own("notes.txt")
    (True, True, False)
    """
    return name in OWN_NAMES or (name.isascii() and name.isdecimal()) or name.endswith(PARTIAL)


def find_strangers(names: Iterable[str]) -> list[str]:
    """Of the names in a folder, those that no run writes; what file managers drop everywhere does not count.

    Examples
    --------
    >>> find_strangers(["zarr.json", ".phbatch", "0", ".DS_Store", "thesis.docx"])
    ['thesis.docx']
    """
    return sorted(
        name for name in names if not is_own(name) and name not in _DROPPINGS and not name.startswith(("._", ".nfs"))
    )


def require_own(place: Place) -> None:
    """Refuse to start afresh where something lies that no run put there.

    Raises
    ------
    OutputError
        Names it; nothing was removed.
    """
    try:
        strangers = find_strangers(place.names())
    except (OSError, ImportError, ValueError) as error:
        raise OutputError(f"{place} cannot be reached ({error}); correct the URL or install its library.") from error
    if strangers:
        raise OutputError(
            f"{place} also holds {_few(strangers)}, which phbatch did not write and would not remove; move that away,"
            " or choose another place."
        )


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{', '.join(names[:3])}{more}"


@contextmanager
def hold_output(output: Place, token: str) -> Iterator[None]:
    """Hold an output while inside; it need not exist yet, and nothing is put into a folder that is something else.

    Parameters
    ----------
    output : Place
        On a disk or elsewhere.
    token : str
        Of this holder.

    Raises
    ------
    OutputError
        Another live run holds it, something else is there, or the place cannot be written.
    """
    _require_output(output)
    holder: Holder = {"token": token, "host": socket.gethostname(), "process": os.getpid()}
    with _locked(output, holder) if isinstance(output, LocalPlace) and fcntl else _lease(output, holder):
        yield


def read_token(output: Place) -> str | None:
    """Token of the run that holds an output, or held it when it died; None where none does."""
    holder = _read(output)
    return holder.get("token") if holder else None


def _require_output(output: Place) -> None:
    try:
        names = set(output.names())
    except OSError as error:
        raise _unwritable(output, error) from error
    strangers = find_strangers(names)
    if strangers and not names & {PRIVATE, *ROOT_DOCUMENTS}:
        raise OutputError(f"{output} is no output of phbatch: it holds {strangers[0]}; choose another place.")


def is_held(output: Place) -> bool:
    """Whether a run seems to be writing an output now: one on another machine may have died."""
    with suppress(OSError):
        holder = _read(output)
        return holder is not None and not _died_here(holder)
    return False


@contextmanager
def _locked(output: LocalPlace, holder: Holder) -> Iterator[None]:
    path = output.folder / LOCK
    descriptor = _open(path, output)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _held(output, _read(output)) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise _unwritable(output, error) from error
            with _lease(output, holder):
                yield
            return
        try:
            _rewrite(descriptor, json.dumps(holder).encode())
        except OSError as error:
            raise _unwritable(output, error) from error
        if not _is_at(descriptor, path):  # its last holder removed it while we opened it
            raise _held(output, None)
        try:
            yield
        finally:
            with suppress(OSError):
                os.ftruncate(descriptor, 0)
                _remove_where_alone(path)
            with suppress(OSError):  # closing does not suffice: a process that was just forked has the file open, too
                fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        os.close(descriptor)


def _open(path: Path, output: Place) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise _unwritable(output, error) from error


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
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, data, 0)


@contextmanager
def _lease(output: Place, holder: Holder) -> Iterator[None]:
    try:
        seen = output.swap(LOCK, _encode(holder, 0), _await_expiry(output), settle_s=SETTLE_S)
        if seen is None:
            raise _held(output, _read(output))
    except OSError as error:
        raise _unwritable(output, error) from error
    done = threading.Event()
    renewing = threading.Thread(target=_renew, args=(output, holder, seen, done), daemon=True)
    renewing.start()
    try:
        yield
    finally:
        done.set()
        renewing.join(_PATIENCE_S)
        if isinstance(output, LocalPlace):
            with suppress(OSError):
                _remove_where_alone(output.folder / LOCK)


def _await_expiry(output: Place) -> Seen:
    """The lease once nobody holds it; raises as soon as somebody renews it."""
    first = now = output.look(LOCK)
    holder = _parse(first.data)
    deadline = time.monotonic() + LEASE_S
    while holder is not None and not _died_here(holder) and time.monotonic() < deadline:
        time.sleep(BEAT_S / 5)
        now = output.look(LOCK)
        holder = _parse(now.data)
        if holder is not None and now.data != first.data:
            raise _held(output, holder)
    return now


def _died_here(holder: Holder) -> bool:
    """Whether the holder was a process of this machine that is gone."""
    try:
        return holder.get("host") == socket.gethostname() and not psutil.pid_exists(int(holder["process"]))
    except (KeyError, TypeError, ValueError, OverflowError):
        return False


def _renew(output: Place, holder: Holder, seen: Seen, done: threading.Event) -> None:
    """Rewrite the lease until it is over and let go of it, or until it is no longer ours."""
    beat = 0
    while not done.wait(BEAT_S):
        beat += 1
        with suppress(OSError):  # a beat that is lost is made up for by the next
            seen = output.swap(LOCK, _encode(holder, beat), seen) or output.look(LOCK)
            if (_parse(seen.data) or holder)["token"] != holder["token"]:
                return
    with suppress(OSError):
        seen = output.look(LOCK)
        if (_parse(seen.data) or {}).get("token") == holder["token"]:
            output.swap(LOCK, b"{}", seen)


def _encode(holder: Holder, beat: int) -> bytes:
    return json.dumps(holder | {"beat": beat}).encode()


def _read(output: Place) -> Holder | None:
    return _parse(output.look(LOCK).data)


def _parse(data: bytes) -> Holder | None:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and "token" in found else None


def _held(output: Place, holder: Holder | None) -> OutputError:
    named = holder is not None and {"process", "host"} <= holder.keys()
    who = f"process {holder['process']} on {holder['host']}" if holder and named else "another process"
    return OutputError(f"{output} is being written by another run ({who}); wait for it or stop it, and call again.")


def _unwritable(output: Place, error: OSError) -> OutputError:
    return OutputError(f"{output} cannot be written ({error}); check its folder's permissions and the space left.")
