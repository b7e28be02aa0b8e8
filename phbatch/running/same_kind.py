"""Results of the lazy functions as the kind of array that was given: NumPy, xarray, and else Dask."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np

from phbatch.words.axes import CANONICAL

if TYPE_CHECKING:
    import xarray

_CODED = ("scale_factor", "add_offset")


def as_given(given: Any, result: da.Array, axes: str, result_axes: str) -> Any:
    """A result as the kind of array that it was made of.

    Parameters
    ----------
    given : array
        What a user gave.
    result : dask.array.Array
        Computed here where `given` is in memory, as NumPy array or in an xarray.DataArray.
    axes, result_axes : str
        Of `given` and of `result`.

    Returns
    -------
    numpy.ndarray, xarray.DataArray, xarray.Dataset or dask.array.Array
        A Dataset, with a variable per field, is what structured results of a DataArray are.
    """
    labelled = _is_labelled(given)
    in_memory = given.chunks is None if labelled else isinstance(given, np.ndarray | np.generic)
    values: Any = result.compute() if in_memory else result
    if not labelled:
        return values
    import xarray

    names = {axis: str(name) for axis, name in zip(axes, given.dims, strict=True)}
    dims = [names.get(axis, axis) for axis in result_axes]
    coords = dict(_coordinates(given, dict(zip(dims, values.shape, strict=True)), [names["y"], names["x"]]))
    if values.dtype.names:
        variables = {name: (dims, values[name]) for name in values.dtype.names}
        return xarray.Dataset(variables, coords)
    attributes = {name: value for name, value in given.attrs.items() if name not in _CODED}
    return xarray.DataArray(values, coords, dims, name=given.name, attrs=attributes)


def axes_without(axes: str, left_out: str) -> str:
    """Axes but for some.

    Examples
    --------
    >>> axes_without("tcyx", "yx")
    'tc'
    """
    return "".join(axis for axis in axes if axis not in left_out)


def in_order(axes: str) -> str:
    """Axes in the order of ``tczyx``."""
    return "".join(axis for axis in CANONICAL if axis in axes)


def _is_labelled(array: Any) -> bool:
    """Whether it is an xarray.DataArray; whoever has one has imported its library."""
    library = sys.modules.get("xarray")
    return library is not None and isinstance(array, library.DataArray)


def _coordinates(given: xarray.DataArray, lengths: dict[str, int], plane: list[str]) -> Iterator[tuple[str, Any]]:
    """Those that hold for the result: of averaged pixels their centres, and none of channels that are others."""
    sizes = {str(name): size for name, size in given.sizes.items()}
    for name, coordinate in given.coords.items():
        if all(lengths.get(str(dim)) == sizes[str(dim)] for dim in coordinate.dims):
            yield str(name), coordinate
        elif len(coordinate.dims) == 1 and coordinate.dims[0] in plane and coordinate.dtype.kind in "iuf":
            dim = str(coordinate.dims[0])
            if dim in lengths and sizes[dim] > 1:
                centres = _centres(np.asarray(coordinate, np.float64), lengths[dim])
                yield str(name), (dim, centres, coordinate.attrs)


def _centres(positions: Any, count: int) -> Any:
    """Centres of `count` blocks of pixels; the last block may have fewer, and is as far from its neighbour."""
    factor = -(-len(positions) // count)
    step = positions[1] - positions[0]
    return positions[0] + step * ((factor - 1) / 2 + factor * np.arange(count))
