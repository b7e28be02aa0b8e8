"""The engine ``phbatch`` of xarray, which xarray finds by itself and asks about every path that it opens.

It opens what `phbatch.open` and `phbatch.open_datatree` do. To be asked must cost others nothing: nothing of phbatch is
loaded before it opens something.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

import xarray
from xarray.backends import BackendEntrypoint

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
        return isinstance(filename_or_obj, str | os.PathLike) and Path(filename_or_obj, PRIVATE).is_dir()

    def open_dataset(
        self,
        filename_or_obj: Any,
        *,
        drop_variables: str | Iterable[str] | None = None,
        mask_and_scale: bool = True,
        group: str | None = None,
        storage_options: Any = None,
    ) -> xarray.Dataset:
        """The full resolution under the name ``0``, as `xarray.open_zarr` calls it, or a group of the tree."""
        if group is None or not group.strip("/"):
            found = phbatch.open(filename_or_obj, storage_options=storage_options).to_dataset(name="0")
        else:
            found = phbatch.open_datatree(filename_or_obj, storage_options=storage_options)[group].to_dataset()
        return _decoded(found, drop_variables, mask_and_scale)

    def open_groups_as_dict(
        self,
        filename_or_obj: Any,
        *,
        drop_variables: str | Iterable[str] | None = None,
        mask_and_scale: bool = True,
        storage_options: Any = None,
    ) -> dict[str, xarray.Dataset]:
        """What `open_datatree` gives, by paths."""
        tree = phbatch.open_datatree(filename_or_obj, storage_options=storage_options)
        return {
            node.path: _decoded(node.to_dataset(inherit=False), drop_variables, mask_and_scale) for node in tree.subtree
        }

    def open_datatree(
        self,
        filename_or_obj: Any,
        *,
        drop_variables: str | Iterable[str] | None = None,
        mask_and_scale: bool = True,
        storage_options: Any = None,
    ) -> xarray.DataTree:
        """As `phbatch.open_datatree`; integers that stand for other numbers are these numbers, as xarray has them."""
        groups = self.open_groups_as_dict(
            filename_or_obj,
            drop_variables=drop_variables,
            mask_and_scale=mask_and_scale,
            storage_options=storage_options,
        )
        return xarray.DataTree.from_dict(groups)


def _decoded(found: xarray.Dataset, dropped: str | Iterable[str] | None, mask_and_scale: bool) -> xarray.Dataset:
    names = [dropped] if isinstance(dropped, str) else [*(dropped or ())]
    found = found.drop_vars(names, errors="ignore")
    decoded = xarray.decode_cf(found, mask_and_scale=mask_and_scale, decode_times=False, decode_coords=False)
    for name, variable in decoded.variables.items():
        if variable.chunks is not None:  # what chunks={} takes
            lengths = [max(lengths) for lengths in variable.chunks]
            decoded[name].encoding["preferred_chunks"] = dict(zip(variable.dims, lengths, strict=True))
    return decoded
