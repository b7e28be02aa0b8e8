"""The input: an OME-Zarr image or a bare Zarr array, seen as ``tczyx`` whatever its own axes are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.buffer import default_buffer_prototype

from phbatch.inputs.stamps import ABSENT, Stamps, digest_stamps
from phbatch.microscopes.opening import find_reader
from phbatch.microscopes.store import RecordingPlace
from phbatch.places.absence import noting_absence
from phbatch.places.direct import DirectChunks
from phbatch.places.display import read_channels
from phbatch.places.guard import require_decodable
from phbatch.places.multiscale import require_level
from phbatch.places.ome import ImageMetadata, image_attributes, read_image_metadata
from phbatch.places.place import LocalPlace, Place
from phbatch.places.refusals import explain_failure, explain_group, require_place
from phbatch.places.zarr_nodes import chunk_keys, system_error
from phbatch.words.axes import CANONICAL, Region, Shape, infer_axes, validate_axes
from phbatch.words.errors import InputError, UsageError, first_line

MAX_FRAMES = 1 << 30
"""Frames of an image: decades at a frame per second, and more is a shape that nobody wrote on purpose."""

MAX_CHANNELS = 1 << 16
"""Channels of an image, each of which is named and listed."""

MAX_LENGTH = 2**31 - 1


@dataclass(frozen=True, eq=False)
class Source:
    """An image to read.

    Attributes
    ----------
    place : Place
        Of the group or the bare array.
    node : str
        Path of the array within `place`; empty for a bare array.
    array : zarr.Array
        Level 0, unless another was asked for.
    stored_axes : str
        Axes in the order of the array's dimensions.
    metadata : ImageMetadata
        For the axes that exist, in the order of ``tczyx``.
    notices : tuple of str
        What of the metadata was taken otherwise than it is written.
    levels : int
        Resolutions that the image has.
    """

    place: Place
    node: str
    array: zarr.Array[Any]
    stored_axes: str
    metadata: ImageMetadata
    notices: tuple[str, ...] = ()
    levels: int = 1

    @property
    def path(self) -> str:
        """Of the place, as messages and records have it."""
        return self.place.path

    @property
    def shape(self) -> Shape:
        """Lengths along ``tczyx``; 1 where an axis is absent."""
        return self._canonical(self.array.shape)

    @property
    def chunks(self) -> Shape:
        """Chunk (inside of shards: the inner chunk) along ``tczyx``: what is decoded at once."""
        return self._canonical(self.array.chunks)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the pixels, in native byte order."""
        return np.dtype(self.array.dtype).newbyteorder("=")

    @property
    def copied(self) -> bool:
        """Whether a block is copied once it is read, to bring its axes or bytes in order."""
        stored = np.dtype(self.array.dtype)
        ordered = [axis for axis in CANONICAL if axis in self.stored_axes]
        return [*self.stored_axes] != ordered or not stored.isnative or self.array.order != "C"

    def read(self, region: Region) -> NDArray[Any]:
        """Read a region; every chunk that it touches is decoded once.

        Parameters
        ----------
        region : tuple of slice
            Along ``tczyx``.

        Returns
        -------
        (t, c, z, y, x) ndarray
            In native byte order.

        Raises
        ------
        InputError
            A chunk is damaged.
        OSError
            A chunk cannot be read now, or the whole input is gone.
        """
        return self._read_noting(region)[0]

    def _read_noting(self, region: Region) -> tuple[NDArray[Any], set[str]]:
        """As `read`, and what was not there under a URL."""
        selection = tuple(region[CANONICAL.index(axis)] for axis in self.stored_axes)
        try:
            with noting_absence() as absent:
                stored = self._read_stored(selection)
        except (OSError, MemoryError, InputError):
            raise
        except Exception as error:  # what damaged chunks make codecs raise has no bounds
            failure = system_error(error)
            if failure is not None:
                raise failure from error
            raise InputError(
                f"a chunk of {self.path} cannot be decoded ({_short_line(error)}); restore it from a copy."
            ) from error
        if absent or not self.place.remote:
            self._require_present()
        block = stored.transpose([self.stored_axes.index(axis) for axis in self.metadata.axes])
        missing = [index for index, axis in enumerate(CANONICAL) if axis not in self.stored_axes]
        return np.ascontiguousarray(np.expand_dims(block, missing), dtype=self.dtype), absent

    def _read_stored(self, selection: tuple[slice, ...]) -> NDArray[Any]:
        """In this thread where all is plain, else as zarr does, whose words are right where a chunk is damaged."""
        if isinstance(self.place, RecordingPlace):
            return self.place.block(selection)
        if isinstance(self.place, LocalPlace) and self._direct is not None:
            values = self._direct.read(self.place.folder / self.node, selection)
            if values is not None:
                return values
        require_decodable(self.array, selection)
        return np.asarray(self.array[selection])

    @cached_property
    def _direct(self) -> DirectChunks | None:
        return DirectChunks.of(self.array)

    def objects(self, region: Region) -> list[str]:
        """Keys, within the store, of the objects that a region touches."""
        selection = tuple(region[CANONICAL.index(axis)] for axis in self.stored_axes)
        return [f"{self.node}/{key}" if self.node else key for key in chunk_keys(self.array, selection)]

    def read_stamped(self, region: Region) -> tuple[NDArray[Any], str]:
        """Read a region, and digest the sizes and times of the objects that it touches.

        Parameters
        ----------
        region : tuple of slice
            Along ``tczyx``.

        Returns
        -------
        block : (t, c, z, y, x) ndarray
            In native byte order.
        digest : str
            Of the objects as they were before they were read.

        Raises
        ------
        InputError
            A chunk is damaged.
        OSError
            A chunk cannot be read now, or was changed meanwhile.
        """
        keys, stamps = self.objects(region), Stamps(self.place)
        before = stamps.of_all(keys)
        try:
            block, absent = self._read_noting(region)
            # An object of a URL is read by one request, so that it is whole; but it may have vanished meanwhile.
            changed = any(before.get(key, ABSENT) != ABSENT for key in absent)
            changed |= not self.place.remote and stamps.of_all(keys) != before
        except InputError:
            if stamps.of_all(keys) == before:
                raise
            changed = True
        if changed:
            raise OSError(f"the input was changed while {keys[0]} was read")
        return block, digest_stamps(before)

    def read_or_refuse(self, region: Region) -> NDArray[Any]:
        """As `read`, for work that has no second try: a chunk that cannot be read is an `InputError`, too."""
        with self.refusing_errors():
            return self.read(region)

    @contextmanager
    def refusing_errors(self) -> Iterator[None]:
        """While inside, an `OSError` is an `InputError`: for what has no second try."""
        try:
            yield
        except OSError as error:
            raise InputError(
                f"{self.path} cannot be read ({_short_line(error)}); mend that, and call again."
            ) from error

    def identity(self, *, pixels: bool, times: int | None = None) -> dict[str, Any]:
        """What makes this input this input.

        Parameters
        ----------
        pixels : bool
            Whether sizes and times of all its files belong to it; else only what its metadata say.
        times : int, optional
            Length along t, to say what it was before it grew.
        """
        shape = list(self.array.shape)
        if times is not None:
            shape[self.stored_axes.index("t")] = times
        documents = self.array.metadata.to_buffer_dict(default_buffer_prototype())
        array = {name: json.loads(data.to_bytes()) for name, data in documents.items() if name != ".zattrs"}
        for document in array.values():
            document.pop("attributes", None)
            document["shape"] = shape
        described = json.dumps([array, asdict(self.metadata)], sort_keys=True)
        found: dict[str, Any] = {
            "shape": shape,
            "axes": self.stored_axes,
            "dtype": str(self.dtype),
            "metadata": hashlib.sha256(described.encode()).hexdigest(),
        }
        if pixels:
            files = bytes_ = 0
            digest = hashlib.sha256(b"[")
            for file in (self.place / self.node).iterate_files():  # as if their list were written as JSON
                digest.update((", " if files else "").encode() + json.dumps(file).encode())
                files, bytes_ = files + 1, bytes_ + file[1]
            digest.update(b"]")
            found |= {"files": files, "bytes": bytes_, "digest": digest.hexdigest()}
        return found

    def _require_present(self) -> None:
        """Zarr reads what is not there as the fill value: tell an input that is gone from chunks never written."""
        folder = f"{self.node}/" if self.node else ""
        if not any(self.place.exists(f"{folder}{name}") for name in ("zarr.json", ".zarray")):
            raise FileNotFoundError(f"the input {self.path} is gone; put it back, and call again")

    def _canonical(self, lengths: tuple[int, ...]) -> Shape:
        by_axis = dict(zip(self.stored_axes, lengths, strict=True))
        t, c, z, y, x = (int(by_axis.get(axis, 1)) for axis in CANONICAL)
        return t, c, z, y, x


def open_source(place: Place, axes: str | None = None, level: int = 0) -> Source:
    """Open an image without reading a pixel.

    Parameters
    ----------
    place : Place
        Of an OME-Zarr image (0.4, 0.5), of a Zarr array of 2 to 5 dimensions, or of what a microscope wrote.
    axes : str, optional
        Axes of a bare array in its own order, such as ``"tyx"``; needed where its metadata do not name them.
    level : int
        Which resolution; 0 is the full one.

    Raises
    ------
    InputError
        No Zarr, no such level, an array that is missing, unknown axes, an axis of length zero, or a dtype that is
        no real number.
    """
    recording = _as_recording(place, axes)
    if recording is not None:
        require_level(level, 1, place.path)
        source = Source(recording, "", _array_of(recording), recording.seen.axes, recording.seen.metadata)
        source = replace(source, notices=recording.seen.notices)
        _validate(source)
        return source
    require_place(place)
    node = _open(place)
    if isinstance(node, zarr.Array):
        require_level(level, 1, place.path)
        stored_axes = validate_axes(axes, node.ndim) if axes else infer_axes(node.ndim, dimension_names(node))
        ordered = "".join(axis for axis in CANONICAL if axis in stored_axes)
        source = Source(place, "", node, stored_axes, ImageMetadata.bare(ordered))
    else:
        source = _open_image(place, node, axes, level)
    _validate(source)
    return source


def _as_recording(place: Place, axes: str | None) -> RecordingPlace | None:
    """The place of what a microscope wrote; None for every other."""
    if isinstance(place, RecordingPlace) or not isinstance(place, LocalPlace):
        return place if isinstance(place, RecordingPlace) else None
    return RecordingPlace(place.path, axes=axes) if find_reader(place.folder) is not None else None


def _array_of(place: RecordingPlace) -> zarr.Array[Any]:
    array = place.open()
    if not isinstance(array, zarr.Array):
        raise InputError(f"{place} cannot be seen as an array; give another input.")
    return array


def dimension_names(array: zarr.Array[Any]) -> list[object]:
    """As Zarr 3 or xarray (in Zarr 2) has them; empty where there are none."""
    names = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS")
    return list(names) if isinstance(names, str | list | tuple) else []


def _open(place: Place, node: str = "") -> zarr.Array[Any] | zarr.Group:
    try:
        return place.open(node)
    except UsageError:
        raise
    except Exception as error:  # what damaged metadata make the libraries raise has no bounds
        raise explain_failure(place, node, error) from error


def _open_image(place: Place, group: zarr.Group, axes: str | None, level: int) -> Source:
    attributes = group.attrs.asdict()
    image = image_attributes(attributes)
    if image is None:
        raise explain_group(place, attributes)
    version, ome = image
    if "image-label" in ome:
        raise InputError(
            f"{place} is a label image (a segmentation), whose numbers are names; give the image that it belongs to, or"
            " the array itself with --axes."
        )
    metadata, found = read_image_metadata(version, ome, place.path, level)
    node = found.path
    try:
        array = _open(place, node)
    except InputError as error:
        if not isinstance(error.__cause__, FileNotFoundError):
            raise
        raise InputError(
            f"{place} names level {level} as {node!r} and that array is missing; restore it or correct the metadata."
        ) from error
    if not isinstance(array, zarr.Array):
        raise InputError(
            f"{place}/{node} is a group where level {level} of the image should be an array; correct the metadata."
        )
    if array.ndim != len(found.axes):
        raise InputError(
            f"the OME-Zarr metadata name {len(found.axes)} axes ({', '.join(found.axes)}) and the array {place}/{node}"
            f" has {array.ndim} dimensions; correct the metadata, or give that path with --axes."
        )
    if axes is not None and axes.lower() != found.axes:
        raise InputError(f"--axes {axes} contradicts the OME-Zarr metadata, which say {found.axes}; leave --axes out.")
    count = array.shape[found.axes.index("c")] if "c" in found.axes else 1
    channels, notices = read_channels(ome.get("omero"), count)
    metadata = replace(metadata, channels=channels)
    return Source(place, node, array, found.axes, metadata, (*found.notices, *notices), found.levels)


def _validate(source: Source) -> None:
    array, dtype = source.array, np.dtype(source.array.dtype)
    if min(array.chunks, default=1) < 1:
        raise InputError(f"the array has chunks of {array.chunks}; correct its metadata, or write it again.")
    if not 2 <= array.ndim <= 5:
        raise InputError(f"the array has {array.ndim} dimensions; phbatch reads 2 to 5 of t, c, z, y and x.")
    empty = [axis for axis, size in zip(source.stored_axes, array.shape, strict=True) if size == 0]
    if empty:
        raise InputError(f"axis {empty[0]} has length zero (shape {array.shape}); give an array that holds frames.")
    frames = prod(size for axis, size in zip(source.stored_axes, array.shape, strict=True) if axis not in "yx")
    if frames > MAX_FRAMES or max(array.shape) > MAX_LENGTH:
        raise InputError(
            f"the array declares the shape {_short(array.shape)}; phbatch takes {MAX_FRAMES} frames of {MAX_LENGTH}"
            " pixels a side at most: correct the metadata, or split the image."
        )
    if source.shape[1] > MAX_CHANNELS:
        raise InputError(
            f"the array declares {source.shape[1]} channels; phbatch takes {MAX_CHANNELS} at most: correct the axes, or"
            " split the image."
        )
    if dtype.kind not in "uif":
        raise InputError(f"dtype {dtype} is no real number; convert the image to an integer or float dtype first.")


def _short_line(error: BaseException) -> str:
    return first_line(error)[:200]


def _short(shape: tuple[int, ...]) -> str:
    return " x ".join(f"{size:.3g}" if size > MAX_LENGTH else str(size) for size in shape)
