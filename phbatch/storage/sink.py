"""The output: OME-Zarr, written in whole chunks by one owner each, durable before anything says so.

On a local disk a region is first written into a scratch array with the same metadata by the fast codec pipeline, whose
file writes are not atomic; its files are then synchronized and renamed into place. On an object store a chunk is one
PUT.
"""

from __future__ import annotations

import os
import shutil
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any, Literal, cast

import numcodecs
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec
from zarr.errors import BaseZarrError

from phbatch.axes import CANONICAL, Region
from phbatch.config import StorageOptions
from phbatch.errors import OutputError
from phbatch.storage.store import codec_pipeline, exists, is_url, local_path, open_node, open_store, remove_files

ATTRIBUTE = "phbatch"
"""Key of phbatch's own attributes on the output group."""

PRIVATE = ".phbatch"
"""Group inside the output that holds the ledger, and scratch files while a run is going on."""

ZarrFormat = Literal[2, 3]


@dataclass(frozen=True)
class ArrayLayout:
    """One array of the output.

    Attributes
    ----------
    path : str
        Within the output group.
    axes : str
        Subset of ``tczyx``, in that order.
    shape, chunks : tuple of int
        One length per axis.
    dtype : str
        Of the pixels.
    """

    path: str
    axes: str
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: str


def read_output_attributes(path: str, options: StorageOptions = None) -> dict[str, Any] | None:
    """Our attributes on an existing output; None where nothing is there.

    Raises
    ------
    OutputError
        Something else is there.
    """
    remedy = "choose another output, or remove it yourself"
    try:
        if not exists(path, options):
            return None
    except (OSError, ImportError, ValueError) as error:
        raise OutputError(f"{path} cannot be reached ({error}); correct the URL or install its library.") from error
    try:
        group = open_node(path, options=options)
    except (OSError, BaseZarrError, ValueError, KeyError, TypeError) as error:
        raise OutputError(f"{path} exists and is not an output of phbatch; {remedy}.") from error
    attributes = group.attrs.asdict().get(ATTRIBUTE)
    if not isinstance(group, zarr.Group) or not isinstance(attributes, dict):
        raise OutputError(f"{path} exists and is not an output of phbatch; {remedy}.")
    return attributes


def remove_output(path: str, options: StorageOptions = None) -> None:
    """Remove an output of phbatch; anything else is left alone by `read_output_attributes`' refusal."""
    if read_output_attributes(path, options) is not None:
        remove_files(path, options)


def create_output(
    path: str,
    zarr_format: ZarrFormat,
    groups: Mapping[str, Mapping[str, Any]],
    layouts: Sequence[ArrayLayout],
    options: StorageOptions = None,
) -> None:
    """Make the metadata of an output appear: groups with their attributes, and empty arrays.

    The attributes of the root group are written last, so that an output that was interrupted while it was created is
    recognized as incomplete.

    Parameters
    ----------
    path : str
        Local path or fsspec URL.
    zarr_format : {2, 3}
        Format of everything inside.
    groups : mapping of str to mapping
        Path of each group within the output (the root is ``""``) to its attributes.
    layouts : sequence of ArrayLayout
        The arrays.
    options : SecretStr or None
        Of the object store.

    Raises
    ------
    OutputError
        The place cannot be written.
    """
    try:
        with codec_pipeline(path):
            root = zarr.open_group(
                open_store(path, options),
                mode="w-",
                zarr_format=zarr_format,
                attributes={ATTRIBUTE: {"status": "creating"}},
            )
            root.create_group(PRIVATE)
            for name, attributes in groups.items():
                if name:
                    root.create_group(name, attributes=dict(attributes))
            for layout in layouts:
                _create_array(root, layout)
            root.attrs.put(dict(groups[""]))
    except (OSError, BaseZarrError) as error:
        raise OutputError(
            f"{path} cannot be written ({error}); check its folder's permissions and the space left."
        ) from error


def _create_array(root: zarr.Group, layout: ArrayLayout) -> None:
    version_2 = root.metadata.zarr_format == 2
    compressor = (
        numcodecs.Blosc("lz4", 5, numcodecs.Blosc.SHUFFLE)
        if version_2
        else BloscCodec(cname="lz4", clevel=5, shuffle="shuffle")
    )
    root.create_array(
        layout.path,
        shape=layout.shape,
        chunks=layout.chunks,
        dtype=layout.dtype,
        compressors=compressor,
        fill_value=0,
        dimension_names=None if version_2 else tuple(layout.axes),
        chunk_key_encoding={"name": "v2" if version_2 else "default", "separator": "/"},
        config={"write_empty_chunks": True},
    )


class Sink:
    """Writes regions of an output's arrays; safe to use from many threads, since no two share a chunk.

    Parameters
    ----------
    path : str
        Local path or fsspec URL of an output that `create_output` made.
    options : SecretStr or None
        Of the object store.
    """

    def __init__(self, path: str, options: StorageOptions = None) -> None:
        self.path = path
        self.options = options
        self._local = not is_url(path)
        self._arrays: dict[str, zarr.Array[Any]] = {}
        self._opening = threading.Lock()
        self._scratch_name = f"{PRIVATE}/scratch/{uuid.uuid4().hex}"

    def write(self, name: str, axes: str, region: Region, block: NDArray[Any]) -> None:
        """Write whole chunks, durably.

        Parameters
        ----------
        name : str
            Path of the array within the output.
        axes : str
            Axes of the array.
        region : tuple of slice
            Along ``tczyx``, in pixels of the output.
        block : (t, c, z, y, x) ndarray
            What to write.

        Raises
        ------
        OutputError
            The region does not cover whole chunks: two writers could lose each other's pixels.
        """
        with self._opening:
            array = self._open(name)
            scratch = self._open_scratch(name, array) if self._local else array
        selection = tuple(region[CANONICAL.index(axis)] for axis in axes)
        _require_whole_chunks(array, selection)
        absent = tuple(index for index, axis in enumerate(CANONICAL) if axis not in axes)
        values = block.squeeze(absent) if absent else block
        scratch[selection] = values
        if self._local:
            self._move_into_place(name, _chunk_keys(array, selection))

    def write_table(self, group: str, columns: Mapping[str, NDArray[Any]], attributes: Mapping[str, Any]) -> None:
        """Write small arrays of one chunk each into a group, replacing what is there."""
        with codec_pipeline(self.path):
            root = zarr.open_group(open_store(self.path, self.options), mode="r+")
            parent = root.require_group(group)
            parent.attrs.put(dict(attributes))
            for column, values in columns.items():
                parent.create_array(column, data=values, chunks=values.shape, overwrite=True)

    def update_attributes(self, attributes: Mapping[str, Any]) -> None:
        """Replace phbatch's attributes on the root group."""
        zarr.open_group(open_store(self.path, self.options), mode="r+").attrs[ATTRIBUTE] = dict(attributes)

    def update_channels(self, channels: Sequence[Mapping[str, Any]]) -> None:
        """Replace the OMERO channels on the root group."""
        attributes = zarr.open_group(open_store(self.path, self.options), mode="r+").attrs
        if "ome" in attributes:
            attributes["ome"] = cast(dict[str, Any], attributes["ome"]) | {"omero": {"channels": list(channels)}}
        else:
            attributes["omero"] = {"channels": list(channels)}

    def remove_scratch(self) -> None:
        """Remove scratch files, those of interrupted runs included."""
        if self._local:
            shutil.rmtree(local_path(self.path) / PRIVATE / "scratch", ignore_errors=True)

    @cached_property
    def _scratch(self) -> Path:
        return local_path(self.path) / self._scratch_name

    def _open(self, name: str) -> zarr.Array[Any]:
        if name not in self._arrays:
            array = open_node(self.path, name, mode="r+", options=self.options)
            if not isinstance(array, zarr.Array):
                raise OutputError(
                    f"{self.path}/{name} is no array; the output is damaged, start it afresh with --overwrite."
                )
            self._arrays[name] = array.with_config({"write_empty_chunks": True})
        return self._arrays[name]

    def _open_scratch(self, name: str, array: zarr.Array[Any]) -> zarr.Array[Any]:
        key = f"{self._scratch_name}/{name}"
        if key not in self._arrays:
            folder = self._scratch / name
            folder.mkdir(parents=True, exist_ok=True)
            for file in ("zarr.json", ".zarray"):
                original = local_path(self.path) / name / file
                if original.exists():
                    shutil.copyfile(original, folder / file)
            with codec_pipeline(self.path):
                scratch = zarr.open_array(folder, mode="r+")
            self._arrays[key] = scratch.with_config({"write_empty_chunks": True})
        return self._arrays[key]

    def _move_into_place(self, name: str, keys: Iterator[str]) -> None:
        """Synchronize the scratch files, rename them, and synchronize the folders that now name them."""
        folders: set[Path] = set()
        for key in keys:
            source, target = self._scratch / name / key, local_path(self.path) / name / key
            _synchronize(source)
            if target.parent not in folders:
                target.parent.mkdir(parents=True, exist_ok=True)
                folders.add(target.parent)
            source.replace(target)
        for folder in folders:
            _synchronize(folder)


def _synchronize(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_shape(array: zarr.Array[Any]) -> tuple[int, ...]:
    return array.shards or array.chunks


def _require_whole_chunks(array: zarr.Array[Any], selection: tuple[slice, ...]) -> None:
    for part, size, chunk in zip(selection, array.shape, _write_shape(array), strict=True):
        if part.start % chunk or (part.stop % chunk and part.stop != size) or part.stop <= part.start:
            raise OutputError(
                f"a write of {part.start}:{part.stop} does not cover whole chunks of {chunk}; two writers of one chunk"
                " lose data, so every write must be a multiple of the chunk."
            )


def _chunk_keys(array: zarr.Array[Any], selection: tuple[slice, ...]) -> Iterator[str]:
    ranges = (
        range(part.start // chunk, -(-part.stop // chunk))
        for part, chunk in zip(selection, _write_shape(array), strict=True)
    )
    for coordinates in product(*ranges):
        yield array.metadata.encode_chunk_key(coordinates)
