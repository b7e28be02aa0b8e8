"""Normalization of intensities: one invertible affine map per frame, in float32."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from typing import Any
from typing import cast as cast_type

import numpy as np
from numpy.typing import NDArray

from phbatch.kernels.histogram import STD_PER_MAD
from phbatch.kernels.pyramid import make_levels, map_row, map_with_levels
from phbatch.kernels.stats import FrameStatistics
from phbatch.words.errors import UsageError
from phbatch.words.normalization import NORMALIZERS_GROUP, Normalization

PERCENTILE_EPSILON = 1e-20
"""CSBDeep's guard of its divisor."""


_LARGE = 1 << 16
"""Pixels of an image that is mapped by compiled code, which converts in the same pass: two thirds of the time."""

_COMPILED = tuple(map(np.dtype, ("uint8", "uint16", "int16", "float32")))
"""Of which every value is one of float32."""

_UNUSABLE = frozenset(("constant", "nonfinite", "unscaled"))


@dataclass(frozen=True)
class Affine:
    """The map ``(x - offset) / divisor``, computed in float32 as CSBDeep computes it, and its inverse.

    Attributes
    ----------
    offset : float
        Subtracted first, in counts.
    divisor : float
        Divided by next, in counts; never zero.
    span : float
        What the inverse multiplies with: the divisor without CSBDeep's epsilon.
    """

    offset: float = 0.0
    divisor: float = 1.0
    span: float = 1.0

    def apply(
        self,
        image: NDArray[np.generic],
        out: NDArray[np.float32] | None = None,
        levels: Sequence[NDArray[np.float32]] = (),
    ) -> NDArray[np.float32]:
        """Normalize an image of any real dtype and shape, into `out` where it is given.

        Coarser levels (`phbatch.kernels.pyramid.empty_levels`), where they are given, are filled with its means.

        Examples
        --------
        >>> Affine(divisor=50.0, span=50.0).apply(np.array([100, 25], np.uint16))
        array([2. , 0.5], dtype=float32)
        """
        result = np.empty(image.shape, np.float32) if out is None else out
        if self._suits(image, result):
            self._apply_compiled(image, result, levels)
            return result
        options: dict[str, Any] = {"out": result, "dtype": np.float32, "casting": "unsafe"}  # cast first, part by part
        with np.errstate(over="ignore", invalid="ignore"):  # of frames that pass through as they are, with infinity
            if self.offset != 0:
                np.subtract(image, np.float32(self.offset), **options)
                image = result
            if self.divisor != 1:
                np.divide(image, np.float32(self.divisor), **options)
            elif image is not result:
                np.copyto(result, image, casting="unsafe")
        make_levels(result, len(levels), out=levels)
        return result

    def _suits(self, image: NDArray[np.generic], out: NDArray[np.float32]) -> bool:
        """Whether one compiled pass has NumPy's bits, and is worth that it may have to be compiled."""
        whole = image.flags.c_contiguous and out.flags.c_contiguous and image.dtype.isnative
        return whole and image.dtype in _COMPILED and image.size >= _LARGE and (self.offset, self.divisor) != (0, 1)

    def _apply_compiled(
        self, image: NDArray[np.generic], out: NDArray[np.float32], levels: Sequence[NDArray[np.float32]]
    ) -> None:
        terms = np.float32(self.offset), np.float32(self.divisor)
        if not levels:
            map_row(image.reshape(1, -1), *terms, out.reshape(1, -1), 0)
            return
        for index in np.ndindex(image.shape[:-2]):
            map_with_levels(image[index], *terms, out[index], [level[index] for level in levels])

    def invert(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Undo the normalization: CSBDeep's ``do_after``."""
        return image * np.float32(self.span) + np.float32(self.offset)

    def invert_scale(self, scale: NDArray[np.float32]) -> NDArray[np.float32]:
        """Bring a width, such as the scale of a Laplace distribution, back to counts."""
        return scale * np.float32(self.span)


Normalizer = Callable[[FrameStatistics, Normalization], Affine | None]
"""A rule: from the statistics of a frame and the settings of the run to its map, or None where the frame has no scale.

An installed package adds one under a name of its own by an entry point of the group ``phbatch.normalizers``::

    [project.entry-points."phbatch.normalizers"]
    quartile = "mypackage:quartile"

It is then a value of ``--normalize``, of ``phbatch.Normalization`` and of ``phbatch.csbdeep``, and must be installed on
every worker of a cluster.
"""


def make_affine(statistics: FrameStatistics, rule: Normalization) -> Affine | None:
    """The normalization of one frame from its statistics, or from those of the frames that it is pooled with.

    Parameters
    ----------
    statistics : FrameStatistics
        Of the frame; its percentiles must hold those of the rule.
    rule : Normalization
        ``median`` and ``mode`` divide by the factor times the statistic of the smoothed frame; ``percentile`` is
        CSBDeep's ``(x - p_low) / (p_high - p_low + 1e-20)``; ``minmax`` maps the range to 0..1; ``fixed`` divides by
        a value; ``zscore`` subtracts the median and divides by 1.4826 times the median absolute deviation, both of
        the smoothed frame; any other is a registered `Normalizer`.

    Returns
    -------
    Affine or None
        None where the frame has no scale: it is constant, has NaN or infinity, its divisor is not above zero, or so
        small that a pixel would become infinite. Such a frame is passed through unchanged and flagged.
    """
    if not _UNUSABLE.isdisjoint(statistics.flags):
        return None
    with np.errstate(all="ignore"):
        affine = find_normalizer(rule.method)(statistics.pooled or statistics, rule)
        if affine is None or not math.isfinite(affine.offset):
            return None
        divisor = np.float32(affine.divisor)
        usable = bool(np.isfinite(divisor)) and bool(np.isfinite(np.float32(1) / divisor))
        ends = affine.apply(np.array((statistics.min, statistics.max)))  # NaN where a table does not say them
    return affine if usable and not np.isinf(ends).any() else None


@cache
def find_normalizer(method: str) -> Normalizer:
    """The rule of a name: one of phbatch's own, or one that an installed package registered.

    Raises
    ------
    UsageError
        No package registers the name, or its module cannot be imported.
    """
    if method in _NORMALIZERS:
        return _NORMALIZERS[method]
    for entry in entry_points(group=NORMALIZERS_GROUP, name=method):
        try:
            return cast_type(Normalizer, entry.load())
        except Exception as error:
            raise UsageError(
                f"normalization {method!r} cannot be loaded from {entry.value} ({error}); repair or remove its package."
            ) from error
    raise UsageError(f"normalization {method!r} is registered by no installed package; install the one that has it.")


def describe_normalizer(method: str) -> str | None:
    """Where a registered rule comes from: its object, and its package with the version; None for phbatch's own."""
    if method in _NORMALIZERS:
        return None
    for entry in entry_points(group=NORMALIZERS_GROUP, name=method):
        package = f" of {entry.dist.name} {entry.dist.version}" if entry.dist is not None else ""
        return f"{entry.value}{package}"
    return None


def required_statistics(rule: Normalization) -> tuple[str, ...]:
    """Columns of the table that a rule of phbatch's own needs."""
    return {
        "median": ("median",),
        "mode": ("mode",),
        "percentile": (f"p{rule.pmin:g}", f"p{rule.pmax:g}"),
        "minmax": ("min", "max"),
        "zscore": ("median", "mad"),
    }.get(rule.method, ())


def _divide(divisor: float) -> Affine | None:
    rounded = float(np.float32(divisor))
    return Affine(0.0, rounded, rounded) if rounded > 0 else None


def _span(low: float, high: float, epsilon: float = 0.0) -> Affine | None:
    span = np.float32(np.float32(high) - np.float32(low))
    divisor = np.float32(span + np.float32(epsilon))
    return Affine(float(np.float32(low)), float(divisor), float(span)) if span > 0 else None


def _median(statistics: FrameStatistics) -> float:
    return statistics.median if statistics.median_smooth is None else statistics.median_smooth


def _mode(statistics: FrameStatistics) -> float:
    return statistics.mode if statistics.mode_smooth is None else statistics.mode_smooth


def _zscore(statistics: FrameStatistics, rule: Normalization) -> Affine | None:
    deviation = float(np.float32(STD_PER_MAD * statistics.mad))
    return Affine(float(np.float32(_median(statistics))), deviation, deviation) if deviation > 0 else None


_NORMALIZERS: dict[str, Normalizer] = {
    "median": lambda statistics, rule: _divide(rule.factor * _median(statistics)),
    "mode": lambda statistics, rule: _divide(rule.factor * _mode(statistics)),
    "percentile": lambda statistics, rule: _span(
        statistics.percentiles[rule.pmin], statistics.percentiles[rule.pmax], PERCENTILE_EPSILON
    ),
    "minmax": lambda statistics, rule: _span(statistics.min, statistics.max),
    "fixed": lambda statistics, rule: _divide(rule.value or np.nan),
    "zscore": _zscore,
    "none": lambda statistics, rule: Affine(),
}


@dataclass(frozen=True)
class Packing:
    """How integers stand for values: ``(value - low) * gain`` in float32, which `cast` then rounds and saturates.

    Attributes
    ----------
    low : float
        The value that 0 stands for.
    gain : float
        Integers per unit of the value.
    """

    low: float = 0.0
    gain: float = 1.0

    @classmethod
    def spread(cls, low: float, high: float, dtype: np.dtype[Any]) -> Packing:
        """From 0 for `low` to the dtype's largest integer for `high`.

        Examples
        --------
        >>> Packing.spread(0, 4, np.dtype("uint8")).apply(np.array([1, 4], np.float32))
        array([ 63.75, 255.  ], dtype=float32)
        """
        return cls(float(np.float32(low)), float(np.float32(np.iinfo(dtype).max / (high - low))))

    def apply(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """What is rounded; infinity, which `cast` clips, where it overflows."""
        with np.errstate(over="ignore", invalid="ignore"):
            return (values - np.float32(self.low)) * np.float32(self.gain)

    def attributes(self) -> dict[str, float]:
        """How values are had back, ``scale_factor * integer + add_offset``, by the names of the CF conventions."""
        return {"scale_factor": 1 / self.gain, "add_offset": self.low}


def cast(
    image: NDArray[np.float32], dtype: np.dtype[Any], packing: Packing | None = None
) -> tuple[NDArray[np.generic], int]:
    """Convert to the storage dtype; integers round half to even and saturate.

    Parameters
    ----------
    image : ndarray of float32
        Any shape.
    dtype : dtype
        Of the output array.
    packing : Packing, optional
        How integers stand for values; else they are the values themselves.

    Returns
    -------
    image : ndarray of `dtype`
        The converted image.
    clipped : int
        Number of pixels outside of the range of `dtype`, which were set to its ends; NaN, which no integer can hold,
        is one of them and becomes the lower end.

    Examples
    --------
    >>> cast(np.array([-1, 2.5, 300], np.float32), np.dtype("uint8"))
    (array([  0,   2, 255], dtype=uint8), 2)
    """
    if dtype == image.dtype:
        return image, 0
    if dtype.kind == "f":
        limit = np.float32(np.finfo(dtype).max)
        clipped = int(np.count_nonzero(np.abs(image) > limit))
        return np.clip(image, -limit, limit).astype(dtype) if clipped else image.astype(dtype), clipped
    info = np.iinfo(dtype)
    if packing is None:
        rounded = np.rint(image)
    else:
        rounded = packing.apply(image)
        np.rint(rounded, out=rounded)
    clipped = rounded.size - int(np.count_nonzero((rounded >= info.min) & (rounded <= info.max)))
    rounded = np.fmin(np.fmax(rounded, info.min, out=rounded), info.max, out=rounded)  # unlike clip, these drop NaN
    return rounded.astype(dtype), clipped
