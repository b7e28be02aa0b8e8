"""The output: OME-Zarr, written in whole chunks by one owner each, durable before anything says so.

On a local disk a region is first written into a scratch array with the same metadata by the fast codec pipeline, whose
file writes are not atomic; its files are then synchronized and renamed into place. For an object store it is encoded in
memory, and a chunk is one PUT.
"""

from __future__ import annotations

import shutil
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.core.buffer import Buffer, default_buffer_prototype
from zarr.errors import BaseZarrError
from zarr.storage import MemoryStore

from phbatch.axes import CANONICAL, Region
from phbatch.config import Codec, Shuffle, StorageOptions
from phbatch.errors import OutputError, first_line
from phbatch.storage.codecs import make_compressor
from phbatch.storage.durable import Mark, mark_of, settle, synchronize
from phbatch.storage.lock import LOCK, PRIVATE, read_token
from phbatch.storage.store import (
    chunk_keys,
    codec_pipeline,
    exists,
    is_url,
    list_files,
    list_folder,
    local_path,
    open_node,
    open_store,
    remove_remote_files,
    stored_lengths,
    system_error,
    write_file,
    write_remote_files,
)

ATTRIBUTE = "phbatch"
"""Key of phbatch's own attributes on the output group."""

_ROOT_DOCUMENTS = ("zarr.json", ".zgroup", ".zattrs")  # in the order in which they are removed

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
    shards : tuple of int or None
        Whole chunks that are stored in one object; None where every chunk is an object.
    codec, shuffle : str
        See `phbatch.storage.codecs.make_compressor`.
    """

    path: str
    axes: str
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: str
    shards: tuple[int, ...] | None = None
    codec: Codec = "auto"
    shuffle: Shuffle = "auto"


@dataclass(frozen=True, eq=False)
class Encoded:
    """What `Sink.encode` put aside, for `Sink.place`.

    Attributes
    ----------
    name : str
        Path of the array within the output.
    keys : sequence of str
        Of the objects within the array.
    objects : sequence of bytes
        The objects themselves, where they go to an object store; empty where they are scratch files.
    """

    name: str
    keys: Sequence[str]
    objects: Sequence[bytes] = ()


def read_output_attributes(path: str, options: StorageOptions = None) -> dict[str, Any] | None:
    """Our attributes on an existing output; None where nothing is there.

    What a run left that was killed while it created or removed an output counts as one that is being created.

    Raises
    ------
    OutputError
        Something else is there, or its metadata are damaged.
    """
    remedy = "choose another output, or remove it yourself"
    try:
        names = set(list_folder(path, options=options))
        marked = PRIVATE in names and (names == {PRIVATE} or exists(path, LOCK, options))
    except (OSError, ImportError, ValueError) as error:
        raise OutputError(f"{path} cannot be reached ({error}); correct the URL or install its library.") from error
    if not names:
        return None
    if marked and not names & {"zarr.json", ".zgroup"}:
        return {"status": "creating"}
    try:
        group = open_node(path, options=options)
    except (OSError, BaseZarrError, ValueError, KeyError, TypeError) as error:
        if marked:
            remedy = "mend its metadata with `phbatch repair`, or remove it yourself"
        raise OutputError(f"{path} exists and is not an output of phbatch; {remedy}.") from error
    attributes = group.attrs.asdict().get(ATTRIBUTE)
    if not isinstance(group, zarr.Group) or not isinstance(attributes, dict):
        raise OutputError(f"{path} exists and is not an output of phbatch; {remedy}.")
    return attributes


def remove_output(path: str, options: StorageOptions = None) -> None:
    """Remove what is in an output of phbatch; anything else is left alone by `read_output_attributes`' refusal.

    Its lock goes on existing, and the documents of the root group are removed first: killed at any moment, what is left
    is known to be ours, and to be no whole output.
    """
    if read_output_attributes(path, options) is None:
        return
    if is_url(path):
        _remove_remote_output(path, options)
        return
    root_path = local_path(path)
    (root_path / PRIVATE).mkdir(exist_ok=True)
    (root_path / LOCK).touch()
    for name in _ROOT_DOCUMENTS:
        (root_path / name).unlink(missing_ok=True)
    for folder, kept in ((root_path, PRIVATE), (root_path / PRIVATE, Path(LOCK).name)):
        for entry in folder.iterdir():
            if entry.name != kept:
                shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()


def _remove_remote_output(path: str, options: StorageOptions) -> None:
    keys = {key for key, _, _ in list_files(path, options)}
    if LOCK not in keys:
        write_file(path, LOCK, b"{}", options)
    first = [name for name in _ROOT_DOCUMENTS if name in keys]
    for part in (first, sorted(keys - {LOCK, *first})):
        remove_remote_files(path, part, options)


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
            root = zarr.create_group(
                open_store(path, options),
                zarr_format=zarr_format,
                attributes={ATTRIBUTE: {"status": "creating"}},
                overwrite=False,
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
    root.create_array(
        layout.path,
        shape=layout.shape,
        chunks=layout.chunks,
        dtype=layout.dtype,
        shards=layout.shards,
        compressors=make_compressor(layout.codec, layout.shuffle, root.metadata.zarr_format),
        fill_value=0,
        dimension_names=None if version_2 else tuple(layout.axes),
        chunk_key_encoding={"name": "v2" if version_2 else "default", "separator": "/"},
        config={"write_empty_chunks": True},
    )


class Sink:
    """Writes regions of an output's arrays; safe to use from many threads, since no two share a chunk.

    A region is encoded, which takes a processor, and then placed, which waits for the disk or the network. `local` says
    whether it is the disk: what is encoded is there already, and takes no memory while it waits.

    Parameters
    ----------
    path : str
        Local path or fsspec URL of an output that `create_output` made.
    options : SecretStr or None
        Of the object store.
    token : str, optional
        Of the run that holds the output (`phbatch.storage.lock.hold_output`): nothing is moved into place once another
        run, or none, holds it.
    """

    def __init__(self, path: str, options: StorageOptions = None, *, token: str | None = None) -> None:
        self.path = path
        self.options = options
        self._token = token
        self.local = not is_url(path)
        self._arrays: dict[str, zarr.Array[Any]] = {}
        self._opening = threading.Lock()
        self._scratch_name = f"{PRIVATE}/scratch/{uuid.uuid4().hex}"

    def write(self, name: str, axes: str, region: Region, block: NDArray[Any]) -> dict[str, Mark]:
        """Write whole chunks, durably: `encode` and `place` in one."""
        return self.place(self.encode(name, axes, region, block))

    def encode(self, name: str, axes: str, region: Region, block: NDArray[Any]) -> Encoded:
        """Encode whole chunks, and put them aside.

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

        Returns
        -------
        Encoded
            For `place`; on a local disk it holds no pixels.

        Raises
        ------
        OutputError
            The region does not cover whole chunks: two writers could lose each other's pixels.
        OSError
            The disk fails.
        """
        with self._opening:
            array = self._open(name)
        selection = tuple(region[CANONICAL.index(axis)] for axis in axes)
        _require_whole_chunks(array, selection)
        absent = tuple(index for index, axis in enumerate(CANONICAL) if axis not in axes)
        values = block.squeeze(absent) if absent else block
        keys = list(chunk_keys(array, selection))
        with _as_os_error():
            if not self.local:
                return Encoded(name, keys, self._encode_in_memory(array, selection, values, keys))
            with self._opening:
                scratch = self._open_scratch(name, array)
            scratch[selection] = values
            return Encoded(name, keys)

    def place(self, *encoded: Encoded) -> dict[str, Mark]:
        """Make what is encoded durable, and have it appear in its place.

        Returns
        -------
        dict of str to (int, str)
            Size and checksum of every object that was written, by its key within the output.

        Raises
        ------
        OutputError
            The run does not hold the output any more.
        OSError
            The disk or the network fails.
        """
        marks: dict[str, Mark] = {}
        with _as_os_error():
            for part in encoded:
                marks |= self._rename(part) if self.local else self._put(part)
        return marks

    def read(self, name: str, axes: str, region: Region) -> NDArray[Any]:
        """Read a region back, as ``(t, c, z, y, x)``."""
        with self._opening:
            array = self._open(name)
        values = np.asarray(array[tuple(region[CANONICAL.index(axis)] for axis in axes)])
        return np.expand_dims(values, [index for index, axis in enumerate(CANONICAL) if axis not in axes])

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
        if self.local:
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

    def _rename(self, encoded: Encoded) -> dict[str, Mark]:
        """Synchronize scratch files and rename them, and synchronize the folders that now name them."""
        scratch, root = self._scratch / encoded.name, local_path(self.path) / encoded.name
        marks = {f"{encoded.name}/{key}": settle(scratch / key) for key in encoded.keys}
        self._require_held()
        folders: set[Path] = set()
        for key in encoded.keys:
            target = root / key
            if target.parent not in folders:
                target.parent.mkdir(parents=True, exist_ok=True)
                folders.update(folder for folder in target.parents if folder.is_relative_to(root))
            (scratch / key).replace(target)
        for folder in folders:
            synchronize(folder)
        return marks

    def _encode_in_memory(
        self, array: zarr.Array[Any], selection: tuple[slice, ...], values: NDArray[Any], keys: Sequence[str]
    ) -> list[bytes]:
        stored: dict[str, Buffer] = dict(array.metadata.to_buffer_dict(default_buffer_prototype()))
        with codec_pipeline(self.path):
            encoded = zarr.open_array(MemoryStore(stored), mode="r+").with_config({"write_empty_chunks": True})
        encoded[selection] = values
        return [stored[key].to_bytes() for key in keys]

    def _put(self, encoded: Encoded) -> dict[str, Mark]:
        objects = {f"{encoded.name}/{key}": data for key, data in zip(encoded.keys, encoded.objects, strict=True)}
        self._require_held()
        write_remote_files(self.path, objects, self.options)
        return {key: mark_of(data) for key, data in objects.items()}

    def _require_held(self) -> None:
        if self._token is not None and read_token(self.path, self.options) != self._token:
            raise OutputError(
                f"{self.path} is not held by this run any more, so nothing is written; call the same command again."
            )


@contextmanager
def _as_os_error() -> Iterator[None]:
    """Errors of codecs and clients as `OSError`, with the system's number where the message has it."""
    try:
        yield
    except (OSError, OutputError, MemoryError):
        raise
    except Exception as error:
        raise (system_error(error) or OSError(first_line(error))) from error


def _require_whole_chunks(array: zarr.Array[Any], selection: tuple[slice, ...]) -> None:
    for part, size, chunk in zip(selection, array.shape, stored_lengths(array), strict=True):
        if part.start % chunk or (part.stop % chunk and part.stop != size) or part.stop <= part.start:
            raise OutputError(
                f"a write of {part.start}:{part.stop} does not cover whole chunks of {chunk}; two writers of one chunk"
                " lose data, so every write must be a multiple of the chunk."
            )
