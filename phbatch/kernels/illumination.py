"""Correction of uneven illumination: one affine map per pixel, fused with the normalization of the frame.

Light that falls unevenly multiplies the image, so the background light divides it (`Correction.divide`, the flat field
of Young 2000, 10.1002/0471142956.cy0211s14, Current Protocols in Cytometry). What is added to the image, such as stray
light, is subtracted (`Correction.subtract`). Backgrounds come from `phbatch.kernels.background`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phbatch.kernels.compiled import compile_later
from phbatch.words.errors import InputError

MAX_GAIN = 10.0
"""Of a division by the light: what lies in the dark is noise, and more would show nothing else."""


@dataclass(frozen=True, eq=False)
class Correction:
    """The map ``raw * gain + bias`` of every pixel, in float32.

    Attributes
    ----------
    gain : (y, x) ndarray of float32, or None
        Counts per raw count; None is 1 everywhere.
    bias : (y, x) ndarray of float32, or None
        Counts; None is 0 everywhere.

    Examples
    --------
    >>> correction = Correction.divide(np.array([[60, 120]], np.float32), dark=20)
    >>> apply(np.array([[60, 120]], np.uint16), correction)
    array([[70., 70.]], dtype=float32)
    """

    gain: NDArray[np.float32] | None
    bias: NDArray[np.float32] | None

    @classmethod
    def divide(cls, background: NDArray[np.floating], dark: NDArray[np.floating] | float = 0) -> Correction:
        """Flat-field correction ``(raw - dark) * mean(background - dark) / (background - dark)``, 10 times at most.

        Parameters
        ----------
        background : (y, x) ndarray
            What an empty field of view looks like, in counts.
        dark : (y, x) ndarray or float
            Counts without light: the camera's offset.

        Raises
        ------
        InputError
            If the background is not finite, or not above the dark, in a pixel.
        """
        _require_finite(background)
        offset = np.asarray(dark, np.float32)
        light = background.astype(np.float32)
        light -= offset
        lowest = float(light.min())
        if not lowest > 0:
            raise InputError(
                f"The background less the dark is {lowest:g} counts at its lowest; it must be above 0 to divide by it, "
                "so lower the dark or subtract the background instead."
            )
        with np.errstate(over="ignore"):
            gain = np.divide(np.float32(light.mean(dtype=np.float64)), light, out=light)
            np.minimum(gain, np.float32(MAX_GAIN), out=gain)
            return cls(gain, -offset * gain if offset.any() else None)

    @classmethod
    def subtract(cls, background: NDArray[np.floating]) -> Correction:
        """Background subtraction ``raw - (background - mean(background))``.

        Parameters
        ----------
        background : (y, x) ndarray
            In counts.

        Raises
        ------
        InputError
            If the background is not finite in a pixel.
        """
        _require_finite(background)
        values = background.astype(np.float32)
        return cls(None, np.float32(values.mean(dtype=np.float64)) - values)

    def window(self, rows: slice, columns: slice = slice(None)) -> Correction:
        """The map of a part of the image."""
        gain, bias = (None if part is None else part[rows, columns] for part in (self.gain, self.bias))
        return Correction(gain, bias)


def apply(raw: NDArray[Any], correction: Correction) -> NDArray[np.float32]:
    """Correct a frame, or the planes of a stack, in counts.

    Parameters
    ----------
    raw : (..., y, x) ndarray
        Any real dtype.
    correction : Correction
        Of the same y and x.

    Returns
    -------
    (..., y, x) ndarray of float32
        The bits of ``raw.astype(float32) * gain + bias``.
    """
    return apply_normalized(raw, correction, 0.0, 1.0)


def apply_normalized(raw: NDArray[Any], correction: Correction, offset: float, divisor: float) -> NDArray[np.float32]:
    """Correct and normalize in one pass over memory.

    Parameters
    ----------
    raw : (..., y, x) ndarray
        Any real dtype.
    correction : Correction
        Of the same y and x.
    offset, divisor : float
        Of the `phbatch.kernels.intensity.Affine` of the corrected frame, in counts.

    Returns
    -------
    (..., y, x) ndarray of float32
        ``((raw * gain + bias) - offset) / divisor``, every step rounded to float32: the bits of `apply` followed by
        ``Affine.apply``.

    Raises
    ------
    ValueError
        If raw and correction differ in y or x.
    """
    for part in (correction.gain, correction.bias):
        if part is not None and part.shape != raw.shape[-2:]:
            raise ValueError(f"the image has shape {raw.shape}; the correction is for {part.shape}")
    known = {"?": np.uint8, "e": np.float32, "g": np.float64}  # what Numba has not, exactly in what it has
    dtype = np.dtype(known.get(raw.dtype.char, raw.dtype)).newbyteorder("=")
    source = np.ascontiguousarray(raw, dtype)
    result = np.empty(raw.shape, np.float32)
    planes = (-1, math.prod(raw.shape[-2:]))
    gain, bias = (None if part is None else part.ravel() for part in (correction.gain, correction.bias))
    _map(source.reshape(planes), gain, bias, np.float32(offset), np.float32(divisor), result.reshape(planes))
    return result


def _require_finite(background: NDArray[np.floating]) -> None:
    bad = background.size - int(np.count_nonzero(np.isfinite(background)))
    if bad:
        raise InputError(
            f"The background has {bad} pixels that are NaN or infinite; every pixel must be finite, so fill them or "
            "estimate the background from frames without them."
        )


@compile_later
def _map(raw: Any, gain: Any, bias: Any, offset: Any, divisor: Any, result: Any) -> None:  # pragma: no cover
    for i in range(raw.shape[0]):
        for j in range(raw.shape[1]):
            value = np.float32(raw[i, j])
            if gain is not None:
                value = value * gain[j]
            if bias is not None:
                value = value + bias[j]
            result[i, j] = (value - offset) / divisor
