"""Restoring units and committing them: what is in the ledger is durable, and everything else is done again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from time import time
from typing import Any

from phbatch.computing.engine import execute_in_groups
from phbatch.computing.outcome import Outcome
from phbatch.computing.tasks import Job, restore_unit
from phbatch.outputs.finished import Finished
from phbatch.outputs.image import storage_refusal
from phbatch.outputs.ledger import Ledger
from phbatch.places.place import Place
from phbatch.places.retry import is_out_of_place
from phbatch.planning.unit import Unit
from phbatch.running.begin import AcceptedRun
from phbatch.words.axes import FrameKey
from phbatch.words.errors import InterruptedRunError, OutputError
from phbatch.words.events import Listener, UnitFailed, UnitFinished


def restore_units(
    accepted: AcceptedRun,
    units: Iterable[Unit],
    finished: Finished,
    stop: Callable[[], bool],
    listener: Listener,
    task: Callable[[Job, Unit], dict[str, Any]] | None = None,
) -> dict[str, str]:
    """Restore units and commit each as it is written, together with those that were written meanwhile.

    Parameters
    ----------
    accepted : AcceptedRun
        The run, whose output is held.
    units : iterable of Unit
        What is to be done.
    finished : Finished
        Takes in what is committed.
    stop : callable
        Says when to stop.
    listener : callable
        Called with what becomes of every unit.
    task : callable
        What is done with each.

    Returns
    -------
    dict of str to str
        Error of every unit that failed.

    Raises
    ------
    OutputError
        Nothing more can be written, or another run holds the output.
    InterruptedRunError
        `stop` said so; what was finished is committed.
    """
    ledger, failed = Ledger(accepted.output), dict[str, str]()
    workers, scheduler = accepted.resolved.workers, accepted.settings.scheduler
    total = finished.total
    interrupted: list[KeyboardInterrupt] = []
    groups = execute_in_groups(
        task or restore_unit,
        accepted.job,
        units,
        workers=workers,
        scheduler=scheduler,
        stop=lambda: bool(interrupted) or stop(),
        listener=listener,
    )

    @contextmanager
    def going_on() -> Iterator[None]:
        try:
            yield
        except KeyboardInterrupt as error:  # of the host: what is in flight is taken, too
            if interrupted or stop():
                raise
            interrupted.append(error)

    def take(group: Sequence[Outcome[dict[str, Any]]]) -> None:
        at = round(time(), 3)
        records = [one.result | {"attempt": one.attempts, "at": at} for one in group if one.result is not None]
        ledger.commit(*records)
        for record in records:
            finished.add(record)
            finished.spend(record["stages"])
        for record in records:
            with going_on():
                listener(_finished(record))
        for outcome in group:
            if outcome.result is None:
                _require_place(outcome.error, accepted.output, _progress(finished, total))
                failed[outcome.unit.key] = outcome.problem
                with going_on():
                    listener(UnitFailed(outcome.unit.key, outcome.problem))

    try:
        with closing(groups):
            for group in groups:
                with going_on():
                    take(group)
            if interrupted:
                raise interrupted[0]
    except OSError as error:  # of the ledger: the unit counts as not done
        raise storage_refusal(accepted.output, error, _progress(finished, total)) from error
    except KeyboardInterrupt:
        if not stop():
            raise
    if stop() and len(finished) + len(failed) < total:
        raise InterruptedRunError(
            f"stopped after {len(finished)} of {total} units; call the same command again to continue."
        )
    return failed


def _finished(record: dict[str, Any]) -> UnitFinished:
    rows = record["statistics"]
    flagged = {str(FrameKey(row["t"], row["c"], row["z"])): row["flags"] for row in rows if row["flags"]}
    return UnitFinished(record["unit"], len(rows), record["stages"], flagged)


def _progress(finished: Finished, total: int) -> str:
    return f"{len(finished)} of {total} units are committed"


def _require_place(error: BaseException | None, output: Place, progress: str) -> None:
    """Give up where every further unit would fail the same way."""
    if isinstance(error, OutputError):
        raise error
    if isinstance(error, OSError) and is_out_of_place(error):
        raise storage_refusal(output, error, progress) from error
