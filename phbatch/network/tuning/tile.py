"""Which tile and batch are fastest here: measured once, and remembered.

Large tiles have little halo, small ones stay in the processor's cache, and batches of tiny ones save calls: what wins
depends on the device and the network, so that candidates are timed, with their halo counted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from statistics import median
from time import perf_counter, process_time

import numpy as np

from phbatch.kernels.tiling import TilePlan, choose_tile
from phbatch.network.device import Device, find_device, tile_room
from phbatch.network.forms import PLAIN
from phbatch.network.model import Model
from phbatch.network.predictor import Predictor
from phbatch.network.tuning.form import describe_case
from phbatch.network.tuning.memory_probe import fits_on_device
from phbatch.network.tuning.remembered import Remembered
from phbatch.network.unet import NetworkConfig, count_operations
from phbatch.words.choices import Backend, Precision

_WORTH_CPU, _WORTH_GPU = 3e13, 1e16  # multiply-adds of a run from which measuring pays: minutes
_ROUNDS = 3
_SECONDS = 10.0  # after which no further round is begun
_GAIN = 1.03  # by which another cut must be faster than the planned one, so that noise does not choose
_BATCHES = (4, 16)
_BATCH_PIXELS = {False: 1 << 18, True: 1 << 24}  # of a batch of several tiles, by whether it is on a GPU


@dataclass(frozen=True)
class Cut:
    """How frames are cut and batched."""

    tile: tuple[int, ...]
    batch: int

    def __str__(self) -> str:
        return f"{'x'.join(map(str, self.tile))}, {self.batch} at once"


@dataclass(frozen=True)
class CutChoice:
    """The cut of a run, and why in a few words; the reason is empty where nothing was measured."""

    cut: Cut
    reason: str = ""
    host_bytes: int | None = field(default=None, compare=False)
    """What the network takes of the memory of the machine then."""


def list_cuts(
    planned: Cut,
    shape: tuple[int, ...],
    config: NetworkConfig,
    *,
    max_pixels: int,
    frames: int,
    on_gpu: bool,
    tiles: bool = True,
    batches: bool = True,
) -> list[Cut]:
    """Cuts that are worth measuring, the planned one first.

    Parameters
    ----------
    planned : Cut
        What is done where nothing is measured.
    shape : tuple of int
        Spatial shape of a frame.
    config : NetworkConfig
        Gives halo and grid.
    max_pixels : int
        Pixels of a batch that memory has room for.
    frames : int
        Frames of the run: batches are no larger than their tiles.
    on_gpu : bool
        Whether the device is a GPU.
    tiles, batches : bool
        Whether other tiles, and other batches, may be taken.

    Examples
    --------
    >>> config = NetworkConfig(2, 1, 1, 2, 3, 32, True, "linear", False)
    >>> cuts = list_cuts(Cut((96, 96), 1), (96, 96), config, max_pixels=1 << 20, frames=2, on_gpu=False)
    >>> [str(cut) for cut in cuts]
    ['96x96, 1 at once', '52x52, 1 at once', '52x52, 4 at once', '52x52, 16 at once']
    """
    shapes = [planned.tile]
    if tiles:
        limits = [prod(planned.tile) // 4, prod(planned.tile) // 16, *([max_pixels] if on_gpu else [])]
        shapes += [choose_tile(shape, config.halo, config.grid, limit) for limit in limits]
    found = [planned]
    for tile in dict.fromkeys(shapes):
        count = frames * len(TilePlan(shape, tile, config.halo, config.grid).tiles)
        for batch in (planned.batch, *(_BATCHES if batches else ())):
            pixels = batch * prod(tile)
            allowed = batch == planned.batch or (batch <= count and pixels <= _BATCH_PIXELS[on_gpu])
            if allowed and (pixels <= max_pixels or (tile, batch) == (planned.tile, planned.batch)):
                found.append(Cut(tile, batch))
    return list(dict.fromkeys(found))


def choose_cut(
    model: Model,
    shape: tuple[int, ...],
    planned: Cut,
    backend: Backend,
    form: str,
    precision: Precision,
    *,
    room: int,
    frames: int,
    tiles: bool = True,
    batches: bool = True,
    folder: Path | None = None,
) -> CutChoice:
    """The fastest cut of frames for a network on this machine.

    Parameters
    ----------
    model, backend, form, precision
        As for `phbatch.network.predictor.Predictor`.
    shape, planned, frames, tiles, batches
        As for `list_cuts`. What is planned for a GPU is as large as the GPU allows.
    room : int
        Bytes of this machine's memory that the network may take.
    folder : Path, optional
        Of what is remembered.

    Returns
    -------
    CutChoice
        The planned cut unless another one is at least 3 % faster. A run of less than 3e13 multiply-adds (1e16 on a
        GPU), some minutes, is not worth measuring. On a CPU the plain network takes one tile at a time, which has the
        bits of CSBDeep.
    """
    found = find_device(backend)
    on_gpu, config = found.on_gpu, model.config
    if on_gpu and tiles:
        fitting = min(room // config.staging_bytes_per_pixel, tile_room(config, found, 1)) // planned.batch
        planned = Cut(choose_tile(shape, config.halo, config.grid, fitting), planned.batch)
    choice = _choose(
        model,
        shape,
        planned,
        backend,
        form,
        precision,
        found,
        room,
        frames,
        tiles=tiles,
        batches=batches,
        folder=folder,
    )
    bytes_of = config.staging_bytes if on_gpu else config.workspace_bytes
    return replace(choice, host_bytes=bytes_of(choice.cut.tile, choice.cut.batch))


def _choose(
    model: Model,
    shape: tuple[int, ...],
    planned: Cut,
    backend: Backend,
    form: str,
    precision: Precision,
    found: Device,
    room: int,
    frames: int,
    *,
    tiles: bool,
    batches: bool,
    folder: Path | None,
) -> CutChoice:
    device, on_gpu, config = found.name, found.on_gpu, model.config
    batches = batches and (on_gpu or form != PLAIN)
    max_pixels = room // (config.staging_bytes_per_pixel if on_gpu else config.workspace_bytes_per_pixel)
    max_pixels = min(max_pixels, tile_room(config, found, 1)) if on_gpu else max_pixels
    cuts = list_cuts(
        planned, shape, config, max_pixels=max_pixels, frames=frames, on_gpu=on_gpu, tiles=tiles, batches=batches
    )
    if len(cuts) == 1:
        return CutChoice(planned)
    case = describe_case(config, planned.tile, planned.batch, backend, device, precision)
    remembered = Remembered(
        "cut", case | {"form": form, "shape": list(shape), "cuts": [str(cut) for cut in cuts]}, folder
    )
    relative, how = remembered.recall(), "remembered"
    if relative is None or not relative.keys() <= {str(cut) for cut in cuts}:
        if frames * prod(shape) * count_operations(config) < (_WORTH_GPU if on_gpu else _WORTH_CPU):
            return CutChoice(planned)
        arguments = (model.folder, backend, form, precision)
        if on_gpu:
            cuts = _keep_fitting(cuts, *arguments)
        clock = perf_counter if on_gpu else process_time
        relative, how = measure_cuts(cuts, shape, *arguments, clock=clock), "measured"
        remembered.write(relative)
    fastest = max(cuts, key=lambda cut: relative.get(str(cut), 0.0))
    if str(planned) not in relative:
        return CutChoice(fastest, f"{how} the fastest that {device} has memory for")
    gain = relative.get(str(fastest), 0.0) / relative[str(planned)]
    if gain < _GAIN:
        return CutChoice(planned, f"{how}: no other is faster on {device}")
    return CutChoice(fastest, f"{how} {gain:.2f} x {planned} on {device}")


def measure_cuts(
    cuts: Sequence[Cut],
    shape: tuple[int, ...],
    folder: Path,
    backend: Backend,
    form: str,
    precision: Precision,
    *,
    clock: Callable[[], float],
) -> dict[str, float]:
    """How many times as fast as with the first cut whole frames go with each, by the median of rounds.

    Every cut is called once to compile it, then all in turn, so that other load on the machine meets all of them alike.
    """
    seconds: dict[Cut, list[float]] = {cut: [] for cut in cuts}
    calls = {cut: _make_call(cut, shape, folder, backend, form, precision) for cut in cuts}
    started = perf_counter()
    for number in range(_ROUNDS):
        if number and perf_counter() - started > _SECONDS:
            break
        for cut, (call, per_frame) in calls.items():
            begun = clock()
            call()
            seconds[cut].append((clock() - begun) * per_frame)
    first = seconds[cuts[0]]
    return {str(cut): median(a / b for a, b in zip(first, own, strict=True)) for cut, own in seconds.items()}


def _make_call(
    cut: Cut, shape: tuple[int, ...], folder: Path, backend: Backend, form: str, precision: Precision
) -> tuple[Callable[[], object], float]:
    """A call that is compiled already, and how many of them a frame takes."""
    predictor = Predictor(folder, cut.tile, cut.batch, backend, form, precision)
    config = predictor.model.config
    draw = np.random.default_rng(0)
    tiles = draw.normal(size=(cut.batch, *cut.tile, config.n_channel_in)).astype(np.float32)
    predictor(tiles)
    count = len(TilePlan(shape, cut.tile, config.halo, config.grid).tiles)
    return lambda: predictor(tiles), count / cut.batch


def _keep_fitting(cuts: Sequence[Cut], folder: Path, backend: Backend, form: str, precision: Precision) -> list[Cut]:
    """Cuts that the GPU has memory for; once one fits, so do all smaller ones. The smallest is never left out."""
    by_size = sorted(cuts, key=lambda cut: cut.batch * prod(cut.tile), reverse=True)
    for number, cut in enumerate(by_size[:-1]):
        if fits_on_device(folder, cut.tile, cut.batch, backend, form, precision):
            kept = set(by_size[number:])
            return [cut for cut in cuts if cut in kept]
    return by_size[-1:]
