"""What a network would remove from sampled frames: a window of each is restored, and judged by the residual check."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from phbatch.frames.light import PreparedFrame
from phbatch.frames.measure import percentiles_for
from phbatch.kernels.intensity import make_affine
from phbatch.kernels.tiling import TilePlan
from phbatch.network.model import Model
from phbatch.planning.rule import resolve_rule
from phbatch.running.arrays import restore
from phbatch.tools.residual import ResidualCheck, ResidualChecker
from phbatch.words.errors import UsageError
from phbatch.words.settings import RunSettings

WINDOW = 1024
"""Largest side, in pixels, of what is judged of a frame: its middle."""

FloatImage = NDArray[np.float32]


def require_planes(model: Model | None) -> Model:
    """The model, where it makes one plane of one plane.

    Raises
    ------
    UsageError
        There is none, or it restores volumes or several channels at once.
    """
    if model is None:
        raise UsageError("--residual shows what a network removes, and --model none has none; name a model.")
    if (model.config.n_dim, model.config.n_channel_in, model.config.n_channel_out) != (2, 1, 1):
        raise UsageError(
            f"--residual restores planes of one channel, and {model.name} takes volumes or several channels; call"
            " `phbatch run` with it, whose report says the same."
        )
    return model


def check_removal(frames: Iterable[tuple[object, PreparedFrame]], model: Model) -> ResidualCheck | None:
    """Restore the middle of frames, by what names them, after the model's own rule, and judge what that removes.

    Returns
    -------
    ResidualCheck or None
        None where no frame has a scale by the rule, or all are too small.
    """
    rule = resolve_rule(RunSettings(), model)[0]
    checker = ResidualChecker()
    for key, frame in frames:
        affine = make_affine(frame.measure(rule.sigma, percentiles_for(rule.pmin, rule.pmax)), rule)
        if affine is None:
            continue
        image = frame.normalize(affine)
        place = _middle(image.shape)
        checker.add(str(key), image[place], restore_window(image, place, model), (place[0].start, place[1].start))
    return checker.result()


def restore_window(image: FloatImage, place: tuple[slice, slice], model: Model) -> FloatImage:
    """Restore a window of a normalized image: the same as of the whole image, from the window and its halo alone."""
    halo, grid = model.config.halo, model.config.grid
    plan = TilePlan(image.shape, tuple(size + -size % grid for size in image.shape), halo, grid)
    padded = plan.pad(image[..., np.newaxis])[..., 0]
    read, crop = [], []
    for part, (before, _), size in zip(place, plan.padding, plan.padded_shape, strict=True):
        start = max(0, (part.start + before - halo) // grid * grid)
        stop = min(size, -(-(part.stop + before + halo) // grid) * grid)
        read.append(slice(start, stop))
        crop.append(slice(part.start + before - start, part.stop + before - start))
    restored = restore(padded[tuple(read)], "yx", model=model.reference, normalize="none")
    return np.asarray(restored[tuple(crop)], np.float32)


def _middle(shape: tuple[int, ...]) -> tuple[slice, slice]:
    rows, columns = (
        slice(max(0, (size - WINDOW) // 2), max(0, (size - WINDOW) // 2) + min(WINDOW, size)) for size in shape
    )
    return rows, columns
