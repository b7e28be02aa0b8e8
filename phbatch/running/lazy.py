"""Arrays of other libraries as the lazy functions take them, and what these say of single frames."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan
from typing import Any

import dask.array as da
import numpy as np

from phbatch.words.axes import CANONICAL, infer_axes, validate_axes
from phbatch.words.errors import InputError
from phbatch.words.events import Notice, log


def open_lazy(array: Any, axes: str | None) -> tuple[da.Array, str]:
    """An array of frames as a Dask array in the machine's byte order, and its axes.

    Parameters
    ----------
    array : dask.array.Array, ndarray, xarray.DataArray, or an array of a store
        An xarray.DataArray brings the names of its dimensions with it.
    axes : str or None
        None takes those names.

    Raises
    ------
    InputError
        It is no array of frames of real numbers, or the axes do not fit it.
    """
    names = getattr(array, "dims", None)
    if names is not None and hasattr(array, "data"):
        array = array.data
    if not all(hasattr(array, name) for name in ("shape", "dtype", "__getitem__")):
        raise InputError(
            f"a {type(array).__name__} is no array; give a Dask, NumPy or xarray array, such as np.asarray of it."
        )
    if isinstance(getattr(array, "_meta", array), np.ma.MaskedArray):
        raise InputError("a masked array has pixels without a value; fill them first, with its filled().")
    if not isinstance(array, da.Array):
        array = da.from_array(array)
    axes = _find_axes(axes, array.ndim, names)
    if any(isnan(size) for sizes in array.chunks for size in sizes):
        raise InputError("the array has chunks of unknown sizes; call its compute_chunk_sizes() first.")
    empty = [axis for axis, size in zip(axes, array.shape, strict=True) if size == 0]
    if empty:
        raise InputError(f"axis {empty[0]} has length zero (shape {array.shape}); give an array that holds frames.")
    dtype = np.dtype(array.dtype)
    if dtype.kind not in "uif":
        raise InputError(f"dtype {dtype} is no real number; convert the image to an integer or float dtype first.")
    return (array if dtype.isnative else array.astype(dtype.newbyteorder("="))), axes


def _find_axes(axes: str | None, ndim: int, names: Any) -> str:
    words = [str(name) for name in names] if names is not None else []
    if axes is None:
        if not words:
            raise InputError("the array does not name its dimensions; say what they are, such as axes='tyx'.")
        return infer_axes(ndim, words)
    if not isinstance(axes, str):
        raise InputError(f"axes {axes!r} are no text; name one letter for each dimension, such as 'tyx'.")
    axes = validate_axes(axes, ndim)
    for axis, word in zip(axes, words, strict=False):
        if word.lower() in CANONICAL and len(word) == 1 and word.lower() != axis:
            raise InputError(
                f"axes {axes!r} contradict the dimensions of the array, which are {', '.join(words)}; leave axes out."
            )
    return axes


def warn_of_frames(indices: Sequence[tuple[int | None, ...]], axes: str, block_info: Any, why: str, more: str) -> None:
    """Tell of frames, by their indices within a block, as a warning in the log."""
    if not indices:
        return
    starts = [start for start, _ in block_info[0]["array-location"]] if block_info else [0] * len(axes)
    names = [
        "/".join(f"{axis}{at + start}" for axis, at, start in zip(axes, index, starts, strict=False) if at is not None)
        for index in indices
    ]
    others = f" and {len(names) - 4} more" if len(names) > 4 else ""
    log(Notice(f"frames {', '.join(names[:4])}{others}: {why}; {more}.", warning=True))
