"""Seams: whether the edges of tiles show in an image, by the energy of its gradient across them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_REACH = 12
"""Rows or columns on each side that an edge is held against: near enough to hold the same structures."""

_MOST = 16.0
"""Times the median of all squares."""

_LEAST = 1.1
"""Below this nobody sees an edge, however even the rest is."""


@dataclass(frozen=True)
class SeamScore:
    """How much stronger gradients are across the edges of tiles than beside them.

    Attributes
    ----------
    edges : int
        Edges that were looked at.
    ratio : float
        Mean over the edges of the energy across them over that beside them: 1 without seams.
    worst : float
        The largest of these.
    ordinary : float
        The largest such ratio of rows and columns that are no edge.
    spread : float
        Standard deviation of these.
    """

    edges: int
    ratio: float
    worst: float
    ordinary: float
    spread: float

    @property
    def visible(self) -> bool:
        """Whether an edge stands out from all that is no edge, or all edges together by five standard errors."""
        together = 1.0 + 5 * self.spread / self.edges**0.5
        return self.worst > max(_LEAST, self.ordinary) or self.ratio > max(_LEAST, together)


class SeamCheck:
    """Gradient energy of images of one shape, whose tiles have the same edges.

    Parameters
    ----------
    edges : pair of sequence of int
        First rows, and first columns, of tiles; those of the image's own borders are left out.

    Examples
    --------
    >>> image = np.random.default_rng(0).normal(size=(64, 64))
    >>> check = SeamCheck(([32], []))
    >>> check.add(image)
    >>> check.score().visible
    False
    >>> image[32:] += 3  # a seam is planted
    >>> check = SeamCheck(([32], []))
    >>> check.add(image)
    >>> check.score().visible
    True
    """

    def __init__(self, edges: tuple[Sequence[int], Sequence[int]]) -> None:
        self._edges = edges
        self._energies: list[NDArray[np.float64]] | None = None

    def add(self, image: NDArray[np.floating]) -> None:
        """Take in an image ``(y, x)``; one with NaN tells nothing."""
        found = [_energy(np.diff(image, axis=axis), 1 - axis) for axis in (0, 1)]
        if not all(np.isfinite(energy).all() for energy in found):
            return
        before = self._energies or [np.zeros_like(energy) for energy in found]
        self._energies = [former + energy for former, energy in zip(before, found, strict=True)]

    def score(self) -> SeamScore | None:
        """What was found; None where there is no edge, or no image was taken in."""
        across, ordinary = list[float](), list[float]()
        for energy, edges in zip(self._energies or (), self._edges, strict=False):
            ratios = _ratios(energy)
            at = np.array([edge - 1 for edge in edges if 0 < edge <= len(energy)], np.intp)
            across += ratios[at].tolist()
            beside = np.ones(len(ratios), bool)
            for shift in (-1, 0, 1):
                beside[np.clip(at + shift, 0, len(ratios) - 1)] = False
            ordinary += ratios[beside].tolist()
        if not across:
            return None
        return SeamScore(
            len(across), float(np.mean(across)), max(across), max(ordinary, default=1.0), float(np.std(ordinary))
        )


def _energy(gradient: NDArray[np.floating], axis: int) -> NDArray[np.float64]:
    """Mean square of every row or column, of which what a few bright structures have counts as `_MOST` at most."""
    square = np.square(gradient)
    return np.asarray(np.minimum(square, _MOST * np.median(square)).mean(axis=axis, dtype=np.float64))


def _ratios(energy: NDArray[np.float64]) -> NDArray[np.float64]:
    """Energy of every row over the median of those around it; 1 where there is none."""
    padded = np.pad(energy, _REACH, mode="reflect" if len(energy) > _REACH else "edge")
    around = np.lib.stride_tricks.sliding_window_view(padded, 2 * _REACH + 1)
    middle = np.median(np.delete(around, _REACH, axis=1), axis=1)
    return np.where(energy == middle, 1.0, energy / np.maximum(middle, np.finfo(np.float64).tiny))
