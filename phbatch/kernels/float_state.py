"""Mergeable summary of floats and of integers wider than 16 bits, in at most 1 MiB."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phbatch.kernels.finite import is_finite
from phbatch.kernels.padding import Padding
from phbatch.kernels.saturation import Brightest
from phbatch.kernels.sketch import NOTHING, Sketch
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
        """Moments of an array of any shape.

        Examples
        --------
        >>> Moments.from_values(np.array([1.0, 3.0])).merge(Moments.from_values(np.array([5.0, 7.0])))
        Moments(n=4, mean=4.0, squares=20.0)
        """
        if values.size == 0:
            return cls(0, 0.0, 0.0)
        mean = float(values.mean())
        return cls(values.size, mean, float(np.square(values - mean).sum()))

    def merge(self, other: Moments) -> Moments:
        """Moments of both populations together; commutative."""
        if self.n == 0 or other.n == 0:
            return other if self.n == 0 else self
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
    brightest : Brightest
        Of the raw pixels.
    largest : float
        Of an integer dtype; infinity for floats.
    n_zero, n_padded : int
        Pixels at zero, and pixels of padding, which are in nothing else.
    finite : bool
        False where a pixel is NaN or infinite; nothing else is then known.
    """

    raw: Sketch
    smooth: Sketch
    moments: Moments
    laplacian: Moments
    brightest: Brightest
    largest: float
    n_zero: int
    n_padded: int = 0
    finite: bool = True

    @classmethod
    def from_block(
        cls, block: NDArray[Any], sigma: float, halo: Sequence[tuple[int, int]], padding: Padding | None = None
    ) -> FloatState:
        """Summarize a block; parameters as for `phbatch.kernels.stats.from_block`."""
        if not is_finite(block).all():
            return _NOT_FINITE
        (top, bottom), (left, right) = halo
        inside = (slice(top, block.shape[0] - bottom), slice(left, block.shape[1] - right))
        pixels = block[inside]
        size = pixels.size
        smooth = smooth_float(block, sigma)
        smoothed, laplacian = smooth[inside], _laplacian(smooth)[inside]
        if padding is not None:
            clear = padding.clear.mask()
            pixels, smoothed, laplacian = pixels[padding.image.mask()], smoothed[clear], laplacian[clear]
        return cls(
            Sketch.from_values(pixels),
            Sketch.from_values(smoothed),
            Moments.from_values(pixels.astype(np.float64)),
            Moments.from_values(laplacian),
            Brightest.from_values(pixels),
            float(np.iinfo(block.dtype).max) if block.dtype.kind in "ui" else np.inf,
            pixels.size - int(np.count_nonzero(pixels)),
            size - pixels.size,
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
            self.brightest.merge(other.brightest),
            self.largest,
            self.n_zero + other.n_zero,
            self.n_padded + other.n_padded,
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
        """Fraction of the pixels at the camera's top."""
        return self.brightest.saturated(self.moments.n, self.largest)

    @property
    def zero(self) -> float:
        """Fraction of the pixels at zero."""
        return self.n_zero / self.moments.n

    @property
    def padding(self) -> float:
        """Fraction of all pixels that are padding."""
        return self.n_padded / (self.n_padded + self.moments.n)

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


_UNKNOWN = Moments(0, np.nan, np.nan)
_NOT_FINITE = FloatState(NOTHING, NOTHING, _UNKNOWN, _UNKNOWN, Brightest(), np.inf, 0, finite=False)
