"""What the pixels of an output are: copies, or what was computed, and what their integers stand for."""

from __future__ import annotations

from typing import Any, Protocol, get_args

import numpy as np

from phbatch.frames.recipe import Recipe
from phbatch.kernels.intensity import Packing
from phbatch.planning.units import Geometry
from phbatch.words.choices import OutputDtype
from phbatch.words.errors import UsageError
from phbatch.words.events import Notice
from phbatch.words.normalization import Normalization
from phbatch.words.settings import RunSettings
from phbatch.words.storing import require_one_range


class HasDtype(Protocol):
    """An input."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of its pixels."""


def output_dtype(settings: RunSettings, source: HasDtype) -> str:
    """Of the output."""
    return source.dtype.name if settings.dtype == "input" else settings.dtype


def copies(settings: RunSettings, rule: Normalization, *, network: bool) -> bool:
    """Whether every pixel is written as it is read."""
    changed = network or rule.method != "none" or settings.downscale > 1 or settings.illumination != "none"
    judged = settings.stats is not None or settings.bad_frames != "normalize" or settings.smooth_time > 1
    return settings.dtype == "input" and not (changed or judged or settings.scope != "image")


def require_storable(settings: RunSettings, recipe: Recipe) -> None:
    """Refuse the input's dtype for pixels that are computed, where it is none of those that are written."""
    if recipe.dtype not in get_args(OutputDtype):
        raise UsageError(
            f"--dtype=input is {recipe.dtype} here, which is not written of pixels that are computed; choose another,"
            " or copy the pixels with --model none --normalize none."
        )
    try:
        require_one_range(recipe.dtype, settings.value_range, settings.scale, rescale=settings.rescale)
    except ValueError as error:
        raise UsageError(f"{error}.") from error


def require_copyable(settings: RunSettings, source: HasDtype, geometry: Geometry, recipe: Recipe) -> None:
    """Refuse an output that cannot hold the pixels of channels that are copied beside those that are restored."""
    if recipe.copies or not geometry.copied:
        return
    refused = (
        (geometry.downscale > 1 and not geometry.upscaled, "--downscale leads to another grid: add --upscale-back"),
        (recipe.packing is not None, "integers stand for normalized values: choose --rescale"),
        (
            not np.can_cast(source.dtype, recipe.dtype, "safe"),
            f"{recipe.dtype} does not hold every {source.dtype}: choose another --dtype",
        ),
        (geometry.stacked or geometry.n_output > 1, "the model has not one channel in and out: choose another --model"),
    )
    for wrong, why in refused:
        if wrong:
            raise UsageError(f"--others copy keeps pixels as they are, and {why}, or --others drop.")


def resolve_packing(settings: RunSettings) -> Packing | None:
    """What integers of the output stand for."""
    if settings.value_range is not None:
        return Packing.spread(*settings.value_range, np.dtype(settings.dtype))
    return None if settings.scale is None else Packing(gain=float(np.float32(settings.scale)))


def packing_notices(recipe: Recipe) -> tuple[Notice, ...]:
    """What the integers of the output stand for, and how to have the values back."""
    if recipe.packing is None:
        return ()
    low, step = recipe.packing.low, 1 / recipe.packing.gain
    highest = low + step * np.iinfo(recipe.dtype).max
    return (
        Notice(
            f"pixels: {recipe.dtype} stands for normalized values from {low:g} to {highest:.6g}; a value is"
            f" {f'{low:g} + ' if low else ''}{step:.9g} * pixel (scale_factor and add_offset of the array)."
        ),
    )
