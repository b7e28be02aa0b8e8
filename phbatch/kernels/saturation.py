"""Saturated pixels: those at the camera's top, which is often not that of the dtype."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_FULL_SCALES = frozenset(2**bits - 1 for bits in range(8, 17))
_LEAST_PILE = 0.005  # of the pixels; fewer that are equal may be chance where the top is none of a camera's
_PILE_OVER_NEXT = 4  # as many as have the next lower value: the tail of a distribution thins out instead


@dataclass(frozen=True)
class Brightest:
    """The two largest values of an image, and how many pixels have each; exactly mergeable.

    Attributes
    ----------
    values : tuple of float
        In descending order, at most two.
    counts : tuple of int
        Pixels of each.
    """

    values: tuple[float, ...] = ()
    counts: tuple[int, ...] = ()

    @classmethod
    def from_values(cls, values: NDArray[Any]) -> Brightest:
        """Of finite values, in an array of any shape.

        Examples
        --------
        >>> Brightest.from_values(np.array([[7, 9, 1], [9, 7, 9]]))
        Brightest(values=(9, 7), counts=(3, 2))
        """
        if values.size == 0:
            return cls()
        high = values.max()
        lower = values < high
        n_lower = int(np.count_nonzero(lower))
        if n_lower == 0:
            return cls((high.item(),), (values.size,))
        second = values.max(where=lower, initial=values.min())
        return cls((high.item(), second.item()), (values.size - n_lower, int(np.count_nonzero(values == second))))

    @classmethod
    def from_counts(cls, values: NDArray[np.float64], counts: NDArray[np.integer]) -> Brightest:
        """Of counted values in ascending order, of which the last occurs."""
        places = np.flatnonzero(counts)[:-3:-1]
        return cls(tuple(values[places].tolist()), tuple(counts[places].tolist()))

    def merge(self, other: Brightest) -> Brightest:
        """Of both images together; commutative and associative."""
        total: dict[float, int] = {}
        for part in (self, other):
            for value, count in zip(part.values, part.counts, strict=True):
                total[value] = total.get(value, 0) + count
        values = sorted(total, reverse=True)[:2]
        return Brightest(tuple(values), tuple(total[value] for value in values))

    def saturated(self, pixels: int, largest: float) -> float:
        """Fraction of the pixels at the top of a camera; 0 where the largest value is none.

        Parameters
        ----------
        pixels : int
            Of the image.
        largest : float
            Of the dtype; infinity for floats.

        Returns
        -------
        float
            Of the pixels that have the largest value: where it is `largest` or 2**n - 1 with n from 8 to 16, or where
            they are half a percent of the image, and four times those of the next lower value.
        """
        if not self.values:
            return 0.0
        top, *lower = self.counts
        piled = bool(lower) and top >= max(_LEAST_PILE * pixels, _PILE_OVER_NEXT * lower[0])
        full = self.values[0] == largest or self.values[0] in _FULL_SCALES
        return top / pixels if piled or full else 0.0


def saturated_fraction(pixels: NDArray[Any]) -> float:
    """Fraction of saturated pixels of an image, see `Brightest.saturated`."""
    largest = float(np.iinfo(pixels.dtype).max) if pixels.dtype.kind in "ui" else np.inf
    return Brightest.from_values(pixels).saturated(pixels.size, largest)
