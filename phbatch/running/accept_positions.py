"""Many images as one run, before the first pixel: each is accepted or set aside, and one plan is made of all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from phbatch.computing.identity import fingerprint
from phbatch.computing.machine import find_scheduler
from phbatch.inputs.image import Source
from phbatch.inputs.opening import open_input
from phbatch.inputs.positions import Positions, name_images
from phbatch.kernels.intensity import required_statistics
from phbatch.outputs.creation import read_output_attributes
from phbatch.outputs.image import default_output
from phbatch.outputs.positions import PositionsOutput
from phbatch.places.place import Place
from phbatch.planning.positions import PositionUnits
from phbatch.planning.units import Geometry, Units
from phbatch.running.begin import (
    AcceptedRun,
    accept_alike,
    accept_run,
    meet_cluster,
    require_input,
    settle_network,
    with_table,
)
from phbatch.running.given_tables import read_tables
from phbatch.running.growth import mark_before
from phbatch.words.errors import InputError, OutputError
from phbatch.words.events import Listener, Notice, Stop, never
from phbatch.words.settings import RunSettings

_KINDS = 8


@dataclass(frozen=True)
class AcceptedPositions:
    """A run of many images that may start.

    Attributes
    ----------
    settings : RunSettings
        Of all.
    positions : Positions
        The input.
    output : Place
        The root of the output.
    runs : mapping of str to AcceptedRun
        Of every image, by its path in the output, as if it were alone.
    aside : mapping of str to str
        Why an image is left out, by its path.
    recorded : mapping or None
        What an output says that was begun before.
    replaces : bool
        Whether an output that is there will be removed.
    alike : mapping of str to str
        Of an image that has the metadata of one before: the path of the first of these.
    frames : mapping of str to str
        Of an image of which fewer frames are restored than the settings select, because no more are there: these.
    """

    settings: RunSettings
    positions: Positions
    output: Place
    runs: Mapping[str, AcceptedRun]
    aside: Mapping[str, str]
    recorded: Mapping[str, Any] | None
    replaces: bool = False
    alike: Mapping[str, str] = field(default_factory=dict)
    frames: Mapping[str, str] = field(default_factory=dict)

    @property
    def leader(self) -> AcceptedRun:
        """The first image that was accepted."""
        return next(iter(self.runs.values()))

    @cached_property
    def units(self) -> PositionUnits:
        """The units of all images."""
        return PositionUnits({path: run.resolved.geometry for path, run in self.runs.items()})

    @cached_property
    def whole(self) -> AcceptedRun:
        """What the run of all has of the run of one: workers and memory are those of the largest image."""
        largest = max(self.runs.values(), key=lambda run: run.resolved.memory.projected_mem)
        workers = min(len(self.units), *(run.resolved.workers for run in self.runs.values()))
        resolved = replace(largest.resolved, workers=workers)
        return replace(largest, settings=self.settings, output=self.output, resolved=resolved)

    def on(self, scheduler: str | None) -> AcceptedPositions:
        """The same run on a Dask scheduler."""
        changes = {"scheduler": scheduler}
        runs = {path: replace(run, settings=run.settings.model_copy(update=changes)) for path, run in self.runs.items()}
        return replace(self, settings=self.settings.model_copy(update=changes), runs=runs)

    @cached_property
    def layout(self) -> PositionsOutput:
        """What will be written besides pixels."""
        version = self.leader.image.version
        return PositionsOutput(
            self.output, self.positions, {path: run.image for path, run in self.runs.items()}, version
        )

    @cached_property
    def notices(self) -> tuple[Notice, ...]:
        """What is to be said: of an image what is not said of all, with its path."""
        said = [Notice(f"{len(self.runs)} images, {len(self.units)} units.")]
        said += [Notice(text, warning=True) for text in self.positions.notices]
        said += [Notice(f"{path} is left out: {why}", warning=True) for path, why in self.aside.items()]
        return (*said, *dict.fromkeys(notice for run in self.runs.values() for notice in run.notices))

    @cached_property
    def _marks(self) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        for path, run in self.runs.items():
            alike = found.get(self.alike.get(path, path))
            if alike is None or "digest" in alike["input"] or run.given is not None:  # of all its files, or frames
                found[path] = _fingerprint(run)
            else:
                found[path] = alike
        return found

    @cached_property
    def _digests(self) -> dict[str, str]:
        marks = self._marks
        digests = {id(mark): _digest(mark) for mark in {id(mark): mark for mark in marks.values()}.values()}
        return {path: digests[id(mark)] for path, mark in marks.items()}

    def fingerprint(self) -> dict[str, Any]:
        """What two runs must share to continue each other; of each image, a digest."""
        first = next(iter(self._marks.values()))
        return {**{name: value for name, value in first.items() if name != "input"}, "positions": self._digests}

    @cached_property
    def longer(self) -> dict[str, str]:
        """Images of an output that have more frames along t now: the digest of each as it was then."""
        if self.recorded is None or "fingerprint" not in self.recorded:
            return {}
        old, before = self.recorded["fingerprint"]["positions"], geometries_of(self.recorded)
        found: dict[str, str] = {}
        for path, run in self.runs.items():
            if path in old and path in before and old[path] != self._digests[path]:
                geometry = before[path]
                mark = mark_before(run, self._marks[path], geometry.shape[0], geometry.times)
                found |= {} if mark is None else {path: _digest(mark)}
        return found

    @property
    def grown(self) -> frozenset[str]:
        """Those of them that are otherwise the same: what came since is appended to their output."""
        old = self.recorded["fingerprint"]["positions"] if self.recorded is not None and self.longer else {}
        return frozenset(path for path, digest in self.longer.items() if old[path] == digest)

    def describe(self) -> dict[str, Any]:
        """Path of every image in the input, its geometry, and how its network is cut, for the provenance."""
        kinds: dict[str, int] = {}
        described: list[dict[str, Any]] = []
        found: dict[str, Any] = {}
        for path, run in self.runs.items():
            source = run.source.path.removeprefix(self.positions.root.path).lstrip("/")
            limit = {"frames": self.frames[path]} if path in self.frames else {}
            if (alike := self.alike.get(path)) in found:
                found[path] = {"input": source, "kind": found[alike]["kind"]} | limit
                continue
            mark = self._marks[path]["settings"]
            cut = {name: mark[name] for name in ("tile", "batch", "network", "precision")}
            kind = {"geometry": run.resolved.geometry.as_dict(), "axes": run.image.metadata.axes, "cut": cut}
            kind["dtype"] = str(run.source.dtype)
            text = json.dumps(kind, sort_keys=True)
            if text not in kinds:
                kinds[text] = len(described)
                described.append(kind)
            found[path] = {"input": source, "kind": kinds[text]} | limit
        return {"kinds": described, "positions": found}


def accept_positions(
    positions: Positions,
    output: str | Path | None,
    settings: RunSettings,
    stop: Stop = never,
    processes: int = 0,
    *,
    frames: Mapping[str, str] = {},
    empty: bool = False,
) -> AcceptedPositions:
    """Everything that can be refused is refused here; an image that cannot be read is set aside, unless all are.

    Of some images, by their names, other `frames` may be restored than the settings select. An image of which nothing
    is stored is set aside, too, unless such may be `empty`.
    """
    root, store = positions.root, settings.storage_options
    destination = Place.at(output, store) if output is not None else default_output(root.path, store)
    if positions.kind != "images":
        if root.holds(destination):
            raise OutputError(f"output {destination} lies inside the input; choose a place outside of {root}.")
        if destination.holds(root):
            raise OutputError(f"the input lies inside the output {destination}; choose another place for the output.")
    recorded = read_output_attributes(destination)
    if recorded is not None and "geometry" in recorded:
        raise OutputError(f"{destination} is the output of one image and {root} are many; choose another place.")
    continued = None if settings.overwrite else recorded
    settings = settings.model_copy(update={"scheduler": find_scheduler(settings.scheduler, stop)})
    one = settings.model_copy(update={"wells": None, "fields": None})
    names = name_images(positions.paths)
    runs: dict[str, AcceptedRun] = {}
    aside: dict[str, str] = {}
    first_error: InputError | None = None
    beside: AcceptedRun | None = None
    kinds: list[tuple[str, AcceptedRun, tuple[Any, ...]]] = []  # the last few that were not like one before
    alike: dict[str, str] = {}
    for name, path in names.items():
        record = _record_of(continued, name)
        its = one.model_copy(update={"frames": frames[name]}) if name in frames else one
        known = record, its.frames
        try:
            source = open_input((root / path).path, one)
            twin = next((kind for kind in kinds if _are_alike(source, kind[1].source) and known == kind[2]), None)
            if twin is not None:
                found = accept_alike(twin[1], source, destination / name)
            else:
                found = accept_run(
                    source.path,
                    (destination / name).path,
                    its,
                    stop,
                    processes,
                    record=record,
                    beside=beside,
                    source=source,
                )
            bare, found = found, found if empty else require_input(found)
        except InputError as error:
            first_error, aside[name] = first_error or error, str(error)
            continue
        if beside is None:  # one plan: what is free now is shared out once
            shared = found.resolved.memory.allowed_mem * max(1, processes)
            one = one.model_copy(update={"memory": shared})
        elif twin is not None:
            alike[name] = twin[0]
        else:
            kinds = [(name, bare, known), *kinds[: _KINDS - 1]]
        beside = beside or found
        job = replace(found.job, token=beside.job.token, held=destination)
        runs[name] = replace(found, job=job, image=_in_version(found, beside))
    if settings.stats is not None:
        runs, without = _with_tables(runs, settings)
        first_error = first_error or next(iter(without.values()), None)
        aside |= {name: str(error) for name, error in without.items()}
    if first_error is not None and not runs:
        raise first_error
    replaces = settings.overwrite and recorded is not None
    limits = {path: frames[path] for path in runs if path in frames}
    return AcceptedPositions(settings, positions, destination, runs, aside, continued, replaces, alike, limits)


def settle_positions(accepted: AcceptedPositions, stop: Stop, listener: Listener) -> AcceptedPositions:
    """Choose form, tiles and precision of the network once for all images of a kind, on the first of them.

    A kind may have any number of frames along t: of a plate that is followed, they differ.
    """
    leaders: dict[str, AcceptedRun] = {}
    met = meet_cluster(accepted.leader, stop, listener)
    runs = {}
    ordered = sorted(accepted.runs, key=lambda path: not accepted.runs[path].continued)
    for path in ordered:
        run = replace(accepted.runs[path], workers=met.workers)
        if run.model is None:
            runs[path] = run
            continue
        geometry = run.resolved.geometry
        alone = replace(geometry, shape=(1, *geometry.shape[1:]), times=range(1))
        kind = json.dumps([alone.as_dict(), str(run.source.dtype)], sort_keys=True)
        if kind not in leaders:
            leaders[kind] = settle_network(run)
            runs[path] = leaders[kind]
            continue
        settled = leaders[kind]
        names = ("network", "precision", "tiles", "batch")
        recipe = replace(run.resolved.recipe, **{name: getattr(settled.resolved.recipe, name) for name in names})
        memory = replace(run.resolved.memory, network_mem=settled.resolved.memory.network_mem)
        job = replace(run.job, recipe=recipe, memory=memory, on_devices=settled.job.on_devices)
        resolved = replace(run.resolved, recipe=recipe, memory=memory)
        runs[path] = replace(run, job=job, resolved=resolved, precision=settled.precision)
    return replace(accepted, runs={path: runs[path] for path in accepted.runs})


def geometries_of(provenance: Mapping[str, Any]) -> dict[str, Geometry]:
    """Geometry of every image of an output, by its path, of what its root says."""
    kinds = [Geometry.from_dict(kind["geometry"]) for kind in provenance["kinds"]]
    return {path: kinds[found["kind"]] for path, found in provenance["positions"].items()}


def limits_of(provenance: Mapping[str, Any]) -> dict[str, str]:
    """Frames of the images of an output of which no more were there, while it was followed."""
    return {path: found["frames"] for path, found in provenance["positions"].items() if "frames" in found}


def units_of(provenance: Mapping[str, Any]) -> Units | PositionUnits | None:
    """The units of an output, of one image or many, of what its root says; None where that is not said yet."""
    if "kinds" in provenance:
        return PositionUnits(geometries_of(provenance))
    return Geometry.from_dict(provenance["geometry"]).units if "geometry" in provenance else None


def axes_of(provenance: Mapping[str, Any], path: str) -> str:
    """Axes of one image of an output, of what its root says."""
    return str(provenance["kinds"][provenance["positions"][path]["kind"]]["axes"])


def _with_tables(
    runs: Mapping[str, AcceptedRun], settings: RunSettings
) -> tuple[dict[str, AcceptedRun], dict[str, InputError]]:
    """Runs whose statistics are given in one table of all, and why an image has none that it can be restored with."""
    tables = read_tables(
        Place.at(str(settings.stats), settings.storage_options),
        {path: run.resolved.geometry.grid for path, run in runs.items()},
        {path: required_statistics(run.resolved.recipe.rule) for path, run in runs.items()},
    )
    found: dict[str, AcceptedRun] = {}
    without: dict[str, InputError] = {}
    for path, run in runs.items():
        table = tables[path]
        try:
            if isinstance(table, InputError):
                raise table
            taken = with_table(run, table)
        except InputError as error:
            without[path] = error
            continue
        said = (replace(notice, text=f"{path}: {notice.text}") for notice in taken.notices[len(run.notices) :])
        found[path] = replace(taken, notices=(*run.notices, *said))
    return found, without


def _are_alike(source: Source, other: Source) -> bool:
    """Whether all that can be said of two images but where they lie is the same."""
    same = source.array.metadata is other.array.metadata or source.array.metadata == other.array.metadata
    pairs = ((each.node, each.stored_axes, each.metadata, each.notices) for each in (source, other))
    return same and len({type(each.place) for each in (source, other)}) == 1 and next(pairs) == next(pairs)


def _record_of(recorded: Mapping[str, Any] | None, path: str) -> dict[str, Any]:
    """What the output of all says of one image, as if it were alone."""
    if recorded is None or "fingerprint" not in recorded:
        return {}
    found, labelled = recorded.get("positions", {}), {"labelled": recorded.get("labelled", False)}
    if path not in found:
        return labelled
    mark = recorded["fingerprint"]
    kind = recorded["kinds"][found[path]["kind"]]
    levels = kind["geometry"].get("levels", 1)
    return labelled | {"fingerprint": {"model": mark["model"], "settings": kind["cut"] | {"levels": levels}}}


def _in_version(run: AcceptedRun, beside: AcceptedRun) -> Any:
    """Its output in the version of the first, since one hierarchy has one."""
    return replace(run.image, version=beside.image.version, zarr_format=beside.image.zarr_format)


def _fingerprint(run: AcceptedRun) -> dict[str, Any]:
    statistics = run.given.digest() if run.given is not None else None
    given = {"statistics": statistics, "illumination": run.profile_digest}
    with run.source.refusing_errors():
        return fingerprint(run.settings, run.resolved, run.source, run.model, given)


def _digest(mark: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(mark, sort_keys=True).encode()).hexdigest()
