"""What an evaluation found: scores of every frame, what the scale of a network is worth, and a crop of the worst."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import groupby
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phbatch.places.table_file import POSITION
from phbatch.tools.scores import FrameScores

LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
"""Shares of pixels that intervals about the restored value should hold."""

MEASURES = ("psnr", "ssim", "nrmse")

_HONEST = 0.05  # of the pixels: how far an interval may be off

FloatImage = NDArray[np.float32]


@dataclass(frozen=True)
class Calibration:
    """Whether the scale of a probabilistic network tells how far off it is.

    The network's distribution is Laplace's: within ``-scale * log(1 - p)`` of the restored value lie, if it is right,
    a share p of the pixels.

    Attributes
    ----------
    expected, found : tuple of float
        Shares of the pixels that intervals should hold, and that they do hold.
    ratio : float
        Mean absolute error over the mean scale: 1 where the scale is right, above it where it is too small.
    """

    expected: tuple[float, ...]
    found: tuple[float, ...]
    ratio: float

    @property
    def error(self) -> float:
        """Mean difference between what intervals hold and should hold."""
        return float(np.mean(np.abs(np.subtract(self.found, self.expected))))

    @property
    def sentence(self) -> str:
        """What that means, by the interval that should hold 90 %."""
        expected, found = next(pair for pair in zip(self.expected, self.found, strict=True) if pair[0] == 0.9)
        off = found - expected
        verdict = "is right" if abs(off) <= _HONEST else "is too large" if off > 0 else "is too small"
        return (
            f"the scale {verdict}: intervals that should hold {expected:.0%} of the pixels hold {found:.1%}, and errors"
            f" are {self.ratio:.2f} times what it says."
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {"sentence": self.sentence, "error": self.error, **asdict(self)}


@dataclass(frozen=True, eq=False)
class Example:
    """A crop of the frame with the lowest PSNR: images in the same units, and where cells are."""

    frame: str
    corner: tuple[int, int]
    before: FloatImage | None
    restored: FloatImage
    truth: FloatImage
    cells: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """How far a restoration is from its truth.

    Attributes
    ----------
    rows : tuple of FrameScores
        One of each plane, image after image.
    calibration : Calibration or None
        Of a probabilistic network's scale, where it was written.
    example : Example
        The worst frame.
    notices : tuple of str
        What was left out.
    """

    rows: tuple[FrameScores, ...]
    example: Example
    calibration: Calibration | None = None
    notices: tuple[str, ...] = field(default=())

    @cached_property
    def positions(self) -> Mapping[str, tuple[FrameScores, ...]]:
        """Rows of every position, by its path; of an image alone there is one, whose path is empty."""
        return {path: tuple(rows) for path, rows in groupby(self.rows, attrgetter("position"))}

    def mean(self, name: str, position: str | None = None) -> float | None:
        """Mean of a score over the frames that have it; None where none has.

        Parameters
        ----------
        name : str
            Attribute of `FrameScores`.
        position : str, optional
            Path of one of many images. Default: all frames.
        """
        values = [value for row in self._of(position) if (value := getattr(row, name)) is not None]
        return float(np.mean(values)) if values else None

    @property
    def worst(self) -> FrameScores:
        """The frame of the lowest PSNR."""
        return min(self.rows, key=lambda row: row.psnr)

    @property
    def gain(self) -> float | None:
        """Mean of what the PSNR was raised by, in dB; None where the input is not known."""
        return self.gain_of(None)

    def gain_of(self, position: str | None) -> float | None:
        """The same of one of many images, by its path."""
        gains = [row.psnr - row.input_psnr for row in self._of(position) if row.input_psnr is not None]
        return float(np.mean(gains)) if gains else None

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        names = [name for name in self.worst.as_dict() if name not in (POSITION, "t", "c", "z")]
        return {
            "frames": len(self.rows),
            "mean": {name: self.mean(name) for name in names},
            "gain_db": self.gain,
            "worst": self.worst.key,
            "calibration": None if self.calibration is None else self.calibration.as_dict(),
            "notices": list(self.notices),
            "positions": {path: self._summary(path) for path in self.positions if path},
            "rows": [row.as_dict() for row in self.rows],
        }

    def _of(self, position: str | None) -> tuple[FrameScores, ...]:
        return self.rows if position is None else self.positions[position]

    def _summary(self, position: str) -> dict[str, Any]:
        means = {name: self.mean(name, position) for name in MEASURES}
        return {"frames": len(self.positions[position]), **means, "gain_db": self.gain_of(position)}
