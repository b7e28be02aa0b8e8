"""What rules and a network do to some frames, before anything is run: crops side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from phbatch.frames.light import PreparedFrame
from phbatch.frames.measure import percentiles_for
from phbatch.inputs.opening import open_input
from phbatch.kernels.intensity import Affine, make_affine
from phbatch.kernels.smoothing import smooth_float
from phbatch.network.model import DEFAULT_MODEL, Model, open_model
from phbatch.planning.of_model import with_model
from phbatch.planning.rule import resolve_rule
from phbatch.tools.compare import RULES
from phbatch.tools.removal import restore_window
from phbatch.tools.report_pictures import textured_corner
from phbatch.tools.sampling import SampledFrame, Sampler, few_images
from phbatch.words.axes import FrameKey
from phbatch.words.errors import UsageError
from phbatch.words.normalization import Normalization
from phbatch.words.option_types import CompareOptions
from phbatch.words.options import parse_options
from phbatch.words.settings import RunSettings

_RESIDUAL_SIGMA = 2.0

FloatImage = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class PreviewRow:
    """Crops of one frame.

    Attributes
    ----------
    frame : str
        Its key in the input, such as ``"t0/c0"``, after the path of one of many images.
    raw : (y, x) ndarray of float32
        In counts, with its light corrected and area averaged where that is asked for.
    rules : mapping of str to (y, x) ndarray of float32, or None
        Normalized by each rule, in words; None where the frame has no scale by it.
    normalized, restored : (y, x) ndarray of float32, or None
        What the network sees, and what it makes of it; None without a network.
    flags : tuple of str
        Of the frame.
    corner : (y, x)
        Of the crop, in pixels of what is normalized.
    """

    frame: str
    raw: FloatImage
    rules: dict[str, FloatImage | None]
    normalized: FloatImage | None = None
    restored: FloatImage | None = None
    flags: tuple[str, ...] = ()
    corner: tuple[int, int] = (0, 0)

    @property
    def removed(self) -> FloatImage | None:
        """What the network took away: noise, if all is well."""
        if self.normalized is None or self.restored is None:
            return None
        return self.normalized - self.restored

    @property
    def residual(self) -> FloatImage | None:
        """What was taken away, smoothed by 2 pixels, which leaves little of noise: structures seen here were lost."""
        return None if self.removed is None else smooth_float(self.removed, _RESIDUAL_SIGMA).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Preview:
    """Crops of some frames, raw, by each rule, and restored.

    Attributes
    ----------
    rows : tuple of PreviewRow
        One of each frame.
    corner, side : (y, x), int
        Of the crop, in pixels of what is normalized; of many images the first one's.
    model, model_rule : str or None
        Name of the network, and the rule that it was trained with.
    notices : tuple of str
        What could not be shown.
    """

    rows: tuple[PreviewRow, ...]
    corner: tuple[int, int]
    side: int
    model: str | None = None
    model_rule: str | None = None
    notices: tuple[str, ...] = field(default=())

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; of images their mean and standard deviation."""
        return {
            "corner": list(self.corner),
            "side": self.side,
            "model": self.model,
            "model_rule": self.model_rule,
            "notices": list(self.notices),
            "frames": [
                {
                    "frame": row.frame,
                    "corner": list(row.corner),
                    "flags": list(row.flags),
                    "raw": _facts(row.raw),
                    "rules": {name: _facts(image) for name, image in row.rules.items()},
                    "restored": _facts(row.restored),
                    "removed": _facts(row.removed),
                    "residual": _facts(row.residual),
                }
                for row in self.rows
            ],
        }


def preview(
    input: str | Path,
    times: Sequence[int] | None = None,
    *,
    crop: int = 512,
    corner: tuple[int, int] | None = None,
    **options: Unpack[CompareOptions],
) -> Preview:
    """Show what each rule and the network do to a crop of some frames; statistics are of the whole frames.

    Parameters
    ----------
    input : str
        As for `phbatch.run`; of a plate, a collection or a pattern the first, the middle and the last image are shown,
        or those that `wells` and `fields` choose, up to 12 of them.
    times : sequence of int, optional
        Indices along t. Default: the first frame and the last.
    crop : int
        Side in pixels.
    corner : (y, x), optional
        First row and column of the crop. Default: where the first frame of an image has most texture.
    **options
        As for `phbatch.compare_rules`.

    Returns
    -------
    Preview
        See `phbatch.report.save_preview`.

    Raises
    ------
    InputError
        The input cannot be read.
    UsageError
        A time or a crop outside of the image, or an option that means nothing here.
    """
    settings = parse_options("compare_rules", options)
    model = None if settings.model == "none" else open_model(settings.model or DEFAULT_MODEL)
    settings, of_model = with_model(settings, model)
    images = few_images(input, settings)
    if crop < 8:
        raise UsageError(f"--crop {crop} shows nothing; give 8 pixels or more.")
    notices = [notice.text for notice in of_model]
    if model is not None and (model.config.n_dim != 2 or model.config.n_channel_in != 1):
        notices.append(f"{model.name} restores volumes or several channels at once, which a preview does not show.")
    drawn = model if model is not None and not notices else None
    rules, own = _rules(settings, model)
    rows: list[PreviewRow] = []
    for path, place in images.places.items():
        source, at = open_input(place, settings), corner
        for t in times or ():
            if not 0 <= t < source.shape[0]:
                raise UsageError(f"--times {t} is none of the frames 0 to {source.shape[0] - 1}; give indices along t.")
        with Sampler.open(source, settings, 2) as sampler:
            first = sampler.keys[0]
            keys = sampler.keys if times is None else [FrameKey(t, first.c, first.z) for t in dict.fromkeys(times)]
            for key in keys:
                frame = sampler.frame(key)
                window = _place(frame, crop, at)
                at = window[0].start, window[1].start
                rows.append(_row(frame, SampledFrame(path, key), window, rules, own, drawn))
    return Preview(
        rows=tuple(rows),
        corner=rows[0].corner,
        side=rows[0].raw.shape[0],
        model=drawn.name if drawn is not None else None,
        model_rule=own.describe() if own is not None else None,
        notices=(*images.notices, *notices),
    )


def _rules(settings: RunSettings, model: Model | None) -> tuple[list[Normalization], Normalization | None]:
    given = {name: getattr(settings, name) for name in ("sigma", "pmin", "pmax") if getattr(settings, name) is not None}
    rules = [Normalization.model_validate(rule.model_dump() | given) for rule in RULES]
    if settings.value is not None:
        rules.append(Normalization(method="fixed", value=settings.value))
    own = resolve_rule(RunSettings(), model)[0] if model is not None else None
    if own is not None and own.describe() not in [rule.describe() for rule in rules]:
        rules.append(own)
    return rules, own


def _place(frame: PreparedFrame, crop: int, corner: tuple[int, int] | None) -> tuple[slice, slice]:
    height, width = frame.pixels.shape
    side = min(crop, height, width)
    if corner is None:
        corner = textured_corner(frame.normalize(Affine()), side)
    y, x = corner
    if not (0 <= y <= height - side and 0 <= x <= width - side):
        raise UsageError(f"--at {y},{x} leaves no {side} pixels in {height} x {width}; give a smaller --crop or --at.")
    return slice(y, y + side), slice(x, x + side)


def _row(
    frame: PreparedFrame,
    key: SampledFrame,
    place: tuple[slice, slice],
    rules: Sequence[Normalization],
    own: Normalization | None,
    model: Model | None,
) -> PreviewRow:
    percentiles = percentiles_for(0.2, 99.8, [edge for rule in rules for edge in (rule.pmin, rule.pmax)])
    found = {sigma: frame.measure(sigma, percentiles) for sigma in {rule.sigma for rule in rules}}
    affines = {rule.describe(): make_affine(found[rule.sigma], rule) for rule in rules}
    shown = {
        name: None if affine is None else frame.normalize(affine)[place].copy() for name, affine in affines.items()
    }
    normalized = restored = None
    affine = affines.get(own.describe()) if own is not None else None
    if model is not None and affine is not None:
        whole = frame.normalize(affine)
        normalized, restored = whole[place].copy(), restore_window(whole, place, model)
    flags = found[rules[0].sigma].flags
    raw = frame.normalize(Affine())[place].copy()
    return PreviewRow(str(key), raw, shown, normalized, restored, flags, (place[0].start, place[1].start))


def _facts(image: FloatImage | None) -> dict[str, float] | None:
    if image is None:
        return None
    return {"mean": float(image.mean(dtype=np.float64)), "std": float(image.std(dtype=np.float64))}
