"""Proving that an output is whole, and mending exactly what is not."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isclose, isnan, prod
from os import cpu_count
from pathlib import Path
from typing import Any, Unpack

import numpy as np
from distributed import Client
from numpy.typing import NDArray

from phbatch.computing.engine import execute
from phbatch.computing.machine import going_to
from phbatch.computing.tasks import Job, compute_unit, forget_open_stores, images_of, load_predictor, region_of
from phbatch.frames.table import StatisticsTable
from phbatch.inputs.image import Source
from phbatch.inputs.opening import open_input
from phbatch.outputs.audit import Expected, expected_objects, find_problems
from phbatch.outputs.image import commit_metadata, refusing_storage_errors
from phbatch.outputs.ledger import Ledger
from phbatch.outputs.positions import commit_positions
from phbatch.outputs.writer import ATTRIBUTE, Sink, read_output_attributes
from phbatch.places.lock import hold_output, is_held, new_token
from phbatch.places.own import ROOT_DOCUMENTS
from phbatch.places.place import Place
from phbatch.planning.positions import PositionUnits
from phbatch.planning.units import Geometry, Unit, Units
from phbatch.running.accept_positions import geometries_of
from phbatch.running.begin import PROFILE, accept_run
from phbatch.running.measure import with_statistics
from phbatch.running.opening import recorded_options, require_unchanged
from phbatch.running.positions import require_unchanged_inputs
from phbatch.running.run import run
from phbatch.tools.made import Made, all_frames
from phbatch.words.bits import Bits
from phbatch.words.choices import MOST_READERS
from phbatch.words.errors import OutputError, UsageError
from phbatch.words.events import Listener, RunStarted, Stop, UnitFinished, ignore, never
from phbatch.words.option_types import RedoOptions
from phbatch.words.options import parse_options
from phbatch.words.results import Damage, RunResult, VerifyReport
from phbatch.words.settings import RunSettings

_OF_DEEP = ("input", "model", "memory", "scheduler", "wait_workers", "retries", "client")
_TOLERANCE = 1e-5  # of the output's standard deviation: what tiling and another machine's float32 sums may change


class AgainOptions(RedoOptions, total=False):
    """Settings, and what is none."""

    input: str | Path | None


def verify(
    output: str | Path,
    *,
    deep: int = 0,
    seed: int = 0,
    listener: Listener = ignore,
    client: Client | None = None,
    **options: Unpack[AgainOptions],
) -> VerifyReport:
    """Check that an output is whole: every unit in the ledger, every object there, every checksum right.

    Parameters
    ----------
    output : str or Path
        Of `phbatch.run`, finished or not.
    deep : int
        Units to compute again from the input and compare pixel by pixel, drawn at random.
    seed : int
        Of the draw.
    listener : callable
        Called with every unit that is computed again.
    client : distributed.Client, optional
        Of the Dask cluster that computes these units, as for `phbatch.run`.
    **options
        `workers` and `storage_options` as for `phbatch.run`; with `deep` also `input` where it was moved, `model`,
        `memory`, `scheduler`, `wait_workers` and `retries`.

    Returns
    -------
    VerifyReport
        Its `damages` is empty where the output is whole, and else names the frames that are hurt.

    Raises
    ------
    OutputError
        There is no output of phbatch.
    PhbatchError
        With `deep`: what `run` would refuse.

    Examples
    --------
    >>> import tempfile, zarr
    >>> folder = Path(tempfile.mkdtemp())
    >>> frames = np.random.default_rng(0).normal(1000, 30, (2, 64, 64)).astype("uint16")
    >>> _ = zarr.create_array(folder / "a.zarr", data=frames)
    >>> result = run(folder / "a.zarr", model="none", workers=1)
    >>> verify(result.output, deep=1).damages
    ()
    """
    settings = _redo_settings("verify", options)
    place = Place.at(output, settings.storage_options)
    _require_deep(deep, {**options, "client": client})
    report, made = _verify_objects(place, settings.workers)
    if not deep:
        return report
    if made.several:
        raise UsageError(f"{place} is of many images, of which none is computed again yet; leave --deep out.")
    hurt = {damage.unit for damage in report.damages}
    sample = _draw(Ledger(place), made.units, hurt, deep, seed)
    with going_to(client, settings.scheduler) as scheduler:
        there = {**options, "scheduler": scheduler}
        found, largest = _recompute(place, made.provenance, sample, listener, there)
    return replace(report, damages=(*report.damages, *found), recomputed=len(sample), largest_difference=largest)


def repair(
    output: str | Path,
    *,
    listener: Listener = ignore,
    stop: Stop = never,
    client: Client | None = None,
    **options: Unpack[AgainOptions],
) -> RunResult:
    """Do again exactly what is missing or wrong, with the settings of the run that made the output.

    Parameters
    ----------
    output : str or Path
        Of `phbatch.run`, finished or not.
    listener : callable
        Called with every event.
    stop, client
        As for `phbatch.run`.
    **options
        `input` where it was moved; `model`, `memory`, `workers`, `scheduler`, `wait_workers`, `retries`,
        `storage_options` as for `phbatch.run`.

    Returns
    -------
    RunResult
        Its `units_done` are those that were done again.

    Raises
    ------
    OutputError
        There is no output of phbatch, or another run holds it.
    PhbatchError
        What `run` would refuse: the input was changed, the model is gone.
    """
    settings = _redo_settings("repair", options)
    place = Place.at(output, settings.storage_options)
    _provenance(place, Ledger(place).metadata())  # nothing is put into what is no output
    with hold_output(place, new_token()):
        report, made = _verify_objects(place, settings.workers)
        arguments = recorded_options(made.provenance, options)
        if report.damages:
            given = parse_options("run", {name: value for name, value in arguments.items() if name != "input"})
            hurt = frozenset(damage.unit for damage in report.damages if damage.unit is not None)
            if made.several:
                require_unchanged_inputs(place, made.provenance, hurt, arguments, settings)
            else:
                _require_inputs(open_input(arguments["input"], given), place, made.geometries[""], hurt)
            with refusing_storage_errors(place):
                _take_back(place, report.damages, made)
    return run(output=place.path, listener=listener, stop=stop, client=client, **arguments)


def _draw(ledger: Ledger, units: Units | PositionUnits, hurt: set[str | None], count: int, seed: int) -> list[Unit]:
    """Some of the units that are done and not hurt."""
    whole = Bits(len(units))
    for record in ledger.current(units):
        position = units.find(record["unit"])
        if position is not None and record["unit"] not in hurt:
            whole.add(position)
    ranks = random.Random(seed).sample(range(len(whole)), min(count, len(whole)))  # noqa: S311
    drawn = set(ranks)
    positions = {rank: position for rank, position in enumerate(whole) if rank in drawn}
    return [units[positions[rank]] for rank in ranks]


def _redo_settings(function: str, options: Mapping[str, Any]) -> RunSettings:
    """Settings, all of which are judged."""
    return parse_options(function, {name: options[name] for name in options if name != "input"})


def _require_deep(deep: int, options: Mapping[str, Any]) -> None:
    """Refuse what acts on units that are computed again where none is."""
    idle = [name for name in _OF_DEEP if options.get(name) is not None]
    if idle and not deep:
        raise UsageError(f"--{idle[0]} acts on units that are computed again; give --deep, too, or leave it out.")


class _Ledgered:
    """What the ledger of an output tells of the units of a run, gone through once, an object at a time."""

    def __init__(self, ledger: Ledger, units: Units | PositionUnits) -> None:
        self._ledger, self._units = ledger, units
        self.done = Bits(len(units))
        self.objects = self.bytes = 0

    def __iter__(self) -> Iterator[Expected]:
        for record in self._ledger.current(self._units):
            unit = self._units.find(record["unit"])
            if unit is not None:
                self.done.add(unit)
            for expected in expected_objects(record):
                self.objects += 1
                self.bytes += expected.mark[0]
                yield expected


def _verify_objects(output: Place, workers: int | None) -> tuple[VerifyReport, Made]:
    """The report on all objects, and what the run made."""
    ledger = Ledger(output)
    metadata = ledger.metadata()
    provenance = _provenance(output, metadata)
    several = "positions" in provenance
    made = Made(provenance, geometries_of(provenance) if several else {"": Geometry.from_dict(provenance["geometry"])})
    units, damages = made.units, list[Damage]()
    ledgered = _Ledgered(ledger, units)
    readers = workers or min(MOST_READERS, cpu_count() or 1)
    for expected, problem in find_problems(output, ledgered, workers=readers):
        position = units.find(expected.owner)
        unit = None if position is None else units[position]
        frames = made.frames_of(expected.key, unit) if unit is not None else ()
        damages.append(Damage(expected.key, problem, unit.key if unit is not None else None, frames))
    complete = metadata is not None and bool(metadata["complete"])
    missing = len(units) - len(ledgered.done)
    if not complete and _says_complete(output):
        if missing:  # the ledger was cut
            complete = True
        else:  # the run ends now: its last attributes and tables are there before the ledger says so
            damages = [damage for damage in damages if damage.place not in ROOT_DOCUMENTS]
    if complete:
        for unit in map(units.__getitem__, ledgered.done.absent()):
            damages.append(Damage(unit.key, "is not in the ledger", unit.key, made.all_frames(unit)))
    running = not complete and is_held(output)
    report = VerifyReport(
        output.path,
        len(units),
        ledgered.objects,
        ledgered.bytes,
        tuple(damages),
        finished=len(ledgered.done),
        missing=() if complete else tuple(units[position].key for position in ledgered.done.absent()),
        complete=complete,
        running=running,
    )
    return report, made


def _says_complete(output: Place) -> bool:
    """Whether the root of an output says that its run came to its end."""
    try:
        return (read_output_attributes(output) or {}).get("status") == "complete"
    except OutputError:
        return False


def _provenance(output: Place, metadata: Mapping[str, Any] | None) -> dict[str, Any]:
    """What the run said of itself: from the ledger, since the root's own document may be what is damaged."""
    documents = metadata["documents"] if metadata is not None else {}
    if "zarr.json" in documents:
        found = json.loads(documents["zarr.json"])["attributes"].get(ATTRIBUTE)
    elif ".zattrs" in documents:
        found = json.loads(documents[".zattrs"]).get(ATTRIBUTE)
    else:
        found = _root_attributes(output)
    if not isinstance(found, dict) or not ("geometry" in found or "kinds" in found):
        raise OutputError(f"{output} is no output of `phbatch run`, or one that was not begun; give the path of one.")
    return found


def _root_attributes(output: Place) -> dict[str, Any] | None:
    """Attributes of the root group; None where it has none of phbatch's."""
    if not output.exists():
        raise OutputError(f"{output} does not exist; correct the path.")
    try:
        return read_output_attributes(output)
    except OutputError as error:
        if isinstance(error.__cause__, ImportError) or "cannot be reached" in str(error):
            raise
        return None


def _require_inputs(source: Source, output: Place, geometry: Geometry, hurt: frozenset[str]) -> None:
    """Refuse to do a unit again from other pixels than the first time."""
    current = Ledger(output).current(geometry.units)
    records = (record for record in current if record["unit"] in hurt)
    require_unchanged(source, geometry, records, output)


def _take_back(output: Place, damages: Iterable[Damage], made: Made) -> None:
    """Mend documents from the ledger, and have everything else that is hurt done again by the next run."""
    ledger = Ledger(output)
    metadata = ledger.metadata()
    documents = metadata["documents"] if metadata is not None else {}
    hurt = [damage for damage in damages if damage.unit is None]
    for damage in hurt:
        if damage.place in documents:
            output.write(damage.place, documents[damage.place].encode())
    if any(damage.place.startswith(f"{PROFILE}/") for damage in hurt):
        output.remove_folder(PROFILE)
    for unit in dict.fromkeys(damage.unit for damage in damages if damage.unit is not None):
        ledger.retract(unit)
    forget_open_stores()
    attributes = read_output_attributes(output) or {}
    Sink(output).update_attributes(attributes | {"status": "running"})
    if made.several:
        commit_positions(output, made.geometries, complete=False)
    else:
        commit_metadata(output, complete=False)


@dataclass(frozen=True)
class _Comparison:
    """How far a frame that is stored is from what is computed again, and how far it may be, in standard deviations."""

    frame: str
    difference: float
    allowed: float


def _recompute(
    output: Place, provenance: Mapping[str, Any], units: Sequence[Unit], listener: Listener, options: Mapping[str, Any]
) -> tuple[list[Damage], float]:
    """Damages that computing units again brings to light, and the largest difference of a pixel."""
    arguments = recorded_options(provenance, options)
    accepted = accept_run(str(arguments.pop("input")), output.path, parse_options("run", arguments))
    accepted = replace(accepted, job=replace(accepted.job, token=new_token()))
    geometry = accepted.resolved.geometry
    table, records = StatisticsTable(geometry.grid), dict[str, dict[str, Any]]()
    sampled = {unit.key for unit in units}
    for record in Ledger(output).current(geometry.units):
        if record["unit"] in sampled:
            records[record["unit"]] = record
            for row in record["statistics"]:
                table.put(row)
    work: Iterable[Unit] = units
    if accepted.given is not None or accepted.resolved.recipe.passes > 1:
        work = with_statistics(units, table, accepted.resolved.recipe.volumes)
    if accepted.settings.scheduler is None:
        load_predictor(accepted.job)
    damages, largest, volumes = list[Damage](), 0.0, accepted.resolved.recipe.volumes
    counts = {unit.key: sum(1 for _ in unit.frame_indices(volumes=volumes)) for unit in units}
    listener(RunStarted(output.path, len(units), 0, sum(counts.values()), 0, prod(accepted.source.shape[3:])))
    for outcome in execute(
        _compare_unit,
        accepted.job,
        work,
        workers=accepted.resolved.workers,
        scheduler=accepted.settings.scheduler,
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
            frames = all_frames(unit, geometry)
            damages.append(Damage(key, "has other statistics than those computed again", key, frames))
    return damages, largest


def _compare_unit(job: Job, unit: Unit) -> tuple[list[_Comparison], list[dict[str, Any]], str]:
    """Compute a unit and read what is stored of it."""
    restored, rows, digest = compute_unit(job, unit)
    sink, recipe = Sink(job.output), job.recipe
    pairs = [
        (pixels, sink.read(path, job.output_axes, region_of(unit, pixels))) for path, pixels in images_of(job, restored)
    ]
    found = []
    for t, c, z in unit.frame_indices(volumes=recipe.volumes):
        group = slice(None) if recipe.stacked else slice(c * recipe.n_output, (c + 1) * recipe.n_output)
        place = (t, group, slice(None) if z is None else z)
        for computed, stored in pairs:
            found.append(_compare(str(unit.frame_key(t, c, z)), computed[place], stored[place]))
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
