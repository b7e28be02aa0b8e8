"""Everything before the first pixel: open, resolve, refuse. The output itself is left to `phbatch.running.opening`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from phbatch.computing.engine import require_finite
from phbatch.computing.machine import find_scheduler, have_devices, plan_for
from phbatch.computing.tasks import Job, forget_open_stores
from phbatch.computing.versions import Versions, differing_versions, meet_workers, versions_here
from phbatch.frames.light import Profile
from phbatch.frames.light_checks import judge_profile, require_frames
from phbatch.frames.table import StatisticsTable
from phbatch.inputs.image import Source
from phbatch.inputs.light_profile import digest_profile, read_facts, read_profile
from phbatch.inputs.opening import open_input
from phbatch.inputs.pixel_size import pixel_size_notices
from phbatch.inputs.presence import require_chunks
from phbatch.kernels.intensity import required_statistics
from phbatch.network.backend import BACKENDS, choose_backend
from phbatch.network.device import Device, find_gpu
from phbatch.network.model import DEFAULT_MODEL, Model, open_model
from phbatch.network.tuning.precision import PrecisionCheck
from phbatch.network.weights import read_weights
from phbatch.outputs.completing import measures_shown
from phbatch.outputs.creation import read_output_attributes
from phbatch.outputs.image import OutputImage, default_output, require_place, require_separate
from phbatch.places.own import require_own
from phbatch.places.place import Place
from phbatch.planning.memory import UNITS_AHEAD
from phbatch.planning.of_model import with_model
from phbatch.planning.resolve import ResolvedRun, resolve_run
from phbatch.planning.units import Geometry
from phbatch.running.given_tables import read_table, require_same_measurement
from phbatch.running.measure import describe
from phbatch.running.scale import require_good_frames
from phbatch.running.settle import choose_network, settle_cut, settle_precision
from phbatch.words.choices import ESTIMATED_BACKGROUNDS, FRAME_BACKGROUNDS, MOST_WORKERS, Backend
from phbatch.words.errors import InputError, MemoryLimitError
from phbatch.words.events import Listener, Notice, Stop, never
from phbatch.words.settings import RunSettings

PROFILE = "illumination"
"""Group of an output with the profile that was estimated for it."""


@dataclass(frozen=True)
class AcceptedRun:
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


def accept_run(
    input_path: str,
    output: str | Path | None,
    settings: RunSettings,
    stop: Stop = never,
    processes: int = 0,
    *,
    record: dict[str, Any] | None = None,
    beside: AcceptedRun | None = None,
    source: Source | None = None,
) -> AcceptedRun:
    """Everything that can be refused is refused here, and nothing is written.

    Where this machine's memory and cores are for several processes, what is planned is one of them. Of an image that is
    one of many, `record` is what the output of all says of it, `beside` one that was accepted before, and `source` the
    image itself, which is open; a table of statistics that is given is that of all, and left to the caller.
    """
    forget_open_stores()
    if processes and settings.memory is not None:
        settings = settings.model_copy(update={"memory": settings.memory // processes})
    source = open_input(input_path, settings) if source is None else source
    model = beside.model if beside is not None else _open_model(settings)
    settings, of_model = with_model(settings, model, frames_alone=record is not None)
    store = settings.storage_options
    destination = Place.at(output, store) if output is not None else default_output(input_path, store)
    require_separate(source, destination)
    recorded = read_output_attributes(destination) if record is None else record
    continued = None if settings.overwrite else recorded
    if record is None and (continued is None or "fingerprint" not in continued):
        require_place(destination)
        require_own(destination)
    mark = (continued or {}).get("fingerprint", {})
    same_model = model is not None and (mark.get("model") or {}).get("sha256") == model.sha256
    begun = mark.get("settings", {}) if same_model else {}
    settings = settings.model_copy(update={"scheduler": find_scheduler(settings.scheduler, stop)})
    settings, backend = _with_backend(settings, model, begun)
    resolve = partial(
        resolve_run,
        settings,
        source,
        model,
        tile=tuple(begun["tile"]) if begun.get("tile") and settings.tile is None else None,
        batch=begun.get("batch") if settings.batch is None else None,
        network=begun.get("network") if settings.network == "auto" else None,
        precision=begun.get("precision") if settings.precision == "auto" else None,
        levels=mark.get("settings", {}).get("levels", 1) if mark else None,
        device=_find_device(settings, model, backend),
        ahead=UNITS_AHEAD if settings.scheduler is None and processes < 2 else 0,
        most_units=None if record is None else MOST_WORKERS,
    )
    resolved = _resolve(resolve, settings, _recorded_band(continued, alone=record is None), stop, processes or 1)
    profile, digest, warnings = _find_profile(settings, source, destination, resolved.geometry)
    labelled = (continued or {}).get("labelled", not mark)
    image = OutputImage.make(source, resolved.geometry, resolved.recipe, settings, labelled=labelled)
    job = Job(
        source=source.place,
        axes=settings.axes,
        recipe=resolved.recipe,
        nan=settings.nan,
        output=destination,
        output_axes=image.metadata.axes,
        profile=profile,
        model=(model.reference, model.sha256) if model else None,
        backend=backend,
        retries=settings.retries,
        threads=settings.threads,
        memory=resolved.memory,
        wait_s=settings.wait_workers,
        levels=resolved.geometry.levels,
        level_method=settings.level_method,
        shown=measures_shown(image, resolved.recipe, given=settings.stats is not None) and not resolved.recipe.in_bands,
    )
    notices = (*(Notice(text) for text in source.notices), *of_model, *resolved.notices, *warnings)
    if model is not None:
        notices = _with_notices_of(model, source, settings, notices)
    replaces = settings.overwrite and recorded is not None
    accepted = AcceptedRun(
        settings, source, model, resolved, job, destination, image, continued, None, digest, notices, replaces=replaces
    )
    if settings.stats is None or record is not None:
        return accepted
    table = Place.at(settings.stats, store)
    return with_table(accepted, read_table(table, resolved.geometry.grid, required_statistics(resolved.recipe.rule)))


def with_table(accepted: AcceptedRun, table: StatisticsTable) -> AcceptedRun:
    """A run whose statistics are given.

    Raises
    ------
    InputError
        They are of another image, were measured otherwise, or have no good frame.
    """
    recipe = accepted.resolved.recipe
    require_good_frames(table, recipe)
    described, required = describe(accepted.source, recipe), required_statistics(recipe.rule)
    warnings = require_same_measurement(str(accepted.settings.stats), table, described, required)
    return replace(accepted, given=table, notices=(*accepted.notices, *warnings))


def _recorded_band(continued: Mapping[str, Any] | None, *, alone: bool) -> int | None:
    """Rows of the bands of the run that is continued; of a new one, None where its frames may be cut."""
    if continued is not None and "fingerprint" in continued:
        return int(continued.get("geometry", {}).get("band", 0))
    return None if alone else 0


def _resolve(
    resolve: Callable[..., ResolvedRun], settings: RunSettings, band: int | None, stop: Stop, processes: int
) -> ResolvedRun:
    """A plan of whole frames where any machine has memory for one, and else of bands of them."""
    plan = partial(plan_for, settings.scheduler, stop=stop, processes=processes)
    try:
        return plan(resolve=partial(resolve, band=band or 0))
    except MemoryLimitError:
        if band is not None:
            raise
    return plan(resolve=partial(resolve, band=None))


def _with_backend(settings: RunSettings, model: Model | None, begun: Mapping[str, Any]) -> tuple[RunSettings, Backend]:
    """Settings that name the backend of the network, and that backend, which without a network is never started."""
    if model is None:
        return settings, BACKENDS[0]
    backend = choose_backend(settings.backend, begun.get("backend"), elsewhere=settings.scheduler is not None)
    return settings.model_copy(update={"backend": backend}), backend


def _find_device(settings: RunSettings, model: Model | None, backend: Backend) -> Device | None:
    """The GPU that computes the network: of this process, or one that a worker declares, of unknown memory."""
    if model is None:
        return None
    if settings.scheduler is None:
        return find_gpu(backend)
    return Device("a GPU of the cluster", True) if have_devices(settings.scheduler) else None


def _with_notices_of(
    model: Model, source: Source, settings: RunSettings, notices: tuple[Notice, ...]
) -> tuple[Notice, ...]:
    """Notices of a run, and what is to be said of its model."""
    found = (*notices, *pixel_size_notices(model, source, settings.downscale))
    if settings.model is None:
        limits = str(model.facts["limits"]).partition(". ")[0]
        found = (Notice(f"model: {model.name}, bundled: {limits}; choose another with --model."), *found)
    return (Notice(f"weights: {model.choice}."), *found) if model.choice else found


def accept_alike(alike: AcceptedRun, source: Source, output: Place) -> AcceptedRun:
    """As `accept_run`, of one of many images whose metadata, record and settings are those of one that was accepted."""
    require_separate(source, output)
    resolved, labelled = alike.resolved, alike.image.labelled
    return replace(
        alike,
        source=source,
        output=output,
        job=replace(alike.job, source=source.place, output=output),
        image=OutputImage.make(source, resolved.geometry, resolved.recipe, alike.settings, labelled=labelled),
    )


def _open_model(settings: RunSettings) -> Model | None:
    if settings.model == "none":
        return None
    model = open_model(settings.model or DEFAULT_MODEL)
    read_weights(model.weights_path, model.config)
    return model


def require_input(accepted: AcceptedRun) -> AcceptedRun:
    """Refuse an input of which nothing is stored; where a part is absent, it is a notice."""
    geometry = accepted.resolved.geometry
    said = require_chunks(accepted.source, geometry.times, geometry.channels)
    return replace(accepted, notices=(*accepted.notices, *map(Notice, said)))


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
    planes = product(geometry.restored, range(n_z))
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


def meet_cluster(accepted: AcceptedRun, stop: Stop, listener: Listener) -> AcceptedRun:
    """Take in the versions of the workers that will compute, where the run has a Dask cluster.

    Raises
    ------
    UsageError
        No scheduler answers, or none of its workers can be used.
    """
    if accepted.settings.scheduler is None:
        return accepted
    workers = meet_workers(accepted.settings.scheduler, accepted.job, stop, listener)
    return replace(
        accepted, workers=workers, notices=(*accepted.notices, *differing_versions(workers, versions_here()))
    )


def settle_network(accepted: AcceptedRun) -> AcceptedRun:
    """Replace ``auto`` by what is fastest where the run will be: the precision, which is checked, form, tile and batch.

    Raises
    ------
    UsageError
        A reduced precision that was asked for does not hold its bound.
    """
    if accepted.model is None:
        return accepted
    settings, units = accepted.settings, accepted.resolved.geometry.units
    accepted = replace(accepted, job=replace(accepted.job, on_devices=have_devices(settings.scheduler)))
    frames = accepted.resolved.geometry.network_frames
    if not accepted.continued:  # before the form, which is chosen for it
        asked, bound = accepted.resolved.recipe.precision, settings.precision_bound
        check, reason = settle_precision(accepted.job, units, frames, asked, bound, settings.scheduler)
        notice = f"precision: {check.precision}, {reason}." if reason else ""
        accepted = _with_recipe(replace(accepted, precision=check), notice, precision=check.precision)
    if accepted.resolved.recipe.network == "auto":
        choice = choose_network(accepted.job, frames, settings.scheduler)
        accepted = _with_recipe(accepted, f"network: {choice.form}, {choice.reason}.", network=choice.form)
    return accepted if accepted.continued else _settle_cut(accepted)


def _settle_cut(accepted: AcceptedRun) -> AcceptedRun:
    """Replace planned tiles and batches by the fastest, unless both were asked for."""
    settings, resolved, tiles = accepted.settings, accepted.resolved, accepted.resolved.recipe.tiles
    asked = (settings.tile is not None, settings.batch is not None)
    if accepted.model is None or tiles is None or all(asked):
        return accepted
    memory, frames = resolved.memory, resolved.geometry.network_frames
    choice = settle_cut(accepted.job, memory, frames, asked, settings.scheduler)
    cut = choice.cut
    if choice.host_bytes is not None:
        memory = replace(memory, network_mem=choice.host_bytes)
    accepted = replace(accepted, resolved=replace(resolved, memory=memory))
    notice = f"tile: {cut}, {choice.reason}." if choice.reason else ""
    return _with_recipe(accepted, notice, tiles=replace(tiles, tile=cut.tile), batch=cut.batch)


def _with_recipe(accepted: AcceptedRun, notice: str, **changes: Any) -> AcceptedRun:
    recipe = replace(accepted.resolved.recipe, **changes)
    return replace(
        accepted,
        resolved=replace(accepted.resolved, recipe=recipe),
        job=replace(accepted.job, recipe=recipe, memory=accepted.resolved.memory),
        notices=(*accepted.notices, *([Notice(notice)] if notice else [])),
    )


def search_for_nan(accepted: AcceptedRun, stop: Callable[[], bool], listener: Listener) -> None:
    """Refuse a float input with NaN or infinity before anything is written, unless such frames may pass."""
    if must_scan(accepted):
        require_finite(
            accepted.job,
            accepted.resolved.geometry.units,
            workers=accepted.resolved.workers,
            scheduler=accepted.settings.scheduler,
            stop=stop,
            listener=listener,
        )


def must_scan(accepted: AcceptedRun) -> bool:
    """Whether a float input is searched for NaN and infinity before anything is written."""
    begun = accepted.recorded is not None and "fingerprint" in accepted.recorded
    return accepted.source.dtype.kind == "f" and accepted.settings.nan == "refuse" and not begun
