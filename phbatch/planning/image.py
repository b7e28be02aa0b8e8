"""What must be known of an image before its pixels are read."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from phbatch.places.ome import ImageMetadata
from phbatch.words.axes import Shape


class Chunked(Protocol):
    """What has the lengths, the chunks and the dtype of an image."""

    @property
    def shape(self) -> Shape:
        """Lengths along ``tczyx``."""

    @property
    def chunks(self) -> Shape:
        """Chunks along ``tczyx``."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the pixels."""


class Image(Chunked, Protocol):
    """What must be known of an input: `Source` has it, and so has a Dask array with axes."""

    @property
    def metadata(self) -> ImageMetadata:
        """Axes and channels."""

    @property
    def copied(self) -> bool:
        """Whether what is read is copied, to bring its axes or bytes in order."""
