"""Restoring frames by a network and a rule, back in counts and under the light that they were taken in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dask
import numpy as np
from numpy.typing import NDArray

import phbatch
from phbatch.frames.light import Preparation, prepare_frame
from phbatch.words.normalization import Normalization

from .train import ILLUMINATION

Image = NDArray[np.float32]


def options_of(rule: Normalization) -> dict[str, Any]:
    """The rule as options of `phbatch.restore`; those that it does not read would be refused."""
    read = {"median": ("factor",), "mode": ("factor",), "percentile": ("pmin", "pmax"), "fixed": ("value",)}
    return {"normalize": rule.method} | {name: getattr(rule, name) for name in read[rule.method]}


def restore(
    frames: Sequence[NDArray[Any]], folder: Path, rule: Normalization, *, light: bool = False, downscale: int = 1
) -> list[Image]:
    """What a network makes of frames of one shape, as `phbatch run --rescale` (and `--upscale-back`) gives it.

    Where uneven light was corrected, it is put back, so that all is compared in the counts of the camera.
    """
    options = options_of(rule)
    if light:
        options["illumination"] = ILLUMINATION
    if downscale > 1:
        options |= {"downscale": downscale, "upscale_back": True}
    with dask.config.set(scheduler="synchronous"):
        made = phbatch.restore(np.stack(frames), "tyx", model=folder, rescale=True, **options)
    found = [np.asarray(image, np.float32) for image in made]
    return [image / _gain(frame) for image, frame in zip(found, frames, strict=True)] if light else found


def _gain(frame: NDArray[Any]) -> Image:
    block = frame[np.newaxis, np.newaxis, np.newaxis]
    gain = prepare_frame(block, (0, 0, 0), Preparation(1, ILLUMINATION), None).corrections[0].gain
    return np.ones(frame.shape, np.float32) if gain is None else gain
