"""Which normalization keeps the background steady: the rules side by side on frames of one's own data.

A frame is first cut into patches; the tenth of them that is flattest after smoothing is taken as free of signal. What a
rule does to those patches over time is what matters: their level should stay where it is, and their noise should not be
stretched in frames that hold little signal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Unpack

import numpy as np
from numpy.typing import NDArray

from phbatch.frames.light import PreparedFrame
from phbatch.frames.measure import percentiles_for
from phbatch.kernels.downsample import area_average
from phbatch.kernels.histogram import STD_PER_MAD
from phbatch.kernels.intensity import Affine, make_affine
from phbatch.kernels.smoothing import smooth_float
from phbatch.kernels.stats import FrameStatistics
from phbatch.network.model import DEFAULT_MODEL, Model, open_model
from phbatch.places.ome import ImageMetadata
from phbatch.planning.rule import resolve_rule
from phbatch.tools.comparison import Comparison, ComparisonReport, Picture
from phbatch.tools.removal import check_removal, require_planes
from phbatch.tools.sampling import SampledFrame, Samples, few_images
from phbatch.words.errors import InputError
from phbatch.words.normalization import Normalization
from phbatch.words.option_types import CompareOptions
from phbatch.words.options import parse_options
from phbatch.words.settings import RunSettings

RULES = (
    Normalization(method="median"),
    Normalization(method="mode"),
    Normalization(method="mode", factor=10.0),
    Normalization(method="percentile"),
    Normalization(method="minmax"),
    Normalization(method="zscore"),
)

_NOTHING = (
    "none of the sampled frames can be normalized (constant, or NaN) and holds image and noise (saturated, padding, or"
    " too thin); choose others with --frames."
)
_PATCH = 32
_SIGMA = 2.0
_FLAT_FRACTION = 0.1
_PICTURES = 4
_PICTURE_PIXELS = 240
_SECONDS = {"second": 1.0, "minute": 60.0, "hour": 3600.0, "day": 86400.0, "millisecond": 1e-3, "microsecond": 1e-6}


def compare_rules(
    input: str | Path, *, samples: int = 12, residual: bool = False, **options: Unpack[CompareOptions]
) -> ComparisonReport:
    """Compare the normalization rules on frames sampled evenly over time.

    Parameters
    ----------
    input : str
        As for `phbatch.run`. Of a plate, a collection or a pattern some images are looked at, the first, the middle and
        the last of them, and more where they have few frames; of those that `wells` and `fields` choose, up to 12. The
        rules are judged over the frames of all of them.
    samples : int
        Number of frames, of the first channel (or that of `channel`) and the middle plane; of many images all together.
    residual : bool
        Also restore the middle of some of them with the model, and judge whether what that removes looks like noise.
    **options
        `model` (for its rule; default: `run`'s), `sigma`, `pmin`, `pmax`, `value`, `illumination`,
        `illumination_mode`, `downscale`, `axes`, `wells`, `fields`, `channel`, `frames`, `pattern`, `position`,
        `memory`, `storage_options`: as for `run`.

    Returns
    -------
    ComparisonReport
        One `Comparison` per rule that applies to the image; see its `recommendation`.

    Raises
    ------
    InputError
        The input cannot be read, or no sampled frame can be normalized.
    UsageError
        An option that means nothing here.
    """
    settings = parse_options("compare_rules", options)
    model = None if settings.model == "none" else open_model(settings.model or DEFAULT_MODEL)
    restoring = require_planes(model) if residual else None
    images = few_images(input, settings, samples)
    with Samples.open(images.places, settings, samples) as sampler:
        rules, keys, notices = _choose_rules(sampler, settings, model)
        found = [_measure_rules(sampler.frame(key), rules) for key in keys]
        shown = [keys[int(index)] for index in np.unique(np.linspace(0, len(keys) - 1, _PICTURES).round())]
        times, unit = _times([(sampler.samplers[each.position].source.metadata, each.key.t) for each in keys])
        named = dict(zip(keys, times, strict=True))
        pictures = tuple(_draw(sampler.frame(key), key, named[key], unit) for key in shown)
        removed = check_removal(((key, sampler.frame(key)) for key in shown), restoring) if restoring else None
    if residual and removed is None:
        notices += ("residual left out: no sampled frame is large enough, or has a scale by the model's rule.",)
    return ComparisonReport(
        rows=tuple(_judge(rule, [frame[index] for frame in found], keys) for index, rule in enumerate(rules)),
        frames=tuple(each.key.t for each in keys),
        positions=tuple(each.position for each in keys if each.position),
        times=times,
        time_unit=unit,
        model=model.name if model is not None else None,
        model_rule=_describe(resolve_rule(RunSettings(), model)[0]) if model is not None else None,
        notices=(*images.notices, *notices),
        pictures=pictures,
        residual=removed,
    )


def _choose_rules(
    sampler: Samples, settings: RunSettings, model: Model | None
) -> tuple[list[Normalization], list[SampledFrame], tuple[str, ...]]:
    """Rules that apply to the image, frames to which they do, and what is left out."""
    given = {name: getattr(settings, name) for name in ("sigma", "pmin", "pmax") if getattr(settings, name) is not None}
    rules = [Normalization.model_validate(rule.model_dump() | given) for rule in RULES]
    own = resolve_rule(RunSettings(), model)[0] if model is not None else None
    if own is not None and own.describe() not in [rule.describe() for rule in rules]:
        rules.append(own)
    first = rules[0]
    wanted = tuple(percentile for rule in rules for percentile in (rule.pmin, rule.pmax))
    more = percentiles_for(first.pmin, first.pmax, wanted)
    measured = {key: frame.measure(first.sigma, more) for key, frame in sampler.frames() if _View.of(frame).windows}
    kept = {key: found for key, found in measured.items() if any(_applies(rule, found) for rule in rules)}
    if not kept:
        raise InputError(_NOTHING)
    fitting = [rule for rule in rules if np.mean([_applies(rule, found) for found in kept.values()]) > 0.5]
    left_out = [_describe(rule) for rule in rules if rule not in fitting]
    notices = []
    if left_out:
        notices.append(
            f"{', '.join(left_out)} left out: most frames have no scale by it (a background not above zero, no noise)."
        )
    if left_out or settings.value is not None:
        scale = settings.value or float(f"{np.median([_spread(found, first) for found in kept.values()]):.3g}")
        fitting += [Normalization(method="fixed", value=scale)] if scale > 0 else []
    keys = [key for key, found in kept.items() if all(_applies(rule, found) for rule in fitting)]
    if not (fitting and keys):
        raise InputError(_NOTHING)
    if len(keys) < len(sampler.keys):
        lost = [key.time for key in sampler.keys if key not in keys]
        notices.append(
            f"frames {', '.join(lost)} left out: they cannot be normalized by every rule, or hold no image and noise."
        )
    return fitting, keys, tuple(notices)


def _applies(rule: Normalization, found: FrameStatistics) -> bool:
    """Whether a frame has the scale of a rule; a background within its own noise of zero is none."""
    if make_affine(found, rule) is None:
        return False
    level = {"median": found.median, "mode": found.mode}.get(rule.method)
    return level is None or level > STD_PER_MAD * found.mad


def _spread(found: FrameStatistics, rule: Normalization) -> float:
    return found.percentiles[rule.pmax] - found.percentiles[rule.pmin]


def _describe(rule: Normalization) -> str:
    return rule.describe().removesuffix(", sigma 2 px")


def _times(frames: Sequence[tuple[ImageMetadata, int]]) -> tuple[tuple[float, ...], str | None]:
    """When frames were taken, in the unit that suits; their indices where that is not said, or images differ."""
    times, units = [], set()
    for metadata, index in frames:
        t = metadata.axes.find("t")
        unit = metadata.units[t] if t >= 0 else None
        seconds = _SECONDS.get(unit or "")
        units.add("second" if seconds else unit)
        times.append((index * metadata.scale[t] + metadata.translation[t]) * (seconds or 1) if unit else 0.0)
    (unit, *others) = units
    if unit is None or others:
        return tuple(float(index) for _, index in frames), None
    if unit == "second":
        longest = float(np.abs(times).max())
        unit = "hour" if longest >= 3 * 3600 else "minute" if longest >= 180 else "second"
        times = [time / _SECONDS[unit] for time in times]
    return tuple(times), unit


def _draw(frame: PreparedFrame, sampled: SampledFrame, time: float, unit: str | None) -> Picture:
    image = frame.normalize(Affine())
    factor = -(-max(image.shape) // _PICTURE_PIXELS)
    patches = tuple(
        (rows.start / factor, columns.start / factor, (rows.stop - rows.start) / factor)
        for rows, columns in _View.of(frame).windows
    )
    name = f"{sampled.position}, frame {sampled.key.t}" if sampled.position else f"frame {sampled.key.t}"
    title = name if unit is None else f"{name}, {time:.4g} {unit}{'' if time == 1 else 's'}"
    return Picture(title, area_average(image, factor), patches)


@dataclass(frozen=True, eq=False)
class _View:
    """Which pixels of a frame are image, which are beyond the reach of padding, and windows that hold no signal."""

    image: NDArray[np.bool_]
    clear: NDArray[np.bool_]
    windows: list[tuple[slice, slice]]

    @classmethod
    def of(cls, frame: PreparedFrame) -> _View:
        """The windows are the flattest tenth after smoothing, of those that hold noise and no padding."""
        pixels = frame.normalize(Affine())
        (padding,) = frame.paddings(_SIGMA)
        image = clear = np.ones(pixels.shape, bool)
        if padding is not None:
            image, clear = padding.image.mask(), padding.clear.mask()
        smooth, side = smooth_float(pixels, _SIGMA), min(_PATCH, *pixels.shape)
        if not (clear.any() and np.isfinite(smooth[clear]).all()):
            return cls(image, clear, [])
        low, high = np.percentile(smooth[clear], (0.2, 99.8))
        windows = [
            (slice(y, y + side), slice(x, x + side))
            for y in range(0, pixels.shape[0] - side + 1, side)
            for x in range(0, pixels.shape[1] - side + 1, side)
        ]
        noisy = (clear[window].all() and pixels[window].min() < pixels[window].max() for window in windows)
        windows = [window for window, kept in zip(windows, noisy, strict=True) if kept and low < high]
        windows.sort(key=lambda window: float(smooth[window].std()))
        return cls(image, clear, windows[: max(1, int(len(windows) * _FLAT_FRACTION))])


@dataclass(frozen=True)
class _Measured:
    """What one rule does to one frame."""

    level: float
    noise: float
    contrast: float
    outside: float
    ms_per_mpx: float


def _measure_rules(frame: PreparedFrame, rules: Sequence[Normalization]) -> list[_Measured]:
    view, found = _View.of(frame), []
    for rule in rules:
        started = perf_counter()
        affine = make_affine(frame.measure(rule.sigma, percentiles_for(rule.pmin, rule.pmax)), rule)
        if affine is None:  # `_choose_rules` saw to it
            raise ValueError(f"{rule.describe()} does not apply")
        image = frame.normalize(affine)
        milliseconds = 1e3 * (perf_counter() - started)
        low, high = np.percentile(smooth_float(image, _SIGMA)[view.clear], (0.2, 99.8))
        found.append(
            _Measured(
                level=float(np.median([image[window].mean(dtype=np.float64) for window in view.windows])),
                noise=float(np.median([image[window].std(dtype=np.float64) for window in view.windows])),
                contrast=float(high - low),
                outside=float(((image < 0) | (image > 1))[view.image].mean()),
                ms_per_mpx=milliseconds / (frame.source.size / 1e6),
            )
        )
    return found


def _judge(rule: Normalization, found: Sequence[_Measured], frames: Sequence[SampledFrame]) -> Comparison:
    levels, noises = ([getattr(frame, name) for frame in found] for name in ("level", "noise"))
    contrast = max(float(np.median([frame.contrast for frame in found])), 1e-30)
    center, noise = float(np.median(levels)), float(np.median(noises))
    several = len(found) > 1
    of: dict[str, list[float]] = {}
    for level, sampled in zip(levels, frames, strict=True):
        of.setdefault(sampled.position, []).append(level)
    return Comparison(
        rule=_describe(rule),
        level=center,
        drift=float(np.ptp(levels)) / contrast if several else None,
        noise=noise / contrast,
        stretch=_ratio(max(noises), min(noises)) if several else None,
        contrast=contrast,
        outside=float(np.mean([frame.outside for frame in found])),
        ms_per_mpx=float(np.median([frame.ms_per_mpx for frame in found])),
        levels=tuple((level - center) / contrast for level in levels),
        noises=tuple(_ratio(value, noise) for value in noises),
        drifts={path: float(np.ptp(some)) / contrast if len(some) > 1 else None for path, some in of.items() if path},
    )


def _ratio(value: float, to: float) -> float:
    """A quotient that is 1 where both are zero: background without noise is not stretched."""
    return 1.0 if value == to else float(value / max(to, 1e-30))
