"""The median and mode rules for CSBDeep: one rule in training and in inference.

In training, pass `patch_normalization` to `csbdeep.data.create_patches`; in inference, pass `MedianNormalizer` or
`ModeNormalizer` to `csbdeep.models.CARE.predict`. Both compute what `phbatch.run` computes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from csbdeep.data import Normalizer
from numpy.typing import NDArray

from phbatch.frames.measure import percentiles_for
from phbatch.kernels.intensity import Affine, make_affine
from phbatch.kernels.stats import measure_frame, native
from phbatch.planning.idle import require_effect
from phbatch.words.errors import InputError
from phbatch.words.normalization import FACTOR, SIGMA, Normalization
from phbatch.words.settings import RunSettings

PatchNormalization = Callable[..., tuple[NDArray[np.float32], NDArray[np.float32]]]


class RobustNormalizer(Normalizer):  # type: ignore[misc]
    """Divides every channel by a multiple of its smoothed median or mode; safe to share between threads.

    Planes are smoothed along Y and X; the planes of a volume are pooled. A constant channel is left unchanged.

    Parameters
    ----------
    method : {"median", "mode"}
        The statistic.
    factor : float
        Multiple of the statistic that becomes 1.
    sigma : float
        Standard deviation of the Gaussian before the statistic, in pixels.
    do_after : bool
        Whether CSBDeep undoes the normalization after the prediction.

    Raises
    ------
    pydantic.ValidationError
        `factor` or `sigma` is out of range.
    InputError
        An image that is not constant has no positive statistic.
    """

    def __init__(
        self, method: Literal["median", "mode"], factor: float = FACTOR, sigma: float = SIGMA, do_after: bool = True
    ) -> None:
        self.rule = Normalization(method=method, factor=factor, sigma=sigma)
        self._do_after = do_after
        # CSBDeep calls before and after in one thread; what before finds must not leak into another thread's after.
        self._found = threading.local()

    def before(self, x: NDArray[Any], axes: str) -> NDArray[np.float32]:
        """Normalize an image whose axes are `axes`, such as ``"YXC"``; returns float32."""
        planes, order = _to_channels_first(native(x), axes)
        affines = [_measure(channel, self.rule) for channel in planes]
        self._found.affines = affines
        normalized = np.stack([affine.apply(channel) for affine, channel in zip(affines, planes, strict=True)])
        return _from_channels_first(normalized, axes, order)

    def after(
        self, mean: NDArray[np.float32], scale: NDArray[np.float32] | None, axes: str
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Bring the mean, and the scale where there is one, back to counts."""
        affines: list[Affine] = self._found.affines
        planes, order = _to_channels_first(mean, axes)
        counts = np.stack([affine.invert(channel) for affine, channel in zip(affines, planes, strict=True)])
        if scale is None:
            return _from_channels_first(counts, axes, order), None
        widths, order = _to_channels_first(scale, axes)
        widths = np.stack([affine.invert_scale(channel) for affine, channel in zip(affines, widths, strict=True)])
        return _from_channels_first(counts, axes, order), _from_channels_first(widths, axes, order)

    @property
    def do_after(self) -> bool:
        """Whether CSBDeep undoes the normalization after the prediction."""
        return self._do_after


class MedianNormalizer(RobustNormalizer):
    """Divides every channel by `factor` times the median of the smoothed image.

    Examples
    --------
    >>> image = np.full((32, 32, 1), 200, np.uint16)
    >>> image[:4, :4] = 900
    >>> normalizer = MedianNormalizer(factor=2)
    >>> float(normalizer.before(image, "YXC")[20, 20, 0])
    0.5
    """

    def __init__(self, factor: float = FACTOR, sigma: float = SIGMA, do_after: bool = True) -> None:
        super().__init__("median", factor, sigma, do_after)


class ModeNormalizer(RobustNormalizer):
    """Divides every channel by `factor` times the mode of the smoothed image."""

    def __init__(self, factor: float = FACTOR, sigma: float = SIGMA, do_after: bool = True) -> None:
        super().__init__("mode", factor, sigma, do_after)


def patch_normalization(method: str = "median", factor: float = FACTOR, sigma: float = SIGMA) -> PatchNormalization:
    """The callable for ``csbdeep.data.create_patches(normalization=...)`` that matches the normalizers.

    Source and target patches are divided by the statistic of the *source* image, so that their ratio, and with it the
    calibration of the intensities, is kept.

    Parameters
    ----------
    method : {"median", "mode"} or str
        The statistic, or any other method of `phbatch.Normalization`, a registered one included.
    factor : float
        Multiple of the statistic that becomes 1.
    sigma : float
        Standard deviation of the Gaussian before the statistic, in pixels.

    Returns
    -------
    callable
        ``(patches_x, patches_y, x, y, mask, channel) -> (patches_x, patches_y)``, float32. The last two axes of `x`
        other than `channel` must be Y and X.

    Raises
    ------
    UsageError
        `factor` would do nothing with the method.
    """
    rule = Normalization(method=method, factor=factor, sigma=sigma)
    require_effect(RunSettings(factor=factor if factor != FACTOR else None), rule, network=False)

    def normalization(
        patches_x: NDArray[Any],
        patches_y: NDArray[Any],
        x: NDArray[Any],
        y: NDArray[Any],
        mask: Any,
        channel: int | None,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        planes = native(x)[np.newaxis] if channel is None else np.moveaxis(native(x), channel, 0)
        affines = [_measure(plane, rule) for plane in planes]

        def apply(patches: NDArray[Any]) -> NDArray[np.float32]:
            if channel is None:
                return affines[0].apply(patches)
            parts = np.moveaxis(patches, channel + 1, 0)
            maps = affines if len(parts) == len(affines) else [affines[0]] * len(parts)
            return np.moveaxis(
                np.stack([affine.apply(part) for affine, part in zip(maps, parts, strict=True)]), 0, channel + 1
            )

        return apply(patches_x), apply(patches_y)

    return normalization


def _measure(image: NDArray[Any], rule: Normalization) -> Affine:
    statistics = measure_frame(np.ascontiguousarray(image), rule.sigma, percentiles_for(rule.pmin, rule.pmax))
    affine = make_affine(statistics, rule)
    if affine is None and not statistics.flags:
        raise InputError(
            f"an image has no scale by the rule {rule.describe()}, which must divide by more than 0 (its median is"
            f" {statistics.median:g}): as where a background was subtracted; normalize by percentiles."
        )
    return affine or Affine()


def _to_channels_first(x: NDArray[Any], axes: str) -> tuple[NDArray[Any], list[int]]:
    """Image as ``(C, ..., Y, X)``, and the permutation that made it."""
    axes = axes.upper()
    order = [axes.index(axis) for axis in "CSTZ" if axis in axes] + [axes.index("Y"), axes.index("X")]
    moved = x.transpose(order)
    return (moved if "C" in axes else moved[np.newaxis]), order


def _from_channels_first(planes: NDArray[np.float32], axes: str, order: list[int]) -> NDArray[np.float32]:
    moved = planes if "C" in axes.upper() else planes[0]
    return moved.transpose(np.argsort(order))
