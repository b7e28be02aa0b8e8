"""The image that a run makes: where it lies, its metadata, its statistics table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from phbatch.frames.recipe import Recipe
from phbatch.inputs.image import Source
from phbatch.kernels.intensity import Packing
from phbatch.outputs.audit import record_small_objects
from phbatch.outputs.creation import (
    ATTRIBUTE,
    IMAGE,
    UNCERTAINTY,
    ArrayLayout,
    ZarrFormat,
    create_output,
    holds_pixels,
    level_path,
    read_output_attributes,
)
from phbatch.outputs.ledger import METADATA, Ledger
from phbatch.outputs.writer import Sink
from phbatch.places.beside import place_beside
from phbatch.places.holder import PARTS
from phbatch.places.ome import ImageMetadata, Version, make_image_attributes
from phbatch.places.own import PRIVATE
from phbatch.places.place import Place
from phbatch.places.retry import is_out_of_place
from phbatch.places.zarr_nodes import system_error
from phbatch.planning.chunks import Level
from phbatch.planning.memory import format_bytes
from phbatch.planning.units import Geometry, present_axes
from phbatch.words.axes import Shape
from phbatch.words.choices import Codec, LevelMethod, Shuffle
from phbatch.words.errors import OutputError, PhbatchError, first_line
from phbatch.words.given import StorageOptions
from phbatch.words.settings import RunSettings

MEASURED, POOLED = f"{PRIVATE}/measured", f"{PRIVATE}/pooled"
"""Ledgers of what the tasks of an array found out of units, and of parts, before these are restored."""

COMPRESSION = 4
"""Restored frames are compressed less than this (1.1 to 2 is usual), unless they are mostly empty."""


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
    coarser : tuple of Level
        Levels below the full resolution.
    method : {"mean", "mode"}
        How they are made.
    copied : tuple of int
        Channels of the input whose pixels are the input's.
    labelled : bool
        Whether channels that have no name get a label; outputs of before have none.
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
    coarser: tuple[Level, ...] = ()
    method: LevelMethod = "mean"
    copied: tuple[int, ...] = ()
    labelled: bool = True

    @classmethod
    def make(
        cls, source: Source, geometry: Geometry, recipe: Recipe, settings: RunSettings, *, labelled: bool = True
    ) -> OutputImage:
        """Carry the input's metadata over to the output."""
        version: Version = settings.ome_zarr or source.metadata.version or "0.5"
        shape = geometry.output_shape
        kept = geometry.channels if geometry.keeps_channels else None
        metadata = source.metadata if geometry.upscaled else source.metadata.with_downscale(geometry.downscale)
        metadata = metadata.with_time(geometry.times.start, geometry.times.step).with_channels(shape[1], kept)
        if metadata.name is None:
            metadata = replace(metadata, name=Path(source.path).name.split(".")[0])
        if labelled:
            metadata = metadata.with_labels(range(shape[1]) if kept is None else kept)
        return cls(
            metadata=metadata,
            version=version,
            zarr_format=2 if version == "0.4" else 3,
            shape=shape,
            chunks=geometry.output_chunks,
            dtype=recipe.dtype,
            uncertainty=recipe.uncertainty,
            rescaled=recipe.rescale or recipe.copies,
            shards=geometry.output_shards,
            codec=settings.codec,
            shuffle=settings.shuffle,
            packing=recipe.packing,
            coarser=geometry.output_levels[1:],
            method=settings.level_method,
            copied=recipe.copied,
            labelled=labelled,
        )

    @property
    def levels(self) -> tuple[Level, ...]:
        """All levels, the full resolution first."""
        return (Level(1, self.shape, self.chunks, self.shards), *self.coarser)

    @property
    def pixels(self) -> int:
        """Of all levels."""
        return sum(prod(level.shape) for level in self.levels)


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
    groups, layouts = describe_image(image)
    groups[""] |= {ATTRIBUTE: dict(provenance)}
    create_output(output, image.zarr_format, groups, layouts)
    commit_metadata(output, complete=False)


def describe_image(image: OutputImage) -> tuple[dict[str, dict[str, Any]], list[ArrayLayout]]:
    """Attributes of the groups of an output, by their paths, and its arrays."""
    groups = {"": root_attributes(image)}
    if image.uncertainty:
        group = UNCERTAINTY.split("/")[0]
        groups[group] = _group_attributes(image, replace(image.metadata, channels=(), name=group))
    layouts = _all_layouts(image)
    return groups | {
        layout.path.rpartition("/")[0]: {} for layout in layouts if layout.path.endswith("/image")
    }, layouts


def extend_image(output: Place, image: OutputImage, provenance: Mapping[str, Any]) -> None:
    """Make the arrays of an output as long as the image is now, and say what became of its run.

    Killed at any moment, what is committed is the output as it was, and to be continued.
    """
    sink, recorded = Sink(output), read_output_attributes(output) or {}
    if recorded["status"] == "complete":
        sink.update_attributes(recorded | {"status": "running"})
        commit_metadata(output, complete=False)
    sink.extend({layout.path: layout.shape for layout in _all_layouts(image)})
    sink.update_attributes(recorded | dict(provenance) | {"status": "running"})
    commit_metadata(output, complete=False)


def require_space(output: Place, images: Sequence[OutputImage], finished: float, freed: int = 0) -> None:
    """Refuse a local output that cannot fit even if it is compressed `COMPRESSION`-fold.

    Parameters
    ----------
    output : Place
        Where it will lie.
    images : sequence of OutputImage
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
    size = sum(image.pixels * (np.dtype(image.dtype).itemsize + (4 if image.uncertainty else 0)) for image in images)
    needed = int(size * (1 - finished) / COMPRESSION)
    if free is not None and needed > free + freed:
        raise OutputError(
            f"{output} needs {format_bytes(needed)} even if it is compressed {COMPRESSION}-fold, and"
            f" {format_bytes(free)} are free; make room, or choose another place or a smaller --dtype."
        )


def commit_metadata(output: Place, *, complete: bool) -> None:
    """Put the metadata and tables of an output into its ledger, and whether they are the last ones."""
    found = record_small_objects(output, holds_pixels)
    Ledger(output).commit({"unit": METADATA, "complete": complete} | found)


def forget_tasks(output: Place) -> None:
    """Remove what the tasks of an array had to know of each other."""
    for folder in (PARTS, MEASURED, POOLED):
        output.remove_folder(folder)


def root_attributes(image: OutputImage) -> dict[str, Any]:
    """Attributes of the group of an image."""
    return _group_attributes(image, image.metadata)


def _group_attributes(image: OutputImage, metadata: ImageMetadata) -> dict[str, Any]:
    levels = {level_path(IMAGE, index): level.factor for index, level in enumerate(image.levels)}
    return make_image_attributes(metadata, image.version, levels, image.method)


def _all_layouts(image: OutputImage) -> list[ArrayLayout]:
    """Arrays of the image and, where there is one, of its uncertainty."""
    packed = image.packing.attributes() if image.packing is not None else {}
    layouts = _layouts(image, IMAGE, image.dtype, packed)
    return [*layouts, *_layouts(image, UNCERTAINTY, "float32", {})] if image.uncertainty else layouts


def _layouts(image: OutputImage, path: str, dtype: str, attributes: Mapping[str, Any]) -> list[ArrayLayout]:
    """Arrays of all levels of an image, by the path of its level 0."""
    axes = image.metadata.axes
    return [
        ArrayLayout(
            level_path(path, index),
            axes,
            present_axes(axes, level.shape),
            present_axes(axes, level.chunks),
            dtype,
            None if level.shards is None else present_axes(axes, level.shards),
            image.codec,
            image.shuffle,
            attributes,
        )
        for index, level in enumerate(image.levels)
    ]
