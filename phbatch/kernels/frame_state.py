"""Mergeable summary of 8 and 16 bit integers, which is exact, in at most 1 MiB."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from phbatch.kernels.counting import count_block
from phbatch.kernels.histogram import Histogram
from phbatch.kernels.padding import Padding
from phbatch.kernels.saturation import Brightest


@dataclass(frozen=True, eq=False)
class FrameState:
    """Mergeable summary of a part of a frame, or of several frames, of 8 or 16 bit integers.

    Attributes
    ----------
    raw : Histogram
        Of the raw pixels, one bin per count.
    smooth : Histogram
        Of the smoothed pixels, 3 bins per count for 16 bit images and 256 for 8 bit images: with `raw` at most 1 MiB,
        and 2 MiB above 2**32 pixels.
    laplacian : (int, int)
        Sum and sum of squares of the Laplacian of the smoothed pixels, in bins.
    largest : int
        Of the dtype.
    n_padded : int
        Pixels of padding, which are in nothing else.
    """

    raw: Histogram
    smooth: Histogram
    laplacian: tuple[int, int]
    largest: int
    n_padded: int = 0
    finite: ClassVar[bool] = True

    @classmethod
    def from_block(
        cls,
        block: NDArray[np.integer],
        sigma: float,
        halo: Sequence[tuple[int, int]],
        padding: Padding | None = None,
    ) -> FrameState:
        """Summarize a block; parameters as for `phbatch.kernels.stats.from_block`."""
        per_unit = 256 if block.dtype.itemsize == 1 else 3
        first, raw, first_smooth, smooth, (total, high, low) = count_block(block, sigma, halo, per_unit, padding)
        counted = Histogram(first, raw, 1).trim()
        (top, bottom), (left, right) = halo
        size = (block.shape[0] - top - bottom) * (block.shape[1] - left - right)
        return cls(
            counted,
            Histogram(first_smooth, smooth, per_unit).trim(),
            (total, (high << 32) + low),
            int(np.iinfo(block.dtype).max),
            size - counted.size if padding is not None else 0,
        )

    def merge(self, other: FrameState) -> FrameState:
        """Join the summaries of two parts; commutative, associative and exact."""
        sums = (self.laplacian[0] + other.laplacian[0], self.laplacian[1] + other.laplacian[1])
        n_padded = self.n_padded + other.n_padded
        return FrameState(self.raw.merge(other.raw), self.smooth.merge(other.smooth), sums, self.largest, n_padded)

    @property
    def extremes(self) -> tuple[float, float]:
        """Smallest and largest raw pixel."""
        return float(self.raw.values[0]), float(self.raw.values[-1])

    @property
    def mean_and_std(self) -> tuple[float, float]:
        """Of the raw pixels."""
        return self.raw.mean_and_std()

    @property
    def saturated(self) -> float:
        """Fraction of the pixels at the camera's top."""
        return Brightest.from_counts(self.raw.values, self.raw.counts).saturated(self.raw.size, self.largest)

    @property
    def zero(self) -> float:
        """Fraction of the pixels at zero."""
        return self.raw.fraction(0, 0)

    @property
    def padding(self) -> float:
        """Fraction of all pixels that are padding."""
        return self.n_padded / (self.n_padded + self.raw.size)

    @property
    def focus(self) -> float:
        """Variance of the Laplacian of the smoothed pixels, in counts squared."""
        total, squares = self.laplacian
        n = self.smooth.size
        return (n * squares - total * total) / n**2 / self.smooth.per_unit**2
