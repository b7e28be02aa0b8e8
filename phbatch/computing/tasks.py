"""What is done with a unit: read, restore and write.

Tasks get a job and a unit, both small; pixels are read and written by whoever runs the task and never travel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from math import isfinite
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phbatch.computing.slots import on_device, waiting
from phbatch.frames.clock import StageClock
from phbatch.frames.light import Corrections, Preparation, Profile
from phbatch.frames.recipe import Recipe
from phbatch.frames.restore import Levels, RestoredBlock, restore_block
from phbatch.frames.rows import Rows
from phbatch.frames.table import StatisticsRow
from phbatch.frames.tiles import Lane, Predict
from phbatch.inputs.image import Source, open_source
from phbatch.inputs.light_profile import read_profile
from phbatch.kernels.display import measure_extent
from phbatch.kernels.illumination import Correction
from phbatch.kernels.intensity import make_affine
from phbatch.network.backend import limit_network_threads
from phbatch.network.predictor import Predictor, get_predictor
from phbatch.network.steps import Prediction, Windows
from phbatch.outputs.creation import IMAGE, UNCERTAINTY, level_path
from phbatch.outputs.finished import shown_frames
from phbatch.outputs.writer import Sink
from phbatch.places.encoding import Encoded
from phbatch.places.lock import new_token
from phbatch.places.place import Place
from phbatch.places.zarr_nodes import limit_threads
from phbatch.planning.memory import UNITS_AHEAD, MemoryPlan
from phbatch.planning.passes import CORRECTIONS_AT_ONCE
from phbatch.planning.unit import Unit
from phbatch.words.axes import Region
from phbatch.words.choices import Backend, LevelMethod, NanPolicy
from phbatch.words.errors import InputError

NOWHERE = Place.at("memory://nowhere")
"""Of a job that reads nothing, or writes nothing."""


@dataclass(frozen=True)
class Job:
    """What a task must know besides its unit; the same for all units of a run.

    Attributes
    ----------
    source, axes : Place, str
        The input, and its axes where the user named them.
    recipe : Recipe
        What the pixels go through.
    nan : {"refuse", "skip"}
        What a frame with NaN or infinity does.
    output, output_axes : Place, str
        The output, and the axes of its arrays.
    profile : Place or None
        The profile of uneven light.
    model : (Path, str) or None
        Model folder and sha256 of its weights.
    backend : {"tensorflow", "jax"}
        Of Keras.
    retries : int
        Attempts after the first one, where an error may pass.
    threads : int or None
        Of codecs, and of TensorFlow on a CPU, in every process; None leaves them as they are.
    token : str
        Of this run: the one that holds its output, and under which workers keep stores open.
    memory : MemoryPlan or None
        Of a process that runs the tasks: no worker of a Dask cluster with less memory gets any.
    wait_s : float
        How long a Dask cluster without workers is waited for.
    on_devices : bool
        Whether the network is settled for workers that declare a device, which alone compute it then.
    levels, level_method : int, {"mean", "mode"}
        Resolutions of the output, and how the coarser ones are made.
    held : Place or None
        What the run holds, where that is not the output itself.
    shown : bool
        Whether records tell the extents of what is written, for viewers.
    """

    source: Place
    axes: str | None
    recipe: Recipe
    nan: NanPolicy = "refuse"
    output: Place = NOWHERE
    output_axes: str = ""
    profile: Place | None = None
    model: tuple[Path, str] | None = None
    backend: Backend = "tensorflow"
    retries: int = 0
    threads: int | None = None
    token: str = field(default_factory=new_token)
    memory: MemoryPlan | None = None
    wait_s: float = 600.0
    on_devices: bool = False
    levels: int = 1
    level_method: LevelMethod = "mean"
    held: Place | None = None
    shown: bool = False


@dataclass(frozen=True)
class PositionUnit(Unit):
    """A unit of one image of many: it brings the job of its image, and its key begins with the image's path."""

    job: Job | None = None
    position: str = ""


# By token, too: a worker that serves run after run must not see an earlier run's metadata of a place.
@lru_cache(maxsize=8)
def _open_source(place: Place, axes: str | None, token: str) -> Source:
    return open_source(place, axes)


@lru_cache(maxsize=8)
def _open_sink(place: Place, token: str, held: Place | None) -> Sink:
    return Sink(place, token=token, held=held)


@lru_cache(maxsize=2)
def _open_profile(place: Place, token: str) -> Profile:
    return Profile(*read_profile(place))


@lru_cache(maxsize=CORRECTIONS_AT_ONCE)
def _open_correction(place: Place, token: str, preparation: Preparation, c: int, z: int) -> Correction:
    return _open_profile(place, token).correction(preparation, c, z)


def forget_open_stores() -> None:
    """Close what this process holds open, so that a store that was replaced is opened anew."""
    _open_source.cache_clear()
    forget_open_outputs()


def forget_open_outputs() -> None:
    """As `forget_open_stores`, of what lies in outputs."""
    for opened in (_open_sink, _open_profile, _open_correction):
        opened.cache_clear()


def maps_of(job: Job) -> Corrections | None:
    """The maps of the job's profile by channel and plane of the image."""
    profile = job.profile
    if profile is None:
        return None
    return lambda c, z: _open_correction(profile, job.token, job.recipe.preparation, c, z)


def corrections_of(job: Job, unit: Unit) -> Corrections | None:
    """The maps of the job's profile for the channels and planes of a unit."""
    maps, rows = maps_of(job), rows_of(job, unit)
    if maps is None:
        return None

    def find(c: int, z: int) -> Correction:
        key = unit.frame_key(0, c, z)
        whole = maps(key.c, key.z or 0)
        return whole if rows is None else whole.window(rows.held)

    return find


def rows_of(job: Job, unit: Unit) -> Rows | None:
    """Which rows of its frames a unit has; None where it has all."""
    if not job.recipe.in_bands:
        return None
    return Rows.of(unit.source[3], unit.output[3], job.recipe.preparation.downscale)


def _read_corners(job: Job, unit: Unit) -> NDArray[Any]:
    """What the first pixel of every frame of a unit is made of."""
    first = slice(0, job.recipe.preparation.downscale)
    t, c, z, *_ = unit.source
    return read_unit(job, replace(unit, source=(t, c, z, first, first)))[0]


def read_unit(job: Job, unit: Unit) -> tuple[np.ndarray[Any, Any], str]:
    """Selected frames of a unit as ``(t, c, z, y, x)``, and the digest of the objects that they were read from."""
    if job.threads is not None:
        limit_threads(job.threads)
    source = _open_source(job.source, job.axes, job.token)
    block, digest = source.read_stamped(unit.source)
    if len(unit.keep_t) != block.shape[0]:
        block = block[list(unit.keep_t)]
    if len(unit.keep_c) != block.shape[1]:
        block = block[:, list(unit.keep_c)]
    return block, digest


def load_predictor(job: Job) -> Predictor | None:
    """The network of a job, compiled once per process; None where it only normalizes."""
    recipe = job.recipe
    if job.model is None or recipe.tiles is None:
        return None
    if job.threads is not None:
        limit_network_threads(job.backend, job.threads)
    return get_predictor(
        *job.model, recipe.tiles.tile, recipe.batch, job.backend, recipe.network, recipe.precision, recipe.steps
    )


def lane_of(predictor: Predictor | None) -> Predict | Lane | None:
    """The network as a unit uses it: on a GPU, the cores are lent to another unit while it waits for its pixels."""
    if predictor is None or not predictor.on_gpu:
        return predictor.restore if predictor is not None else None
    begin_there = predictor.begin

    def begin(windows: Windows) -> Callable[[], Prediction]:
        collect = begin_there(windows)

        def wait() -> Prediction:
            with on_device():
                return collect()

        return wait

    return Lane(begin, UNITS_AHEAD - 1)


def compute_unit(
    job: Job, unit: Unit, clock: StageClock | None = None
) -> tuple[RestoredBlock, list[dict[str, Any]], str]:
    """Restored frames of a unit, the rows of their statistics, and the digest of what they were read from."""
    clock = clock or StageClock()
    with clock("read"):
        block, digest = read_unit(job, unit)
    predictor, corrections = load_predictor(job), corrections_of(job, unit)
    copied, part = unit.places_of(job.recipe.copied), rows_of(job, unit)
    if part is not None and job.recipe.stacked:
        part = replace(part, corners=_read_corners(job, unit))
    levels = Levels(job.levels - 1, job.level_method)
    restored = restore_block(
        block, job.recipe, lane_of(predictor), unit.measured, corrections, clock, copied, part, levels
    )
    rows = []
    for (t, c, z), statistics in restored.statistics.items():
        key = unit.frame_key(t, c, z)
        if "nonfinite" in statistics.flags and job.nan == "refuse":
            raise nonfinite_error(str(key))
        affine = None if c in copied else make_affine(statistics, job.recipe.rule)
        rows.append(
            StatisticsRow(key, statistics).as_dict()
            | {"offset": affine.offset if affine else None, "divisor": affine.divisor if affine else None}
        )
    return restored, rows, digest


def extents_of(
    job: Job, unit: Unit, restored: RestoredBlock, rows: Sequence[Mapping[str, Any]]
) -> list[list[float] | None]:
    """Extent of every frame that was written, in the order of `phbatch.outputs.finished.shown_frames`.

    None of one that was passed through, and of one with padding, which would be most of what its contrast shows.
    """
    found: list[list[float] | None] = []
    frames, copied = [*restored.statistics], unit.places_of(job.recipe.copied)
    skips = job.recipe.bad_frames != "normalize"
    for (t, c, z), made_of in shown_frames(frames, len(unit.keep_c), restored.image.shape[1]):
        parts = [rows[at] for at in made_of if frames[at][1] not in copied]
        passed = all(row["divisor"] is None for row in parts) or (skips and any(row["flags"] for row in parts))
        extent = None
        if not ((parts and passed) or any(rows[at]["padding"] > 0 for at in made_of)):
            extent = measure_extent(restored.image[t, c] if z is None else restored.image[t, c, z])
        found.append(list(extent) if extent is not None and isfinite(extent.max) else None)
    return found


def images_of(job: Job, unit: Unit, restored: RestoredBlock) -> Iterator[tuple[str, Region, NDArray[Any]]]:
    """Path within the output, region there, and pixels of every level of what was restored."""
    yield IMAGE, unit.output, restored.image
    for level, pixels in enumerate(restored.coarser, 1):
        yield level_path(IMAGE, level), region_of(unit, level, pixels), pixels
    if restored.uncertainty is not None:
        yield UNCERTAINTY, unit.output, restored.uncertainty
        for level, pixels in enumerate(restored.coarser_uncertainty, 1):
            yield level_path(UNCERTAINTY, level), region_of(unit, level, pixels), pixels


def region_of(unit: Unit, level: int, pixels: NDArray[Any]) -> Region:
    """Where in a level of the output they belong: a unit begins at a multiple of what a pixel of it stands for."""
    t, c, z, rows, _ = unit.output
    first = rows.start >> level
    return (t, c, z, slice(first, first + pixels.shape[3]), slice(0, pixels.shape[4]))


def encode_unit(job: Job, unit: Unit, restored: RestoredBlock, sink: Sink, clock: StageClock) -> list[Encoded]:
    """All chunks of a unit, of each level."""
    encoded = list[Encoded]()
    with clock("encode"):
        for name, region, pixels in images_of(job, unit, restored):
            encoded.append(sink.encode(name, job.output_axes, region, pixels))
    return encoded


def restore_unit(job: Job, unit: Unit) -> dict[str, Any]:
    """Restore a unit and write it; the returned record is what the ledger keeps."""
    started, clock = perf_counter(), StageClock()
    restored, rows, digest = compute_unit(job, unit, clock)
    sink = _open_sink(job.output, job.token, job.held)
    with clock("measure"):
        shown = {"shown": extents_of(job, unit, restored, rows)} if job.shown else {}
    clipped = restored.clipped
    encoded = encode_unit(job, unit, restored, sink, clock)
    del restored  # the next unit takes its memory
    with waiting(), clock("write"):
        objects = sink.place(*encoded)
    seconds = round(perf_counter() - started, 4)
    return {
        "unit": unit.key,
        "input": digest,
        "objects": objects,
        "statistics": rows,
        **shown,
        "clipped": clipped,
        "seconds": seconds,
        "stages": {stage: round(spent, 4) for stage, spent in clock.seconds.items()},
    }


def restore_position_unit(job: Job, unit: Unit) -> dict[str, Any]:
    """As `restore_unit` for a unit that brings its own job; its record has keys within the output of all."""
    own, position = own_job(job, unit)
    record = restore_unit(own, unit)
    return record | {"objects": {f"{position}{key}": mark for key, mark in record["objects"].items()}}


def own_job(job: Job, unit: Unit) -> tuple[Job, str]:
    """Job of a unit, and how keys of its image begin."""
    if isinstance(unit, PositionUnit) and unit.job is not None:
        return unit.job, f"{unit.position}/"
    return job, ""


def nonfinite_error(frame: str) -> InputError:
    """What is said of a frame that holds NaN or infinity."""
    return InputError(
        f"frame {frame} holds NaN or infinity (float32 ends at 3.4e38); repair it, or pass such frames through flagged"
        " with --nan skip.",
        frame=frame,
    )
