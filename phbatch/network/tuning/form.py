"""Which form of the network is fastest here: measured once, and remembered in the user's cache directory."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from math import prod
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phbatch.network.device import find_device
from phbatch.network.forms import PLAIN, POLYPHASE, list_forms
from phbatch.network.model import Model
from phbatch.network.predictor import Predictor
from phbatch.network.steps import Steps, Windows
from phbatch.network.tuning.defaults import default_form
from phbatch.network.tuning.remembered import Remembered
from phbatch.network.unet import NetworkConfig, count_operations
from phbatch.words.choices import FLOAT32, Backend, Precision

WORTH_CPU = 5e11
"""Multiply-adds of a run from which measuring pays on a CPU, within a few such runs."""

_WORTH_GPU = 2e15
_CPU_PIXELS = 1 << 16  # of the tile on which a CPU is measured: its rates hardly depend on the tile
_ROUNDS = 3
_SECONDS = 4.0  # after which no further round is begun
_HOPELESS = 1.5  # times the fastest form's time: not measured again
_GAIN = 1.03  # by which another form must be faster than plain, so that noise does not choose


@dataclass(frozen=True)
class FormSpeed:
    """What was measured of one form.

    Attributes
    ----------
    form : str
        One of `phbatch.network.forms.list_forms`.
    mpx_per_s : float
        Megapixels of tiles per second, copies to and from the device included.
    relative : float
        How many times as fast as ``plain``, by processor time on a CPU and by wall time on a GPU.
    difference : float
        Largest difference to the result of ``plain`` over the latter's standard deviation, on random tiles.
    """

    form: str
    mpx_per_s: float
    relative: float
    difference: float


@dataclass(frozen=True)
class Choice:
    """The form of a run, and why.

    Attributes
    ----------
    form : str
        One of `phbatch.network.forms.list_forms`.
    reason : str
        In a few words.
    """

    form: str
    reason: str


def choose_form(
    model: Model,
    tile: tuple[int, ...],
    batch: int,
    backend: Backend,
    pixels: int,
    cache: Path | None = None,
    *,
    precision: Precision = FLOAT32,
    steps: Steps = Steps(),  # noqa: B008, frozen
) -> Choice:
    """The fastest form of a network for a tile, a batch and a precision on this machine.

    What was measured before is remembered; else it is measured where the work is worth it, which takes a few seconds.
    Forms differ by the rounding of their sums: in float32, under 3e-5 of the output's standard deviation.

    Parameters
    ----------
    model : Model
        The network.
    tile : tuple of int
        Spatial shape of the tiles.
    batch : int
        Tiles per call.
    backend : {"tensorflow", "jax"}
        Of Keras.
    pixels : int
        Of all tiles of the run together. A run of less than 5e11 multiply-adds (2e15 on a GPU, where compiling takes
        longer), some seconds, is not worth measuring: it takes what `default_form` says, unless the answer is
        remembered.
    cache : Path, optional
        Folder of what is remembered; default: ``phbatch`` in the user's cache directory. A file of it that cannot be
        read is ignored, and one that cannot be written is not missed.
    precision, steps
        Of the run, as for `phbatch.network.predictor.Predictor`: what wins in one precision loses in another.

    Returns
    -------
    Choice
        ``plain`` unless another form is at least 3 % faster.
    """
    found = find_device(backend)
    device, on_gpu = found.name, found.on_gpu
    case = describe_case(model.config, tile, batch, backend, device, precision) | {"steps": asdict(steps)}
    remembered = Remembered("network", case, cache)
    relative, how = remembered.recall(), "remembered"
    if relative is None or not {PLAIN} <= relative.keys() <= set(list_forms(model.config)):
        if pixels * count_operations(model.config) < (_WORTH_GPU if on_gpu else WORTH_CPU):
            return Choice(default_form(model.config, found, precision), "too little work to measure other forms")
        measured = tile if on_gpu else shrink_tile(tile, model.config.grid, _CPU_PIXELS)
        speeds = measure_forms(model, measured, batch, backend, precision=precision, steps=steps)
        relative = {speed.form: speed.relative for speed in speeds}
        how = "measured"
        remembered.write(relative)
    fastest = max(relative, key=lambda form: relative[form])
    if relative[fastest] < _GAIN:
        return Choice(PLAIN, f"{how}: no form is faster on {device}")
    return Choice(fastest, f"{how} {relative[fastest]:.2f} x plain on {device}")


def measure_forms(
    model: Model,
    tile: tuple[int, ...],
    batch: int,
    backend: Backend,
    *,
    thorough: bool = False,
    precision: Precision = FLOAT32,
    steps: Steps = Steps(),  # noqa: B008, frozen
) -> list[FormSpeed]:
    """Measure the forms of a network side by side.

    Every form is called once to compile it, then all in turn in up to three rounds, so that other load on the machine
    meets all of them alike: the speed relative to plain is the median over the rounds, the rate that of the best call.
    The former is of processor time on a CPU, since that other load hardly disturbs it, and of wall time on a GPU.
    A form that is far slower than the fastest is left out of further rounds. On a device without matrix units,
    ``polyphase-n`` is tried only where ``polyphase-(n - 1)`` was the fastest so far; with them all forms are tried,
    since there more channels may win where some more lost.

    Parameters
    ----------
    model, tile, batch, backend, precision, steps
        As for `choose_form`.
    thorough : bool
        All forms in all rounds, however long that takes.
    """
    tiles = _draw_windows((batch, *tile, model.config.n_channel_in), steps)
    results: dict[str, NDArray[Any]] = {}
    predictors: dict[str, Predictor] = {}
    device = find_device(backend)
    clock = perf_counter if device.on_gpu else process_time
    seconds: dict[str, list[float]] = {}
    walls: dict[str, float] = {}
    started = perf_counter()
    forms = list_forms(model.config)
    for index, form in enumerate(forms):
        deeper = index > forms.index(f"{POLYPHASE}1")
        if (
            deeper
            and not (thorough or device.matrix_units)
            and min(seconds, key=lambda name: seconds[name]) != forms[index - 1]
        ):
            break
        predictors[form] = Predictor(model.folder, tile, batch, backend, form, precision, steps)
        results[form] = predictors[form].restore(tiles).image.astype(np.float32)
        used, walls[form] = _time(predictors[form], tiles, clock)
        seconds[form] = [used]
    for _ in range(1, _ROUNDS):
        if perf_counter() - started > _SECONDS and not thorough:
            break
        limit = math.inf if thorough else _HOPELESS * min(map(min, seconds.values()))
        for form, predictor in predictors.items():
            if form == PLAIN or min(seconds[form]) < limit:
                used, wall = _time(predictor, tiles, clock)
                seconds[form].append(used)
                walls[form] = min(walls[form], wall)
    plain = results[PLAIN]
    return [
        FormSpeed(
            form=form,
            mpx_per_s=batch * prod(tile) / walls[form] / 1e6,
            relative=median(reference / own for reference, own in zip(seconds[PLAIN], seconds[form], strict=False)),
            difference=float(np.abs(result - plain).max() / max(float(plain.std()), np.finfo(np.float32).tiny)),
        )
        for form, result in results.items()
    ]


def shrink_tile(tile: tuple[int, ...], grid: int, max_pixels: int) -> tuple[int, ...]:
    """A tile of at most `max_pixels`, its longest axis halved until it fits, on the pooling grid.

    Examples
    --------
    >>> shrink_tile((1024, 1368), 4, 1 << 16), shrink_tile((64, 64), 4, 1 << 16)
    ((256, 172), (64, 64))
    """
    lengths = list(tile)
    while prod(lengths) > max_pixels and max(lengths) > grid:
        longest = lengths.index(max(lengths))
        lengths[longest] = -(-lengths[longest] // (2 * grid)) * grid
    return tuple(lengths)


def _draw_windows(shape: tuple[int, ...], steps: Steps) -> Windows:
    """Random tiles as they go to the device, normalized there."""
    draw, windows = np.random.default_rng(0), np.dtype(steps.windows)
    if windows.kind == "f":
        return Windows.plain(draw.normal(size=shape).astype(windows))
    plain = Windows.plain(draw.integers(0, 100, shape).astype(windows))
    return replace(plain, scaling=plain.scaling + np.array([[50], [28], [0], [0]], np.float32))


def _time(predictor: Predictor, tiles: Windows, clock: Callable[[], float]) -> tuple[float, float]:
    """Seconds of one call by a clock, and on the wall."""
    started, wall = clock(), perf_counter()
    predictor.restore(tiles)
    return clock() - started, perf_counter() - wall


def describe_case(
    config: NetworkConfig, tile: tuple[int, ...], batch: int, backend: Backend, device: str, precision: Precision
) -> dict[str, Any]:
    """All that a speed depends on, as plain values."""
    return {
        "device": device,
        "network": asdict(config),
        "tile": list(tile),
        "batch": batch,
        "precision": precision,
        "versions": {name: version(name) for name in ("keras", backend)},
    }
