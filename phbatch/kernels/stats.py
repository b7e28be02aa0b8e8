"""Robust statistics of a frame or of several pooled, for any cutting of them into blocks.

The reduction has three verbs: `from_block` summarizes a block, `merge` joins summaries in any order, `finalize` makes
the row of the statistics table. They are exact for 8 and 16 bit integers, and within a stated error for other dtypes.
`measure_frame` is exact for any real dtype, for a frame that is in memory whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from phbatch.kernels.counting import halo_of_counting
from phbatch.kernels.finite import is_finite
from phbatch.kernels.float_state import FloatState
from phbatch.kernels.frame_state import FrameState
from phbatch.kernels.histogram import kernel_mode, mode_bandwidth, mode_bins
from phbatch.kernels.padding import Padding, find_padding, image_pixels
from phbatch.kernels.saturation import saturated_fraction
from phbatch.kernels.smoothing import is_fixed_point, smooth_float
from phbatch.words.errors import InputError
from phbatch.words.normalization import PMAX, PMIN

DEFAULT_PERCENTILES = (PMIN, PMAX)
"""CSBDeep's percentiles of prediction."""

FLAG_NAMES = (
    "zero",
    "constant",
    "nonfinite",
    "unscaled",
    "black",
    "saturated",
    "duplicate",
    "out-of-focus",
    "uncorrected",
)
"""Words that flag a frame; their order is that of the bits where flags are stored as numbers, lowest first."""

Paddings = Sequence[Padding | None]
"""Of the planes of a frame."""

_BACKGROUND_REACH = 0.05


@dataclass(frozen=True)
class FrameStatistics:
    """Statistics of one frame, in counts of intensity; padding (`phbatch.kernels.padding`) is in none but the last.

    Attributes
    ----------
    median, mode, mad : float
        Of the frame smoothed with a Gaussian; `mad` is the median absolute deviation from `median`.
    mean, std, min, max : float
        Of the raw frame.
    percentiles : mapping of float to float
        Percentile (0 to 100) to its value on the raw frame, as ``numpy.percentile`` has it.
    saturated, zero : float
        Fractions of the raw pixels at the camera's top (see `phbatch.kernels.saturation.Brightest.saturated`), and at
        zero.
    focus : float
        Variance of the Laplacian (four neighbours) of the smoothed frame, in counts squared (Pech-Pacheco et al., 2000,
        https://doi.org/10.1109/ICPR.2000.903548).
    background : float
        Fraction of the smoothed pixels within 5 % of the mode.
    padding : float
        Fraction of the frame that is padding.
    flags : tuple of str
        What is wrong with the frame, empty when it is good: ``zero`` (all pixels zero), ``constant`` (all pixels
        equal), ``nonfinite`` (NaN or infinity among the pixels; every statistic is then NaN), ``unscaled`` (the
        normalization found no positive divisor), ``uncorrected`` (its uneven light could not be divided out, since its
        background is not above zero); in a series also ``black``, ``saturated``, ``duplicate`` and
        ``out-of-focus``, see `phbatch.kernels.timeseries.flag_bad_frames`.
    median_smooth, mode_smooth : float or None
        Running median over time of `median` and `mode`, which are then used in their place.
    pooled : FrameStatistics or None
        Of the pixels of many frames, which are then used in place of the frame's own.
    """

    median: float
    mode: float
    mean: float
    std: float
    min: float
    max: float
    percentiles: Mapping[float, float]
    mad: float = 0.0
    saturated: float = 0.0
    zero: float = 0.0
    focus: float = 0.0
    background: float = 0.0
    padding: float = 0.0
    flags: tuple[str, ...] = ()
    median_smooth: float | None = None
    mode_smooth: float | None = None
    pooled: FrameStatistics | None = None


State = FrameState | FloatState
"""Mergeable summary of a part of a frame, of a frame, or of many."""


def from_block(
    block: NDArray[Any],
    sigma: float,
    halo: Sequence[tuple[int, int]] = ((0, 0), (0, 0)),
    padding: Padding | None = None,
) -> State:
    """Summarize a block of a frame.

    Parameters
    ----------
    block : (y, x) ndarray of a real dtype
        The block with its halo of ``halo_of_counting(sigma)`` pixels, less where the frame ends.
    sigma : float
        Standard deviation of the Gaussian in pixels.
    halo : ((before, after), (before, after))
        Pixels of the halo along y and x, which are read and not counted.
    padding : Padding, optional
        Of the block without its halo.

    Returns
    -------
    FrameState or FloatState
        Of the block without its halo: the first for 8 and 16 bit integers, the second for other dtypes.
    """
    block = native(block)
    if is_fixed_point(block.dtype):
        return FrameState.from_block(block, sigma, halo, padding)
    return FloatState.from_block(block, sigma, halo, padding)


def merge(first: State, second: State) -> State:
    """Join the summaries of two parts of a frame, or of two frames: commutative and associative.

    Exact, but for the mean, the standard deviation and the focus of a `FloatState`, which are within 1e-12.

    Raises
    ------
    InputError
        The summaries are of dtypes that are counted differently.
    """
    if isinstance(first, FloatState) and isinstance(second, FloatState):
        return first.merge(second)
    if isinstance(first, FrameState) and isinstance(second, FrameState) and first.largest == second.largest:
        return first.merge(second)
    raise InputError("frames of different dtypes cannot be pooled; convert them to one dtype first.")


def finalize(state: State, percentiles: Sequence[float] = DEFAULT_PERCENTILES) -> FrameStatistics:
    """Make the statistics of a frame, or of several pooled, from the merged summary of all blocks.

    Parameters
    ----------
    state : FrameState or FloatState
        Of all pixels.
    percentiles : sequence of float
        Percentiles of the raw pixels to compute, 0 to 100.

    Returns
    -------
    FrameStatistics
        From a `FrameState` exactly those of the pooled pixels. From a `FloatState`, with ``e = relative_error`` of its
        sketches: median and percentiles within ``e`` of their value, `mad` within ``e (2 median + mad)``, the mode that
        of pixels moved by less than ``2 e`` of their value, `background` but for the pixels within ``2 e`` of its two
        limits; minimum, maximum and fractions exact; mean, standard deviation and focus within 1e-12.
    """
    if not state.finite:
        return _nonfinite_statistics(percentiles)
    low, high = state.extremes
    mean, std = state.mean_and_std
    points = state.raw.quantiles(np.true_divide(np.asarray(percentiles, np.float64), 100))
    median, mode = float(state.smooth.quantiles(np.array([0.5]))[0]), state.smooth.mode()
    return FrameStatistics(
        median=median,
        mode=mode,
        mad=state.smooth.deviation(median),
        saturated=state.saturated,
        zero=state.zero,
        focus=state.focus,
        background=state.smooth.fraction(*_background_range(mode)),
        padding=state.padding,
        mean=mean,
        std=std,
        min=low,
        max=high,
        percentiles=dict(zip(percentiles, points.tolist(), strict=True)),
        flags=_constancy_flags(low, high),
    )


def frame_state(frame: NDArray[Any], sigma: float, paddings: Paddings | None = None) -> State:
    """Summary of a frame that is in memory whole; merge it with those of other frames to pool them.

    Parameters
    ----------
    frame : (y, x) or (z, y, x) ndarray of a real dtype
        The frame; a volume is smoothed within its planes, and its planes are pooled.
    sigma : float
        Standard deviation of the Gaussian in pixels.
    paddings : sequence of Padding or None, optional
        Of every plane; searched for unless they are given.

    Examples
    --------
    >>> dark, bright = np.full((8, 8), 1, np.uint16), np.full((8, 8), 3, np.uint16)
    >>> finalize(merge(frame_state(dark, 2.0), frame_state(bright, 2.0))).median
    2.0
    """
    frame = native(frame)
    planes = frame.reshape(-1, *frame.shape[-2:])
    found = find_paddings(frame, sigma) if paddings is None else paddings
    pairs = zip(planes, found, strict=True)
    return reduce(merge, (from_block(np.ascontiguousarray(plane), sigma, padding=padding) for plane, padding in pairs))


def measure_frame(
    frame: NDArray[Any],
    sigma: float,
    percentiles: Sequence[float] = DEFAULT_PERCENTILES,
    paddings: Paddings | None = None,
) -> FrameStatistics:
    """Statistics of a frame that is in memory whole.

    Smoothing is within the planes: a ``zyx`` frame is smoothed along y and x only, since the distance between planes is
    rarely that between pixels, and its planes are pooled.

    Parameters
    ----------
    frame : (y, x) or (z, y, x) ndarray of a real dtype
        The frame.
    sigma : float
        Standard deviation of the Gaussian in pixels; its border is ``reflect`` and it is truncated at 4 sigma, as in
        `scipy.ndimage.gaussian_filter`.
    percentiles : sequence of float
        Percentiles of the raw frame, 0 to 100.
    paddings : sequence of Padding or None, optional
        Of every plane; searched for unless they are given.

    Returns
    -------
    FrameStatistics
        For 8 and 16 bit integers the median is within 0.23 count of SciPy and NumPy in float64 for `sigma` up to 5, and
        0.42 up to 100 (see `smooth_fixed_point`), the percentiles equal `numpy.percentile` bit for bit, and the mode is
        `kernel_mode` with the bandwidth of `mode_bandwidth`. For wider integers and floats the median and the
        percentiles are NumPy's own, and the mode is within a quarter of a bandwidth-eighth of the unbinned estimate.

    Examples
    --------
    >>> frame = np.full((32, 32), 100, np.uint16)
    >>> frame[:4, :4] = 900
    >>> statistics = measure_frame(frame, sigma=2.0)
    >>> statistics.median, statistics.max, statistics.flags
    (100.0, 900.0, ())
    """
    frame = native(frame)
    if is_fixed_point(frame.dtype):
        return finalize(frame_state(frame, sigma, paddings), percentiles)
    if not is_finite(frame).all():
        return _nonfinite_statistics(percentiles)
    planes = frame.reshape(-1, *frame.shape[-2:])
    found = find_paddings(frame, sigma) if paddings is None else paddings
    pixels = image_pixels(frame, [None if padding is None else padding.image for padding in found])
    smooth = np.stack([smooth_float(plane, sigma) for plane in planes])
    clear = [None if padding is None else padding.clear for padding in found]
    smoothed = image_pixels(smooth, clear)
    low, high = float(pixels.min()), float(pixels.max())
    median, mode = float(np.median(smoothed)), _mode_of_values(smoothed)
    low_background, high_background = _background_range(mode)
    laplacian = np.stack([ndimage.laplace(plane, mode="reflect") for plane in smooth])
    return FrameStatistics(
        median=median,
        mode=mode,
        mad=float(np.median(np.abs(smoothed - median))),
        saturated=saturated_fraction(pixels),
        zero=float((pixels == 0).mean()),
        focus=float(image_pixels(laplacian, clear).var()),
        background=float(((smoothed >= low_background) & (smoothed <= high_background)).mean()),
        padding=(frame.size - pixels.size) / frame.size,
        mean=float(pixels.mean(dtype=np.float64)),
        std=float(pixels.std(dtype=np.float64)),
        min=low,
        max=high,
        percentiles=dict(
            zip(percentiles, np.percentile(_subtractable(pixels, high - low), percentiles).tolist(), strict=True)
        ),
        flags=_constancy_flags(low, high),
    )


def find_paddings(frame: NDArray[Any], sigma: float) -> Paddings:
    """The padding of every plane of a frame that is in memory whole, for a smoothing of `sigma` pixels."""
    radius = halo_of_counting(sigma)
    return [find_padding(plane, radius) for plane in frame.reshape(-1, *frame.shape[-2:])]


def native(image: NDArray[Any]) -> NDArray[Any]:
    """The same in the byte order of this machine, in which alone integers are counted exactly."""
    return image.astype(image.dtype.newbyteorder("="), copy=False)


def flag_bits(flags: Sequence[str]) -> int:
    """Flags as the bits of a number.

    Examples
    --------
    >>> flag_bits(("zero", "constant"))
    3
    """
    return sum(1 << FLAG_NAMES.index(flag) for flag in flags)


def _mode_of_values(values: NDArray[np.float64]) -> float:
    """Mode of continuous values: a fine linear histogram about the quartiles, then `kernel_mode`."""
    lower, middle, upper = np.percentile(values, (25, 50, 75))
    bandwidth = mode_bandwidth(values.size, float(values.std()), float(upper - lower))
    if bandwidth <= abs(middle) * 1e-12:
        return float(middle)
    start, stop, bins = mode_bins(float(values.min()), float(values.max()), float(middle), bandwidth)
    counts, edges = np.histogram(values, bins=bins, range=(start, stop))
    step = float(edges[1] - edges[0])
    return kernel_mode(counts, float(edges[0]) + step / 2, step, bandwidth)


def _subtractable(pixels: NDArray[Any], spread: float) -> NDArray[Any]:
    """The pixels in a dtype that holds their differences, which NumPy's percentiles interpolate in."""
    limits = np.finfo(pixels.dtype) if pixels.dtype.kind == "f" else np.iinfo(pixels.dtype)
    return pixels if spread <= float(limits.max) else pixels.astype(np.float64)


def _nonfinite_statistics(percentiles: Sequence[float]) -> FrameStatistics:
    nan = float("nan")
    return FrameStatistics(*(nan,) * 6, dict.fromkeys(percentiles, nan), *(nan,) * 6, flags=("nonfinite",))


def _background_range(mode: float) -> tuple[float, float]:
    reach = abs(mode) * _BACKGROUND_REACH
    return mode - reach, mode + reach


def _constancy_flags(low: float, high: float) -> tuple[str, ...]:
    if low != high:
        return ()
    return ("zero", "constant") if low == 0 else ("constant",)
