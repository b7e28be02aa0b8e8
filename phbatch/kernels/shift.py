"""The shift between two images of one scene, by phase correlation, to a fraction of a pixel.

Kuglin and Hines, 1975, The phase correlation image alignment method, Proc. IEEE Cybernetics and Society, 163-165. The
cross spectrum is mostly whitened and weighted by a Gaussian, so that noise beyond the optics' resolution counts little
and the peak is a Gaussian, whose middle three points give.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from scipy.ndimage import shift as shift_spline

SIGNIFICANT = 8.0
"""Height of a peak over the standard deviation of the correlation from which on it is none of noise, which reaches 5.
Other cells of one kind reach 10 somewhere, and frames of the same cells 11 to 200."""

FARTHEST = 0.1
"""Of the shorter side: a peak beyond is of two scenes that are alike, and no shift between two recordings of one."""

_SIGMA = 1.5
_WHITENED = 0.75  # of the cross spectrum's modulus, as a power: 1 lets the noise of dim frequencies count in full


@dataclass(frozen=True)
class Shift:
    """Where the second of two images lies.

    Attributes
    ----------
    y, x : float
        Pixels that its content lies further down and to the right.
    height : float
        Of the peak, in standard deviations of the correlation; see `SIGNIFICANT`.
    """

    y: float
    x: float
    height: float

    @property
    def length(self) -> float:
        """In pixels."""
        return float(np.hypot(self.y, self.x))


def find_shift(first: NDArray[Any], second: NDArray[Any]) -> Shift:
    """Shift between two images ``(y, x)`` of one shape.

    Examples
    --------
    >>> scene = np.random.default_rng(0).normal(100, 5, (70, 90))
    >>> found = find_shift(scene[4:68, 4:84], scene[1:65, 6:86])
    >>> round(found.y, 1), round(found.x, 1), found.height > SIGNIFICANT
    (3.0, -2.0, True)
    """
    window = np.outer(*(np.hanning(length + 2)[1:-1] for length in first.shape)).astype(np.float32)
    one, other = (
        scipy.fft.rfft2((image.astype(np.float32) - np.float32(image.mean(dtype=np.float64))) * window)
        for image in (first, second)
    )
    cross = np.conj(one) * other
    cross /= np.maximum(np.abs(cross), np.finfo(np.float32).tiny) ** np.float32(_WHITENED)
    rows, columns = np.fft.fftfreq(first.shape[0]), np.fft.rfftfreq(first.shape[1])
    cross *= np.exp(-2 * (np.pi * _SIGMA) ** 2 * (rows[:, np.newaxis] ** 2 + columns**2))
    correlation = scipy.fft.irfft2(cross, first.shape)
    at = np.unravel_index(int(correlation.argmax()), correlation.shape)
    height = float(correlation[at] / max(float(correlation.std()), 1e-30))
    y, x = (_middle(correlation, at, axis) for axis in (0, 1))
    return Shift(y, x, height)


def _middle(correlation: NDArray[Any], at: tuple[Any, ...], axis: int) -> float:
    """Middle of the Gaussian through the peak and its neighbours along an axis, as a signed shift."""
    length, index = correlation.shape[axis], int(at[axis])
    before, peak, after = (
        max(float(np.take(correlation, (index + step) % length, axis)[at[1 - axis]]), 1e-30) for step in (-1, 0, 1)
    )
    low, middle, high = np.log((before, peak, after))
    bend = low - 2 * middle + high
    found = index + (0.5 * (low - high) / bend if bend < 0 else 0.0)
    return float(found - length if found > length / 2 else found)


def undo_shift(image: NDArray[Any], shift: Shift) -> NDArray[np.float32]:
    """Move the content of an image ``(..., y, x)`` back, by cubic splines; pixels from outside are the nearest ones."""
    moved = np.empty(image.shape, np.float32)
    for plane, target in zip(image.reshape(-1, *image.shape[-2:]), moved.reshape(-1, *image.shape[-2:]), strict=True):
        target[:] = shift_spline(plane.astype(np.float32), (-shift.y, -shift.x), order=3, mode="nearest")
    return moved
