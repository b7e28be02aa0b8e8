"""Units of an output that are computed again from the input, and held against what is stored."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isclose, isnan, prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phbatch.computing.engine import execute
from phbatch.computing.tasks import Job, PositionUnit, compute_unit, images_of, load_predictor, own_job
from phbatch.frames.table import StatisticsTable
from phbatch.inputs.positions import find_positions
from phbatch.outputs.ledger import Ledger
from phbatch.outputs.writer import Sink
from phbatch.places.lock import new_token
from phbatch.places.place import Place
from phbatch.planning.positions import split_key
from phbatch.planning.unit import Unit
from phbatch.running.accept_positions import accept_positions, limits_of
from phbatch.running.begin import AcceptedRun, accept_run
from phbatch.running.measure import with_statistics
from phbatch.running.opening import recorded_options
from phbatch.tools.made import Made
from phbatch.words.errors import InputError, OutputError
from phbatch.words.events import Listener, RunStarted, UnitFinished
from phbatch.words.options import parse_options
from phbatch.words.results import Damage

_TOLERANCE = 1e-5  # of the output's standard deviation: what tiling and another machine's float32 sums may change


@dataclass(frozen=True)
class _Comparison:
    """How far a frame that is stored is from what is computed again, and how far it may be, in standard deviations."""

    frame: str
    difference: float
    allowed: float


def recompute(
    output: Place, made: Made, units: Sequence[Unit], listener: Listener, options: Mapping[str, Any]
) -> tuple[list[Damage], float]:
    """Damages that computing units again brings to light, and the largest difference of a pixel.

    Parameters
    ----------
    output : Place
        Whose units they are.
    made : Made
        What the run says of itself.
    units : sequence of Unit
        That are computed again.
    listener : callable
        Hears of each.
    options : mapping
        Given now, which win over those of the run.
    """
    runs, whole = _accept(output, made, options)
    tables = {path: StatisticsTable(made.geometries[path].grid) for path in {split_key(unit.key)[0] for unit in units}}
    records, sampled = dict[str, dict[str, Any]](), {unit.key for unit in units}
    for record in Ledger(output).current(made.units):
        if record["unit"] in sampled:
            records[record["unit"]] = record
            for row in record["statistics"]:
                tables[split_key(record["unit"])[0]].put(row)
    if whole.settings.scheduler is None:
        for job in {repr(run.job.recipe): run.job for run in runs.values()}.values():
            load_predictor(job)
    damages, largest = list[Damage](), 0.0
    counts = {unit.key: len(made.all_frames(unit)) for unit in units}
    pixels = prod(whole.source.shape[3:])
    listener(RunStarted(output.path, len(units), 0, sum(counts.values()), 0, pixels))
    for outcome in execute(
        _compare_unit,
        whole.job,
        _work(units, runs, tables),
        workers=whole.resolved.workers,
        scheduler=whole.settings.scheduler,
        listener=listener,
    ):
        unit, key = outcome.unit, outcome.unit.key
        listener(UnitFinished(key, counts[key]))
        if outcome.result is None:
            damages.append(Damage(key, f"cannot be computed again: {outcome.problem}"))
            continue
        comparisons, rows, digest = outcome.result
        if digest != records[key]["input"]:
            damages.append(Damage(key, "cannot be compared: its input was changed after it was restored"))
            continue
        largest = max([largest, *(comparison.difference for comparison in comparisons)])
        wrong = tuple(found.frame for found in comparisons if not found.difference <= found.allowed)
        if wrong:
            damages.append(Damage(key, "has other pixels than those computed again", key, wrong))
        if not _same_rows(rows, records[key]["statistics"]):
            damages.append(Damage(key, "has other statistics than those computed again", key, made.all_frames(unit)))
    return damages, largest


def _accept(output: Place, made: Made, options: Mapping[str, Any]) -> tuple[dict[str, AcceptedRun], AcceptedRun]:
    """The run again, of each image by its path, which of a single one is empty, and of all."""
    arguments = recorded_options(made.provenance, options)
    path, settings = str(arguments.pop("input")), parse_options("run", arguments)
    if not made.several:
        accepted = accept_run(path, output.path, settings)
        found, whole = {"": accepted}, accepted
    else:
        positions = find_positions(path, settings)
        if positions is None:
            raise OutputError(f"{path} is one image and {output} is of many; give their --input.")
        several = accept_positions(positions, output.path, settings, frames=limits_of(made.provenance))
        found, whole = dict(several.runs), several.whole
    token = new_token()
    again = {name: replace(run, job=replace(run.job, token=token)) for name, run in found.items()}
    return again, replace(whole, job=replace(whole.job, token=token))


def _work(
    units: Iterable[Unit], runs: Mapping[str, AcceptedRun], tables: Mapping[str, StatisticsTable]
) -> Iterator[Unit]:
    """Units with the job of their image, and with statistics where these are of more than their frames."""
    for unit in units:
        path, _ = split_key(unit.key)
        if path not in runs:
            raise InputError(f"the input of {path} cannot be opened; mend it, or give --input.")
        run = runs[path]
        recipe = run.resolved.recipe
        if run.given is not None or recipe.passes > 1:
            unit = next(with_statistics([unit], tables[path], recipe.volumes))
        yield PositionUnit(**vars(unit), job=run.job, position=path) if path else unit


def _compare_unit(job: Job, unit: Unit) -> tuple[list[_Comparison], list[dict[str, Any]], str]:
    """Compute a unit and read what is stored of it."""
    job, path = own_job(job, unit)
    restored, rows, digest = compute_unit(job, unit)
    sink, recipe = Sink(job.output), job.recipe
    pairs = [
        (pixels, sink.read(name, job.output_axes, region)) for name, region, pixels in images_of(job, unit, restored)
    ]
    found = []
    for t, c, z in unit.frame_indices(volumes=recipe.volumes):
        group = slice(None) if recipe.stacked else slice(c * recipe.n_output, (c + 1) * recipe.n_output)
        place = (t, group, slice(None) if z is None else z)
        for computed, stored in pairs:
            found.append(_compare(f"{path}{unit.frame_key(t, c, z)}", computed[place], stored[place]))
    return found, rows, digest


def _compare(frame: str, computed: NDArray[Any], stored: NDArray[Any]) -> _Comparison:
    if computed.tobytes() == stored.tobytes():
        return _Comparison(frame, 0.0, 0.0)
    expected = computed.astype(np.float64)
    difference = np.abs(stored.astype(np.float64) - expected)
    difference[np.isnan(expected) & np.isnan(stored)] = 0
    finite = computed[np.isfinite(computed)]
    spread = (float(np.std(finite, dtype=np.float64)) if finite.size else 0.0) or 1.0
    step = 1.0 if computed.dtype.kind == "u" else float(np.spacing(np.abs(finite).max(initial=0)))
    return _Comparison(frame, float(difference.max()) / spread, _TOLERANCE + step / spread)


def _same_rows(computed: Sequence[Mapping[str, Any]], stored: Sequence[Mapping[str, Any]]) -> bool:
    def same(first: Any, second: Any) -> bool:
        if isinstance(first, float) and isinstance(second, float):
            return isclose(first, second, rel_tol=1e-6) or (isnan(first) and isnan(second))
        return bool(first == second)

    return len(computed) == len(stored) and all(
        row.keys() == other.keys() and all(same(value, other[name]) for name, value in row.items())
        for row, other in zip(computed, stored, strict=True)
    )
