"""How far a run is, how to stop it, where its logs are: from the output and what lies beside it, and nothing else."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep, time
from typing import Any

from phbatch.clusters.beside import Jobs
from phbatch.clusters.kinds import KINDS
from phbatch.outputs.creation import read_output_attributes
from phbatch.outputs.ledger import Ledger
from phbatch.places.lock import is_held
from phbatch.places.place import LocalPlace, Place
from phbatch.running.accept_positions import units_of
from phbatch.running.run_log import FOLDER
from phbatch.words.errors import OutputError, UsageError
from phbatch.words.settings import parse_settings

SILENT_S = 120.0
"""Who has said nothing for so long counts as gone; clocks of machines may differ by less."""

RECENT_S = 900.0
"""The rate is that of the last quarter of an hour."""

PATIENCE_S = 30.0
"""How long those that compute may take to stop of themselves."""

_OVER = ("done", "ended with failures", "cancelled", "stopped", "failed", "queued again")


@dataclass(frozen=True)
class RunStatus:
    """How far a run is.

    Attributes
    ----------
    output : str
        Where it goes.
    state : str
        ``"complete"``, ``"not begun"``, or what those that compute say: ``"queued"``, ``"running"``, ``"cancelled"``
        and so on; ``"silent"`` where they do not speak any more.
    units, done : int
        All units, and those that are committed; 0 before the run has begun.
    failed : dict of str to str
        Units that failed in this submission, and why.
    units_per_hour : float or None
        Of the last quarter of an hour; None where too little is known.
    seconds_left : float or None
        At that rate.
    where : tuple of str
        Who computes, in words.
    kind, job, logs : str
        Of the submission; empty where it was none.
    """

    output: str
    state: str
    units: int = 0
    done: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    units_per_hour: float | None = None
    seconds_left: float | None = None
    where: tuple[str, ...] = ()
    kind: str = ""
    job: str = ""
    logs: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return dict(vars(self))


def status(output: str | Path, *, storage_options: Any = None) -> RunStatus:
    """How far a run is, from anywhere that sees its output.

    Parameters
    ----------
    output : str or Path
        Of a run, which may have been submitted or not, and may not have begun.
    storage_options : mapping, str or sequence of str, optional
        Credentials and endpoint of an object store.

    Returns
    -------
    RunStatus

    Raises
    ------
    OutputError
        Nothing was begun or submitted there.
    """
    place = _place(output, storage_options)
    jobs = Jobs(place)
    record, states, attributes = jobs.submitted(), dict(jobs.states()), read_output_attributes(place)
    if attributes is None and not record:
        raise OutputError(f"{place} is no output of phbatch and none was submitted there; correct the path.")
    units = done = 0
    rate = None
    if attributes is not None and (known := units_of(attributes)) is not None:
        units, times = len(known), array("d")
        for entry in Ledger(place).current(known):
            if entry["unit"] in known:
                done += 1
                if "at" in entry:
                    times.append(entry["at"])
        rate = rate_of(times)
    failed = {unit: why for state in states.values() for unit, why in state.get("failed", {}).items()}
    state = _state(place, attributes, jobs, states)
    left = None if rate is None or state != "running" else (units - done) / rate
    return RunStatus(
        place.path,
        state,
        units,
        done,
        failed,
        None if rate is None else rate * 3600,
        left,
        tuple(_where(states)),
        record.get("kind", ""),
        str(record.get("job", "")),
        record.get("logs", ""),
    )


def cancel(output: str | Path, *, storage_options: Any = None) -> RunStatus:
    """Stop a run that was submitted: those that compute are asked beside the output, and their jobs are ended.

    What was finished stays, and submitting again continues; of a run that is complete, workers that wait are ended.
    Where the cluster's commands are not on this machine, its
    jobs end once they hear of it.

    Raises
    ------
    UsageError
        Nothing was submitted there.
    """
    place = _place(output, storage_options)
    jobs = Jobs(place)
    record = jobs.submitted()
    if not record:
        raise UsageError(f"{place} was not submitted; stop `phbatch run` where it runs.")
    kind = KINDS[record["kind"]]
    if (found := status(output, storage_options=storage_options)).state == "complete":
        with suppress(UsageError):  # what is gone already is refused
            kind.cancel(record)  # workers may wait for more
        return found
    jobs.cancel()
    deadline = monotonic() + PATIENCE_S
    while any(speaks(state) for _, state in jobs.states()) and monotonic() < deadline:
        sleep(0.2)
    kind.cancel(record)
    return status(output, storage_options=storage_options)


def logs(output: str | Path, *, storage_options: Any = None) -> list[Path]:
    """Logs of the calls of a run, which lie beside the ledger of a local output, and of its jobs; older ones first.

    Raises
    ------
    UsageError
        Nothing was submitted there, or its logs are not seen from here.
    """
    place = _place(output, storage_options)
    record = Jobs(place).submitted()
    ours = [*(place.folder / FOLDER).glob("*.jsonl")] if isinstance(place, LocalPlace) else []
    if not record and not ours:
        raise UsageError(f"{place} was not submitted and has no logs.")
    folder = Path(record.get("logs", "."))
    if record and not folder.is_dir():
        raise UsageError(f"the logs are in {folder}, which is not seen from here; look from where it was submitted.")
    theirs = folder.glob("*.log") if record else ()
    return sorted([*ours, *theirs], key=lambda path: path.stat().st_mtime)


def rate_of(times: Iterable[float]) -> float | None:
    """Units per second, from when they were committed; of those of the last `RECENT_S`.

    Examples
    --------
    >>> rate_of([0.0, 5000.0, 5002.0, 5004.0]), rate_of([3.0])
    (0.5, None)
    """
    ordered = sorted(times)
    recent = [at for at in ordered if at >= ordered[-1] - RECENT_S]
    spent = recent[-1] - recent[0] if recent else 0.0
    return (len(recent) - 1) / spent if spent > 0 else None


def _place(output: str | Path, storage_options: Any) -> Place:
    return Place.at(output, parse_settings({"storage_options": storage_options}).storage_options)


def speaks(state: Mapping[str, Any]) -> bool:
    """Whether this one is still at it."""
    return state.get("state") not in _OVER and time() - state.get("at", 0.0) < SILENT_S


def _state(
    place: Place,
    attributes: Mapping[str, Any] | None,
    jobs: Jobs,
    states: Mapping[str, Mapping[str, Any]],
) -> str:
    if attributes is not None and attributes.get("status") == "complete":
        return "complete"
    said = [str(state.get("state", "")) for state in states.values() if speaks(state)]
    if said:
        return "running" if "running" in said else said[0]
    if jobs.cancelled():
        return "cancelled"
    if states:
        over = [str(state["state"]) for state in states.values() if state.get("state") in _OVER]
        if over and set(over) == {"done"}:  # tasks of an array, which others follow
            return "queued"
        return over[0] if over else "silent"
    if is_held(place):
        return "running"
    return "queued" if jobs.submitted() else "stopped"


def _where(states: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for who, state in states.items():
        if speaks(state):
            job = f", job {state['job']}" if state.get("job") else ""
            workers = f", {state['workers']} workers" if "workers" in state else ""
            yield f"{who}: process {state.get('process')} on {state.get('host')}{job}{workers}"
