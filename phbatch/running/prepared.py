"""An image as it is measured, read in any pieces: averaged, its light corrected, and in what is counted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from phbatch.frames.light import Corrections, Preparation, prepare_frame
from phbatch.inputs.image import Source
from phbatch.kernels.smoothing import is_fixed_point
from phbatch.planning.image import Chunked
from phbatch.words.axes import Region, Shape


class Pixels(Chunked, Protocol):
    """What is read of an image: `Source` has it, and so has `PreparedPixels`."""

    def read_or_refuse(self, region: Region) -> NDArray[Any]:
        """Pixels of a region along ``tczyx``."""


@dataclass(frozen=True, eq=False)
class PreparedPixels:
    """Planes of an image as the normalization sees them, in what `phbatch.kernels.stats` summarizes.

    Attributes
    ----------
    source : Source
        The image.
    preparation : Preparation
        Of which no background of a frame by itself is taken, for which it would have to be read whole.
    corrections : callable or None
        The map of light of a channel and plane.
    """

    source: Source
    preparation: Preparation
    corrections: Corrections | None = None

    @property
    def shape(self) -> Shape:
        """Lengths along ``tczyx`` of the averages."""
        return self._reduced(self.source.shape)

    @property
    def chunks(self) -> Shape:
        """About those of the source."""
        return self._reduced(self.source.chunks)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Integers of 16 bits where those of the source are counted, else float32."""
        kind = self.source.dtype
        if not is_fixed_point(kind):
            return np.dtype(np.float32)
        return np.dtype(np.int16 if kind.kind == "i" else np.uint16)

    def read_or_refuse(self, region: Region) -> NDArray[Any]:
        """A region of one plane."""
        t, c, z, rows, columns = region
        factor = self.preparation.downscale
        spans = (
            slice(part.start * factor, min(part.stop * factor, size))
            for part, size in zip((rows, columns), self.source.shape[3:], strict=True)
        )
        block = self.source.read_or_refuse((t, c, z, *spans))  # type: ignore[arg-type]
        whole = self.corrections(c.start, z.start) if self.corrections is not None else None
        corrections = None if whole is None else lambda _c, _z: whole.window(rows, columns)
        return prepare_frame(block, (0, 0, 0), self.preparation, corrections).countable()[0][None, None, None]

    def _reduced(self, lengths: Shape) -> Shape:
        t, c, z, y, x = lengths
        factor = self.preparation.downscale
        return t, c, z, -(-y // factor), -(-x // factor)
