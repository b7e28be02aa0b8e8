"""Mergeable summary of floats and of integers wider than 16 bits, in at most 1 MiB."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phbatch.kernels.sketch import Sketch
from phbatch.kernels.smoothing import smooth_float


@dataclass(frozen=True)
class Moments:
    """Number, mean and sum of squared deviations of values, merged by the parallel update of Chan, Golub and LeVeque.

    1983, Am. Stat. 37, 242-247, https://doi.org/10.1080/00031305.1983.10483115. Sums are float64: for any merging, mean
    and standard deviation are within 1e-12 of the largest magnitude.
    """

    n: int
    mean: float
    squares: float

    @classmethod
    def from_values(cls, values: NDArray[np.float64]) -> Moments:
        """Moments of an array of any shape, at least one value.

        Examples
        --------
        >>> Moments.from_values(np.array([1.0, 3.0])).merge(Moments.from_values(np.array([5.0, 7.0])))
        Moments(n=4, mean=4.0, squares=20.0)
        """
        mean = float(values.mean())
        return cls(values.size, mean, float(np.square(values - mean).sum()))

    def merge(self, other: Moments) -> Moments:
        """Moments of both populations together; commutative."""
        n = self.n + other.n
        mean = (self.n * self.mean + other.n * other.mean) / n
        between = (other.mean - self.mean) ** 2 * (self.n * other.n / n)
        return Moments(n, mean, self.squares + other.squares + between)

    @property
    def variance(self) -> float:
        """Of the population."""
        return self.squares / self.n


@dataclass(frozen=True, eq=False)
class FloatState:
    """Mergeable summary of a part of a frame, or of several frames, of floats or integers wider than 16 bits.

    The sketches have the same bits for any cutting into blocks and any order of merging.

    Attributes
    ----------
    raw, smooth : Sketch
        Of the raw and of the smoothed pixels.
    moments : Moments
        Of the raw pixels.
    laplacian : Moments
        Of the Laplacian of the smoothed pixels, in counts.
    n_saturated, n_zero : int
        Pixels at the largest value of an integer dtype, and at zero.
    finite : bool
        False where a pixel is NaN or infinite; nothing else is then known.
    """

    raw: Sketch
    smooth: Sketch
    moments: Moments
    laplacian: Moments
    n_saturated: int
    n_zero: int
    finite: bool = True

    @classmethod
    def from_block(cls, block: NDArray[Any], sigma: float, halo: Sequence[tuple[int, int]]) -> FloatState:
        """Summarize a block; parameters as for `phbatch.kernels.stats.from_block`."""
        if not np.isfinite(block).all():
            return _NOT_FINITE
        (top, bottom), (left, right) = halo
        inside = (slice(top, block.shape[0] - bottom), slice(left, block.shape[1] - right))
        pixels = block[inside]
        largest = np.iinfo(block.dtype).max if block.dtype.kind in "ui" else np.inf
        raw, moments = Sketch.from_values(pixels), Moments.from_values(pixels.astype(np.float64))
        smooth = smooth_float(block, sigma)
        return cls(
            raw,
            Sketch.from_values(smooth[inside]),
            moments,
            Moments.from_values(_laplacian(smooth)[inside]),
            int(np.count_nonzero(pixels == largest)),
            pixels.size - int(np.count_nonzero(pixels)),
        )

    def merge(self, other: FloatState) -> FloatState:
        """Join the summaries of two parts; commutative, associative but for the rounding of `Moments`."""
        if not (self.finite and other.finite):
            return _NOT_FINITE
        return FloatState(
            self.raw.merge(other.raw),
            self.smooth.merge(other.smooth),
            self.moments.merge(other.moments),
            self.laplacian.merge(other.laplacian),
            self.n_saturated + other.n_saturated,
            self.n_zero + other.n_zero,
        )

    @property
    def extremes(self) -> tuple[float, float]:
        """Smallest and largest raw pixel."""
        return self.raw.low, self.raw.high

    @property
    def mean_and_std(self) -> tuple[float, float]:
        """Of the raw pixels."""
        return self.moments.mean, self.moments.variance**0.5

    @property
    def saturated(self) -> float:
        """Fraction of the pixels at the largest value of an integer dtype."""
        return self.n_saturated / self.moments.n

    @property
    def zero(self) -> float:
        """Fraction of the pixels at zero."""
        return self.n_zero / self.moments.n

    @property
    def focus(self) -> float:
        """Variance of the Laplacian of the smoothed pixels, in counts squared."""
        return self.laplacian.variance


def _laplacian(image: NDArray[np.float64]) -> NDArray[np.float64]:
    """Four neighbours minus four times the pixel; beside the image are its first and last row and column again."""
    padded = np.pad(image, 1, mode="edge")
    result = padded[:-2, 1:-1] + padded[2:, 1:-1]
    result += padded[1:-1, :-2] + padded[1:-1, 2:]
    result -= 4 * image
    return result


_NOTHING = Sketch(0, np.zeros(0, np.uint64), np.zeros(0, np.int64), np.nan, np.nan)
_NOT_FINITE = FloatState(_NOTHING, _NOTHING, Moments(0, np.nan, np.nan), Moments(0, np.nan, np.nan), 0, 0, finite=False)
