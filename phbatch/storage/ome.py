"""OME-NGFF image metadata, 0.4 and 0.5, through yaozarrs' models.

The specifications: https://ngff.openmicroscopy.org/0.4/ and https://ngff.openmicroscopy.org/0.5/.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any, Literal

import yaozarrs.v04
import yaozarrs.v05
from pydantic import ValidationError

from phbatch.axes import CANONICAL
from phbatch.errors import InputError

Version = Literal["0.4", "0.5"]

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
        OMERO rendering of every channel as the input has it; empty where it has none.
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
    def channel_names(self) -> tuple[str, ...]:
        """Label of every channel, empty where the metadata has none."""
        return tuple(str(channel.get("label", index)) for index, channel in enumerate(self.channels))

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


def image_attributes(attributes: Mapping[str, Any]) -> tuple[Version, Mapping[str, Any]] | None:
    """Version and OME attributes of a group, or None where the group is no OME-Zarr image."""
    ome = attributes.get("ome")
    if isinstance(ome, Mapping) and "multiscales" in ome:
        return "0.5", ome
    if "multiscales" in attributes:
        return "0.4", attributes
    return None


def read_image_metadata(version: Version, attributes: Mapping[str, Any]) -> tuple[ImageMetadata, str]:
    """Parse the metadata of an OME-Zarr image.

    Parameters
    ----------
    version : {"0.4", "0.5"}
        Of the metadata.
    attributes : mapping
        What `image_attributes` found.

    Returns
    -------
    metadata : ImageMetadata
        Of level 0 of the first multiscale.
    path : str
        Of the array of level 0 within the group.

    Raises
    ------
    InputError
        The metadata break the specification, or name an axis that phbatch does not know.
    """
    model = yaozarrs.v04.Image if version == "0.4" else yaozarrs.v05.Image
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of names that some file systems do not take: the array is there or not
            image = model.model_validate(dict(attributes))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise InputError(
            f"the OME-Zarr {version} metadata are invalid at {place or 'their top'} ({first['msg']}); correct them,"
            f" or give the"
            " path of the array itself with --axes."
        ) from error
    multiscale = image.multiscales[0]
    axes = "".join(_axis_letter(axis.name, axis.type) for axis in multiscale.axes)
    dataset = multiscale.datasets[0]
    scale, translation = (1.0,) * len(axes), (0.0,) * len(axes)
    for transform in dataset.coordinateTransformations:
        if transform.type == "scale":
            scale = tuple(transform.scale)
        else:
            translation = tuple(transform.translation)
    for axis, distance in zip(axes, scale, strict=False):
        if not 0 < distance < inf:
            raise InputError(
                f"the OME-Zarr metadata say that pixels lie {distance} apart along {axis}; correct the scale, which is"
                " a positive number."
            )
    metadata = ImageMetadata(
        axes,
        scale,
        translation,
        units=tuple(axis.unit for axis in multiscale.axes),
        channels=tuple(attributes.get("omero", {}).get("channels", ())),
        name=multiscale.name,
        version=version,
    )
    return metadata, dataset.path


def make_image_attributes(metadata: ImageMetadata, version: Version, path: str = "0") -> dict[str, Any]:
    """Attributes of an OME-Zarr image with one level, validated against the specification.

    Parameters
    ----------
    metadata : ImageMetadata
        Axes, scale, units, channels.
    version : {"0.4", "0.5"}
        Version to write; 0.4 belongs to Zarr format 2, 0.5 to format 3.
    path : str
        Of the array of level 0 within the group.
    """
    axes = []
    for letter, unit in zip(metadata.axes, metadata.units, strict=True):
        axes.append({"name": letter, "type": _TYPES[letter]} | ({"unit": unit} if unit else {}))
    transforms: list[dict[str, Any]] = [{"type": "scale", "scale": list(metadata.scale)}]
    if any(metadata.translation):
        transforms.append({"type": "translation", "translation": list(metadata.translation)})
    multiscale: dict[str, Any] = {
        "name": metadata.name or "phbatch",
        "axes": axes,
        "datasets": [{"path": path, "coordinateTransformations": transforms}],
    }
    if version == "0.4":
        multiscale["version"] = "0.4"
    attributes: dict[str, Any] = {"multiscales": [multiscale]}
    if metadata.channels:
        attributes["omero"] = {"channels": [dict(channel) for channel in metadata.channels]}
    if version == "0.4":
        yaozarrs.v04.Image.model_validate(attributes)
        return attributes
    attributes["version"] = "0.5"
    yaozarrs.v05.Image.model_validate(attributes)
    return {"ome": attributes}


def _axis_letter(name: str, kind: str | None) -> str:
    letter = {"time": "t", "channel": "c"}.get(kind or "", name.lower())
    if letter not in CANONICAL:
        raise InputError(f"axis {name!r} is unknown; phbatch reads images with the axes t, c, z, y and x.")
    return letter
