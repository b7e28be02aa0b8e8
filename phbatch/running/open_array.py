"""An image as a lazy xarray.DataArray with physical coordinates, and the accessor of such arrays."""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsIndex, Unpack

import dask.array as da
import numpy as np

from phbatch.inputs.image import Source, open_source
from phbatch.inputs.pixel_size import MICROMETERS, SECONDS
from phbatch.kernels.stats import DEFAULT_PERCENTILES
from phbatch.places.place import Place
from phbatch.places.zarr_nodes import stored_lengths
from phbatch.running.array_statistics import image_statistics
from phbatch.running.arrays import normalize, restore
from phbatch.words.axes import CANONICAL, Shape, to_region
from phbatch.words.errors import UsageError
from phbatch.words.normalization import SIGMA
from phbatch.words.option_types import NormalizeOptions, RestoreOptions
from phbatch.words.settings import parse_settings

if TYPE_CHECKING:
    import xarray

CHUNK_BYTES = 32 << 20
"""Of a chunk of Dask, about: so many frames that a task is worth it, and so few that a core's share of memory does."""


def open(  # noqa: A001
    path: str | Path, axes: str | None = None, *, level: int = 0, storage_options: Any = None
) -> xarray.DataArray:
    """Open an image, or one of its coarser levels, as a lazy xarray.DataArray: no pixel is read until asked.

    It has the accessor ``.phbatch`` with ``normalize``, ``restore`` and ``statistics``; for arrays of others
    ``import phbatch.xarray`` registers it.

    Parameters
    ----------
    path : str or Path
        OME-Zarr image (0.4 or 0.5), Zarr array, or output of phbatch; a path or a URL.
    axes : str, optional
        Axes of a bare array, such as ``"tyx"``, where its metadata do not name them.
    level : int
        Which resolution of an OME-Zarr image; 0 is the full one.
    storage_options : mapping, str or sequence of str, optional
        Credentials and endpoint of an object store.

    Returns
    -------
    xarray.DataArray
        Dimensions are those of the image in the order of ``tczyx``. Coordinates are the centres of the pixels in
        micrometers and times in seconds, where the image states its units, and names of channels; each has its
        ``units``. Pixels are as they are stored: integers that stand for other numbers have ``scale_factor`` and
        ``add_offset`` in ``attrs``.

    Raises
    ------
    InputError
        There is no image, or no such level.
    UsageError
        xarray is not installed.

    Examples
    --------
    >>> import tempfile, phbatch
    >>> path = tempfile.mkdtemp() + "/cells.zarr"
    >>> _ = phbatch.write_time_lapse(path, phbatch.PhaseContrast(shape=(64, 48), n_frames=3))
    >>> cells = phbatch.open(path)
    >>> dict(cells.sizes)
    {'t': 3, 'y': 64, 'x': 48}
    >>> cells.phbatch.normalize().dtype
    dtype('float32')
    """
    register_accessor()
    return labelled(open_level(path, axes, level, storage_options), level)


def open_level(path: str | Path, axes: str | None, level: int, storage_options: Any) -> Source:
    """A level of an image, whose number and options a user gave."""
    if isinstance(level, bool) or not isinstance(level, SupportsIndex):
        raise UsageError(f"level is {level!r}; it must be a whole number, 0 for the full resolution.")
    options = parse_settings({"storage_options": storage_options}).storage_options
    return open_source(Place.at(path, options), axes, operator.index(level))


def labelled(source: Source, level: int, wrap: Callable[[LazyImage], Any] | None = None) -> xarray.DataArray:
    """A level that was opened, with the coordinates of its pixels: an array of Dask, or what `wrap` makes of it."""
    import xarray

    metadata, array = source.metadata, source.array
    lengths = tuple(source.shape[CANONICAL.index(axis)] for axis in metadata.axes)
    coordinates = dict(_coordinates(source, lengths))
    axes = source.stored_axes if metadata.version is None else None
    image, chunks = LazyImage(source.place, axes, source.dtype, lengths, level), _dask_chunks(source)
    attributes = {name: array.attrs[name] for name in ("scale_factor", "add_offset") if name in array.attrs}
    stem = source.place.name.removesuffix(".zarr")
    pixels = _chunked(image, source, chunks) if wrap is None else wrap(image)
    found = xarray.DataArray(pixels, coordinates, [*metadata.axes], name=metadata.name or stem, attrs=attributes)
    found.encoding["preferred_chunks"] = dict(zip(metadata.axes, chunks, strict=True))
    return found


def _chunked(image: LazyImage, source: Source, chunks: tuple[int, ...]) -> da.Array:
    known = (source.path, source.node, source.identity(pixels=False), _stamp(source))
    return da.from_array(
        image,
        chunks,
        name=f"phbatch-{hashlib.sha256(repr(known).encode()).hexdigest()}",
        asarray=False,
        fancy=False,
        meta=np.empty((0,) * image.ndim, image.dtype),
    )


def register_accessor() -> Any:
    """The library xarray, whose arrays have the accessor ``phbatch`` from now on.

    Raises
    ------
    UsageError
        It is not installed.
    """
    try:
        import xarray
    except ImportError as error:
        raise UsageError(
            "labelled arrays need the library xarray; install it with `pip install 'phbatch[xarray]'`."
        ) from error
    if not hasattr(xarray.DataArray, "phbatch"):
        register: Any = xarray.register_dataarray_accessor
        register("phbatch")(PhbatchAccessor)
    return xarray


class PhbatchAccessor:
    """What ``DataArray.phbatch`` is: the functions of phbatch, for an array whose dimensions name its axes.

    Examples
    --------
    >>> import numpy as np, xarray, phbatch.xarray
    >>> cells = xarray.DataArray(np.full((2, 32, 32), 50, np.uint16), dims=["time", "y", "x"])
    >>> cells[:, :8, :8] = 90
    >>> float(cells.phbatch.normalize()[1, 20, 20])
    1.0
    >>> cells.phbatch.statistics()["median"].dims
    ('time',)
    """

    def __init__(self, array: xarray.DataArray) -> None:
        self._array = array

    def normalize(self, normalize: str = "median", **options: Unpack[NormalizeOptions]) -> xarray.DataArray:
        """As `phbatch.normalize`; coordinates stay."""
        found: xarray.DataArray = _normalize(self._array, normalize=normalize, **options)
        return found

    def restore(self, **options: Unpack[RestoreOptions]) -> xarray.DataArray:
        """As `phbatch.restore`; dimensions are in the order of ``tczyx``, and coordinates stay with their pixels."""
        found: xarray.DataArray = restore(self._array, **options)
        return found

    def statistics(self, *, sigma: float = SIGMA, percentiles: Sequence[float] = DEFAULT_PERCENTILES) -> xarray.Dataset:
        """As `phbatch.image_statistics`: a variable per statistic, along all dimensions but y and x."""
        found: xarray.Dataset = image_statistics(self._array, sigma=sigma, percentiles=percentiles)
        return found


_normalize = normalize  # which a method is called, too


@dataclass(frozen=True, eq=False)
class LazyImage:
    """An image along the axes that it has: opened once per process, guarded as every input is."""

    place: Place
    axes: str | None
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    level: int

    @property
    def ndim(self) -> int:  # noqa: D102 - as of arrays
        return len(self.shape)

    @cached_property
    def _source(self) -> Source:
        return open_source(self.place, self.axes, self.level)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_source"}

    def __getitem__(self, selection: tuple[slice | int, ...]) -> Any:
        source = self._source
        own, starts, stops = source.metadata.axes, [0] * 5, [*source.shape]
        strides: list[Any] = [0] * 5
        for axis, part, length in zip(own, selection, self.shape, strict=True):
            at = CANONICAL.index(axis)
            if isinstance(part, slice):
                chosen = range(length)[part]
                low, high = (min(chosen[0], chosen[-1]), max(chosen[0], chosen[-1]) + 1) if chosen else (0, 0)
                starts[at], stops[at], strides[at] = low, high, slice(None, None, chosen.step)
            else:
                index = range(length)[part]
                starts[at], stops[at], strides[at] = index, index + 1, 0
        return source.read_or_refuse(to_region(starts, stops))[tuple(strides)]


def _stamp(source: Source) -> str:
    """Of the metadata of the array, so that an image written anew has other names."""
    for name in ("zarr.json", ".zarray"):
        key = f"{source.node}/{name}" if source.node else name
        if source.place.exists(key):
            return str(source.place.stat(key))
    return ""


def _dask_chunks(source: Source) -> tuple[int, ...]:
    """Whole stored objects, as many as `CHUNK_BYTES` hold, planes first."""
    stored = dict(zip(source.stored_axes, stored_lengths(source.array), strict=True))
    full: Shape = source.shape
    chunks = {axis: min(stored[axis], full[CANONICAL.index(axis)]) for axis in source.metadata.axes}
    for axis in "xyzt":
        if axis in chunks:
            room = CHUNK_BYTES // (prod(chunks.values()) * source.dtype.itemsize)
            chunks[axis] = min(full[CANONICAL.index(axis)], chunks[axis] * max(1, room))
    return tuple(chunks[axis] for axis in source.metadata.axes)


def _coordinates(source: Source, lengths: tuple[int, ...]) -> Any:
    metadata = source.metadata
    for index, (axis, length) in enumerate(zip(metadata.axes, lengths, strict=True)):
        if axis == "c":
            names = metadata.channel_names
            yield axis, (axis, list(names) if len(set(names)) == length else np.arange(length))
            continue
        unit = metadata.units[index]
        known, common = (SECONDS, "second") if axis == "t" else (MICROMETERS, "micrometer")
        factor = known.get(unit or "", 1.0)
        unit = common if unit in known else unit
        positions = (metadata.translation[index] + metadata.scale[index] * np.arange(length)) * factor
        yield axis, (axis, positions, {"units": unit} if unit else {})
