"""Mergeable histograms: from_block, merge and finalize of the reduction pass.

A histogram of all values that a dtype can take is an exact summary of an integer image: any quantile, the moments and
the mode follow from it. Histograms of blocks add up to the histogram of the frame, in any order, bit for bit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

_PEAK_BINS_PER_BANDWIDTH = 8
_MOST_BINS = 1 << 16

STD_PER_MAD = 1.4826
"""Standard deviations per median absolute deviation of a normal distribution."""


@dataclass(frozen=True, eq=False)
class Histogram:
    """Counts of equally spaced values, trimmed to the range that occurs.

    Attributes
    ----------
    first : int
        Index of the first bin; bin `i` of `counts` stands for the value ``(first + i) / per_unit``.
    counts : (n,) ndarray of uint32, or int64 above 2**32 pixels
        Pixels per bin.
    per_unit : int
        Bins per count of intensity.
    """

    first: int
    counts: NDArray[np.integer]
    per_unit: int

    @classmethod
    def from_values(cls, values: NDArray[np.integer], per_unit: int = 1) -> Histogram:
        """Count integer bin indices (any shape); they may be negative.

        Examples
        --------
        >>> histogram = Histogram.from_values(np.array([[7, 7], [9, 8]], np.uint16))
        >>> histogram.first, histogram.counts.tolist()
        (7, [2, 1, 1])
        """
        if values.size == 0:
            return cls(0, np.zeros(0, np.int64), per_unit)
        first = int(values.min())
        flat = values.ravel()
        if first != 0:
            flat = flat.astype(np.int64) - first
        return cls(first, np.bincount(flat).astype(np.int64), per_unit)

    def trim(self) -> Histogram:
        """The same histogram without empty bins at its ends."""
        occupied = np.flatnonzero(self.counts)
        if occupied.size == 0:
            return Histogram(0, self.counts[:0], self.per_unit)
        start, stop = int(occupied[0]), int(occupied[-1]) + 1
        return Histogram(self.first + start, self.counts[start:stop].copy(), self.per_unit)

    def merge(self, other: Histogram) -> Histogram:
        """Histogram of both populations together; exact, commutative and associative."""
        if self.counts.size == 0 or other.counts.size == 0:
            return other if self.counts.size == 0 else self
        first = min(self.first, other.first)
        stop = max(self.first + self.counts.size, other.first + other.counts.size)
        narrow = self.size + other.size < 2**32
        counts: NDArray[Any] = np.zeros(stop - first, np.uint32 if narrow else np.int64)
        for part in (self, other):
            counts[part.first - first : part.first - first + part.counts.size] += part.counts.astype(counts.dtype)
        return Histogram(first, counts, self.per_unit)

    @cached_property
    def size(self) -> int:
        """Number of pixels counted."""
        return int(self.counts.sum(dtype=np.int64))

    @cached_property
    def cumulative(self) -> NDArray[np.int64]:
        """Number of pixels up to every bin."""
        return np.cumsum(self.counts, dtype=np.int64)

    @cached_property
    def values(self) -> NDArray[np.float64]:
        """Value of every bin, in counts of intensity."""
        return (self.first + np.arange(self.counts.size)) / self.per_unit

    def quantiles(self, q: NDArray[np.float64]) -> NDArray[np.float64]:
        """Quantiles as ``numpy.quantile`` computes them (linear interpolation), bit for bit for integer images.

        Parameters
        ----------
        q : (n,) ndarray of float64
            Quantiles, 0 to 1.

        Examples
        --------
        >>> Histogram.from_values(np.arange(12)).quantiles(np.array([0.5]))
        array([5.5])
        """
        return _ranked(self.values, self.cumulative, q)

    def mean_and_std(self) -> tuple[float, float]:
        """Mean and population standard deviation, from integer sums without rounding on the way."""
        steps = np.arange(self.counts.size)
        n = self.size
        weighted = steps * self.counts.astype(np.int64)
        total = int(weighted.sum())
        # Squares in two halves: 30,000 x 30,000 pixels of 16 bits would overflow 64 bits in one.
        high, low = weighted >> 24, weighted & (2**24 - 1)
        squares = (int((high * steps).sum()) << 24) + int((low * steps).sum())
        mean = (self.first + total / n) / self.per_unit
        return mean, (n * squares - total * total) ** 0.5 / n / self.per_unit

    def deviation(self, center: float) -> float:
        """Median of the distances from `center`: the MAD where it is the median."""
        return deviation_of(self.values, self.counts, center)

    def fraction(self, low: float, high: float) -> float:
        """Fraction of the pixels from `low` to `high`, both included."""
        inside = (self.values >= low) & (self.values <= high)
        return int(self.counts[inside].sum(dtype=np.int64)) / self.size

    def mode(self) -> float:
        """Highest peak of the smoothed histogram: see `kernel_mode`."""
        if np.count_nonzero(self.counts) <= 1:
            return float(self.values[np.argmax(self.counts)])
        lower, upper = self.quantiles(np.array([0.25, 0.75]))
        bandwidth = mode_bandwidth(self.size, self.mean_and_std()[1], float(upper - lower))
        return kernel_mode(self.counts, self.first / self.per_unit, 1 / self.per_unit, bandwidth)


def quantiles_of(
    values: NDArray[np.float64], counts: NDArray[np.integer], q: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Quantiles of counted values as ``numpy.quantile`` computes them (linear interpolation), bit for bit.

    Parameters
    ----------
    values : (n,) ndarray of float64
        In ascending order.
    counts : (n,) ndarray of int
        How often each occurs.
    q : (m,) ndarray of float64
        Quantiles, 0 to 1.
    """
    return _ranked(values, np.cumsum(counts, dtype=np.int64), q)


def _ranked(values: NDArray[np.float64], cumulative: NDArray[np.int64], q: NDArray[np.float64]) -> NDArray[np.float64]:
    """As `quantiles_of`, from how many are not above each value."""
    position = q * (cumulative[-1] - 1)
    lower = np.floor(position)
    fraction = position - lower
    ranks = np.stack([lower, np.minimum(lower + 1, cumulative[-1] - 1)])
    below, above = values[np.searchsorted(cumulative, ranks, side="right")]
    # The two branches are numpy's own `_lerp`: the same rounding, so the same bits.
    step = above - below
    return np.asarray(np.where(fraction >= 0.5, above - step * (1 - fraction), below + step * fraction))


def deviation_of(values: NDArray[np.float64], counts: NDArray[np.integer], center: float) -> float:
    """Median of the distances of counted values from `center`; `values` and `counts` as for `quantiles_of`."""
    distances = np.abs(values - center)
    order = np.argsort(distances, kind="stable")
    cumulative = np.cumsum(counts[order], dtype=np.int64)
    ranks = np.array([(cumulative[-1] - 1) // 2, cumulative[-1] // 2])
    return float(distances[order][np.searchsorted(cumulative, ranks, side="right")].mean())


def mode_bandwidth(n: int, std: float, interquartile_range: float) -> float:
    """Bandwidth of the kernel density estimate whose highest peak is the mode.

    The normal-scale rule for estimating the derivative of a density, since a mode is where the derivative is zero:
    ``(4/5)**(1/7) * s * n**(-1/7)`` (Chacon, Duong and Wand, 2011, Statistica Sinica 21, 807-840,
    https://doi.org/10.5705/ss.2011.036a), with the robust scale ``s = min(std, interquartile_range / 1.349)`` of
    Silverman (1986, Density Estimation for Statistics and Data Analysis, section 3.4.2).

    Parameters
    ----------
    n : int
        Number of pixels.
    std, interquartile_range : float
        Of the smoothed frame, in counts of intensity.

    Returns
    -------
    float
        Standard deviation of the Gaussian kernel, in counts of intensity; 0 where half of the pixels have one value,
        which then is the mode.

    Examples
    --------
    >>> round(mode_bandwidth(2048 * 2048, 100.0, 134.9), 1)
    11.0
    """
    scale = min(std, interquartile_range / 1.349)
    return float((4 / 5) ** (1 / 7) * scale * n ** (-1 / 7))


def mode_bins(low: float, high: float, middle: float, bandwidth: float) -> tuple[float, float, int]:
    """Start, stop and number of the linear bins in which the mode of continuous values is sought.

    Sixteen bins make one bandwidth; a range that would need too many is cut to where its peak can be, about `middle`.

    Parameters
    ----------
    low, high, middle : float
        Smallest and largest value, and the median.
    bandwidth : float
        Of `mode_bandwidth`, not zero.
    """
    reach = bandwidth / 16 * _MOST_BINS / 2
    start, stop = max(low, middle - reach), min(high, middle + reach)
    return start, stop, max(2, math.ceil((stop - start) / (bandwidth / 16)))


def kernel_mode(counts: NDArray[Any], start: float, step: float, bandwidth: float) -> float:
    """Position of the highest peak of a histogram smoothed with a Gaussian kernel; the lowest on ties.

    Parzen's mode estimator (1962, Ann. Math. Statist. 33, 1065-1076, https://doi.org/10.1214/aoms/1177704472) on binned
    data. Bins are first joined until about eight make one bandwidth; a parabola through the three bins about the peak
    gives the position between bins.

    Parameters
    ----------
    counts : (n,) ndarray of int64 or float64
        Pixels per bin.
    start, step : float
        Value of the first bin and distance between bins, in counts of intensity.
    bandwidth : float
        Standard deviation of the kernel, in counts of intensity.

    Returns
    -------
    float
        The mode, in counts of intensity, within the range of the occupied bins.
    """
    joined = max(1, int(bandwidth / step / _PEAK_BINS_PER_BANDWIDTH))
    padded = np.pad(counts, (0, -counts.size % joined))
    coarse = padded.reshape(-1, joined).sum(axis=1).astype(np.float64)
    smoothing = bandwidth / (step * joined)
    start_of_peak, density = _density_about_peak(coarse, smoothing)
    peak = int(np.argmax(density[1:-1])) + 1
    left, top, right = density[peak - 1 : peak + 2]
    curvature = left - 2 * top + right
    shift = 0.5 * (left - right) / curvature if curvature < 0 and smoothing >= 0.5 else 0.0
    position = (start_of_peak + peak - 1 + shift) * joined + (joined - 1) / 2
    return float(start + step * min(max(position, 0.0), counts.size - 1.0))


def _density_about_peak(counts: NDArray[np.float64], smoothing: float) -> tuple[int, NDArray[np.float64]]:
    """The smoothed counts where their peak can be, with one more on either side; and the first place of these.

    A smoothed count is at most the largest within reach, so that the peak is within reach of one that is not below the
    smoothed count of some place: of the largest count.
    """
    if smoothing <= 0:
        return 0, np.pad(counts, 1)
    reach = int(4 * smoothing + 0.5) + 1
    largest = int(np.argmax(counts))
    about = counts[max(largest - reach, 0) : largest + reach + 1]
    least = ndimage.gaussian_filter1d(about, smoothing, mode="constant")[largest - max(largest - reach, 0)]
    places = np.flatnonzero(counts >= least * (1 - 1e-9))  # roundings
    first, stop = max(int(places[0]) - reach, 0), min(int(places[-1]) + reach + 1, counts.size)
    before = min(first, reach)
    density = ndimage.gaussian_filter1d(np.pad(counts[first - before : stop + reach], 1), smoothing, mode="constant")
    return first, density[before : before + stop - first + 2]
