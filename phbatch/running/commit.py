"""Restoring units and committing them: what is in the ledger is durable, and everything else is done again."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import closing
from typing import Any

from phbatch.outputs.finished import Finished
from phbatch.outputs.image import storage_refusal
from phbatch.outputs.ledger import Ledger
from phbatch.places.place import Place
from phbatch.places.retry import is_out_of_place
from phbatch.planning.units import Unit
from phbatch.running.begin import Prepared
from phbatch.running.engine import execute
from phbatch.running.outcome import Outcome
from phbatch.running.tasks import restore_unit
from phbatch.words.errors import InterruptedRunError, OutputError
from phbatch.words.events import Listener, UnitFailed, UnitFinished


def restore_units(
    prepared: Prepared, units: Iterable[Unit], finished: Finished, stop: Callable[[], bool], listener: Listener
) -> dict[str, str]:
    """Restore units and commit each as it is written.

    Parameters
    ----------
    prepared : Prepared
        The run, whose output is held.
    units : iterable of Unit
        What is to be done.
    finished : Finished
        Takes in what is committed.
    stop : callable
        Says when to stop.
    listener : callable
        Called with what becomes of every unit.

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
    ledger, failed = Ledger(prepared.output), dict[str, str]()
    workers, scheduler = prepared.resolved.workers, prepared.settings.scheduler
    total = len(prepared.resolved.geometry.units)
    interrupted: list[KeyboardInterrupt] = []
    outcomes = execute(
        restore_unit,
        prepared.job,
        units,
        workers=workers,
        scheduler=scheduler,
        stop=lambda: bool(interrupted) or stop(),
        listener=listener,
    )

    def take(outcome: Outcome[dict[str, Any]]) -> None:
        key = outcome.unit.key
        if outcome.result is None:
            _require_place(outcome.error, prepared.output, _progress(finished, total))
            failed[key] = outcome.problem
            listener(UnitFailed(key, failed[key]))
            return
        record = outcome.result | {"attempt": outcome.attempts}
        ledger.commit(record)
        finished.add(record)
        finished.spend(record["stages"])
        listener(UnitFinished(key, len(record["statistics"])))

    try:
        with closing(outcomes):
            for outcome in outcomes:
                try:
                    take(outcome)
                except KeyboardInterrupt as error:  # of the host: what is in flight is taken, too
                    if interrupted or stop():
                        raise
                    interrupted.append(error)
            if interrupted:
                raise interrupted[0]
    except OSError as error:  # of the ledger: the unit counts as not done
        raise storage_refusal(prepared.output, error, _progress(finished, total)) from error
    except KeyboardInterrupt:
        if not stop():
            raise
    if stop() and len(finished) + len(failed) < total:
        raise InterruptedRunError(
            f"stopped after {len(finished)} of {total} units; call the same command again to continue."
        )
    return failed


def _progress(finished: Finished, total: int) -> str:
    return f"{len(finished)} of {total} units are committed"


def _require_place(error: BaseException | None, output: Place, progress: str) -> None:
    """Give up where every further unit would fail the same way."""
    if isinstance(error, OutputError):
        raise error
    if isinstance(error, OSError) and is_out_of_place(error):
        raise storage_refusal(output, error, progress) from error
