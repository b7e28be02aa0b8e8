"""The engine ``phbatch`` of xarray, which xarray finds by itself and asks about every path that it opens.

It opens what `phbatch.open` and `phbatch.open_datatree` do. To be asked must cost others nothing: nothing of phbatch is
loaded before it opens something.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import xarray
from xarray.backends import BackendArray, BackendEntrypoint
from xarray.core import indexing

import phbatch

PRIVATE = ".phbatch"
"""As `phbatch.places.own` has it, whose libraries take long to load."""


class PhbatchEngine(BackendEntrypoint):
    """How xarray opens an output of phbatch, and with ``engine="phbatch"`` every OME-Zarr image.

    Examples
    --------
    >>> import tempfile, phbatch, xarray
    >>> path = tempfile.mkdtemp() + "/cells.zarr"
    >>> _ = phbatch.write_time_lapse(path, phbatch.PhaseContrast(shape=(64, 48), n_frames=3))
    >>> output = phbatch.run(path, model="none", levels=2, workers=1).output
    >>> [*xarray.open_datatree(output).children]
    ['0', '1', 'statistics']
    >>> dict(xarray.open_dataset(path, engine="phbatch")["0"].sizes)
    {'t': 3, 'y': 64, 'x': 48}
    """

    description: ClassVar[str] = "Open images that phbatch wrote, and OME-Zarr images, with all levels"
    supports_groups: ClassVar[bool] = True

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        """Whether runs keep their ledger there, as they do in every output and every field of a plate."""
        if not isinstance(filename_or_obj, str | os.PathLike):
            return False
        try:
            return Path(os.fsdecode(filename_or_obj), PRIVATE).is_dir()
        except (OSError, ValueError):  # no name that a file can have
            return False

    def open_dataset(
        self,
        filename_or_obj: Any,
        *,
        mask_and_scale: bool = True,
        decode_times: Any = True,
        concat_characters: bool = True,
        decode_coords: Any = True,
        drop_variables: str | Iterable[str] | None = None,
        use_cftime: bool | None = None,
        decode_timedelta: Any = None,
        group: str | None = None,
        storage_options: Any = None,
        consolidated: bool | None = None,
    ) -> xarray.Dataset:
        """The full resolution under the name ``0``, as `xarray.open_zarr` calls it, or a group of the tree.

        The others are xarray's own; ``consolidated``, which the engine of zarr takes, means nothing here.
        """
        options = {
            "mask_and_scale": mask_and_scale,
            "decode_times": decode_times,
            "concat_characters": concat_characters,
            "decode_coords": decode_coords,
            "use_cftime": use_cftime,
            "decode_timedelta": decode_timedelta,
        }
        whole = not (group or "").strip("/")
        groups = _list_groups(filename_or_obj, "0" if whole else group, storage_options)
        if "/" not in groups:
            raise phbatch.InputError(
                f"{group!r} of {filename_or_obj} holds other groups and no array; give one of"
                f" {', '.join(f'{group}{name}' for name in [*groups][:8])}, or open it with open_datatree."
            )
        found = groups["/"].rename(image="0") if whole else groups["/"]
        return _decoded(found, drop_variables, options)

    def open_groups_as_dict(
        self,
        filename_or_obj: Any,
        *,
        drop_variables: str | Iterable[str] | None = None,
        group: str | None = None,
        storage_options: Any = None,
        consolidated: bool | None = None,
        **options: Any,
    ) -> dict[str, xarray.Dataset]:
        """What `open_datatree` gives, by paths."""
        groups = _list_groups(filename_or_obj, group, storage_options)
        found = {name: _decoded(held, drop_variables, options) for name, held in groups.items()}
        return {"/": xarray.Dataset()} | found

    def open_datatree(self, filename_or_obj: Any, **options: Any) -> xarray.DataTree:
        """As `phbatch.open_datatree`; integers that stand for other numbers are these numbers, as xarray has them."""
        return xarray.DataTree.from_dict(self.open_groups_as_dict(filename_or_obj, **options))


class _Lazily(BackendArray):
    """What xarray reads parts of, and keeps what it was told to load."""

    def __init__(self, array: Any) -> None:
        self.shape, self.dtype, self._array = array.shape, np.dtype(array.dtype), array

    def __getitem__(self, key: Any) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.BASIC, self._read)

    def _read(self, key: tuple[int | slice, ...]) -> Any:
        return np.asarray(self._array[key])


def _list_groups(path: Any, group: str | None, storage_options: Any) -> dict[str, xarray.Dataset]:
    opening = import_module("phbatch.running.open_tree")  # not before something is opened
    found: dict[str, xarray.Dataset] = opening.list_groups(path, group, storage_options, _lazily)
    return found


def _lazily(array: Any) -> Any:
    return indexing.LazilyIndexedArray(_Lazily(array))


def _decoded(found: xarray.Dataset, dropped: str | Iterable[str] | None, options: dict[str, Any]) -> xarray.Dataset:
    names = [dropped] if isinstance(dropped, str) else [*(dropped or ())]
    chunks = {name: found[name].encoding["preferred_chunks"] for name in found.data_vars}
    decoded = xarray.decode_cf(found.drop_vars(names, errors="ignore"), **options)
    for name in decoded.data_vars:
        decoded[name].encoding["preferred_chunks"] = chunks[name]
    return decoded
