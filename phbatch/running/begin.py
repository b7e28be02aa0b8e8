"""Everything before the first pixel: open, resolve, refuse, and create or continue the output."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import chain, islice, product
from os import cpu_count
from pathlib import Path
from typing import Any

import psutil

from phbatch.frames.light import Profile
from phbatch.frames.light_checks import judge_profile, require_frames
from phbatch.frames.table import StatisticsTable
from phbatch.inputs.image import Source, open_source
from phbatch.inputs.light_profile import digest_profile, read_facts, read_profile
from phbatch.inputs.pixel_size import pixel_size_notices
from phbatch.inputs.presence import require_chunks
from phbatch.inputs.stamps import Stamps
from phbatch.kernels.intensity import required_statistics
from phbatch.network.model import DEFAULT_MODEL, Model, bundled_models, open_model
from phbatch.network.tuning.precision import PrecisionCheck
from phbatch.network.weights import read_weights
from phbatch.outputs.finished import Finished
from phbatch.outputs.image import (
    OutputImage,
    create_image,
    default_output,
    require_place,
    require_separate,
    require_space,
)
from phbatch.outputs.ledger import Ledger
from phbatch.outputs.writer import Sink, read_output_attributes, remove_output
from phbatch.places.lock import require_own
from phbatch.places.place import Place
from phbatch.planning.resolve import ResolvedRun, resolve_run
from phbatch.planning.units import Geometry
from phbatch.running.engine import require_finite
from phbatch.running.identity import find_differences, fingerprint, require_same
from phbatch.running.measure import describe, read_table, require_same_measurement
from phbatch.running.scale import require_good_frames
from phbatch.running.settle import choose_network, settle_cut, settle_precision
from phbatch.running.tasks import Job, forget_open_stores
from phbatch.running.versions import Versions, count_versions, differing_versions, meet_workers, versions_here
from phbatch.words.bits import Bits
from phbatch.words.errors import InputError, OutputError
from phbatch.words.events import Listener, Notice, Stop
from phbatch.words.settings import ESTIMATED_BACKGROUNDS, FRAME_BACKGROUNDS, RunSettings

PROFILE = "illumination"
"""Group of an output with the profile that was estimated for it."""

_BUNDLED_LIMITS = "trained on simulations, it may smooth away texture finer than their cells have"


@dataclass(frozen=True)
class Prepared:
    """A run that may start: nothing is left to refuse but the pixels themselves."""

    settings: RunSettings
    source: Source
    model: Model | None
    resolved: ResolvedRun
    job: Job
    output: Place
    image: OutputImage
    recorded: dict[str, Any] | None
    given: StatisticsTable | None
    profile_digest: str | None
    notices: tuple[Notice, ...]
    precision: PrecisionCheck | None = None
    replaces: bool = False
    """Whether an output that is there will be removed."""
    workers: Mapping[str, Versions] = field(default_factory=dict)

    @property
    def continued(self) -> bool:
        """Whether an output was begun before."""
        return self.recorded is not None and "fingerprint" in self.recorded


def prepare(input_path: str, output: str | Path | None, settings: RunSettings) -> Prepared:
    """Everything that can be refused is refused here, and nothing is written."""
    forget_open_stores()
    source = open_source(Place.at(input_path, settings.storage_options), settings.axes)
    model = None if settings.model == "none" else open_model(settings.model or DEFAULT_MODEL)
    if model is not None:
        read_weights(model.weights_path, model.config)
    store = settings.storage_options
    destination = Place.at(output, store) if output is not None else default_output(input_path, store)
    require_separate(source, destination)
    recorded = read_output_attributes(destination)
    continued = None if settings.overwrite else recorded
    if continued is None or "fingerprint" not in continued:
        require_place(destination)
        require_own(destination)
    mark = (continued or {}).get("fingerprint", {})
    same_model = model is not None and (mark.get("model") or {}).get("sha256") == model.sha256
    begun = mark.get("settings", {}) if same_model else {}
    tile = begun.get("tile")
    resolved = resolve_run(
        settings,
        source,
        model,
        available_bytes=available_bytes(),
        cores=cpu_count() or 1,
        tile=tuple(tile) if tile and settings.tile is None else None,
        batch=begun.get("batch") if settings.batch is None else None,
        network=begun.get("network") if settings.network == "auto" else None,
        precision=begun.get("precision") if settings.precision == "auto" else None,
    )
    profile, digest, warnings = _find_profile(settings, source, destination, resolved.geometry)
    image = OutputImage.make(source, resolved.geometry, resolved.recipe, settings)
    job = Job(
        source=source.place,
        axes=settings.axes,
        recipe=resolved.recipe,
        nan=settings.nan,
        output=destination,
        output_axes=image.metadata.axes,
        profile=profile,
        model=(model.folder, model.sha256) if model else None,
        backend=settings.backend,
        retries=settings.retries,
        threads=settings.threads,
        memory=resolved.memory,
    )
    given = None
    if settings.stats is not None:
        required = required_statistics(resolved.recipe.rule)
        given = read_table(Place.at(settings.stats, store), resolved.geometry.grid, required)
        require_good_frames(given, resolved.recipe)
        wanted = describe(source, resolved.recipe)
        warnings = (*warnings, *require_same_measurement(settings.stats, given, wanted, required))
    notices = (*(Notice(text) for text in source.notices), *resolved.notices, *warnings)
    if settings.model is None and model is not None:
        notices = (Notice(f"model: {model.name}, bundled: {_BUNDLED_LIMITS}; choose another with --model."), *notices)
    if model is not None and model.choice:
        notices = (Notice(f"weights: {model.choice}."), *notices)
    if model is not None:
        notices = (*notices, *pixel_size_notices(model, source, settings.downscale))
    replaces = settings.overwrite and recorded is not None
    return Prepared(
        settings, source, model, resolved, job, destination, image, continued, given, digest, notices, replaces=replaces
    )


def require_input(prepared: Prepared) -> Prepared:
    """Refuse an input of which nothing is stored; where a part is absent, it is a notice."""
    geometry = prepared.resolved.geometry
    said = require_chunks(prepared.source, geometry.times, geometry.channels)
    return replace(prepared, notices=(*prepared.notices, *map(Notice, said)))


def require_profile(settings: RunSettings, source: Source, geometry: Geometry) -> tuple[str, tuple[Notice, ...]]:
    """Refuse a given profile that does not fit the image, or holds no light; returns its digest and what is to be said.

    Raises
    ------
    InputError
        It cannot be read, has another shape, or more than half of it is dead.
    """
    path = Place.at(settings.illumination, settings.storage_options)
    background, dark = read_profile(path)
    n_c, n_z, y, x = source.shape[1:]
    for values in (background, dark):
        if values is None:
            continue
        channels, planes, *lengths = values.shape
        if lengths != [y, x] or channels not in (1, n_c) or planes not in (1, n_z):
            raise InputError(
                f"illumination {path} is {'x'.join(map(str, values.shape))} (czyx) and the frames are"
                f" {n_c}x{n_z}x{y}x{x}; give a profile of the same lengths, with 1 or all channels and planes."
            )
    facts = read_facts(path) or {}
    planes = product(geometry.channels, range(n_z))
    name = f"illumination {path}"
    notices = judge_profile(Profile(background, dark), facts, settings.illumination_mode, planes, name)
    return digest_profile(background, dark), notices


def _find_profile(
    settings: RunSettings, source: Source, output: Place, geometry: Geometry
) -> tuple[Place | None, str | None, tuple[Notice, ...]]:
    """Place of the profile of a run, its digest where the user gave it, and what is to be said; empty without one."""
    method = settings.illumination
    if method == "none" or method in FRAME_BACKGROUNDS:
        return None, None, ()
    if method in ESTIMATED_BACKGROUNDS:
        require_frames(method, len(geometry.times), f"illumination {method}")
        return output / PROFILE, None, ()
    return Place.at(method, settings.storage_options), *require_profile(settings, source, geometry)


def meet_cluster(prepared: Prepared, stop: Stop, listener: Listener) -> Prepared:
    """Take in the versions of the workers that will compute, where the run has a Dask cluster.

    Raises
    ------
    UsageError
        No scheduler answers, or none of its workers can be used.
    """
    if prepared.settings.scheduler is None:
        return prepared
    workers = meet_workers(prepared.settings.scheduler, prepared.resolved.memory, stop, listener)
    return replace(
        prepared, workers=workers, notices=(*prepared.notices, *differing_versions(workers, versions_here()))
    )


def settle_network(prepared: Prepared) -> Prepared:
    """Replace ``auto`` by what is fastest where the run will be: form, tile and batch; and check the precision.

    Raises
    ------
    UsageError
        A reduced precision that was asked for does not hold its bound.
    """
    if prepared.model is None:
        return prepared
    settings, units = prepared.settings, prepared.resolved.geometry.units
    if prepared.resolved.recipe.network == "auto":
        frames = prepared.resolved.geometry.network_frames
        choice = choose_network(prepared.job, frames, settings.scheduler)
        prepared = _with_recipe(prepared, f"network: {choice.form}, {choice.reason}.", network=choice.form)
    if not prepared.continued:
        frames, asked = prepared.resolved.geometry.network_frames, prepared.resolved.recipe.precision
        check, reason = settle_precision(
            prepared.job, units, frames, asked, settings.precision_bound, settings.scheduler
        )
        prepared = replace(prepared, precision=check)
        notice = f"precision: {check.precision}, {reason}." if reason else ""
        prepared = _with_recipe(prepared, notice, precision=check.precision)
        prepared = _settle_cut(prepared)
    return prepared


def _settle_cut(prepared: Prepared) -> Prepared:
    """Replace planned tiles and batches by the fastest, unless both were asked for."""
    settings, resolved, tiles = prepared.settings, prepared.resolved, prepared.resolved.recipe.tiles
    asked = (settings.tile is not None, settings.batch is not None)
    if prepared.model is None or tiles is None or all(asked):
        return prepared
    memory, frames = resolved.memory, resolved.geometry.network_frames
    choice = settle_cut(prepared.job, memory, frames, asked, settings.scheduler)
    cut = choice.cut
    memory = replace(memory, network_mem=prepared.model.config.workspace_bytes(cut.tile, cut.batch))
    prepared = replace(prepared, resolved=replace(resolved, memory=memory))
    notice = f"tile: {cut}, {choice.reason}." if choice.reason else ""
    return _with_recipe(prepared, notice, tiles=replace(tiles, tile=cut.tile), batch=cut.batch)


def _with_recipe(prepared: Prepared, notice: str, **changes: Any) -> Prepared:
    recipe = replace(prepared.resolved.recipe, **changes)
    return replace(
        prepared,
        resolved=replace(prepared.resolved, recipe=recipe),
        job=replace(prepared.job, recipe=recipe, memory=prepared.resolved.memory),
        notices=(*prepared.notices, *([Notice(notice)] if notice else [])),
    )


def search_for_nan(prepared: Prepared, stop: Callable[[], bool], listener: Listener) -> None:
    """Refuse a float input with NaN or infinity before anything is written, unless such frames may pass."""
    if must_scan(prepared):
        require_finite(
            prepared.job,
            prepared.resolved.geometry.units,
            workers=prepared.resolved.workers,
            scheduler=prepared.settings.scheduler,
            stop=stop,
            listener=listener,
        )


def require_same_run(prepared: Prepared) -> None:
    """Refuse an output that holds units of another run, before anything is computed."""
    if prepared.recorded is not None and prepared.continued:
        require_same(prepared.output, prepared.recorded, _fingerprint(prepared))


def _fingerprint(prepared: Prepared) -> dict[str, Any]:
    given = {
        "statistics": prepared.given.digest() if prepared.given is not None else None,
        "illumination": prepared.profile_digest,
    }
    with prepared.source.refusing_errors():
        return fingerprint(prepared.settings, prepared.resolved, prepared.source, prepared.model, given)


def open_output(prepared: Prepared, command: str) -> Finished:
    """Create the output or continue it, while it is held; returns what is finished."""
    settings, resolved = prepared.settings, prepared.resolved
    mark = _fingerprint(prepared)
    recorded = None if settings.overwrite else read_output_attributes(prepared.output)
    finished = Finished(resolved.geometry)
    if recorded is not None and "fingerprint" in recorded:
        require_same(prepared.output, recorded, mark)
        if not find_differences(recorded["fingerprint"], mark):
            Sink(prepared.output).remove_scratch()
            records = _taking_in(finished, Ledger(prepared.output).current(resolved.geometry.units))
            require_unchanged(prepared.source, resolved.geometry, records, prepared.output)
            require_space(prepared.output, prepared.image, len(finished) / len(resolved.geometry.units))
            return finished
    removed = sum(size for _, size, _ in prepared.output.files()) if recorded or prepared.replaces else 0
    require_space(prepared.output, prepared.image, 0, removed)
    remove_output(prepared.output)
    forget_open_stores()
    create_image(prepared.output, prepared.image, _provenance(prepared, mark, command))
    return finished


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
    known = ((place, record["input"]) for place, record in pairs if place is not None)
    few, changed = list(islice(known, 2)), Bits(len(units))
    stamps = Stamps(source.place, listed=len(few) > 1)
    with source.refusing_errors():
        for place, digest in chain(few, known):
            if stamps.digest(source.objects(units[place].source)) != digest:
                changed.add(place)
    if changed:
        keys = ", ".join(units[place].key for place in islice(changed, 4))
        more = f" and {len(changed) - 4} more" if len(changed) > 4 else ""
        raise OutputError(
            f"the input of {keys}{more} was changed after it was restored into {output}; put it back,"
            " or start afresh with --overwrite."
        )


def must_scan(prepared: Prepared) -> bool:
    """Whether a float input is searched for NaN and infinity before anything is written."""
    begun = prepared.recorded is not None and "fingerprint" in prepared.recorded
    return prepared.source.dtype.kind == "f" and prepared.settings.nan == "refuse" and not begun


def available_bytes() -> int:
    """Memory of the machine that is free now."""
    return int(psutil.virtual_memory().available)


def _provenance(prepared: Prepared, mark: dict[str, Any], command: str) -> dict[str, Any]:
    recipe, model = prepared.resolved.recipe, prepared.model
    return {
        "status": "running",
        "command": command,
        "input": prepared.source.path,
        "settings": _recorded_settings(prepared),
        "geometry": prepared.resolved.geometry.as_dict(),
        "axes": prepared.image.metadata.axes,
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
        "precision": asdict(prepared.precision) if prepared.precision else None,
        "notices": [notice.text for notice in prepared.notices],
        "versions": versions_here(),
        **_other_versions(prepared.workers),
        "fingerprint": mark,
    }


def _recorded_settings(prepared: Prepared) -> dict[str, Any]:
    """What repeats the run from any folder: paths are absolute."""
    settings = prepared.settings
    found = settings.model_dump(
        mode="json", by_alias=True, exclude={"overwrite", "scheduler", "workers", "memory", "retries"}
    )
    if prepared.model is not None and settings.model not in (None, *bundled_models()):
        found["model"] = str(prepared.model.folder)
    if settings.stats is not None:
        found["stats"] = Place.at(settings.stats).path
    if prepared.profile_digest is not None:
        found["illumination"] = Place.at(settings.illumination).path
    return found


def _other_versions(workers: Mapping[str, Versions]) -> dict[str, Any]:
    """Of workers, where these differ: else an output is the same wherever it was computed."""
    return {"worker_versions": count_versions(workers)} if differing_versions(workers, versions_here()) else {}
