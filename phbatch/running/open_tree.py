"""All levels of an image, what was measured of it, and all positions of a plate, as one xarray.DataTree."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask.array as da

from phbatch.inputs.image import dimension_names, open_source
from phbatch.inputs.positions import list_images
from phbatch.places.place import Place
from phbatch.places.refusals import ome_attributes
from phbatch.running.open_array import labelled, register_accessor
from phbatch.words.settings import parse_settings

if TYPE_CHECKING:
    import xarray

_TABLES = ("statistics", "illumination")
"""Groups of an output whose arrays are no pixels."""


def open_datatree(path: str | Path, *, storage_options: Any = None) -> xarray.DataTree:
    """Open all that an OME-Zarr image or a plate holds as an xarray.DataTree: no pixel is read until asked.

    It is what ``xarray.open_datatree(path)`` gives of an output of phbatch, and ``engine="phbatch"`` of any image. The
    engine of xarray's own refuses images with levels: it wants one length of each dimension in a group and all below
    it, and OME-Zarr has level 0 above the others, with the same names of dimensions.

    Parameters
    ----------
    path : str or Path
        OME-Zarr image (0.4 or 0.5), plate, collection of bioformats2raw, or output of phbatch; a path or a URL.
    storage_options : mapping, str or sequence of str, optional
        Credentials and endpoint of an object store.

    Returns
    -------
    xarray.DataTree
        ``tree["0/image"]`` is the full resolution, ``tree["1/image"]`` the next, each as `open` gives it;
        ``tree["uncertainty/0/image"]`` and ``tree["labels/NAME/0/image"]`` likewise. ``tree["statistics"]`` and
        ``tree["illumination"]`` are the arrays of an output that have these names. Of a plate, all of it lies below
        the path of its field, such as ``tree["B/3/0/0/image"]``.

    Raises
    ------
    InputError
        There is no image.
    UsageError
        xarray is not installed.

    Examples
    --------
    >>> import tempfile, phbatch
    >>> path = tempfile.mkdtemp() + "/cells.zarr"
    >>> _ = phbatch.write_time_lapse(path, phbatch.PhaseContrast(shape=(64, 48), n_frames=3))
    >>> output = phbatch.run(path, model="none", levels=2, workers=1).output
    >>> tree = phbatch.open_datatree(output)
    >>> dict(tree["1/image"].sizes), dict(tree["statistics"].sizes)
    ({'t': 3, 'y': 32, 'x': 24}, {'frame': 3})
    """
    library = register_accessor()
    settings = parse_settings({"storage_options": storage_options})
    place = Place.at(path, settings.storage_options)
    images = list_images(path, settings)
    groups: dict[str, xarray.Dataset] = {}
    if "" not in images:
        groups.update(_tables(place, ""))
    for name, image in images.items():
        groups.update(_groups_of(Place.at(image, settings.storage_options), f"/{name}" if name else ""))
    tree: xarray.DataTree = library.DataTree.from_dict(groups, name=place.name.removesuffix(".zarr"))
    return tree


def _groups_of(place: Place, prefix: str) -> Iterator[tuple[str, xarray.Dataset]]:
    """What an image has, by its path in a tree."""
    first = open_source(place)
    yield from ((f"{prefix}/0", labelled(first, 0).to_dataset(name="image")),)
    for level in range(1, first.levels):
        yield f"{prefix}/{level}", labelled(open_source(place, None, level), level).to_dataset(name="image")
    if first.metadata.version is None:
        return
    listed = ome_attributes(place, "labels").get("labels")
    labels = [f"labels/{name}" for name in listed if isinstance(name, str)] if isinstance(listed, list) else []
    for image in ("uncertainty", *labels):
        if "multiscales" in ome_attributes(place, image):
            yield from _groups_of(place / image, f"{prefix}/{image}")
    yield from _tables(place, prefix)


def _tables(place: Place, prefix: str) -> Iterator[tuple[str, xarray.Dataset]]:
    """Groups of an output that are no images."""
    import xarray

    for name in _TABLES:
        try:
            group: Any = place.open(name)
            arrays = dict(group.arrays())
        except (FileNotFoundError, AttributeError):
            continue
        variables = {
            key: xarray.Variable(dimension_names(array), da.from_zarr(array))
            for key, array in sorted(arrays.items())
            if len(dimension_names(array)) == array.ndim
        }
        yield f"{prefix}/{name}", xarray.Dataset(variables, attrs=group.attrs.asdict())
