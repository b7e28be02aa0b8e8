"""Proving that an output is whole, and mending exactly what is not."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from os import cpu_count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from phbatch.computing.machine import going_to
from phbatch.computing.tasks import forget_open_stores
from phbatch.inputs.image import Source
from phbatch.inputs.opening import open_input
from phbatch.outputs.audit import Expected, expected_objects, find_problems
from phbatch.outputs.creation import ATTRIBUTE, read_output_attributes
from phbatch.outputs.image import commit_metadata, refusing_storage_errors
from phbatch.outputs.ledger import Ledger
from phbatch.outputs.positions import commit_positions
from phbatch.outputs.writer import Sink
from phbatch.places.lock import hold_output, is_held, new_token
from phbatch.places.own import ROOT_DOCUMENTS
from phbatch.places.place import Place
from phbatch.planning.positions import PositionUnits
from phbatch.planning.unit import Unit
from phbatch.planning.units import Geometry, Units
from phbatch.running.accept_positions import geometries_of, limits_of
from phbatch.running.begin import PROFILE
from phbatch.running.opening import recorded_options, require_unchanged
from phbatch.running.positions import require_unchanged_inputs
from phbatch.running.run import run, run_again
from phbatch.tools.finished_positions import find_whole
from phbatch.tools.made import Made
from phbatch.tools.recompute import recompute
from phbatch.words.bits import Bits
from phbatch.words.choices import MOST_READERS
from phbatch.words.errors import OutputError, UsageError
from phbatch.words.events import Listener, Stop, ignore, never
from phbatch.words.option_types import RedoOptions
from phbatch.words.options import parse_options
from phbatch.words.results import Damage, RunResult, VerifyReport
from phbatch.words.settings import RunSettings

if TYPE_CHECKING:
    from distributed import Client

_OF_DEEP = ("input", "model", "memory", "scheduler", "wait_workers", "retries", "client")


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
    >>> import tempfile, numpy as np, zarr
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
    hurt = {damage.unit for damage in report.damages}
    sample = _draw(Ledger(place), made.units, hurt, deep, seed)
    with going_to(client, settings.scheduler) as scheduler:
        found, largest = recompute(place, made, sample, listener, {**options, "scheduler": scheduler})
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
    if made.several and (limits := limits_of(made.provenance)):  # it was followed, and is not at its end
        only = {path: limits.get(path) for path in made.geometries}
        return run_again(output=place.path, only=only, listener=listener, stop=stop, client=client, **arguments)
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
    if found is None and (whole := find_whole(output)) is not None:
        raise OutputError(f"{output} lies in an output of many images, which is taken as one; give {whole[0].output}.")
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
    for path in made.geometries:
        profile = f"{path}/{PROFILE}".lstrip("/")
        if any(damage.place.startswith(f"{profile}/") for damage in hurt):
            output.remove_folder(profile)
    for unit in dict.fromkeys(damage.unit for damage in damages if damage.unit is not None):
        ledger.retract(unit)
    forget_open_stores()
    attributes = read_output_attributes(output) or {}
    Sink(output).update_attributes(attributes | {"status": "running"})
    if made.several:
        commit_positions(output, made.geometries, complete=False)
    else:
        commit_metadata(output, complete=False)
