"""Precision of the network: what a reduced one is worth on tiles of this very input, and what it costs in accuracy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from phbatch.care.model import Model
from phbatch.care.predictor import Predictor, describe_device
from phbatch.config import FLOAT32, Backend, Precision
from phbatch.errors import UsageError

_REDUCED: tuple[Precision, ...] = ("float16", "bfloat16", "tf32")
_CALLS = 3


@dataclass(frozen=True)
class PrecisionCheck:
    """What was measured of a precision on sample tiles, against float32.

    Attributes
    ----------
    precision : str
        float32, tf32, float16 or bfloat16.
    seconds : float
        Median of a call.
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
) -> tuple[PrecisionCheck, str]:
    """The precision of a run, and why; the reason is empty where there was nothing to choose.

    Parameters
    ----------
    model, tile, batch, backend, form
        As for `phbatch.care.predictor.Predictor`.
    asked : {"auto", "float32", "tf32", "float16", "bfloat16"}
        ``auto`` takes the fastest that holds the bound; on a CPU that is float32, without a look at the others, which
        no CPU without units of their own computes faster.
    bound : float
        Largest 99.9th percentile of the differences, over the standard deviation of the output.
    sample : callable
        Gives ``(n, *tile, channel)`` normalized windows of this very input, in float32.

    Raises
    ------
    UsageError
        The precision that was asked for does not hold the bound, or nothing can be sampled.
    """
    _, on_gpu = describe_device(backend)
    if asked == FLOAT32 or (asked == "auto" and not on_gpu):
        return PrecisionCheck(FLOAT32, 0.0, 0.0, 0.0), ""
    candidates = _REDUCED if asked == "auto" else (asked,)
    tiles = sample()
    if len(tiles) == 0:
        if asked == "auto":
            return PrecisionCheck(FLOAT32, 0.0, 0.0, 0.0), "no sampled frame can be normalized"
        raise UsageError(
            f"--precision {asked} cannot be checked, since no sampled frame can be normalized; use float32."
        )
    checks = check_precisions(model, tile, batch, backend, form, candidates, tiles)
    exact, *reduced = checks
    holding = [check for check in reduced if check.p99_9 <= bound]
    if asked != "auto":
        if not holding:
            raise UsageError(
                f"--precision {asked} differs from float32 by {reduced[0].describe()}, on tiles of this input, and"
                f" --precision-bound is {bound:g}; use float32, or raise the bound."
            )
        return holding[0], f"asked for; differs by {holding[0].describe()}"
    fastest = min([exact, *holding], key=lambda check: check.seconds)
    if fastest is exact:
        return exact, f"no faster precision holds the bound of {bound:g}"
    return fastest, f"{exact.seconds / fastest.seconds:.2f} x float32; differs by {fastest.describe()}"


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
    checks: list[PrecisionCheck] = []
    reference = np.empty(0, np.float32)
    for precision in (FLOAT32, *precisions):
        predictor = Predictor(model.folder, tile, batch, backend, form, precision)
        parts = [predictor(tiles[first : first + batch]) for first in range(0, len(tiles), batch)]
        result = np.concatenate(parts)
        seconds = []
        for _ in range(_CALLS):
            started = perf_counter()
            predictor(tiles[:batch])
            seconds.append(perf_counter() - started)
        reference = result if precision == FLOAT32 else reference
        difference = np.abs(result - reference) / max(float(reference.std()), np.finfo(np.float32).tiny)
        checks.append(
            PrecisionCheck(precision, median(seconds), float(difference.max()), float(np.percentile(difference, 99.9)))
        )
    return checks
