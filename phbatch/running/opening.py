"""Creating the output of a run, or continuing one: what was recorded must be the same run of the same input."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from itertools import chain, islice
from typing import Any

from phbatch.computing.identity import find_differences, fingerprint, require_same
from phbatch.computing.tasks import forget_open_outputs, forget_open_stores
from phbatch.computing.versions import Versions, count_versions, differing_versions, versions_here
from phbatch.inputs.image import Source
from phbatch.inputs.stamps import Stamps
from phbatch.network.model import bundled_models
from phbatch.outputs.creation import read_output_attributes, remove_output
from phbatch.outputs.finished import Finished
from phbatch.outputs.image import commit_metadata, create_image, extend_image, require_space
from phbatch.outputs.ledger import METADATA, Ledger
from phbatch.outputs.writer import Sink
from phbatch.places.own import ROOT_DOCUMENTS
from phbatch.places.place import Place
from phbatch.planning.units import Geometry
from phbatch.running.begin import AcceptedRun
from phbatch.running.growth import has_grown, keeps_layout
from phbatch.words.bits import Bits
from phbatch.words.errors import OutputError


def require_same_run(accepted: AcceptedRun) -> None:
    """Refuse an output that holds units of another run, before anything is computed."""
    if accepted.recorded is not None and accepted.continued:
        mark = _fingerprint(accepted)
        if not has_grown(accepted, accepted.recorded, mark):
            require_same(accepted.output, accepted.recorded, mark)


def _fingerprint(accepted: AcceptedRun) -> dict[str, Any]:
    given = {
        "statistics": accepted.given.digest() if accepted.given is not None else None,
        "illumination": accepted.profile_digest,
    }
    with accepted.source.refusing_errors():
        return fingerprint(accepted.settings, accepted.resolved, accepted.source, accepted.model, given)


def open_output(accepted: AcceptedRun, command: str) -> Finished:
    """Create the output or continue it, while it is held; returns what is finished."""
    settings, resolved = accepted.settings, accepted.resolved
    mark = _fingerprint(accepted)
    recorded = None if settings.overwrite else read_output_attributes(accepted.output)
    finished = Finished(resolved.geometry)
    if recorded is not None and "fingerprint" in recorded:
        grown = has_grown(accepted, recorded, mark)
        if not grown:
            require_same(accepted.output, recorded, mark)
        if grown:
            goes_on = keeps_layout(resolved.geometry, Geometry.from_dict(recorded["geometry"]))
        else:
            goes_on = not find_differences(recorded["fingerprint"], mark)
        if goes_on:
            _continue(accepted, finished, mark if grown else None)
            return finished
    removed = sum(size for _, size, _ in accepted.output.files()) if recorded or accepted.replaces else 0
    require_space(accepted.output, [accepted.image], 0, removed)
    remove_output(accepted.output)
    forget_open_outputs()
    create_image(accepted.output, accepted.image, describe_run(accepted, mark, command))
    return finished


def _continue(accepted: AcceptedRun, finished: Finished, grown: dict[str, Any] | None) -> None:
    """Take in what is finished of an output, and extend it where its input has grown: then the fingerprint is given.

    A unit that is larger now is done again, and what was finished of it taken back.
    """
    output, geometry, ledger = accepted.output, accepted.resolved.geometry, Ledger(accepted.output)
    Sink(output).remove_scratch()
    told: dict[str, str] = {}
    outgrown: list[str] = []

    def noting(records: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        for record in records:
            if record["unit"] == METADATA:
                told.update({key: record["documents"][key] for key in ROOT_DOCUMENTS if key in record["documents"]})
            elif not finished.counts(record["unit"]):
                outgrown.append(record["unit"])
            yield record

    records = _taking_in(finished, noting(ledger.current(geometry.units)))
    require_unchanged(accepted.source, geometry, records, output)
    require_space(output, [accepted.image], len(finished) / len(geometry.units))
    if grown is not None:
        extend_image(output, accepted.image, _of_the_frames(accepted, grown))
        finished.complete = False
        forget_open_stores()
    elif not finished.complete and any(output.read(key) != text.encode() for key, text in told.items()):
        commit_metadata(output, complete=False)  # killed between the two, while it was extended
    for unit in outgrown:
        ledger.retract(unit)


def continue_units(accepted: AcceptedRun, finished: Finished) -> None:
    """Take in what of some units is finished, unless their input was changed.

    Raises
    ------
    OutputError
        As `require_unchanged` does.
    """
    geometry = accepted.resolved.geometry
    records = Ledger(accepted.output).current(geometry.units)
    counted = (record for record in records if finished.counts(record["unit"]))
    require_unchanged(accepted.source, geometry, _taking_in(finished, counted), accepted.output)


def _taking_in(finished: Finished, records: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The records, each of which is taken in once it is gone through: none stays in memory."""
    for record in records:
        finished.add(record)
        yield record


def require_unchanged(
    source: Source, geometry: Geometry, records: Iterable[Mapping[str, Any]], output: Place | str
) -> None:
    """Refuse where a unit was restored from other pixels than those of the input now.

    Parameters
    ----------
    source : Source
        The input.
    geometry : Geometry
        Of the run.
    records : iterable of mapping
        Of the ledger, one for each unit; they hold the digest of what it was read from.
    output : Place or str
        For the message.

    Raises
    ------
    OutputError
        Names the units.
    InputError
        The input cannot be asked.
    """
    units = geometry.units
    pairs = ((units.find(record["unit"]), record) for record in records)
    known = ((position, record["input"]) for position, record in pairs if position is not None)
    few, changed = list(islice(known, 2)), Bits(len(units))
    stamps = Stamps(source.place, listed=len(few) > 1)
    with source.refusing_errors():
        for position, digest in chain(few, known):
            if stamps.digest(source.objects(units[position].source)) != digest:
                changed.add(position)
    if changed:
        keys = ", ".join(units[position].key for position in islice(changed, 4))
        more = f" and {len(changed) - 4} more" if len(changed) > 4 else ""
        raise OutputError(
            f"the input of {keys}{more} was changed after it was restored into {output}; put it back,"
            " or start afresh with --overwrite."
        )


def describe_run(accepted: AcceptedRun, mark: dict[str, Any], command: str) -> dict[str, Any]:
    """What an output says of the run that makes it."""
    recipe, model = accepted.resolved.recipe, accepted.model
    return {
        "status": "running",
        "command": command,
        "input": accepted.source.path,
        "settings": _recorded_settings(accepted),
        "geometry": accepted.resolved.geometry.as_dict(),
        "axes": accepted.image.metadata.axes,
        "labelled": accepted.image.labelled,
        "normalization": recipe.rule.model_dump(),
        "model": {
            "name": model.name,
            "weights": model.weights_path.name,
            "sha256": model.sha256,
            "config": asdict(model.config),
            "facts": dict(model.facts),
        }
        if model
        else None,
        "tile": {"shape": list(recipe.tiles.tile), "halo": recipe.tiles.halo, "grid": recipe.tiles.grid}
        if recipe.tiles
        else None,
        "batch": recipe.batch if model else None,
        "network": recipe.network if model else None,
        "precision": asdict(accepted.precision) if accepted.precision else None,
        "notices": [notice.text for notice in accepted.notices],
        "versions": versions_here(),
        **_other_versions(accepted.workers),
        "fingerprint": mark,
    }


def _of_the_frames(accepted: AcceptedRun, mark: dict[str, Any]) -> dict[str, Any]:
    """What changes where an input has grown."""
    return {
        "settings": _recorded_settings(accepted),
        "geometry": accepted.resolved.geometry.as_dict(),
        "fingerprint": mark,
    }


def _recorded_settings(accepted: AcceptedRun) -> dict[str, Any]:
    """What repeats the run from any folder: paths are absolute."""
    settings = accepted.settings
    found = settings.model_dump(
        mode="json",
        by_alias=True,
        exclude={
            *("overwrite", "scheduler", "wait_workers", "devices", "workers", "memory", "retries"),
            *("follow", "follow_timeout", "follow_until", "wells", "fields"),
        },
    )
    if accepted.model is not None and settings.model not in (None, *bundled_models()):
        found["model"] = str(accepted.model.folder)
    if settings.stats is not None:
        found["stats"] = Place.at(settings.stats).path
    if accepted.profile_digest is not None:
        found["illumination"] = Place.at(settings.illumination).path
    return found


def recorded_options(provenance: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments that repeat the run, overruled by those given now."""
    given = {name: value for name, value in options.items() if value is not None}
    recorded = dict(provenance["settings"])
    if recorded.get("model") is None and provenance.get("model"):  # the default of its day
        recorded["model"] = provenance["model"]["name"]
    return {"input": provenance["input"]} | recorded | given


def _other_versions(workers: Mapping[str, Versions]) -> dict[str, Any]:
    """Of workers, where these differ: else an output is the same wherever it was computed."""
    return {"worker_versions": count_versions(workers)} if differing_versions(workers, versions_here()) else {}
