"""What the tasks of an array must know of all frames before they restore one: each measures its part, and all read it.

There are ledgers of it beside that of the finished units: of the statistics of every unit, and, where pixels are
pooled, of the states of every part. Nobody merges them ahead: each task comes to the same table from the same records.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from phbatch.computing.engine import execute, reduce_units
from phbatch.computing.measuring import Pool, measure_unit, merge_pools, pool_unit
from phbatch.frames.light import count_fractions
from phbatch.frames.measure import judge_series
from phbatch.frames.table import StatisticsRow, StatisticsTable
from phbatch.kernels.state_record import read_state, record_state
from phbatch.outputs.image import MEASURED, POOLED, storage_refusal
from phbatch.outputs.ledger import Ledger
from phbatch.planning.units import Units
from phbatch.running.begin import AcceptedRun
from phbatch.running.measure import assign_pools, unreadable, with_statistics
from phbatch.running.scale import require_good_frames
from phbatch.words.bits import Bits
from phbatch.words.errors import InterruptedRunError
from phbatch.words.events import Listener, Stop, UnitFinished


def needs_statistics(accepted: AcceptedRun) -> bool:
    """Whether a frame is restored by statistics of others, which must be measured first.

    Frames that are larger than memory are measured by every task itself.
    """
    recipe = accepted.resolved.recipe
    return accepted.given is None and recipe.passes > 1 and not recipe.in_bands


@dataclass(frozen=True)
class Gathered:
    """Statistics of all frames, as far as they are there.

    Attributes
    ----------
    table : StatisticsTable
        Whole where no part is waited for.
    measured : int
        Units that were read now.
    waiting : tuple of int
        Parts that were not measured, or not pooled, by their tasks.
    """

    table: StatisticsTable
    measured: int
    waiting: tuple[int, ...] = ()


def gather_statistics(accepted: AcceptedRun, part: int, parts: int, stop: Stop, listener: Listener) -> Gathered:
    """Measure what is missing of a part, and read what the other tasks measured.

    Raises
    ------
    InputError
        A frame cannot be read, or no frame has a scale.
    OutputError
        What was measured cannot be written.
    InterruptedRunError
        `stop` said so.
    """
    geometry, recipe = accepted.resolved.geometry, accepted.resolved.recipe
    units = geometry.units[part - 1 :: parts]
    measured = _measure(accepted, units, stop, listener)
    table, known = StatisticsTable(geometry.grid), Bits(len(geometry.units))
    for record in Ledger(accepted.output, MEASURED).current(geometry.units):
        position = geometry.units.find(record["unit"])
        if position is not None and known.add(position):
            for row in record["statistics"]:
                table.put(row)
    if len(known) < len(geometry.units):
        return Gathered(table, measured, tuple(sorted({position % parts + 1 for position in known.absent()})))
    judge_series(table, recipe.smooth_time)
    if recipe.scope == "image":
        require_good_frames(table, recipe)
        return Gathered(table, measured)
    states, pooled = _pool(accepted, part, parts, units, table, stop, listener)
    parts_with_units = range(1, min(parts, len(geometry.units)) + 1)
    waiting = tuple(number for number in parts_with_units if number not in states)
    if not waiting:
        merged = merge_pools([states[number] for number in sorted(states)])
        fractions = count_fractions(accepted.source.dtype) if recipe.preparation.changes_pixels else 1
        assign_pools(table, merged, recipe, fractions, listener)
        require_good_frames(table, recipe)
    return Gathered(table, measured + pooled, waiting)


def _measure(accepted: AcceptedRun, units: Units, stop: Stop, listener: Listener) -> int:
    """Measure the units of a part that were not; how many these are."""
    ledger = Ledger(accepted.output, MEASURED)
    known = Bits(len(units))
    for record in ledger.current(units):
        position = units.find(record["unit"])
        if position is not None:
            known.add(position)
    before = len(known)
    work = map(units.__getitem__, known.absent())
    for outcome in execute(
        measure_unit, accepted.job, work, workers=accepted.resolved.workers, stop=stop, listener=listener
    ):
        unit = outcome.unit
        if outcome.result is None:
            raise unreadable(outcome)
        rows = [
            StatisticsRow(unit.frame_key(*index), statistics).as_dict() for index, statistics in outcome.result.items()
        ]
        _commit(accepted, ledger, {"unit": unit.key, "statistics": rows})
        known.add(units.index(unit))
        listener(UnitFinished(unit.key, len(rows)))
    if len(known) < len(units):
        raise InterruptedRunError(
            f"stopped after {len(known)} of {len(units)} units of this part were measured; call the same command again"
            " to continue."
        )
    return len(known) - before


def _pool(
    accepted: AcceptedRun,
    part: int,
    parts: int,
    units: Units,
    table: StatisticsTable,
    stop: Stop,
    listener: Listener,
) -> tuple[dict[int, dict[Pool, Any]], int]:
    """States of the parts that are there, after this one was made; and how many units were read for that."""
    ledger = Ledger(accepted.output, POOLED)
    states = dict(_read_states(ledger, parts))
    if part in states:
        return states, 0
    work = with_statistics(units, table, accepted.resolved.geometry.volumes)
    pooled, failed = reduce_units(
        pool_unit,
        merge_pools,
        accepted.job,
        work,
        workers=accepted.resolved.workers,
        scheduler=None,
        stop=stop,
        listener=listener,
    )
    if failed is not None:
        raise unreadable(failed)
    if pooled.units < len(units):
        raise InterruptedRunError("stopped while frames were pooled; call the same command again to continue.")
    found = [[*pool, record_state(state)] for pool, state in sorted((pooled.state or {}).items(), key=str)]
    _commit(accepted, ledger, {"unit": f"{part}/{parts}", "pools": found})
    return dict(_read_states(ledger, parts)), len(units)


def _read_states(ledger: Ledger, parts: int) -> Iterator[tuple[int, dict[Pool, Any]]]:
    for record in ledger.current():
        number, _, of = record["unit"].partition("/")
        if int(of) == parts:
            yield int(number), {(c, z): read_state(state) for c, z, state in record["pools"]}


def _commit(accepted: AcceptedRun, ledger: Ledger, record: dict[str, Any]) -> None:
    try:
        ledger.commit(record)
    except OSError as error:
        raise storage_refusal(accepted.output, error) from error
