"""The smaller levels of a multiscale image, each read as the image itself is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import zarr

from phbatch.inputs.image import Source
from phbatch.places.ome import image_attributes


def smaller_levels(source: Source) -> Iterator[Source]:
    """Levels of smaller planes, as many planes as the image has; none after one that is otherwise.

    Their metadata stay those of level 0.
    """
    node = source.place.open()
    image = image_attributes(node.attrs.asdict()) if isinstance(node, zarr.Group) else None
    if image is None:
        return
    larger = source
    for dataset in image[1]["multiscales"][0]["datasets"][1:]:
        array = source.place.open(dataset["path"])
        if not isinstance(array, zarr.Array) or array.ndim != len(source.stored_axes) or array.dtype != source.dtype:
            return
        level = replace(source, node=dataset["path"], array=array)
        if level.shape[:3] != source.shape[:3] or max(level.shape[3:]) >= max(larger.shape[3:]):
            return
        yield level
        larger = level
