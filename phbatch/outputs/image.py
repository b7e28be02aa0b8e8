"""The image that a run makes: where it lies, its metadata, its statistics table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from math import gcd, prod
from pathlib import Path
from typing import Any

import numpy as np

from phbatch.frames.recipe import Recipe
from phbatch.frames.table import StatisticsTable
from phbatch.inputs.image import Source
from phbatch.kernels.intensity import Packing, cast
from phbatch.kernels.stats import FLAG_NAMES
from phbatch.outputs.audit import record_small_objects
from phbatch.outputs.ledger import METADATA, Ledger
from phbatch.outputs.writer import (
    ATTRIBUTE,
    IMAGE,
    UNCERTAINTY,
    ArrayLayout,
    Sink,
    ZarrFormat,
    create_output,
    read_output_attributes,
)
from phbatch.places.beside import place_beside
from phbatch.places.display import complete_channels
from phbatch.places.ome import ImageMetadata, Version, make_image_attributes
from phbatch.places.place import Place
from phbatch.places.retry import is_out_of_place
from phbatch.places.table_file import STATISTICS
from phbatch.places.zarr_nodes import system_error
from phbatch.planning.memory import format_bytes
from phbatch.planning.units import Geometry, present_axes
from phbatch.words.axes import Shape
from phbatch.words.errors import OutputError, PhbatchError, first_line
from phbatch.words.settings import Codec, RunSettings, Shuffle, StorageOptions

COMPRESSION = 4
"""Restored frames are compressed less than this (1.1 to 2 is usual), unless they are mostly empty."""

_ATTRIBUTE_ROWS = 10_000  # above this, the table is in the arrays alone: attributes are read whole by every viewer

_ROWS_OF_WINDOWS = 1 << 22


@dataclass(frozen=True)
class OutputImage:
    """Metadata of the output.

    Attributes
    ----------
    metadata : ImageMetadata
        Axes, scale, units and channels of the output.
    version : {"0.4", "0.5"}
        Of OME-NGFF.
    zarr_format : {2, 3}
        Of Zarr.
    shape, chunks : tuple of int
        Along ``tczyx``.
    dtype : str
        Of the pixels.
    uncertainty : bool
        Whether there is a second image with the scale.
    rescaled : bool
        Whether the pixels are in the input's counts.
    shards : tuple of int or None
        Along ``tczyx``.
    codec, shuffle : str
        See `phbatch.places.compressor.make_compressor`.
    packing : Packing or None
        What integer pixels stand for.
    """

    metadata: ImageMetadata
    version: Version
    zarr_format: ZarrFormat
    shape: Shape
    chunks: Shape
    dtype: str
    uncertainty: bool
    rescaled: bool
    shards: Shape | None = None
    codec: Codec = "auto"
    shuffle: Shuffle = "auto"
    packing: Packing | None = None

    @classmethod
    def make(cls, source: Source, geometry: Geometry, recipe: Recipe, settings: RunSettings) -> OutputImage:
        """Carry the input's metadata over to the output."""
        version: Version = source.metadata.version or "0.5"
        shape = geometry.output_shape
        kept = (
            geometry.channels
            if recipe.n_output * (1 if recipe.stacked else len(geometry.channels)) == len(geometry.channels)
            else None
        )
        metadata = source.metadata if geometry.upscaled else source.metadata.with_downscale(geometry.downscale)
        metadata = metadata.with_time(geometry.times.start, geometry.times.step).with_channels(shape[1], kept)
        if metadata.name is None:
            metadata = replace(metadata, name=Path(source.path).name.split(".")[0])
        return cls(
            metadata=metadata,
            version=version,
            zarr_format=2 if version == "0.4" else 3,
            shape=shape,
            chunks=geometry.output_chunks,
            dtype=recipe.dtype,
            uncertainty=recipe.uncertainty,
            rescaled=recipe.rescale,
            shards=geometry.output_shards,
            codec=settings.codec,
            shuffle=settings.shuffle,
            packing=recipe.packing,
        )


def default_output(path: str, options: StorageOptions = None) -> Place:
    """``<stem>.phbatch.zarr`` beside the input."""
    return place_beside(path, ".phbatch.zarr", options)


def require_separate(source: Source, output: Place) -> None:
    """Refuse an output inside the input, an input inside the output, and an output on a web server."""
    if not output.writable:
        raise OutputError(f"output {output} is on a web server, which is only read; give another OUTPUT.")
    if source.place.holds(output):
        raise OutputError(f"output {output} lies inside the input; choose a place outside of {source.path}.")
    if output.holds(source.place):
        raise OutputError(f"the input lies inside the output {output}; choose another place for the output.")


def require_place(output: Place) -> None:
    """Refuse the root of the disk, a home folder, the current folder, and what these lie in, as a new output.

    Raises
    ------
    OutputError
        Says which it is.
    """
    for kept, words in ((Path.home(), "the home folder"), (Path.cwd(), "the current folder")):
        place = Place.at(kept)
        if output.holds(place):
            what = "is" if place == output else "holds"
            raise OutputError(f"output {output} {what} {words}; give a folder of its own, such as {output}/out.zarr.")


def storage_refusal(output: Place, error: Exception, committed: str = "what is committed stays") -> OutputError:
    """What is said where the disk or the store takes no more, or fails, and how to go on."""
    if is_out_of_place(error):
        return OutputError(
            f"{output} cannot take more ({first_line(error)}); {committed}: make room, and call the same command again"
            " to continue."
        )
    return OutputError(
        f"{output} cannot be written ({first_line(error)}); {committed}: call the same command again to continue."
    )


@contextmanager
def refusing_storage_errors(output: Place) -> Iterator[None]:
    """While inside, what the disk or the store under an output raises is an `OutputError`, whichever library met it."""
    try:
        yield
    except Exception as error:
        failure = error if isinstance(error, OSError) else system_error(error)
        if failure is None or isinstance(error, PhbatchError):
            raise
        raise storage_refusal(output, failure) from error


def create_image(output: Place, image: OutputImage, provenance: Mapping[str, Any]) -> None:
    """Make the metadata of the output appear, before any pixel is written."""
    groups = {"": make_image_attributes(image.metadata, image.version) | {ATTRIBUTE: dict(provenance)}}
    packed = image.packing.attributes() if image.packing is not None else {}
    layouts = [replace(_layout(image, IMAGE, image.dtype), attributes=packed)]
    if image.uncertainty:
        group = UNCERTAINTY.split("/")[0]
        groups[group] = make_image_attributes(replace(image.metadata, channels=(), name=group), image.version)
        layouts.append(_layout(image, UNCERTAINTY, "float32"))
    create_output(output, image.zarr_format, groups, layouts)
    commit_metadata(output, complete=False)


def require_space(output: Place, image: OutputImage, finished: float, freed: int = 0) -> None:
    """Refuse a local output that cannot fit even if it is compressed `COMPRESSION`-fold.

    Parameters
    ----------
    output : Place
        Where it will lie.
    image : OutputImage
        What will be written.
    finished : float
        Part of it that is already there, 0 to 1.
    freed : int
        Bytes of an earlier output, which will be removed first.

    Raises
    ------
    OutputError
        Bytes needed at least, and bytes free.
    """
    free = output.free_bytes()
    itemsize = np.dtype(image.dtype).itemsize + (4 if image.uncertainty else 0)
    needed = int(prod(image.shape) * itemsize * (1 - finished) / COMPRESSION)
    if free is not None and needed > free + freed:
        raise OutputError(
            f"{output} needs {format_bytes(needed)} even if it is compressed {COMPRESSION}-fold, and"
            f" {format_bytes(free)} are free; make room, or choose another place or a smaller --dtype."
        )


def commit_metadata(output: Place, *, complete: bool) -> None:
    """Put the metadata and tables of an output into its ledger, and whether they are the last ones."""
    found = record_small_objects(output, (IMAGE, UNCERTAINTY))
    Ledger(output).commit({"unit": METADATA, "complete": complete} | found)


def finish_image(sink: Sink, image: OutputImage, table: StatisticsTable) -> None:
    """Write the statistics table and say that the output is complete."""
    columns = ((name, table.flag_bits if name == "flags" else table.column(name)) for name in table.names)
    sink.write_table(
        STATISTICS, columns, {"flag_bits": list(FLAG_NAMES), "rows": len(table), "frame_axes": ["t", "c", "z"]}
    )
    attributes = read_output_attributes(sink.output) or {}
    attributes["status"] = "complete"
    if len(table) <= _ATTRIBUTE_ROWS:
        attributes["statistics"] = {name: table.plain_column(name) for name in table.names}
    else:
        attributes["statistics"] = f"see the arrays of the group {STATISTICS}"
    sink.update_attributes(attributes)
    windowed = all("window" in channel for channel in image.metadata.channels)
    if image.metadata.channels and not (image.rescaled and windowed):
        sink.update_channels(_display_windows(image, table))
    sink.remove_scratch()
    commit_metadata(sink.output, complete=True)


def _layout(image: OutputImage, path: str, dtype: str) -> ArrayLayout:
    axes = image.metadata.axes
    shape, chunks = present_axes(axes, image.shape), present_axes(axes, image.chunks)
    shards = None if image.shards is None else present_axes(axes, image.shards)
    return ArrayLayout(path, axes, shape, chunks, dtype, shards, image.codec, image.shuffle)


def _display_windows(image: OutputImage, table: StatisticsTable) -> list[dict[str, Any]]:
    """OMERO channels whose window fits the intensities: the median over frames of their percentiles, normalized or not.

    Of more than four million frames, evenly spaced ones are taken. In the input's counts, the input's own windows stay.
    """
    channels: list[Mapping[str, Any]] = []
    _, n_c, n_z = table.grid.shape
    steps = count(-(-len(table) // _ROWS_OF_WINDOWS))
    some = slice(None, None, next(step for step in steps if gcd(step, n_c * n_z) == 1))  # else a channel may be missed
    divisor, offset, indices = (table.column(name)[some] for name in ("divisor", "offset", "c"))
    for index, channel in zip(table.grid.channels, image.metadata.channels, strict=True):
        if image.rescaled and "window" in channel:
            channels.append(channel)
            continue
        usable = (indices == index) & np.isfinite(divisor)
        window = {}
        for end, name, default in (
            ("min", "min", 0.0),
            ("start", "p2", 0.0),
            ("end", "p99.8", 1.0),
            ("max", "max", 1.0),
        ):
            values = table.column(name)[some][usable]
            if not image.rescaled:
                values = (values - offset[usable]) / divisor[usable]
            window[end] = float(np.median(values)) if usable.any() else default
            if image.packing is not None:
                stored, _ = cast(np.array([window[end]], np.float32), np.dtype(image.dtype), image.packing)
                window[end] = float(stored.item())
        channels.append(dict(channel) | {"window": window})
    return complete_channels(channels)
