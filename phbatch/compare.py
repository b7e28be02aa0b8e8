"""Which normalization keeps the background steady: the rules side by side on frames of one's own data.

A frame is first cut into patches; the tenth of them that is flattest after smoothing is taken as free of signal. What a
rule does to those patches over time is what matters: their level should stay where it is, and their noise should not be
stretched in frames that hold little signal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from os import cpu_count
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phbatch.axes import to_region
from phbatch.config import Normalization, RunSettings, parse_settings
from phbatch.errors import InputError
from phbatch.kernels.intensity import make_affine
from phbatch.kernels.smoothing import smooth_float
from phbatch.kernels.stats import measure_frame
from phbatch.prepare import available_bytes
from phbatch.resolve import resolve_statistics
from phbatch.stages.statistics import percentiles_for
from phbatch.storage.presence import require_chunks
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


def compare_rules(input: str, *, samples: int = 12, **options: Any) -> list[Comparison]:
    """Compare the normalization rules on frames sampled evenly over time.

    Parameters
    ----------
    input : str
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
    settings = parse_settings(options)
    source = open_source(str(input), settings.axes, settings.storage_options)
    frames = [frame for frame in _sample(source, settings, samples) if _usable(frame)]
    if not frames:
        raise InputError(
            "none of the sampled frames can be normalized (constant, or NaN); choose others with --frames."
        )
    patches = [_flat_patches(frame) for frame in frames]
    return [_judge(rule, frames, patches) for rule in RULES]


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
    require_chunks(source, resolved.geometry.times, resolved.geometry.channels)
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


def _flat_patches(frame: NDArray[Any]) -> list[tuple[slice, slice]]:
    """Windows that hold no signal: the flattest tenth after smoothing."""
    smooth = smooth_float(frame, 2.0)
    side = min(_PATCH, *frame.shape)
    windows = [
        (slice(y, y + side), slice(x, x + side))
        for y in range(0, frame.shape[0] - side + 1, side)
        for x in range(0, frame.shape[1] - side + 1, side)
    ]
    windows.sort(key=lambda window: float(smooth[window].std()))
    return windows[: max(1, int(len(windows) * _FLAT_FRACTION))]


def _judge(rule: Normalization, frames: list[NDArray[Any]], patches: list[list[tuple[slice, slice]]]) -> Comparison:
    levels, noises, contrasts, outside, seconds = [], [], [], [], []
    for frame, windows in zip(frames, patches, strict=True):
        started = perf_counter()
        affine = make_affine(measure_frame(frame, rule.sigma, percentiles_for(rule.pmin, rule.pmax)), rule)
        if affine is None:  # `_usable` saw to it
            continue
        image = affine.apply(frame)
        seconds.append(perf_counter() - started)
        levels.append(float(np.median([image[window].mean() for window in windows])))
        noises.append(float(np.median([image[window].std() for window in windows])))
        low, high = np.percentile(smooth_float(image, 2.0), (0.2, 99.8))
        contrasts.append(float(high - low))
        outside.append(float(((image < 0) | (image > 1)).mean()))
    contrast = float(np.median(contrasts))
    pixels = frames[0].size / 1e6
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
