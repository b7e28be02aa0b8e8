"""OME-NGFF image metadata, 0.4 and 0.5, through yaozarrs' models.

The specifications: https://ngff.openmicroscopy.org/0.4/ and https://ngff.openmicroscopy.org/0.5/.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import yaozarrs.v04
import yaozarrs.v05
from pydantic import BaseModel

from phbatch.places.display import complete_channels, is_made_up, make_channels
from phbatch.places.multiscale import Multiscale, read_multiscale
from phbatch.places.zarr_nodes import ONE_AT_A_TIME
from phbatch.words.axes import CANONICAL

Version = Literal["0.4", "0.5"]

_FULL: Mapping[str, int] = {"0": 1}

_METHODS = {
    "mean": "means of the pixels of level 0, rounded once",
    "mode": "the most frequent of the pixels of level 0, the smallest where several are",
}

_TYPES = {"t": "time", "c": "channel", "z": "space", "y": "space", "x": "space"}


@dataclass(frozen=True)
class ImageMetadata:
    """What OME-NGFF says of an image, for the axes that it has, in the order of ``tczyx``.

    Attributes
    ----------
    axes : str
        Subset of ``tczyx`` in that order.
    scale, translation : tuple of float
        Distance between pixels and position of the first one, per axis, in the axis' unit.
    units : tuple of str or None
        UDUNITS-2 names, per axis, such as ``"micrometer"``.
    channels : tuple of mapping
        OMERO rendering of every channel, as far as the input has it; empty where it has none.
    name : str or None
        Of the image.
    version : {"0.4", "0.5"} or None
        Of the metadata; None for a bare array.
    """

    axes: str
    scale: tuple[float, ...]
    translation: tuple[float, ...]
    units: tuple[str | None, ...]
    channels: tuple[Mapping[str, Any], ...] = field(default=())
    name: str | None = None
    version: Version | None = None

    @classmethod
    def bare(cls, axes: str) -> ImageMetadata:
        """Metadata of an array that has none: scale 1, no units."""
        n = len(axes)
        return cls(axes, (1.0,) * n, (0.0,) * n, (None,) * n)

    @property
    def labels(self) -> tuple[str, ...]:
        """Label of every channel, its index where it has none; empty where no channel has hints."""
        return tuple(str(channel.get("label") or index) for index, channel in enumerate(self.channels))

    @property
    def channel_names(self) -> tuple[str, ...]:
        """The labels, unless all are of phbatch and mean nothing; see `phbatch.places.display.make_channels`."""
        made_up = (is_made_up(label, self._own_name) for label in self.labels)
        return () if all(made_up) else self.labels

    def with_time(self, start: int, step: int) -> ImageMetadata:
        """Metadata of every `step`-th frame from `start` on: the time scale grows, the origin moves."""
        if "t" not in self.axes or (start == 0 and step == 1):
            return self
        t = self.axes.index("t")
        scale, translation = list(self.scale), list(self.translation)
        translation[t] += start * scale[t]
        scale[t] *= step
        return replace(self, scale=tuple(scale), translation=tuple(translation))

    def with_downscale(self, factor: int) -> ImageMetadata:
        """Metadata of area averages over `factor` x `factor` pixels, whose centres are between those of the pixels."""
        scale, translation = list(self.scale), list(self.translation)
        for index, axis in enumerate(self.axes):
            if axis in "yx":
                translation[index] += (factor - 1) / 2 * scale[index]
                scale[index] *= factor
        return replace(self, scale=tuple(scale), translation=tuple(translation))

    def with_channels(self, count: int, selected: Sequence[int] | None) -> ImageMetadata:
        """Metadata of an output of `count` channels: those `selected` of the input, or new ones where it is None."""
        channels = self.channels
        if selected is not None and channels:
            channels = tuple(channels[index] for index in selected)
        if selected is None or len(channels) != count:
            channels = ()
        if "c" in self.axes or count == 1:
            return replace(self, channels=channels)
        at = sum(CANONICAL.index(axis) < CANONICAL.index("c") for axis in self.axes)

        def insert(values: tuple[Any, ...], value: Any) -> tuple[Any, ...]:
            return (*values[:at], value, *values[at:])

        return replace(
            self,
            axes="".join(insert(tuple(self.axes), "c")),
            scale=insert(self.scale, 1.0),
            translation=insert(self.translation, 0.0),
            units=insert(self.units, None),
            channels=(),
        )

    def with_labels(self, indices: Sequence[int]) -> ImageMetadata:
        """Metadata with a label and a colour of every channel, made up where none has hints."""
        if self.channels:
            return self
        return replace(self, channels=make_channels(indices, self._own_name))

    @property
    def _own_name(self) -> str | None:
        """Of the image, where it has no axis of channels: then it is the one channel's, too."""
        return None if "c" in self.axes else self.name


def image_attributes(attributes: Mapping[str, Any]) -> tuple[Version, Mapping[str, Any]] | None:
    """Version and OME attributes of a group, or None where the group is no OME-Zarr image."""
    ome = attributes.get("ome")
    if isinstance(ome, Mapping) and "multiscales" in ome:
        return "0.5", ome
    if "multiscales" in attributes:
        return "0.4", attributes
    return None


def read_image_metadata(
    version: Version, attributes: Mapping[str, Any], place: str = "INPUT", level: int = 0
) -> tuple[ImageMetadata, Multiscale]:
    """Parse the metadata of an OME-Zarr image; its channels are `phbatch.places.display`'s to read.

    Parameters
    ----------
    version : {"0.4", "0.5"}
        Of the metadata.
    attributes : mapping
        What `image_attributes` found.
    place : str
        Path of the group, for messages.
    level : int
        Which; 0 is the full resolution.

    Returns
    -------
    metadata : ImageMetadata
        Of that level of the first multiscale, in the order of ``tczyx``.
    found : Multiscale
        The same along the axes as they are stored, with the path of the array of the level within the group.

    Raises
    ------
    InputError
        The metadata break the specification, name an axis that phbatch does not know, or have no such level.
    """
    found = read_multiscale(attributes, version, place, level)
    order = [found.axes.index(axis) for axis in CANONICAL if axis in found.axes]
    metadata = ImageMetadata(
        "".join(found.axes[index] for index in order),
        tuple(found.scale[index] for index in order),
        tuple(found.translation[index] for index in order),
        tuple(found.units[index] for index in order),
        name=found.name,
        version=version,
    )
    return metadata, found


def make_image_attributes(
    metadata: ImageMetadata, version: Version, levels: Mapping[str, int] = _FULL, method: str = "mean"
) -> dict[str, Any]:
    """Attributes of an OME-Zarr image, validated against the specification.

    Parameters
    ----------
    metadata : ImageMetadata
        Axes, scale, units, channels.
    version : {"0.4", "0.5"}
        Version to write; 0.4 belongs to Zarr format 2, 0.5 to format 3.
    levels : mapping of str to int
        Path of the array of every level within the group, to the pixels along y and x that one of it stands for.
    method : {"mean", "mode"}
        What a pixel of a coarser level is of these.
    """
    axes = []
    for letter, unit in zip(metadata.axes, metadata.units, strict=True):
        axes.append({"name": letter, "type": _TYPES[letter]} | ({"unit": unit} if unit else {}))
    multiscale: dict[str, Any] = {
        "name": metadata.name or "phbatch",
        "axes": axes,
        "datasets": [
            {"path": path, "coordinateTransformations": _transformations(metadata.with_downscale(factor))}
            for path, factor in levels.items()
        ],
    }
    if len(levels) > 1:
        multiscale |= {"type": method, "metadata": {"description": _METHODS[method], "method": "phbatch"}}
    if version == "0.4":
        multiscale["version"] = "0.4"
    attributes: dict[str, Any] = {"multiscales": [multiscale]}
    if metadata.channels:
        attributes["omero"] = {"channels": complete_channels(metadata.channels)}
    if version == "0.4":
        _validate(yaozarrs.v04.Image, attributes)
        return attributes
    attributes["version"] = "0.5"
    _validate(yaozarrs.v05.Image, attributes)
    return {"ome": attributes}


def _transformations(metadata: ImageMetadata) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [{"type": "scale", "scale": list(metadata.scale)}]
    if any(metadata.translation):
        found.append({"type": "translation", "translation": list(metadata.translation)})
    return found


def _validate(model: type[BaseModel], attributes: Mapping[str, Any]) -> None:
    with ONE_AT_A_TIME, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of units that NGFF does not list, which are the input's and are kept
        model.model_validate(attributes)
