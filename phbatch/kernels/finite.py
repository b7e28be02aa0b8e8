"""Which pixels are numbers: everything is normalized in float32."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_LARGEST = float(np.finfo(np.float32).max)


def is_finite(pixels: NDArray[Any]) -> NDArray[np.bool_]:
    """False where a pixel is NaN, infinite or so large that it is infinite in float32.

    Examples
    --------
    >>> is_finite(np.array([1e38, 1e300, np.nan]))
    array([ True, False, False])
    """
    if pixels.dtype.kind == "f" and pixels.dtype.itemsize > 4:
        return np.asarray(np.abs(pixels) <= _LARGEST)
    return np.asarray(np.isfinite(pixels))
