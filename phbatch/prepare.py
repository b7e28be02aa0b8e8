"""Everything before the first pixel: open, resolve, refuse, and create or continue the output."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from os import cpu_count
from pathlib import Path
from typing import Any

import psutil

from phbatch.care.model import DEFAULT_MODEL, Model, open_model
from phbatch.care.weights import read_weights
from phbatch.config import ESTIMATED_BACKGROUNDS, FRAME_BACKGROUNDS, RunSettings, StorageOptions
from phbatch.engine import Job, forget_open_stores, require_finite
from phbatch.errors import InputError, OutputError
from phbatch.events import Notice
from phbatch.kernels.intensity import required_statistics
from phbatch.measure import read_table
from phbatch.output import OutputImage, create_image, default_output, require_separate
from phbatch.planning import Geometry
from phbatch.resolve import ResolvedRun, find_differences, fingerprint, resolve_run
from phbatch.stages.table import StatisticsTable
from phbatch.storage.ledger import Ledger
from phbatch.storage.profile import digest_profile, read_profile
from phbatch.storage.sink import Sink, read_output_attributes, remove_output
from phbatch.storage.source import Source, open_source
from phbatch.storage.store import normalize_path

PROFILE = "illumination"
"""Group of an output with the profile that was estimated for it."""

_REPORTED_PACKAGES = ("phbatch", "numpy", "scipy", "zarr", "zarrs", "dask", "keras", "tensorflow", "jax")


class Finished:
    """The units of an output that are finished, and the statistics of their frames.

    Parameters
    ----------
    geometry : Geometry
        Of the run.
    """

    def __init__(self, geometry: Geometry) -> None:
        self.table = StatisticsTable(geometry.grid)
        self._clipped: dict[str, int] = {}

    def __contains__(self, unit: str) -> bool:
        return unit in self._clipped

    def __len__(self) -> int:
        return len(self._clipped)

    @property
    def clipped(self) -> int:
        """Pixels that the output's dtype could not hold."""
        return sum(self._clipped.values())

    def add(self, record: Mapping[str, Any]) -> None:
        """Take in what the ledger says of a unit."""
        self._clipped[record["unit"]] = record["clipped"]
        for row in record["statistics"]:
            self.table.put(row)


@dataclass(frozen=True)
class Prepared:
    """A run that may start: nothing is left to refuse but the pixels themselves."""

    settings: RunSettings
    source: Source
    model: Model | None
    resolved: ResolvedRun
    job: Job
    output: str
    image: OutputImage
    recorded: dict[str, Any] | None
    given: StatisticsTable | None
    profile_digest: str | None
    notices: tuple[Notice, ...]


def prepare(input_path: str, output: str | Path | None, settings: RunSettings) -> Prepared:
    """Everything that can be refused is refused here, and nothing is written."""
    forget_open_stores()
    source = open_source(input_path, settings.axes, settings.storage_options)
    model = None if settings.model == "none" else open_model(settings.model or DEFAULT_MODEL)
    if model is not None:
        read_weights(model.weights_path, model.config)
    destination = normalize_path(str(output)) if output is not None else default_output(source)
    require_separate(source, destination)
    recorded = read_output_attributes(destination, settings.storage_options)
    continued = None if settings.overwrite else recorded
    tile = ((continued or {}).get("fingerprint", {}).get("settings", {}) or {}).get("tile")
    resolved = resolve_run(
        settings,
        source,
        model,
        available_bytes=available_bytes(),
        cores=cpu_count() or 1,
        tile=tuple(tile) if tile and settings.tile is None else None,
    )
    profile, digest = _find_profile(settings, source, destination)
    image = OutputImage.make(source, resolved.geometry, resolved.recipe)
    job = Job(
        source=source.path,
        axes=settings.axes,
        recipe=resolved.recipe,
        nan=settings.nan,
        output=destination,
        output_axes=image.metadata.axes,
        profile=profile,
        model=(model.folder, model.sha256) if model else None,
        backend=settings.backend,
        storage_options=settings.storage_options,
    )
    given = None
    if settings.stats is not None:
        required = required_statistics(resolved.recipe.rule)
        given = read_table(settings.stats, resolved.geometry.grid, required, settings.storage_options)
    notices = resolved.notices
    if settings.model is None and model is not None:
        notices = (Notice(f"model: {model.name}, bundled; choose another with --model."), *notices)
    return Prepared(settings, source, model, resolved, job, destination, image, continued, given, digest, notices)


def require_profile(path: str, source: Source, options: StorageOptions = None) -> str:
    """Refuse a profile that does not fit the image; returns its digest.

    Raises
    ------
    InputError
        It cannot be read, or has another shape.
    """
    background, dark = read_profile(path, options)
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
    return digest_profile(background, dark)


def _find_profile(settings: RunSettings, source: Source, output: str) -> tuple[str, str | None]:
    """Place of the profile of a run, and its digest where the user gave it; empty where there is none."""
    method = settings.illumination
    if method == "none" or method in FRAME_BACKGROUNDS:
        return "", None
    if method in ESTIMATED_BACKGROUNDS:
        return f"{output}/{PROFILE}", None
    return method, require_profile(method, source, settings.storage_options)


def open_output(prepared: Prepared, command: str, stop: Callable[[], bool]) -> Finished:
    """Create the output or continue it; returns what is finished."""
    settings, resolved = prepared.settings, prepared.resolved
    given = {
        "statistics": prepared.given.digest() if prepared.given is not None else None,
        "illumination": prepared.profile_digest,
    }
    mark = fingerprint(settings, resolved, prepared.source, prepared.model, given)
    finished = Finished(resolved.geometry)
    recorded = prepared.recorded
    if recorded is not None and "fingerprint" in recorded:
        differences = find_differences(recorded["fingerprint"], mark)
        if differences:
            raise OutputError(
                f"{prepared.output} was begun differently ({'; '.join(differences[:4])}); repeat the old settings"
                f" to continue, choose"
                " another output, or start afresh with --overwrite."
            )
        Sink(prepared.output, settings.storage_options).remove_scratch()
        units = {unit.key for unit in resolved.geometry.units}
        for record in Ledger(prepared.output, settings.storage_options):
            if record["unit"] in units:
                finished.add(record)
        return finished
    if must_scan(prepared):
        require_finite(
            prepared.job,
            resolved.geometry.units,
            workers=resolved.workers,
            scheduler=settings.scheduler,
            stop=stop,
        )
    remove_output(prepared.output, settings.storage_options)
    forget_open_stores()
    create_image(prepared.output, prepared.image, _provenance(prepared, mark, command), settings.storage_options)
    return finished


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
        "settings": prepared.settings.model_dump(mode="json", exclude={"overwrite", "scheduler", "workers", "memory"}),
        "normalization": recipe.rule.model_dump(),
        "model": {
            "name": model.name,
            "sha256": model.sha256,
            "config": asdict(model.config),
            "facts": dict(model.facts),
        }
        if model
        else None,
        "tile": {"shape": list(recipe.tiles.tile), "halo": recipe.tiles.halo, "grid": recipe.tiles.grid}
        if recipe.tiles
        else None,
        "notices": [notice.text for notice in prepared.notices],
        "versions": {"python": platform.python_version()} | _versions(),
        "fingerprint": mark,
    }


def _versions() -> dict[str, str]:
    found = {}
    for name in _REPORTED_PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
