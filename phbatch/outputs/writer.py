"""The output: OME-Zarr, written in whole chunks by one owner each, durable before anything says so.

A region is encoded (`phbatch.places.encoding`). On a local disk its objects are then written aside, synchronized and
renamed into place; on an object store each is one PUT.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.errors import BaseZarrError
from zarr.storage import MemoryStore

from phbatch.places.compressor import make_compressor
from phbatch.places.durable import PARTIAL, Mark, mark_of
from phbatch.places.encoding import Encoded, Encoder
from phbatch.places.lock import LOCK, holds
from phbatch.places.own import PRIVATE, ROOT_DOCUMENTS, find_strangers, is_own, require_own
from phbatch.places.place import LocalPlace, Place
from phbatch.places.zarr_nodes import naming, stored_lengths, system_error
from phbatch.words.axes import CANONICAL, Region
from phbatch.words.choices import Codec, Shuffle
from phbatch.words.errors import OutputError, first_line

IMAGE = "0"
UNCERTAINTY = "uncertainty/0"
"""Arrays of an output: its full resolution, and the uncertainty beside it."""

_PIXELS = re.compile(r"(?:uncertainty/)?(?:0|[1-9][0-9]*/image)")

ATTRIBUTE = "phbatch"
"""Key of phbatch's own attributes on the output group."""

_ROWS_OF_A_CHUNK = 1 << 22

ZarrFormat = Literal[2, 3]

_SCRATCH = f"{PRIVATE}/scratch"


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
        See `phbatch.places.compressor.make_compressor`.
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


def level_path(image: str, level: int) -> str:
    """Path of a level of an image, whose level 0 is given.

    Coarser levels have groups of their own, since xarray wants one length of y and x in each.

    Examples
    --------
    >>> level_path("0", 0), level_path("0", 2), level_path("uncertainty/0", 1)
    ('0', '2/image', 'uncertainty/1/image')
    """
    return f"{image.removesuffix(IMAGE)}{level}/image" if level else image


def holds_pixels(path: str) -> bool:
    """Whether an array of an output is a level of an image, and no table."""
    return _PIXELS.fullmatch(path) is not None


def read_output_attributes(output: Place) -> dict[str, Any] | None:
    """Our attributes on an existing output; None where nothing is there.

    What a run left that was killed while it created or removed an output counts as one that is being created.

    Raises
    ------
    OutputError
        Something else is there, or its metadata are damaged.
    """
    try:
        names = set(output.names())
        named = {name for name in names if not name.endswith(PARTIAL)}
        marked = PRIVATE in names and (named == {PRIVATE} or output.exists(LOCK))
        removing = marked and not names & {"zarr.json", ".zgroup"} and _is_half_removed(output, named)
    except (OSError, ImportError, ValueError) as error:
        raise _unreachable(output, error) from error
    if not names:
        if isinstance(output, LocalPlace) and output.folder.is_file():
            raise OutputError(f"{output} exists and is not an output of phbatch; choose another place.")
        return None
    if removing:
        return {"status": "creating"}
    try:
        group = output.open()
    except (OSError, BaseZarrError, ValueError, KeyError, TypeError) as error:
        remedy = "choose another place"
        if marked and not find_strangers(names):
            remedy = "mend its metadata with `phbatch repair`, or choose another place"
        raise OutputError(f"{output} exists and is not an output of phbatch; {remedy}.") from error
    attributes = group.attrs.asdict().get(ATTRIBUTE)
    if not isinstance(group, zarr.Group) or not isinstance(attributes, dict):
        raise OutputError(f"{output} exists and is not an output of phbatch; choose another place.")
    return attributes


def remove_output(output: Place, also: Collection[str] = ()) -> None:
    """Remove what runs wrote into an output of phbatch; where anything else lies in it, nothing is removed.

    Its lock goes on existing, the documents of the root group are removed first and the ledger last: killed at any
    moment, what is left is known to be ours, and to be no whole output.

    Raises
    ------
    OutputError
        It is no output of phbatch, or holds something that is not ours.
    """
    if read_output_attributes(output) is None:
        return
    require_own(output, also)
    if not output.exists(LOCK):
        output.write(LOCK, b"{}")
    names = output.names()
    output.remove([name for name in ROOT_DOCUMENTS if name in names])
    ours = {
        name: is_folder
        for name, is_folder in names.items()
        if (is_own(name) or name in also) and name not in ROOT_DOCUMENTS
    }
    private = {f"{PRIVATE}/{name}": is_folder for name, is_folder in output.names(PRIVATE).items()}
    for name, is_folder in (*ours.items(), *private.items()):
        if is_folder and name != PRIVATE:
            output.remove_folder(name)
        elif name not in (PRIVATE, LOCK):
            output.remove([name])


def _is_half_removed(output: Place, names: set[str]) -> bool:
    """Whether a marked folder without a root document is what a killed run left, and not somebody's folder."""
    if names == {PRIVATE}:
        return True
    return not find_strangers(names) and any(name != Path(LOCK).name for name in output.names(PRIVATE))


def _unreachable(output: Place, error: Exception) -> OutputError:
    return OutputError(f"{output} cannot be reached ({error}); correct the URL or install its library.")


def create_output(
    output: Place,
    zarr_format: ZarrFormat,
    groups: Mapping[str, Mapping[str, Any]],
    layouts: Sequence[ArrayLayout],
) -> None:
    """Make the metadata of an output appear: groups with their attributes, and empty arrays.

    The attributes of the root group are written last, so that an output that was interrupted while it was created is
    recognized as incomplete.

    Parameters
    ----------
    output : Place
        Where nothing is yet, but perhaps its lock.
    zarr_format : {2, 3}
        Format of everything inside.
    groups : mapping of str to mapping
        Path of each group within the output (the root is ``""``) to its attributes.
    layouts : sequence of ArrayLayout
        The arrays.

    Raises
    ------
    OutputError
        The place cannot be written.
    """
    try:
        with output.pipeline():
            root = zarr.create_group(
                output.store(),
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
            f"{output} cannot be written ({error}); check its folder's permissions and the space left."
        ) from error


def make_documents(
    zarr_format: ZarrFormat, groups: Mapping[str, Mapping[str, Any]], layouts: Sequence[ArrayLayout]
) -> dict[str, bytes]:
    """What `create_output` would write for groups and empty arrays, by key, without writing it."""
    written: dict[str, Any] = {}
    root = zarr.create_group(MemoryStore(written), zarr_format=zarr_format, attributes=dict(groups[""]))
    for name, attributes in groups.items():
        if name:
            root.create_group(name, attributes=dict(attributes))
    for layout in layouts:
        _create_array(root, layout)
    return {key: bytes(data.to_bytes()) for key, data in written.items()}


def group_documents(zarr_format: ZarrFormat, attributes: Mapping[str, Any]) -> dict[str, bytes]:
    """What zarr writes of a group, by the names of its documents."""
    if zarr_format == 2:
        return {".zgroup": _document({"zarr_format": 2}), ".zattrs": _document(attributes)}
    return {"zarr.json": _document({"attributes": attributes, "zarr_format": 3, "node_type": "group"})}


def _document(found: Mapping[str, Any]) -> bytes:
    return json.dumps(found, indent=zarr.config.get("json_indent")).encode()


def _create_array(root: zarr.Group, layout: ArrayLayout) -> None:
    version_2 = root.metadata.zarr_format == 2
    named = naming(layout.axes, root.metadata.zarr_format)
    root.create_array(
        layout.path,
        shape=layout.shape,
        chunks=layout.chunks,
        dtype=layout.dtype,
        shards=layout.shards,
        compressors=make_compressor(layout.codec, layout.shuffle, root.metadata.zarr_format, layout.dtype),
        fill_value=0,
        chunk_key_encoding={"name": "v2" if version_2 else "default", "separator": "/"},
        config={"write_empty_chunks": True},
        **named | {"attributes": dict(layout.attributes) | named.get("attributes", {})},
    )


class Sink:
    """Writes regions of an output's arrays; safe to use from many threads, since no two share a chunk.

    A region is encoded, which takes a processor, and then placed, which waits for the disk or the network.

    Parameters
    ----------
    output : Place
        That `create_output` made.
    token : str, optional
        Of the run that holds the output (`phbatch.places.lock.hold_output`): nothing is moved into place once another
        run, or none, holds it.
    held : Place, optional
        What the run holds, where that is not the output itself.
    """

    def __init__(self, output: Place, *, token: str | None = None, held: Place | None = None) -> None:
        self.output = output
        self._held = output if held is None else held
        self._token = token
        self._arrays: dict[str, zarr.Array[Any]] = {}
        self._encoders: dict[str, Encoder] = {}
        self._opening = threading.Lock()

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
        with _as_os_error():
            self.output.write_all({part.name: part.objects for part in encoded}, _SCRATCH, self._require_held)
        return {f"{part.name}/{key}": mark_of(data) for part in encoded for key, data in part.objects.items()}

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
        with self.output.pipeline():
            root = zarr.open_group(self.output.store(), mode="r+")
            parent = root.require_group(group)
            parent.attrs.put(dict(attributes))
            for column, values in columns:
                chunks = (min(len(values), _ROWS_OF_A_CHUNK),)
                named = naming(["frame"], parent.metadata.zarr_format)
                parent.create_array(column, data=values, chunks=chunks, overwrite=True, **named)

    def extend(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Give arrays, by their paths, other lengths; no chunk is touched."""
        for name, shape in shapes.items():
            array = self.output.open(name, "r+")
            if isinstance(array, zarr.Array) and array.shape != shape:
                array.resize(shape)
                self._arrays.pop(name, None)

    def update_attributes(self, attributes: Mapping[str, Any]) -> None:
        """Replace phbatch's attributes on the root group."""
        zarr.open_group(self.output.store(), mode="r+").attrs[ATTRIBUTE] = dict(attributes)

    def update_channels(self, channels: Sequence[Mapping[str, Any]]) -> None:
        """Replace the OMERO channels on the root group."""
        attributes = zarr.open_group(self.output.store(), mode="r+").attrs
        if "ome" in attributes:
            attributes["ome"] = cast(dict[str, Any], attributes["ome"]) | {"omero": {"channels": list(channels)}}
        else:
            attributes["omero"] = {"channels": list(channels)}

    def remove_scratch(self) -> None:
        """Remove what was written aside, by interrupted runs, too."""
        with suppress(OSError):
            self.output.remove_folder(_SCRATCH)

    def _open(self, name: str) -> zarr.Array[Any]:
        if name not in self._arrays:
            array = self.output.open(name)
            if not isinstance(array, zarr.Array):
                raise OutputError(
                    f"{self.output}/{name} is no array; the output is damaged, start it afresh with --overwrite."
                )
            self._arrays[name] = array
        return self._arrays[name]

    def _require_held(self) -> None:
        if self._token is not None and not holds(self._held, self._token):
            raise OutputError(
                f"{self.output} is not held by this run any more, so nothing is written; call the same command again."
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
