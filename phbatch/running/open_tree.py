"""All levels of an image, what was measured of it, and all positions of a plate, as one xarray.DataTree."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask.array as da

from phbatch.inputs.image import dimension_names, open_source
from phbatch.inputs.positions import list_images
from phbatch.places.place import Place
from phbatch.places.refusals import ome_attributes
from phbatch.running.open_array import labelled, register_accessor
from phbatch.words.errors import InputError
from phbatch.words.settings import parse_settings

if TYPE_CHECKING:
    import xarray

_TABLES = ("statistics", "illumination")
"""Groups of an output whose arrays are no pixels."""

_UNCERTAINTY = "uncertainty"
_SHOWN = 8

Wrap = Callable[[Any], Any]
"""Makes of an array that is opened, and can be cut, what a Dataset is given."""


def open_datatree(path: str | Path, *, group: str | None = None, storage_options: Any = None) -> xarray.DataTree:
    """Open all levels of an OME-Zarr image, or of all of a plate, as an xarray.DataTree: no pixel is read until asked.

    It is what ``xarray.open_datatree(path)`` gives of an output of phbatch, and ``engine="phbatch"`` of any image. The
    engine of xarray's own refuses images with levels: it wants one length of each dimension in a group and all below
    it, and OME-Zarr has level 0 above the others, with the same names of dimensions.

    Parameters
    ----------
    path : str or Path
        OME-Zarr image (0.4 or 0.5), plate, collection of bioformats2raw, or output of phbatch; a path or a URL.
    group : str, optional
        Only what lies below a path in the tree, such as a field of a plate, ``"B/3/0"``: nothing else is opened.
    storage_options : mapping, str or sequence of str, optional
        Credentials and endpoint of an object store.

    Returns
    -------
    xarray.DataTree
        ``tree["0/image"]`` is the full resolution, ``tree["1/image"]`` the next, each as `open` gives it;
        ``tree["uncertainty/0/image"]`` likewise. ``tree["statistics"]`` and ``tree["illumination"]`` are the arrays
        of an output that have these names, but of a web server, which lists nothing. Label images are left out. Of a
        plate, all of it lies below the path of its field, such as ``tree["B/3/0/0/image"]``.

    Raises
    ------
    InputError
        There is no image, or no such group.
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
    name = Path(path).name.removesuffix(".zarr")
    tree: xarray.DataTree = library.DataTree.from_dict(list_groups(path, group, storage_options), name=name)
    return tree


def list_groups(
    path: str | Path, group: str | None, storage_options: Any, wrap: Wrap | None = None
) -> dict[str, xarray.Dataset]:
    """What `open_datatree` gives, by absolute paths; arrays are of Dask, or what `wrap` makes of them.

    Raises
    ------
    InputError
        There is no image, or no such group.
    """
    settings = parse_settings({"storage_options": storage_options})
    place, within = Place.at(path, settings.storage_options), (group or "").strip("/")
    images = list_images(path, settings)
    groups: dict[str, xarray.Dataset] = {}
    if "" not in images:
        groups.update(_tables(place, "", within, wrap))
    for name, image in images.items():
        if _meet(name, within):
            groups.update(_groups_of(Place.at(image, settings.storage_options), name, within, wrap))
    found = {
        "/" + node.removeprefix(within).strip("/"): held for node, held in groups.items() if _is_below(node, within)
    }
    if not found:
        known = sorted({node.split("/")[0] for node in [*groups, *images] if node})
        shown = ", ".join(known[:_SHOWN]) + (", ..." if len(known) > _SHOWN else "")
        raise InputError(f"{path} holds no group {group!r}; give one of {shown}, or what is below them.")
    return found


def _is_below(node: str, within: str) -> bool:
    return not within or node == within or node.startswith(f"{within}/")


def _meet(node: str, within: str) -> bool:
    """Whether one of two paths is the other, or lies below it."""
    return not node or _is_below(node, within) or _is_below(within, node)


def _groups_of(place: Place, name: str, within: str, wrap: Wrap | None) -> Iterator[tuple[str, xarray.Dataset]]:
    """What an image has, by its path in a tree, as far as it may lie within a part of the tree."""
    prefix = f"{name}/" if name else ""
    first = open_source(place)
    for level in range(first.levels):
        if _meet(f"{prefix}{level}", within):
            source = open_source(place, None, level) if level else first
            yield f"{prefix}{level}", labelled(source, level, wrap).to_dataset(name="image")
    if first.metadata.version is None:
        return
    if _meet(f"{prefix}{_UNCERTAINTY}", within) and "multiscales" in ome_attributes(place, _UNCERTAINTY):
        yield from _groups_of(place / _UNCERTAINTY, f"{prefix}{_UNCERTAINTY}", within, wrap)
    yield from _tables(place, prefix, within, wrap)


def _tables(place: Place, prefix: str, within: str, wrap: Wrap | None) -> Iterator[tuple[str, xarray.Dataset]]:
    """Groups of an output that are no images."""
    import xarray

    for name in _TABLES:
        if not place.lists or not _meet(f"{prefix}{name}", within):
            continue
        try:
            group: Any = place.open(name)
            arrays = dict(group.arrays())
        except (FileNotFoundError, AttributeError):
            continue
        variables = {
            key: xarray.Variable(
                dimension_names(array),
                da.from_zarr(array) if wrap is None else wrap(array),
                encoding={"preferred_chunks": dict(zip(dimension_names(array), array.chunks, strict=True))},
            )
            for key, array in sorted(arrays.items())
            if len(dimension_names(array)) == array.ndim
        }
        yield f"{prefix}{name}", xarray.Dataset(variables, attrs=group.attrs.asdict())
