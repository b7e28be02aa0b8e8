"""Mergeable histogram of floats with a stated relative error, in bounded memory.

As in DDSketch (Masson, Rim and Lee, 2019, PVLDB 12, 2195-2205, https://doi.org/10.14778/3352063.3352135) the width of a
bucket is proportional to its values. Here the buckets are read off the bits of the float64: a bucket is all values that
share their leading bits (sign, exponent, first bits of the mantissa). Buckets are halved in resolution, all at once,
only while more are occupied than fit; so few different values, of any kind, are kept exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phbatch.kernels.histogram import deviation_of, kernel_mode, mode_bandwidth, mode_bins, quantiles_of

MAX_BUCKETS = 1 << 15
"""Buckets of a sketch: 16 bytes each, so that two sketches are at most 1 MiB."""

_TABLE_BITS = 18
_SMALLEST = np.finfo(np.float64).smallest_normal
_SIGN = np.uint64(1 << 63)
_ALL = np.uint64((1 << 64) - 1)


@dataclass(frozen=True, eq=False)
class Sketch:
    """Counts of values by their leading bits, at the finest level that fits; the same bits in any order of merging.

    Attributes
    ----------
    level : int
        Trailing bits of the float64 that are not told apart; the least for which at most `MAX_BUCKETS` are occupied. It
        is 49 at most, since sign, exponent and 3 bits of the mantissa have no more combinations.
    keys : (n,) ndarray of uint64
        Leading bits of the values of every bucket, in ascending order of the values.
    counts : (n,) ndarray of int64
        Pixels per bucket, none zero.
    low, high : float
        Smallest and largest value, exact.
    """

    level: int
    keys: NDArray[np.uint64]
    counts: NDArray[np.int64]
    low: float
    high: float

    @classmethod
    def from_values(cls, values: NDArray[Any]) -> Sketch:
        """Count finite values (any shape, a real dtype); each is taken as a float64.

        Examples
        --------
        >>> sketch = Sketch.from_values(np.array([[0.1, -2.5], [0.1, 0.0]]))
        >>> sketch.level, sketch.values.tolist(), sketch.counts.tolist()
        (0, [-2.5, 0.0, 0.1], [1, 1, 2])
        """
        if values.size == 0:
            return NOTHING
        floats = values.ravel().astype(np.float64) + 0.0  # -0.0 becomes 0.0
        level, keys, counts = _count_leading_bits(floats)
        return cls(level, keys, counts, float(floats.min()), float(floats.max()))

    def merge(self, other: Sketch) -> Sketch:
        """Sketch of both populations together; commutative, associative and exact in bits.

        More values never occupy fewer buckets, so the level of the union is at least that of each part, and follows
        from their buckets alone.
        """
        if self.counts.size == 0 or other.counts.size == 0:
            return other if self.counts.size == 0 else self
        level = max(self.level, other.level)
        keys = np.concatenate([part.keys >> np.uint64(level - part.level) for part in (self, other)])
        counts = np.concatenate([self.counts, other.counts])
        order = np.argsort(keys, kind="stable")
        keys, counts = keys[order], counts[order]
        steps = keys[1:] ^ keys[:-1]
        dropped = 0
        while 1 + np.count_nonzero(steps >> np.uint64(dropped)) > MAX_BUCKETS:
            dropped += 1
        starts = np.flatnonzero(np.append(np.uint64(1), steps >> np.uint64(dropped)))
        return Sketch(
            level + dropped,
            keys[starts] >> np.uint64(dropped),
            np.add.reduceat(counts, starts),
            min(self.low, other.low),
            max(self.high, other.high),
        )

    @property
    def size(self) -> int:
        """Number of pixels counted."""
        return int(self.counts.sum())

    @property
    def relative_error(self) -> float:
        """Half the width of a bucket relative to its values: 0 at level 0, at most 1/16.

        It bounds the relative error of `values`, and so of quantiles, for magnitudes from 2**-1022 on; smaller ones may
        be taken for zero.
        """
        return 0.0 if self.level == 0 else 2.0 ** (self.level - 53)

    @property
    def values(self) -> NDArray[np.float64]:
        """Middle of every bucket, within the range that occurs; zero for magnitudes that are not told from it."""
        middles = self._at((1 << self.level) >> 1)
        return middles if self.level == 0 else np.where(np.abs(middles) < _SMALLEST, 0.0, middles)

    def quantiles(self, q: NDArray[np.float64]) -> NDArray[np.float64]:
        """Quantiles as ``numpy.quantile`` has them (linear interpolation).

        They are within `relative_error` times the larger of the two magnitudes between which is interpolated.

        Parameters
        ----------
        q : (n,) ndarray of float64
            Quantiles, 0 to 1.
        """
        return quantiles_of(self.values, self.counts, q)

    def mean_and_std(self) -> tuple[float, float]:
        """Mean and population standard deviation of the middles of the buckets."""
        n, values = self.size, self.values
        mean = float(self.counts @ values) / n
        return mean, float((self.counts @ (values - mean) ** 2 / n) ** 0.5)

    def deviation(self, center: float) -> float:
        """Median of the distances from `center`: the MAD where it is the median.

        The MAD is then within ``relative_error * (2 * abs(median) + MAD)``.
        """
        return deviation_of(self.values, self.counts, center)

    def fraction(self, low: float, high: float) -> float:
        """Fraction of the pixels from `low` to `high`; the buckets at both ends are taken to be evenly filled."""
        below = self._count_below(np.array([low, np.nextafter(high, np.inf)]))
        return float(below[1] - below[0]) / self.size

    def mode(self) -> float:
        """Highest peak of the smoothed density, see `kernel_mode`, on a linear histogram with evenly filled buckets.

        It is that of the pixels moved by less than the width of a bucket, twice `relative_error` times their value.
        """
        lower, middle, upper = self.quantiles(np.array([0.25, 0.5, 0.75])).tolist()
        bandwidth = mode_bandwidth(self.size, self.mean_and_std()[1], upper - lower)
        if bandwidth <= abs(middle) * 1e-12:
            return float(middle)
        start, stop, bins = mode_bins(self.low, self.high, middle, bandwidth)
        edges = np.linspace(start, stop, bins + 1)
        edges[-1] = np.nextafter(stop, np.inf)  # closed, as that of `numpy.histogram`
        step = (stop - start) / bins
        return kernel_mode(np.diff(self._count_below(edges)), start + step / 2, step, bandwidth)

    def _at(self, offset: int) -> NDArray[np.float64]:
        """Values of the buckets' first pixel, or `offset` units of the last bit after it."""
        bits = (self.keys << np.uint64(self.level)) + np.uint64(offset)
        bits ^= np.where(bits >= _SIGN, _SIGN, _ALL)
        return np.clip(bits.view(np.float64), self.low, self.high)

    def _count_below(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        ends = np.cumsum(self.counts)
        edges = np.stack([self._at(0), self._at(1 << self.level)], axis=1)
        edges[-1, 1] = np.nextafter(self.high, np.inf)  # no bucket is empty: its last value is below its end
        return np.interp(values, edges.ravel(), np.stack([ends - self.counts, ends], axis=1).ravel())


NOTHING = Sketch(0, np.zeros(0, np.uint64), np.zeros(0, np.int64), np.nan, np.nan)
"""Of no value at all."""


def _count_leading_bits(floats: NDArray[np.float64]) -> tuple[int, NDArray[np.uint64], NDArray[np.int64]]:
    """Level, keys and counts of values, without sorting them.

    Bits are taken from the left, as many at a time as a table over the buckets that are occupied so far has room for,
    until there are too many buckets or no bits are left that differ.
    """
    bits = floats.view(np.uint64)
    last = int(np.bitwise_or.reduce(bits))
    least = (last & -last).bit_length() - 1 if last else 63  # below, no bit is set anywhere
    bits = bits ^ np.where(bits >= _SIGN, _ALL, _SIGN)
    level, keys, ranks, counts = 64, np.zeros(1, np.uint64), None, np.array([floats.size])
    while level > least:
        taken = min(level - least, _TABLE_BITS + 1 - keys.size.bit_length())
        level -= taken
        index = ((bits >> np.uint64(level)) & np.uint64((1 << taken) - 1)).view(np.int64)
        if ranks is not None:
            index |= ranks << taken
        table = np.bincount(index, minlength=keys.size << taken)
        dropped = 0
        while np.count_nonzero(table) > MAX_BUCKETS:
            dropped += 1
            table = table.reshape(-1, 2).sum(axis=1)
        occupied = np.flatnonzero(table)
        kept = taken - dropped
        keys = (keys[occupied >> kept] << np.uint64(kept)) | (occupied & ((1 << kept) - 1)).astype(np.uint64)
        counts = table[occupied]
        if dropped:
            return level + dropped, keys, counts
        if level > least:
            ranks = (np.cumsum(table > 0) - 1)[index]
    negative = keys < np.uint64(1 << (63 - level))
    keys = (keys << np.uint64(level)) | np.where(negative, np.uint64((1 << level) - 1), np.uint64(0))
    return 0, keys, counts
