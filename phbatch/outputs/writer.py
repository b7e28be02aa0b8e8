"""The output: OME-Zarr, written in whole chunks by one owner each, durable before anything says so.

A region is encoded (`phbatch.places.encoding`). On a local disk its objects are then written aside, synchronized and
renamed into place; on an object store each is one PUT.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from phbatch.outputs.creation import ATTRIBUTE, GroupDocument, group_documents
from phbatch.places.columns import column_objects
from phbatch.places.durable import Mark
from phbatch.places.encoding import Encoded, Encoder
from phbatch.places.lock import holds
from phbatch.places.own import PRIVATE
from phbatch.places.place import Place
from phbatch.places.zarr_nodes import stored_lengths, system_error
from phbatch.words.axes import CANONICAL, Region
from phbatch.words.errors import OutputError, first_line

_BYTES_AT_ONCE = 1 << 24

_SCRATCH = f"{PRIVATE}/scratch"


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
            return self.output.write_all({part.name: part.objects for part in encoded}, _SCRATCH, self._require_held)

    def read(self, name: str, axes: str, region: Region) -> NDArray[Any]:
        """Read a region back, as ``(t, c, z, y, x)``."""
        with self._opening:
            array = self._open(name)
        values = np.asarray(array[tuple(region[CANONICAL.index(axis)] for axis in axes)])
        return np.expand_dims(values, [index for index, axis in enumerate(CANONICAL) if axis not in axes])

    def write_table(
        self, group: str, columns: Iterable[tuple[str, NDArray[Any]]], attributes: Mapping[str, Any]
    ) -> None:
        """Write arrays, mostly of one chunk each, into a group, replacing what is there; few are in memory at once.

        On a disk they are durable once they are synchronized, as all metadata are that are committed.
        """
        zarr_format = GroupDocument.read(self.output).zarr_format
        waiting = {f"{group}/{name}": data for name, data in group_documents(zarr_format, attributes).items()}
        for column, values in columns:
            found = column_objects(zarr_format, values)
            waiting |= {f"{group}/{column}/{key}": data for key, data in found.items()}
            if sum(map(len, waiting.values())) > _BYTES_AT_ONCE:
                self.output.write_loosely(waiting)
                waiting.clear()
        self.output.write_loosely(waiting)

    def extend(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Give arrays, by their paths, other lengths; no chunk is touched."""
        for name, shape in shapes.items():
            array = self.output.open(name, "r+")
            if isinstance(array, zarr.Array) and array.shape != shape:
                array.resize(shape)
                self._arrays.pop(name, None)

    def update_attributes(
        self, attributes: Mapping[str, Any], channels: Sequence[Mapping[str, Any]] | None = None
    ) -> None:
        """Replace phbatch's attributes on the root group, and the OMERO channels there where they are given."""
        root = GroupDocument.read(self.output)
        root.attributes[ATTRIBUTE] = dict(attributes)
        if channels is not None:
            ome = root.attributes.get("ome", root.attributes)
            ome["omero"] = {"channels": list(channels)}
        root.write(self.output)

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
