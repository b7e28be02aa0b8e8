"""Precision of the network: what a reduced one is worth on tiles of this very input, and what it costs in accuracy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter, process_time

import numpy as np
from numpy.typing import NDArray

from phbatch.network.device import find_device
from phbatch.network.model import Model
from phbatch.network.predictor import get_predictor
from phbatch.network.tuning.defaults import default_form
from phbatch.network.tuning.form import WORTH_CPU, describe_case, shrink_tile
from phbatch.network.tuning.remembered import Remembered
from phbatch.network.unet import count_operations
from phbatch.words.choices import FLOAT32, Backend, Precision
from phbatch.words.errors import UsageError

_REDUCED: tuple[Precision, ...] = ("float16", "bfloat16", "tf32")  # from the fastest on
_UNITS = frozenset(("avx512_bf16", "amx_bf16"))  # as Linux names them
_CPU_FACTS = Path("/proc/cpuinfo")
_CPU_PIXELS = 1 << 16  # of the part of a sample tile that is looked at on a CPU
_GAIN = 1.05  # by which another precision must be faster than float32
_CALLS = 3


@dataclass(frozen=True)
class PrecisionCheck:
    """What was measured of a precision on sample tiles, against float32.

    Attributes
    ----------
    precision : str
        float32, tf32, float16 or bfloat16.
    seconds : float
        Median of a call: of the clock on a GPU, of the processors on a CPU.
    largest, p99_9 : float
        Largest, and 99.9th percentile, of the absolute differences over the standard deviation of float32's output.
    """

    precision: Precision
    seconds: float
    largest: float
    p99_9: float

    def describe(self) -> str:
        """The differences in words."""
        return f"{self.p99_9:.1e} of the output's std at 99.9 % of the pixels, {self.largest:.1e} at most"


def choose_precision(
    model: Model,
    tile: tuple[int, ...],
    batch: int,
    backend: Backend,
    form: str,
    asked: Precision,
    bound: float,
    sample: Callable[[], NDArray[np.float32]],
    pixels: int,
    *,
    rule: str = "",
    cache: Path | None = None,
) -> tuple[PrecisionCheck, str]:
    """The precision of a run, and why; the reason is empty where there was nothing to choose.

    It comes before the form of the network, since the form that wins in float32 may lose in another precision.

    Parameters
    ----------
    model, tile, batch, backend
        As for `phbatch.network.predictor.Predictor`.
    form : str
        The same; ``auto`` is what `default_form` says of every precision.
    asked : {"auto", "float32", "tf32", "float16", "bfloat16"}
        ``auto`` takes the first, in the order of what matrix units make of them, that holds the bound and is faster
        than float32. On a CPU that is float32, unless it has units for bfloat16 (AVX512_BF16 or AMX) and the run is of
        5e11 multiply-adds or more, some seconds: less is not worth checking.
    bound : float
        Largest 99.9th percentile of the differences, over the standard deviation of the output.
    sample : callable
        Gives ``(n, *tile, channel)`` normalized windows of this very input, in float32; a CPU looks at their middle.
    pixels : int
        Of all tiles of the run together.
    rule : str
        How frames are normalized, in words.
    cache : Path, optional
        Folder of what is remembered for a model, a rule and a device: how much faster a precision is. One that is
        taken is checked on every input nevertheless. That none held the bound is remembered on a CPU, where checking
        costs time of a run that would be float32 anyway.

    Raises
    ------
    UsageError
        The precision that was asked for does not hold the bound, or nothing can be sampled.
    """
    device = find_device(backend)
    candidates = (asked,) if asked != "auto" else _REDUCED if device.on_gpu else _reduced_of_cpu(model, pixels)
    exact = PrecisionCheck(FLOAT32, 0.0, 0.0, 0.0)
    if candidates in ((), (FLOAT32,)):
        return exact, ""
    case = describe_case(model.config, tile, batch, backend, device.name, asked)
    facts = {"sha256": model.sha256, "rule": rule, "bound": bound, "first layer": FLOAT32}
    remembered = Remembered("precision", case | facts, cache)
    known = (remembered.recall() if asked == "auto" else None) or {}
    tried = [name for name in candidates if known.get(name, _GAIN) >= _GAIN]
    if not tried:
        return exact, f"remembered: no faster precision holds the bound of {bound:g}"
    tiles = sample()
    if not device.on_gpu:
        tile = shrink_tile(tile, model.config.grid, _CPU_PIXELS)
        tiles = _middle(tiles, tile)
    if len(tiles) == 0:
        if asked == "auto":
            return exact, "no sampled frame can be normalized"
        raise UsageError(
            f"--precision {asked} cannot be checked, since no sampled frame can be normalized; use float32."
        )

    def check(name: Precision) -> tuple[PrecisionCheck, PrecisionCheck]:
        taken = form if form != "auto" else default_form(model.config, device, name)
        reference, checked = check_precisions(model, tile, batch, backend, taken, (name,), tiles)
        return reference, checked

    if asked != "auto":
        _, found = check(asked)
        if found.p99_9 <= bound:
            return found, f"asked for; differs by {found.describe()}"
        raise UsageError(
            f"--precision {asked} differs from float32 by {found.describe()}, on tiles of this input, and"
            f" --precision-bound is {bound:g}; use float32, or raise the bound."
        )
    gains: dict[str, float] = {}
    chosen, reason = exact, f"no faster precision holds the bound of {bound:g}"
    for name in tried:  # one is compiled at first, and mostly none but that
        reference, found = check(name)
        gain = known.get(name) or reference.seconds / max(found.seconds, 1e-9)
        holds = found.p99_9 <= bound
        if holds or not device.on_gpu:
            gains[name] = gain if holds else 0.0
        if holds and gain >= _GAIN:
            chosen, how = found, "remembered " if name in known else ""
            reason = f"{how}{gain:.2f} x float32; differs by {found.describe()}"
            break
    if gains and not known:
        remembered.write(gains)
    return chosen, reason


def _reduced_of_cpu(model: Model, pixels: int) -> tuple[Precision, ...]:
    """What may be faster on a CPU than float32."""
    flags = _CPU_FACTS.read_text(encoding="utf-8").split() if _CPU_FACTS.exists() else []
    known = not _UNITS.isdisjoint(flags)
    return ("bfloat16",) if known and pixels * count_operations(model.config) >= WORTH_CPU else ()


def _middle(tiles: NDArray[np.float32], tile: tuple[int, ...]) -> NDArray[np.float32]:
    """The middle of every tile."""
    starts = [(whole - length) // 2 for whole, length in zip(tiles.shape[1:-1], tile, strict=True)]
    return tiles[:, *(slice(start, start + length) for start, length in zip(starts, tile, strict=True))]


def check_precisions(
    model: Model,
    tile: tuple[int, ...],
    batch: int,
    backend: Backend,
    form: str,
    precisions: Sequence[Precision],
    tiles: NDArray[np.float32],
) -> list[PrecisionCheck]:
    """Measure float32 and other precisions on tiles ``(n, *tile, channel)``; parameters as for `choose_precision`."""
    clock = perf_counter if find_device(backend).on_gpu else process_time
    checks: list[PrecisionCheck] = []
    reference = np.empty(0, np.float32)
    for precision in (FLOAT32, *precisions):
        # kept by the process: frameworks do not give back all memory of a network that is dropped, run after run
        predictor = get_predictor(model.folder, model.sha256, tile, batch, backend, form, precision)
        parts = [predictor(tiles[first : first + batch]) for first in range(0, len(tiles), batch)]
        result = np.concatenate(parts)
        seconds = []
        for _ in range(_CALLS):
            started = clock()
            predictor(tiles[:batch])
            seconds.append(clock() - started)
        reference = result if precision == FLOAT32 else reference
        difference = np.abs(result - reference) / max(float(reference.std()), np.finfo(np.float32).tiny)
        checks.append(
            PrecisionCheck(precision, median(seconds), float(difference.max()), float(np.percentile(difference, 99.9)))
        )
    return checks
