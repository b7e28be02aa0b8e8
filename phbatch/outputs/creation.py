"""An output appears, is known again, and is removed: its arrays by name, its groups and their documents."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import zarr
from zarr.abc.buffer import Buffer
from zarr.storage import MemoryStore

from phbatch.places.compressor import make_compressor
from phbatch.places.durable import PARTIAL
from phbatch.places.lock import LOCK
from phbatch.places.own import PRIVATE, ROOT_DOCUMENTS, find_strangers, is_own, require_own
from phbatch.places.place import LocalPlace, Place
from phbatch.places.zarr_nodes import naming
from phbatch.words.choices import Codec, Shuffle
from phbatch.words.errors import OutputError

IMAGE = "0"
UNCERTAINTY = "uncertainty/0"
"""Arrays of an output: its full resolution, and the uncertainty beside it."""

_PIXELS = re.compile(r"(?:uncertainty/)?(?:0|[1-9][0-9]*/image)")

ATTRIBUTE = "phbatch"
"""Key of phbatch's own attributes on the output group."""

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
    attributes: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class GroupDocument:
    """The document of a group that holds its attributes, which may be changed and written again.

    zarr would ask the thread of its event loop for them, which costs more than all that an output says.

    Attributes
    ----------
    zarr_format : {2, 3}
        Of the group.
    content : dict
        All that it says.
    """

    zarr_format: ZarrFormat
    content: dict[str, Any]

    @classmethod
    def read(cls, place: Place) -> GroupDocument:
        """The one of a group.

        Raises
        ------
        FileNotFoundError
            No group is there.
        ValueError
            It is damaged, or an array is there.
        """
        try:
            found = json.loads(place.read("zarr.json"))
        except FileNotFoundError:
            return cls._read_version_2(place)
        group = isinstance(found, dict) and found.get("node_type") == "group" and found.get("zarr_format") == 3
        if not group or not isinstance(found.setdefault("attributes", {}), dict):
            raise ValueError(f"{place}/zarr.json is of no group")
        return cls(3, found)

    @classmethod
    def _read_version_2(cls, place: Place) -> GroupDocument:
        if json.loads(place.read(".zgroup")) != {"zarr_format": 2}:
            raise ValueError(f"{place}/.zgroup is of no group")
        try:
            found = json.loads(place.read(".zattrs"))
        except FileNotFoundError:
            found = {}
        if not isinstance(found, dict):
            raise ValueError(f"{place}/.zattrs holds no attributes")
        return cls(2, found)

    @property
    def attributes(self) -> dict[str, Any]:
        """Of the group; what is changed in them is written."""
        found: dict[str, Any] = self.content if self.zarr_format == 2 else self.content["attributes"]
        return found

    def write(self, place: Place) -> None:
        """Write it in the place of the one that is there; a disk has it once it is synchronized."""
        place.write_loosely({".zattrs" if self.zarr_format == 2 else "zarr.json": _document(self.content)})


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
        attributes = GroupDocument.read(output).attributes.get(ATTRIBUTE)
    except (OSError, ValueError) as error:
        remedy = "choose another place"
        if marked and not find_strangers(names):
            remedy = "mend its metadata with `phbatch repair`, or choose another place"
        raise OutputError(f"{output} exists and is not an output of phbatch; {remedy}.") from error
    if not isinstance(attributes, dict):
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
    begun = group_documents(zarr_format, {ATTRIBUTE: {"status": "creating"}})
    documents = make_documents(zarr_format, {**groups, PRIVATE: {}}, layouts)
    root = {name: documents.pop(name) for name in begun}
    try:
        for found in (begun, documents, root):
            output.write_loosely(found)
    except OSError as error:
        raise OutputError(
            f"{output} cannot be written ({error}); check its folder's permissions and the space left."
        ) from error


def make_documents(
    zarr_format: ZarrFormat, groups: Mapping[str, Mapping[str, Any]], layouts: Iterable[ArrayLayout]
) -> dict[str, bytes]:
    """What zarr would write of groups, by their paths, and of empty arrays, by key."""
    found: dict[str, bytes] = {}
    for path, attributes in groups.items():
        found |= _below(path, group_documents(zarr_format, attributes))
    for layout in layouts:
        found |= _below(layout.path, _array_documents(zarr_format, replace(layout, path="")))
    return found


def _below(path: str, documents: Mapping[str, bytes]) -> dict[str, bytes]:
    return {f"{path}/{name}".lstrip("/"): data for name, data in documents.items()}


def group_documents(zarr_format: ZarrFormat, attributes: Mapping[str, Any]) -> dict[str, bytes]:
    """What zarr writes of a group, by the names of its documents."""
    if zarr_format == 2:
        return {".zgroup": _document({"zarr_format": 2}), ".zattrs": _document(attributes)}
    return {"zarr.json": _document({"attributes": attributes, "zarr_format": 3, "node_type": "group"})}


def _document(found: Mapping[str, Any]) -> bytes:
    return json.dumps(found, indent=zarr.config.get("json_indent")).encode()


@lru_cache(maxsize=64)
def _array_documents(zarr_format: ZarrFormat, layout: ArrayLayout) -> dict[str, bytes]:
    """Documents of an array: zarr takes some milliseconds to make them, and runs one after the other have the same."""
    stored: dict[str, Buffer] = {}
    named = naming(layout.axes, zarr_format)
    zarr.create_array(
        MemoryStore(stored),
        shape=layout.shape,
        chunks=layout.chunks,
        dtype=layout.dtype,
        shards=layout.shards,
        compressors=make_compressor(layout.codec, layout.shuffle, zarr_format, layout.dtype),
        fill_value=0,
        zarr_format=zarr_format,
        chunk_key_encoding={"name": "v2" if zarr_format == 2 else "default", "separator": "/"},
        **named | {"attributes": dict(layout.attributes) | named.get("attributes", {})},
    )
    return {key: data.to_bytes() for key, data in stored.items()}
