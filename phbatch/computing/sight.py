"""What a worker must see as the client does: the same input, the place of the output, and the same network.

A file that the client writes beside the output is read there, and the other way round; both are removed at once.
"""

from __future__ import annotations

import hashlib
from asyncio import to_thread
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phbatch.computing.tasks import NOWHERE, Job
from phbatch.inputs.image import open_source
from phbatch.network.model import open_model
from phbatch.places.durable import PARTIAL
from phbatch.places.lock import new_token
from phbatch.places.own import PRIVATE
from phbatch.places.place import LocalPlace, Place
from phbatch.words.errors import first_line

if TYPE_CHECKING:
    from distributed import Client

_MOUNT = "mount it there under the same path"


@dataclass(frozen=True)
class _Sight:
    """What the client sees."""

    source: Place | None
    axes: str | None
    identity: Any
    meeting: Place | None
    token: str
    model: tuple[Path, str] | None


def look_there(client: Client, workers: Sequence[str], job: Job) -> dict[str, str]:
    """What keeps workers from doing a job, by their addresses: a sentence without its end, empty where nothing does.

    Parameters
    ----------
    client : Client
        Of their cluster.
    workers : sequence of str
        Their addresses; all have this phbatch.
    job : Job
        What they are to do.
    """
    met = _met(job.token)
    asked = [address for address in workers if address not in met]
    found = _ask_whether_they_see(client, asked, job) if asked else {}
    met.update(address for address, problem in found.items() if not problem)
    return dict.fromkeys(workers, "") | found


@lru_cache(maxsize=8)
def _met(token: str) -> set[str]:
    """Workers that see what a run needs, which is asked once, however many steps it has."""
    return set()


def _ask_whether_they_see(client: Client, workers: Sequence[str], job: Job) -> dict[str, str]:
    identity = None if job.source == NOWHERE else _identity(job.source, job.axes, job.token)
    meeting, token = _meeting_place(job.output), new_token()
    try:
        if meeting is not None:
            meeting.write(_name(token), token.encode())
    except Exception:  # the run itself will say so
        meeting = None
    sight = _Sight(None if identity is None else job.source, job.axes, identity, meeting, token, job.model)
    try:
        answers = client.run(_look_around, sight, workers=list(workers), on_error="return")
        found = {address: _problem(answers.get(address, OSError("it is gone"))) for address in workers}
        if meeting is not None:
            for address in workers:
                if not found[address] and not _holds(meeting, token, address):
                    found[address] = f"what it writes to {meeting} is not seen here; {_MOUNT}"
    finally:
        if meeting is not None:
            for name in (_name(token), *(_name(token, address) for address in workers)):
                with suppress(Exception):
                    meeting.remove([name])
    return found


@lru_cache(maxsize=8)
def _identity(place: Place, axes: str | None, token: str) -> Any:
    return open_source(place, axes).identity(pixels=False)


def _meeting_place(output: Place) -> Place | None:
    """Where files may lie for a moment: in the output, and before it is begun in the folder where it will be."""
    if output == NOWHERE:
        return None
    if not isinstance(output, LocalPlace):
        return output / PRIVATE
    return LocalPlace(str(next(at for at in (output.folder, *output.folder.parents) if at.is_dir())))


def _name(token: str, address: str = "") -> str:
    mark = f"-{hashlib.sha256(address.encode()).hexdigest()[:12]}" if address else ""
    return f"{PRIVATE}-{token}{mark}{PARTIAL}"


def _holds(meeting: Place, token: str, address: str = "") -> bool:
    try:
        return meeting.read(_name(token, address)) == token.encode()
    except Exception:
        return False


def _problem(answer: Any) -> str:
    return str(answer) if isinstance(answer, str) else f"its phbatch cannot be used ({first_line(answer)})"


async def _look_around(sight: _Sight, dask_worker: Any) -> str:
    """Asked of a worker, which goes on meanwhile, however long its disks take."""
    return await to_thread(_find_problem, sight, str(dask_worker.address))


def _find_problem(sight: _Sight, address: str) -> str:
    if sight.source is not None:
        try:
            identity = open_source(sight.source, sight.axes).identity(pixels=False)
        except Exception as error:
            return f"it does not see the input {sight.source} ({_bare(error)}); {_MOUNT}"
        if identity != sight.identity:
            return f"it sees another input at {sight.source}; {_MOUNT}"
    if sight.meeting is not None:
        if not _holds(sight.meeting, sight.token):
            return f"it does not see the output's folder {sight.meeting}, where a file was written here; {_MOUNT}"
        try:
            sight.meeting.write(_name(sight.token, address), sight.token.encode())
        except Exception as error:
            return f"it cannot write to {sight.meeting} ({_bare(error)}); let it"
    return _find_problem_of_model(sight)


def _find_problem_of_model(sight: _Sight) -> str:
    if sight.model is None:
        return ""
    folder, expected = sight.model
    try:
        found = open_model(folder).sha256
    except Exception as error:
        return f"it does not see the model {folder} ({_bare(error)}); {_MOUNT}"
    if found != expected:
        return f"its model {folder} has other weights (sha256 {found[:8]}, and {expected[:8]} here); copy it there"
    return ""


def _bare(error: Exception) -> str:
    return first_line(error).removesuffix(".")
