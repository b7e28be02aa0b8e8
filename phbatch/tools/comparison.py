"""What a comparison of normalizations found, and what it recommends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from phbatch.tools.residual import ResidualCheck

STUDY = "docs/benchmarks/normalization-study.md"
"""Networks trained alike but for the rule, and what became of them."""

STUDIED = ("median", "mode", "fixed", "percentile")
"""Methods of its rules, of which all but the last were best, and alike."""

STUDY_DB = 3.9
"""PSNR that the study's networks of the first three have over those of the last, trained as CSBDeep does."""

_TIE = 0.01  # of the contrast: drift that nobody sees
_STRETCH_TIE = 0.05


@dataclass(frozen=True)
class Comparison:
    """What one rule does to the sampled frames.

    Attributes
    ----------
    rule : str
        In words.
    level : float
        Median over frames of the background's normalized level.
    drift : float or None
        Largest minus smallest level over the frames, in units of `contrast`; None of a single frame.
    noise : float
        Median over frames of the normalized noise of the background, in units of `contrast`.
    stretch : float or None
        Largest over smallest normalized noise of the background: 1 where a rule never exaggerates it; None of a single
        frame.
    contrast : float
        Median over frames of the normalized range of the smoothed frame, from its 0.2 to its 99.8 percentile.
    outside : float
        Fraction of the normalized pixels outside of [0, 1].
    ms_per_mpx : float
        Milliseconds per megapixel to measure and normalize, on one core.
    levels : tuple of float
        Level of the background in every sampled frame, less its median, in units of `contrast`.
    noises : tuple of float
        Normalized noise of the background in every sampled frame, over its median.
    drifts : mapping of str to float or None
        Of many images: drift over the frames of each alone, by its path.
    """

    rule: str
    level: float
    drift: float | None
    noise: float
    stretch: float | None
    contrast: float
    outside: float
    ms_per_mpx: float
    levels: tuple[float, ...]
    noises: tuple[float, ...]
    drifts: Mapping[str, float | None] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Picture:
    """A sampled frame, made small.

    Attributes
    ----------
    title : str
        Which frame, and when.
    image : (y, x) ndarray of float32
        As the normalization sees it, in counts.
    patches : tuple of (y, x, side)
        What is taken for background, in pixels of `image`.
    """

    title: str
    image: NDArray[np.float32]
    patches: tuple[tuple[float, float, float], ...]


@dataclass(frozen=True, eq=False)
class ComparisonReport(Sequence[Comparison]):
    """The rules side by side: a sequence of `Comparison`, and what they were found on.

    Attributes
    ----------
    rows : tuple of Comparison
        One per rule.
    frames : tuple of int
        Indices along t of the frames.
    times : tuple of float
        When they were taken, in `time_unit`.
    time_unit : str or None
        None where the image does not say it: `times` are then the indices.
    model, model_rule : str or None
        Name of the model that the rules are for, and the rule that it was trained with.
    notices : tuple of str
        Frames and rules that were left out, and why.
    pictures : tuple of Picture
        Some of the frames.
    positions : tuple of str
        Of many images: path of the one that each frame is of.
    residual : ResidualCheck or None
        Whether what the model removes from them looks like noise; None where it was not asked.
    """

    rows: tuple[Comparison, ...]
    frames: tuple[int, ...]
    times: tuple[float, ...]
    time_unit: str | None = None
    model: str | None = None
    model_rule: str | None = None
    notices: tuple[str, ...] = ()
    pictures: tuple[Picture, ...] = ()
    residual: ResidualCheck | None = None
    positions: tuple[str, ...] = ()

    @overload
    def __getitem__(self, index: int) -> Comparison: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Comparison]: ...

    def __getitem__(self, index: int | slice) -> Comparison | Sequence[Comparison]:
        return self.rows[index]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def recommendation(self) -> tuple[Comparison | None, str]:
        """As `recommend` says, what it means for the model, and what the study says of it."""
        best, reason = recommend(self.rows, self.model_rule)
        if best is None:
            return best, reason
        if self.model is None:
            words = ""
        elif best.rule == self.model_rule:
            words = f" The model {self.model} was trained with it."
        else:
            words = (
                f" The model {self.model} was trained with {self.model_rule}, which is another rule: keep that one"
                " for this model, or train a model with this one."
            )
        return best, f"{reason}{words} {study_says(best, self.rows)}"

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        best, reason = self.recommendation
        names = ("frames", "positions", "times", "time_unit", "model", "model_rule", "notices")
        return {
            "recommended": best.rule if best is not None else None,
            "reason": reason,
            "rules": [row.as_dict() for row in self.rows],
            "residual": None if self.residual is None else self.residual.as_dict(),
            **{name: getattr(self, name) for name in names},
        }


def recommend(found: Sequence[Comparison], preferred: str | None = None) -> tuple[Comparison | None, str]:
    """A rule, and why, in one sentence; None where a single frame was looked at.

    It is one of those that were best in the study, median, mode and fixed, where they apply. Of these the one whose
    background drifts least; of those that drift alike, within 0.01 of the contrast, the one that stretches the noise
    least; of those that do so alike the preferred one, or the first, which is simplest.

    Examples
    --------
    >>> rows = [Comparison(rule, 1, drift, 0, 1, 1, 0, 1, (), ()) for rule, drift in (("median", 0.1), ("minmax", 0.9))]
    >>> recommend(rows)[0].rule
    'median'
    """
    rows = [(row, row.drift, row.stretch) for row in found if row.drift is not None and row.stretch is not None]
    if not rows:
        return None, "nothing: one frame shows no drift; sample two or more."
    able = [entry for entry in rows if _was_best(entry[0])] if _has_background(found) else rows
    least = min(drift for _, drift, _ in able)
    steady = [(row, drift, stretch) for row, drift, stretch in able if drift <= least + _TIE]
    even = min(stretch for _, _, stretch in steady) * (1 + _STRETCH_TIE)
    equals = [entry for entry in steady if entry[2] <= even]
    best, drift, stretch = next((entry for entry in equals if entry[0].rule == preferred), equals[0])
    worst, its_drift, its_stretch = max(rows, key=lambda entry: entry[1])
    reason = (
        f"{best.rule}: its background drifts by {drift:.3f} of the contrast and its noise is stretched"
        f" {stretch:.2f} x at most"
    )
    return best, f"{reason}; {worst.rule} drifts by {its_drift:.3f} and stretches {its_stretch:.2f} x."


def study_says(best: Comparison, found: Sequence[Comparison]) -> str:
    """What the study says of a recommended rule, in words, and of those that drift less on these frames."""
    if not _has_background(found):
        return f"The study ({STUDY}) is of frames whose background is above zero and does not tell of these."
    less = [row for row in found if (row.drift or 0) + _TIE < (best.drift or 0) and not _was_best(row)]
    others = "".join(
        f" {row.rule} drifts less here ({row.drift:.3f}), but {'did worse' if _method(row) in STUDIED else 'was not'}"
        " in the study."
        for row in less
    )
    return (
        f"In the study ({STUDY}) networks trained with median, mode or a fixed divisor restored simulated frames alike,"
        f" and {STUDY_DB:g} dB better than those trained as CSBDeep does, on the own percentiles of each image.{others}"
    )


def _method(row: Comparison) -> str:
    return row.rule.split(",")[0].split()[0]


def _was_best(row: Comparison) -> bool:
    return _method(row) in STUDIED[:-1]


def _has_background(found: Sequence[Comparison]) -> bool:
    """Whether frames have a level to divide by."""
    return any(_method(row) in ("median", "mode") for row in found)
