"""Which normalization keeps the background steady: the rules side by side on frames of one's own data.

A frame is first cut into patches; the tenth of them that is flattest after smoothing is taken as free of signal. What a
rule does to those patches over time is what matters: their level should stay where it is, and their noise should not be
stretched in frames that hold little signal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from os import cpu_count
from pathlib import Path
from time import perf_counter
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from phbatch.axes import to_region
from phbatch.config import Normalization, RunSettings
from phbatch.errors import InputError
from phbatch.kernels.intensity import make_affine
from phbatch.kernels.smoothing import smooth_float
from phbatch.kernels.stats import find_paddings, measure_frame
from phbatch.options import SampleOptions, parse_options
from phbatch.prepare import available_bytes
from phbatch.resolve import resolve_statistics
from phbatch.stages.statistics import percentiles_for
from phbatch.storage.source import Source, open_source

RULES = (
    Normalization(method="median"),
    Normalization(method="mode"),
    Normalization(method="mode", factor=10.0),
    Normalization(method="percentile"),
    Normalization(method="minmax"),
    Normalization(method="zscore"),
)

_PATCH = 32
_FLAT_FRACTION = 0.1
_TIE = 0.05


@dataclass(frozen=True)
class Comparison:
    """What one rule does to the sampled frames.

    Attributes
    ----------
    rule : str
        In words.
    level : float
        Median over frames of the background's normalized level.
    drift : float
        Largest minus smallest level over the frames, in units of `contrast`.
    noise : float
        Median over frames of the normalized noise of the background, in units of `contrast`.
    stretch : float
        Largest over smallest normalized noise of the background: 1 where a rule never exaggerates it.
    contrast : float
        Median over frames of the normalized range of the smoothed frame, from its 0.2 to its 99.8 percentile.
    outside : float
        Fraction of the normalized pixels outside of [0, 1].
    ms_per_mpx : float
        Milliseconds per megapixel to measure and normalize, on one core.
    levels : tuple of float
        Level of the background in every sampled frame, less its median, in units of `contrast`.
    noises : tuple of float
        Normalized noise of the background in every sampled frame, over its median.
    """

    rule: str
    level: float
    drift: float
    noise: float
    stretch: float
    contrast: float
    outside: float
    ms_per_mpx: float
    levels: tuple[float, ...]
    noises: tuple[float, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    @property
    def unsteadiness(self) -> float:
        """What the recommendation minimizes: drift, plus the logarithm of the stretch."""
        return self.drift + float(np.log(self.stretch))


def compare_rules(input: str | Path, *, samples: int = 12, **options: Unpack[SampleOptions]) -> list[Comparison]:
    """Compare the normalization rules on frames sampled evenly over time.

    Parameters
    ----------
    input : str or Path
        As for `phbatch.run`.
    samples : int
        Number of frames, of the first channel (or that of `channel`) and the middle plane.
    **options
        `axes`, `channel`, `frames`, `memory`, `storage_options`.

    Returns
    -------
    list of Comparison
        One per rule; see `recommend`.

    Raises
    ------
    InputError
        The input cannot be read, or no sampled frame can be normalized by every rule.
    """
    settings = parse_options("compare_rules", options)
    source = open_source(str(input), settings.axes, settings.storage_options)
    frames = [frame for frame in _sample(source, settings, samples) if _usable(frame)]
    if not frames:
        raise InputError(
            "none of the sampled frames can be normalized (constant, or NaN); choose others with --frames."
        )
    usable = [sample for sample in map(_Sample.from_frame, frames) if sample.windows]
    if not usable:
        raise InputError(
            f"none of the sampled frames has {_PATCH} x {_PATCH} pixels that hold image and noise (they are saturated,"
            " padding, or too thin); choose others with --frames."
        )
    return [_judge(rule, usable) for rule in RULES]


def recommend(found: Sequence[Comparison]) -> tuple[Comparison, str]:
    """The rule with the steadiest background, and why, in one sentence; of near equals the first, which is simplest.

    Examples
    --------
    >>> rows = [Comparison(rule, 1, drift, 0, 1, 1, 0, 1, (), ()) for rule, drift in (("median", 0.1), ("minmax", 0.9))]
    >>> recommend(rows)[0].rule
    'median'
    """
    least = min(row.unsteadiness for row in found)
    best = next(row for row in found if row.unsteadiness <= least + _TIE)
    reason = (
        f"{best.rule}: its background drifts by {best.drift:.3f} of the contrast and its noise is stretched"
        f" {best.stretch:.2f} x at most"
    )
    worst = max(found, key=lambda row: row.unsteadiness)
    return best, f"{reason}; {worst.rule} drifts by {worst.drift:.3f} and stretches {worst.stretch:.2f} x."


def _sample(source: Source, settings: RunSettings, samples: int) -> list[NDArray[Any]]:
    resolved = resolve_statistics(settings, source, available_bytes=available_bytes(), cores=cpu_count() or 1)
    keys = list(resolved.geometry.grid)
    middle = source.shape[2] // 2
    chosen = [key for key in keys if key.c == keys[0].c and key.z == middle]
    picked = [chosen[int(index)] for index in np.unique(np.linspace(0, len(chosen) - 1, samples).round())]
    frames = []
    for key in picked:
        region = to_region((key.t, key.c, middle, 0, 0), (key.t + 1, key.c + 1, middle + 1, *source.shape[3:]))
        frames.append(source.read_or_refuse(region)[0, 0, 0])
    return frames


def _usable(frame: NDArray[Any]) -> bool:
    statistics = measure_frame(frame, 2.0, percentiles_for(2.0, 99.8))
    return all(make_affine(statistics, rule) is not None for rule in RULES)


@dataclass(frozen=True, eq=False)
class _Sample:
    """A frame, which of its pixels are image and which are beyond the reach of padding, and windows without signal."""

    frame: NDArray[Any]
    image: NDArray[np.bool_]
    clear: NDArray[np.bool_]
    windows: list[tuple[slice, slice]]

    @classmethod
    def from_frame(cls, frame: NDArray[Any]) -> _Sample:
        """Its windows are the flattest tenth after smoothing, of those that hold noise and no padding."""
        (padding,) = find_paddings(frame, 2.0)
        image = clear = np.ones(frame.shape, bool)
        if padding is not None:
            image, clear = padding.image.mask(), padding.clear.mask()
        smooth, side = smooth_float(frame, 2.0), min(_PATCH, *frame.shape)
        low, high = np.percentile(smooth[clear], (0.2, 99.8))
        windows = [
            (slice(y, y + side), slice(x, x + side))
            for y in range(0, frame.shape[0] - side + 1, side)
            for x in range(0, frame.shape[1] - side + 1, side)
        ]
        noisy = (clear[window].all() and frame[window].min() < frame[window].max() for window in windows)
        windows = [window for window, kept in zip(windows, noisy, strict=True) if kept and low < high]
        windows.sort(key=lambda window: float(smooth[window].std()))
        return cls(frame, image, clear, windows[: max(1, int(len(windows) * _FLAT_FRACTION))])


def _judge(rule: Normalization, samples: Sequence[_Sample]) -> Comparison:
    levels, noises, contrasts, outside, seconds = [], [], [], [], []
    for sample in samples:
        frame, windows = sample.frame, sample.windows
        started = perf_counter()
        affine = make_affine(measure_frame(frame, rule.sigma, percentiles_for(rule.pmin, rule.pmax)), rule)
        if affine is None:  # `_usable` saw to it
            continue
        image = affine.apply(frame)
        seconds.append(perf_counter() - started)
        levels.append(float(np.median([image[window].mean() for window in windows])))
        noises.append(float(np.median([image[window].std() for window in windows])))
        low, high = np.percentile(smooth_float(image, 2.0)[sample.clear], (0.2, 99.8))
        contrasts.append(float(high - low))
        outside.append(float(((image < 0) | (image > 1))[sample.image].mean()))
    contrast = float(np.median(contrasts))
    pixels = samples[0].frame.size / 1e6
    center = float(np.median(levels))
    return Comparison(
        rule=rule.describe().removesuffix(", sigma 2 px"),
        level=center,
        drift=float(np.ptp(levels)) / contrast,
        noise=float(np.median(noises)) / contrast,
        stretch=float(max(noises) / max(min(noises), 1e-30)),
        contrast=contrast,
        outside=float(np.mean(outside)),
        ms_per_mpx=1e3 * float(np.median(seconds)) / pixels,
        levels=tuple((level - center) / contrast for level in levels),
        noises=tuple(noise / float(np.median(noises)) for noise in noises),
    )
