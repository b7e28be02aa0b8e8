"""The functions that users call: run, plan, statistics and info. The command line decides nothing beyond them."""

from __future__ import annotations

import platform
import resource
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from math import prod
from os import cpu_count
from pathlib import Path
from time import perf_counter
from typing import Any, cast

import numpy as np
import psutil

from phbatch.care.model import DEFAULT_MODEL, Model, open_model
from phbatch.care.weights import read_weights
from phbatch.config import RunSettings, parse_settings
from phbatch.engine import (
    Job,
    execute,
    forget_open_stores,
    load_predictor,
    measure_unit,
    require_finite,
    restore_unit,
    stop_on_signal,
)
from phbatch.errors import InputError, InterruptedRunError, OutputError
from phbatch.events import Event, Listener, Notice, RunStarted, UnitFailed, UnitFinished, ignore
from phbatch.output import OutputImage, create_image, default_output, finish_image, require_separate
from phbatch.planning import Unit, region_size, source_reads
from phbatch.resolve import ResolvedRun, find_differences, fingerprint, resolve_run
from phbatch.storage.ledger import Ledger
from phbatch.storage.sink import Sink, read_output_attributes, remove_output
from phbatch.storage.source import Source, open_source
from phbatch.storage.store import normalize_path

_REPORTED_PACKAGES = ("phbatch", "numpy", "scipy", "zarr", "zarrs", "dask", "keras", "tensorflow", "jax")


@dataclass(frozen=True)
class PlanReport:
    """What a run will do, known before a pixel is read.

    Attributes
    ----------
    input, output : str
        Where from and where to.
    axes : str
        Of the output, a subset of ``tczyx``.
    shape, output_shape, output_chunks : tuple of int
        Along ``tczyx``; 1 where an axis is absent.
    dtype : str
        Of the output.
    model : str or None
        Name of the model.
    normalization : str
        The rule, in words.
    units, frames : int
        Pieces of work, and frames measured.
    passes : int
        How often the input is read: once, and once more before where a float input is searched for NaN.
    bytes_read, bytes_written : int
        Uncompressed.
    tile : tuple of int or None
        Spatial shape of the tiles.
    tiles_per_frame : int
        Tiles of one frame.
    halo : int
        Pixels per side.
    tile_overhead : float
        Pixels computed per pixel of the frame.
    batch, workers : int
        Tiles per call, units at once.
    projected_mem, allowed_mem : int
        Bytes.
    notices : tuple of str
        Choices and warnings.
    """

    input: str
    output: str
    axes: str
    shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    output_chunks: tuple[int, ...]
    dtype: str
    model: str | None
    normalization: str
    units: int
    frames: int
    passes: int
    bytes_read: int
    bytes_written: int
    tile: tuple[int, ...] | None
    tiles_per_frame: int
    halo: int
    tile_overhead: float
    batch: int
    workers: int
    projected_mem: int
    allowed_mem: int
    notices: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class RunResult:
    """What a run did.

    Attributes
    ----------
    output : str
        Where the result lies.
    frames, units : int
        Of the whole output.
    units_done, units_skipped : int
        Done now, and finished by an earlier run.
    failed : mapping of str to str
        Error of every unit that failed.
    flagged : mapping of str to list of str
        Frames that are not good, and why.
    clipped : int
        Pixels that the output's dtype could not hold.
    seconds : float
        Wall time.
    pixels : int
        Pixels processed now.
    peak_rss_bytes : int
        Peak memory of this process.
    notices : tuple of str
        Choices and warnings.
    """

    output: str
    frames: int
    units: int
    units_done: int
    units_skipped: int
    seconds: float
    pixels: int
    peak_rss_bytes: int
    clipped: int = 0
    failed: Mapping[str, str] = field(default_factory=dict)
    flagged: Mapping[str, Sequence[str]] = field(default_factory=dict)
    notices: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """Of the command line: 0, or 4 where units failed."""
        return 4 if self.failed else 0

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self) | {"exit_code": self.exit_code}


@dataclass(frozen=True)
class _Prepared:
    settings: RunSettings
    source: Source
    model: Model | None
    resolved: ResolvedRun
    job: Job
    output: str
    image: OutputImage
    recorded: dict[str, Any] | None
    notices: tuple[Notice, ...]


def run(
    input: str | Path,
    output: str | Path | None = None,
    *,
    listener: Listener = ignore,
    command: str = "",
    **options: Any,
) -> RunResult:
    """Normalize and restore every frame of an image, Zarr to OME-Zarr.

    A run that was stopped continues where it left when it is called again with the same arguments.

    Parameters
    ----------
    input : str or Path
        OME-Zarr image (0.4, 0.5) or bare Zarr array with 2 to 5 of the axes ``tczyx``: a local path or an fsspec URL.
    output : str or Path, optional
        Default: ``<stem>.phbatch.zarr`` beside the input.
    listener : callable
        Called with every event of `phbatch.events`, in this thread.
    command : str
        The command line that reproduces the run, for the provenance; made from the options where it is empty.
    **options
        The fields of `phbatch.RunSettings`: `model`, `normalize`, `factor`, `sigma`, `pmin`, `pmax`, `value`, `axes`,
        `channel`, `frames`, `dtype`, `rescale`, `uncertainty`, `nan`, `tile`, `batch`, `backend`, `memory`, `workers`,
        `scheduler`, `overwrite`.

    Returns
    -------
    RunResult
        Its `failed` is not empty where units failed; all others are written.

    Raises
    ------
    UsageError, InputError, ModelError, OutputError, MemoryLimitError
        Before anything is written.
    InterruptedRunError
        SIGINT or SIGTERM; what was finished is committed.

    Examples
    --------
    >>> import tempfile, zarr
    >>> folder = Path(tempfile.mkdtemp())
    >>> frames = np.random.default_rng(0).normal(1000, 30, (2, 64, 64)).astype("uint16")
    >>> _ = zarr.create_array(folder / "a.zarr", data=frames)
    >>> result = run(folder / "a.zarr", model="none", workers=1)
    >>> result.frames, round(float(zarr.open_array(result.output + "/0")[0].mean()), 2)
    (2, 1.0)
    """
    started = perf_counter()
    settings = parse_settings(options)
    prepared = _prepare(str(input), output, settings)
    for notice in prepared.notices:
        listener(notice)
    if not command:
        command = _python_command(prepared, options)
    units = prepared.resolved.geometry.units
    if settings.scheduler is None:
        load_predictor(prepared.job)
    with stop_on_signal() as stop:
        committed = _open_output(prepared, command)
        todo = [unit for unit in units if unit.key not in committed]
        listener(_started(prepared, units, todo))
        failed: dict[str, str] = {}
        ledger, workers = Ledger(prepared.output), prepared.resolved.workers
        for outcome in execute(
            restore_unit, prepared.job, todo, workers=workers, scheduler=settings.scheduler, stop=stop
        ):
            if outcome.result is None:
                failed[outcome.unit.key] = _describe_error(outcome.error)
                listener(UnitFailed(outcome.unit.key, failed[outcome.unit.key]))
                continue
            ledger.commit(outcome.result)
            committed[outcome.unit.key] = outcome.result
            listener(UnitFinished(outcome.unit.key, len(outcome.result["statistics"])))
        finished = len(committed) == len(units)
        if stop() and not finished and len(committed) + len(failed) < len(units):
            raise InterruptedRunError(
                f"stopped after {len(committed)} of {len(units)} units; call the same command again to continue."
            )
    if finished:
        finish_image(Sink(prepared.output), prepared.image, _rows(committed))
    done_now = [unit for unit in todo if unit.key in committed]
    return RunResult(
        output=prepared.output,
        frames=prepared.resolved.geometry.frames,
        units=len(units),
        units_done=len(done_now),
        units_skipped=len(units) - len(todo),
        seconds=perf_counter() - started,
        pixels=sum(_unit_pixels(unit) for unit in done_now),
        peak_rss_bytes=peak_rss_bytes(),
        clipped=sum(record["clipped"] for record in committed.values()),
        failed=failed,
        flagged=_flagged(_rows(committed)),
        notices=tuple(notice.text for notice in prepared.notices),
    )


def plan(input: str | Path, output: str | Path | None = None, **options: Any) -> PlanReport:
    """What `run` would do with the same arguments; no pixel is read and nothing is written.

    Parameters
    ----------
    input, output, **options
        As for `run`.

    Raises
    ------
    UsageError, InputError, ModelError, OutputError, MemoryLimitError
        What `run` would refuse.
    """
    prepared = _prepare(str(input), output, parse_settings(options))
    resolved, recipe, source = prepared.resolved, prepared.resolved.recipe, prepared.source
    geometry = resolved.geometry
    scan = _must_scan(prepared)
    itemsize = np.dtype(recipe.dtype).itemsize + (4 if recipe.uncertainty else 0)
    return PlanReport(
        input=source.path,
        output=prepared.output,
        axes=prepared.image.metadata.axes,
        shape=source.shape,
        output_shape=geometry.output_shape,
        output_chunks=geometry.output_chunks,
        dtype=recipe.dtype,
        model=prepared.model.name if prepared.model else None,
        normalization=recipe.rule.describe(),
        units=len(geometry.units),
        frames=geometry.frames,
        passes=2 if scan else 1,
        bytes_read=source_reads(geometry) * source.dtype.itemsize * (2 if scan else 1),
        bytes_written=prod(geometry.output_shape) * itemsize,
        tile=recipe.tiles.tile if recipe.tiles else None,
        tiles_per_frame=len(recipe.tiles.tiles) if recipe.tiles else 0,
        halo=recipe.tiles.halo if recipe.tiles else 0,
        tile_overhead=recipe.tiles.overhead if recipe.tiles else 0.0,
        batch=recipe.batch,
        workers=resolved.workers,
        projected_mem=resolved.memory.projected_mem,
        allowed_mem=resolved.memory.allowed_mem,
        notices=tuple(notice.text for notice in prepared.notices),
    )


def statistics(input: str | Path, *, listener: Listener = ignore, **options: Any) -> list[dict[str, Any]]:
    """Statistics of every frame of an image.

    Parameters
    ----------
    input : str or Path
        As for `run`.
    listener : callable
        Called with every event.
    **options
        `axes`, `channel`, `frames`, `sigma`, `pmin`, `pmax`, `memory`, `workers`, `scheduler`.

    Returns
    -------
    list of dict
        One row per frame, in the order of t, c, z: ``t``, ``c``, ``z``, ``median``, ``mode``, ``mean``, ``std``,
        ``min``, ``max``, percentiles as ``p2`` and ``p99.8``, and ``flags``, a list of words that is empty when the
        frame is good. Statistics of frames with NaN or infinity are None.

    Raises
    ------
    InputError
        The input cannot be read, or a frame cannot be measured.
    InterruptedRunError
        SIGINT or SIGTERM.
    """
    settings = parse_settings(options | {"model": "none"})
    source = open_source(str(input), settings.axes)
    resolved = resolve_run(settings, source, None, available_bytes=_available_bytes(), cores=cpu_count() or 1)
    job = Job(source.path, settings.axes, resolved.recipe)
    units = resolved.geometry.units
    frame_pixels = prod(source.shape[3:])
    frames = resolved.geometry.frames
    listener(RunStarted("", len(units), 0, frames, 0, frame_pixels))
    rows: list[dict[str, Any]] = []
    with stop_on_signal() as stop:
        forget_open_stores()
        for outcome in execute(
            measure_unit, job, units, workers=resolved.workers, scheduler=settings.scheduler, stop=stop
        ):
            if outcome.result is None:
                raise InputError(
                    f"unit {outcome.unit.key} cannot be read: {_describe_error(outcome.error)}", frame=outcome.unit.key
                )
            rows += outcome.result
            listener(UnitFinished(outcome.unit.key, len(outcome.result)))
        if len(rows) < frames:
            raise InterruptedRunError(f"stopped after {len(rows)} of {frames} frames; call the same command again.")
    return sorted((_without_nan(row) for row in rows), key=_row_order)


def info(path: str | Path) -> dict[str, Any]:
    """What is at a path: an image, an output of phbatch, or a model.

    Parameters
    ----------
    path : str or Path
        Zarr path or URL, model folder, or name of a bundled model.

    Returns
    -------
    dict
        Plain values; ``kind`` is ``"image"`` or ``"model"``.

    Raises
    ------
    InputError, ModelError
        It is neither.
    """
    folder = Path(str(path)).expanduser()
    if str(path) == DEFAULT_MODEL or (folder / "config.json").exists():
        return _model_info(open_model(path))
    source = open_source(str(path))
    array, metadata = source.array, source.metadata
    compressors = [str(codec.to_dict()) if hasattr(codec, "to_dict") else str(codec) for codec in array.compressors]
    found: dict[str, Any] = {
        "kind": "image",
        "path": source.path,
        "ome_zarr": metadata.version,
        "zarr_format": array.metadata.zarr_format,
        "axes": source.stored_axes,
        "shape": list(array.shape),
        "chunks": list(array.chunks),
        "shards": list(array.shards) if array.shards else None,
        "dtype": str(source.dtype),
        "codecs": compressors or ["none"],
        "scale": dict(zip(metadata.axes, metadata.scale, strict=True)),
        "units": {axis: unit for axis, unit in zip(metadata.axes, metadata.units, strict=True) if unit},
        "channels": list(metadata.channel_names),
        "bytes": int(array.size) * source.dtype.itemsize,
    }
    with suppress(OutputError):
        attributes = read_output_attributes(source.path)
        if attributes:
            found["phbatch"] = {key: value for key, value in attributes.items() if key != "statistics"}
    return found


def peak_rss_bytes() -> int:
    """Peak resident memory of this process, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _prepare(input_path: str, output: str | Path | None, settings: RunSettings) -> _Prepared:
    """Everything that can be refused is refused here, and nothing is written."""
    forget_open_stores()
    source = open_source(input_path, settings.axes)
    model = None if settings.model == "none" else open_model(settings.model or DEFAULT_MODEL)
    if model is not None:
        read_weights(model.weights_path, model.config)
    destination = normalize_path(str(output)) if output is not None else default_output(source)
    require_separate(source, destination)
    recorded = read_output_attributes(destination)
    continued = None if settings.overwrite else recorded
    tile = ((continued or {}).get("fingerprint", {}).get("settings", {}) or {}).get("tile")
    resolved = resolve_run(
        settings,
        source,
        model,
        available_bytes=_available_bytes(),
        cores=cpu_count() or 1,
        tile=tuple(tile) if tile and settings.tile is None else None,
    )
    image = OutputImage.make(source, resolved.geometry, resolved.recipe)
    job = Job(
        source=source.path,
        axes=settings.axes,
        recipe=resolved.recipe,
        nan=settings.nan,
        output=destination,
        output_axes=image.metadata.axes,
        model=(model.folder, model.sha256) if model else None,
        backend=settings.backend,
    )
    notices = resolved.notices
    if settings.model is None and model is not None:
        notices = (Notice(f"model: {model.name}, bundled; choose another with --model."), *notices)
    return _Prepared(settings, source, model, resolved, job, destination, image, continued, notices)


def _open_output(prepared: _Prepared, command: str) -> dict[str, dict[str, Any]]:
    """Create the output or continue it; returns the records of the units that are finished."""
    settings, resolved = prepared.settings, prepared.resolved
    mark = fingerprint(settings, resolved, prepared.source, prepared.model)
    recorded = prepared.recorded
    if recorded is not None and "fingerprint" in recorded:
        differences = find_differences(recorded["fingerprint"], mark)
        if differences:
            raise OutputError(
                f"{prepared.output} was begun differently ({'; '.join(differences[:4])}); repeat the old settings"
                f" to continue, choose"
                " another output, or start afresh with --overwrite."
            )
        Sink(prepared.output).remove_scratch()
        units = {unit.key for unit in resolved.geometry.units}
        return {key: record for key, record in Ledger(prepared.output).records().items() if key in units}
    if _must_scan(prepared):
        require_finite(prepared.job, resolved.geometry.units, workers=resolved.workers, scheduler=settings.scheduler)
    remove_output(prepared.output)
    forget_open_stores()
    create_image(prepared.output, prepared.image, _provenance(prepared, mark, command))
    return {}


def _must_scan(prepared: _Prepared) -> bool:
    return prepared.source.dtype.kind == "f" and prepared.settings.nan == "refuse" and prepared.recorded is None


def _provenance(prepared: _Prepared, mark: dict[str, Any], command: str) -> dict[str, Any]:
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


def _python_command(prepared: _Prepared, options: Mapping[str, Any]) -> str:
    arguments = "".join(f", {name}={value!r}" for name, value in sorted(options.items()))
    return f"phbatch.run({prepared.source.path!r}, {prepared.output!r}{arguments})"


def _started(prepared: _Prepared, units: Sequence[Unit], todo: Sequence[Unit]) -> Event:
    geometry = prepared.resolved.geometry
    frame_pixels = prod(geometry.shape[3:]) * (geometry.shape[2] if geometry.volumes else 1)
    frames_todo = sum(_unit_frames(unit, geometry.volumes) for unit in todo)
    return RunStarted(
        prepared.output,
        len(units),
        len(units) - len(todo),
        geometry.frames,
        geometry.frames - frames_todo,
        frame_pixels,
    )


def _unit_frames(unit: Unit, volumes: bool) -> int:
    planes = 1 if volumes else unit.source[2].stop - unit.source[2].start
    return len(unit.keep_t) * len(unit.keep_c) * planes


def _unit_pixels(unit: Unit) -> int:
    return len(unit.keep_t) * len(unit.keep_c) * region_size(unit.source[2:])


def _rows(committed: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    rows = [row for record in committed.values() for row in record["statistics"]]
    return sorted((_without_nan(row) for row in rows), key=_row_order)


def _row_order(row: Mapping[str, Any]) -> tuple[int, int, int]:
    return (row["t"], row["c"], -1 if row["z"] is None else row["z"])


def _without_nan(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: None if isinstance(value, float) and not np.isfinite(value) else value for name, value in row.items()}


def _flagged(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    flagged = {}
    for row in rows:
        if row["flags"]:
            z = "" if row["z"] is None else f"/z{row['z']}"
            flagged[f"t{row['t']}/c{row['c']}{z}"] = cast(list[str], row["flags"])
    return flagged


def _describe_error(error: BaseException | None) -> str:
    text = str(error).strip() if error is not None else ""
    return text.splitlines()[0] if text else type(error).__name__


def _available_bytes() -> int:
    return int(psutil.virtual_memory().available)


def _model_info(model: Model) -> dict[str, Any]:
    weights = read_weights(model.weights_path, model.config)
    return {
        "kind": "model",
        "name": model.name,
        "path": str(model.folder),
        **asdict(model.config),
        "halo": model.config.halo,
        "grid": model.config.grid,
        "parameters": sum(kernel.size + bias.size for kernel, bias in weights.values()),
        "weights": model.weights_path.name,
        "sha256": model.sha256,
        "normalization": model.normalization.describe()
        if model.normalization
        else "not recorded (percentile 2 to 99.8 is used)",
        "facts": dict(model.facts),
    }
