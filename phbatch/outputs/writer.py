"""The output: OME-Zarr, written in whole chunks by one owner each, durable before anything says so.

A region is encoded (`phbatch.places.encoding`). On a local disk its objects are then written aside, synchronized and
renamed into place; on an object store each is one PUT.
"""

from __future__ import annotations

import shutil
import threading
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.errors import BaseZarrError

from phbatch.places.codecs import make_compressor
from phbatch.places.durable import PARTIAL, Mark, mark_of, synchronize, write_aside
from phbatch.places.encoding import Encoded, Encoder
from phbatch.places.lock import LOCK, PRIVATE, ROOT_DOCUMENTS, find_strangers, is_own, read_token, require_own
from phbatch.places.zarr_nodes import (
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
from phbatch.words.axes import CANONICAL, Region
from phbatch.words.errors import OutputError, first_line
from phbatch.words.settings import Codec, Shuffle, StorageOptions

IMAGE = "0"
UNCERTAINTY = "uncertainty/0"
"""Arrays of an output: its full resolution, and the uncertainty beside it."""

ATTRIBUTE = "phbatch"
"""Key of phbatch's own attributes on the output group."""

_ROWS_OF_A_CHUNK = 1 << 22

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
        See `phbatch.places.codecs.make_compressor`.
    attributes : mapping
        Of the array.
    """

    path: str
    axes: str
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: str
    shards: tuple[int, ...] | None = None
    codec: Codec = "auto"
    shuffle: Shuffle = "auto"
    attributes: Mapping[str, Any] = field(default_factory=dict)


def read_output_attributes(path: str, options: StorageOptions = None) -> dict[str, Any] | None:
    """Our attributes on an existing output; None where nothing is there.

    What a run left that was killed while it created or removed an output counts as one that is being created.

    Raises
    ------
    OutputError
        Something else is there, or its metadata are damaged.
    """
    try:
        names = set(list_folder(path, options=options))
        marked = PRIVATE in names and (names == {PRIVATE} or exists(path, LOCK, options))
        removing = marked and not names & {"zarr.json", ".zgroup"} and _is_half_removed(path, names, options)
    except (OSError, ImportError, ValueError) as error:
        raise _unreachable(path, error) from error
    if not names:
        return None
    if removing:
        return {"status": "creating"}
    try:
        group = open_node(path, options=options)
    except (OSError, BaseZarrError, ValueError, KeyError, TypeError) as error:
        remedy = "choose another place"
        if marked and not find_strangers(names):
            remedy = "mend its metadata with `phbatch repair`, or choose another place"
        raise OutputError(f"{path} exists and is not an output of phbatch; {remedy}.") from error
    attributes = group.attrs.asdict().get(ATTRIBUTE)
    if not isinstance(group, zarr.Group) or not isinstance(attributes, dict):
        raise OutputError(f"{path} exists and is not an output of phbatch; choose another place.")
    return attributes


def remove_output(path: str, options: StorageOptions = None) -> None:
    """Remove what runs wrote into an output of phbatch; where anything else lies in it, nothing is removed.

    Its lock goes on existing, the documents of the root group are removed first and the ledger last: killed at any
    moment, what is left is known to be ours, and to be no whole output.

    Raises
    ------
    OutputError
        It is no output of phbatch, or holds something that is not ours.
    """
    if read_output_attributes(path, options) is None:
        return
    require_own(path, options)
    if is_url(path):
        _remove_remote_output(path, options)
        return
    root_path = local_path(path)
    (root_path / PRIVATE).mkdir(exist_ok=True)
    (root_path / LOCK).touch()
    for name in ROOT_DOCUMENTS:
        (root_path / name).unlink(missing_ok=True)
    kept = {root_path / PRIVATE, root_path / LOCK}
    ours = [entry for entry in root_path.iterdir() if is_own(entry.name)]
    for entry in (*ours, *(root_path / PRIVATE).iterdir()):
        if entry not in kept:
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()


def _is_half_removed(path: str, names: set[str], options: StorageOptions) -> bool:
    """Whether a marked folder without a root document is what a killed run left, and not somebody's folder."""
    if names == {PRIVATE}:
        return True
    return not find_strangers(names) and any(name != Path(LOCK).name for name in list_folder(path, PRIVATE, options))


def _remove_remote_output(path: str, options: StorageOptions) -> None:
    keys = {key for key, _, _ in list_files(path, options) if is_own(key.partition("/")[0])}
    if LOCK not in keys:
        write_file(path, LOCK, b"{}", options)
    first = [name for name in ROOT_DOCUMENTS if name in keys]
    last = {key for key in keys if key.startswith(f"{PRIVATE}/")}
    for part in (first, sorted(keys - {*first, *last}), sorted(last - {LOCK})):
        remove_remote_files(path, part, options)


def _unreachable(path: str, error: Exception) -> OutputError:
    return OutputError(f"{path} cannot be reached ({error}); correct the URL or install its library.")


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
        attributes=dict(layout.attributes),
        dimension_names=None if version_2 else tuple(layout.axes),
        chunk_key_encoding={"name": "v2" if version_2 else "default", "separator": "/"},
        config={"write_empty_chunks": True},
    )


class Sink:
    """Writes regions of an output's arrays; safe to use from many threads, since no two share a chunk.

    A region is encoded, which takes a processor, and then placed, which waits for the disk or the network.

    Parameters
    ----------
    path : str
        Local path or fsspec URL of an output that `create_output` made.
    options : SecretStr or None
        Of the object store.
    token : str, optional
        Of the run that holds the output (`phbatch.places.lock.hold_output`): nothing is moved into place once another
        run, or none, holds it.
    """

    def __init__(self, path: str, options: StorageOptions = None, *, token: str | None = None) -> None:
        self.path = path
        self.options = options
        self._token = token
        self._local = not is_url(path)
        self._arrays: dict[str, zarr.Array[Any]] = {}
        self._encoders: dict[str, Encoder] = {}
        self._opening = threading.Lock()
        self._numbers = count()
        # Not cached properties: since Python 3.12 threads that ask at once for one get a name each.
        self._root = local_path(path) if self._local else Path()
        self._scratch = self._root / PRIVATE / "scratch" / uuid.uuid4().hex

    def write(self, name: str, axes: str, region: Region, block: NDArray[Any]) -> dict[str, Mark]:
        """Write whole chunks, durably: `encode` and `place` in one."""
        return self.place(self.encode(name, axes, region, block))

    def encode(self, name: str, axes: str, region: Region, block: NDArray[Any]) -> Encoded:
        """Encode whole chunks.

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
            For `place`.

        Raises
        ------
        OutputError
            The region does not cover whole chunks: two writers could lose each other's pixels.
        OSError
            A codec fails.
        """
        with self._opening:
            array = self._open(name)
            if name not in self._encoders:
                self._encoders[name] = Encoder(name, array)
        selection = tuple(region[CANONICAL.index(axis)] for axis in axes)
        _require_whole_chunks(array, selection)
        absent = tuple(index for index, axis in enumerate(CANONICAL) if axis not in axes)
        with _as_os_error():
            return self._encoders[name].encode(selection, block.squeeze(absent) if absent else block)

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
                marks |= self._rename(part) if self._local else self._put(part)
        return marks

    def read(self, name: str, axes: str, region: Region) -> NDArray[Any]:
        """Read a region back, as ``(t, c, z, y, x)``."""
        with self._opening:
            array = self._open(name)
        values = np.asarray(array[tuple(region[CANONICAL.index(axis)] for axis in axes)])
        return np.expand_dims(values, [index for index, axis in enumerate(CANONICAL) if axis not in axes])

    def write_table(
        self, group: str, columns: Iterable[tuple[str, NDArray[Any]]], attributes: Mapping[str, Any]
    ) -> None:
        """Write arrays, mostly of one chunk each, into a group, one after the other, replacing what is there."""
        with codec_pipeline(self.path):
            root = zarr.open_group(open_store(self.path, self.options), mode="r+")
            parent = root.require_group(group)
            parent.attrs.put(dict(attributes))
            for column, values in columns:
                chunks = (min(len(values), _ROWS_OF_A_CHUNK),)
                parent.create_array(column, data=values, chunks=chunks, overwrite=True)

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
            shutil.rmtree(self._root / PRIVATE / "scratch", ignore_errors=True)

    def _open(self, name: str) -> zarr.Array[Any]:
        if name not in self._arrays:
            array = open_node(self.path, name, mode="r+", options=self.options)
            if not isinstance(array, zarr.Array):
                raise OutputError(
                    f"{self.path}/{name} is no array; the output is damaged, start it afresh with --overwrite."
                )
            self._arrays[name] = array
        return self._arrays[name]

    def _rename(self, encoded: Encoded) -> dict[str, Mark]:
        """Write files aside, durably, rename them, and synchronize the folders that now name them."""
        aside = self._write_aside(encoded)
        for path in aside.values():  # all are written by now, and the first that is asked for takes most of them along
            synchronize(path)
        self._require_held()
        root, folders = self._root / encoded.name, set[Path]()
        for key, path in aside.items():
            target = root / key
            if target.parent not in folders:
                target.parent.mkdir(parents=True, exist_ok=True)
                folders.update(folder for folder in target.parents if folder.is_relative_to(root))
            path.replace(target)
        for folder in folders:
            synchronize(folder)
        return _marks_of(encoded)

    def _write_aside(self, encoded: Encoded) -> dict[str, Path]:
        """Scratch file of every object."""
        self._scratch.mkdir(parents=True, exist_ok=True)
        files = {key: self._scratch / f"{next(self._numbers)}{PARTIAL}" for key in encoded.objects}
        for key, data in encoded.objects.items():
            write_aside(files[key], data)
        return files

    def _put(self, encoded: Encoded) -> dict[str, Mark]:
        self._require_held()
        objects = {f"{encoded.name}/{key}": bytes(data) for key, data in encoded.objects.items()}
        write_remote_files(self.path, objects, self.options)
        return _marks_of(encoded)

    def _require_held(self) -> None:
        if self._token is not None and read_token(self.path, self.options) != self._token:
            raise OutputError(
                f"{self.path} is not held by this run any more, so nothing is written; call the same command again."
            )


def _marks_of(encoded: Encoded) -> dict[str, Mark]:
    return {f"{encoded.name}/{key}": mark_of(data) for key, data in encoded.objects.items()}


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
