"""One TIFF file, written plane by plane: OME-TIFF with a pyramid, or ImageJ's hyperstack."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import tifffile
from numpy.typing import NDArray

from phbatch.inputs.image import Source
from phbatch.inputs.levels import smaller_levels
from phbatch.inputs.pixel_size import MICROMETERS, SECONDS
from phbatch.kernels.downsample import area_average
from phbatch.words.axes import CANONICAL, to_region
from phbatch.words.errors import InputError, OutputError, first_line

TILE = 512
"""Pixels of a side of a tile of an OME-TIFF; the smallest level is the first that one tile holds."""

_OME_DTYPES = ("uint8", "uint16", "uint32", "int8", "int16", "int32", "float32", "float64")
_IMAGEJ_DTYPES = ("uint8", "uint16", "float32")
_IMAGEJ_BYTES = 2**32 - 2**25  # what a TIFF that is no BigTIFF holds, which ImageJ's hyperstacks are


def write_tiff(target: Path, source: Source, *, imagej: bool, overwrite: bool) -> dict[str, Any]:
    """Write an image as a file that is there once it is whole, and say what is in it.

    Raises
    ------
    InputError
        The form of file cannot hold the image.
    OutputError
        The file exists, or cannot be written.
    """
    _require_form(source, imagej=imagej)
    with _whole_file(target, overwrite=overwrite) as partial:
        levels = _write_imagej(partial, source) if imagej else _write_ome(partial, source)
    order = "tzcyx" if imagej else CANONICAL
    return {
        "output": str(target),
        "form": form_of(imagej=imagej),
        "axes": order,
        "shape": _shape_along(order, source),
        "dtype": str(source.dtype),
        "levels": levels,
        "bytes": target.stat().st_size,
    }


def form_of(*, imagej: bool) -> str:
    """What a form of file is called."""
    return "imagej" if imagej else "ome-tiff"


def _require_form(source: Source, *, imagej: bool) -> None:
    """Refuse what the form of file cannot hold."""
    if not imagej:
        if str(source.dtype) not in _OME_DTYPES:
            raise InputError(
                f"OME-TIFF holds {', '.join(_OME_DTYPES)} and the image is {source.dtype}; convert it first."
            )
        return
    remedy = "leave --imagej out, since ImageJ opens OME-TIFF with Bio-Formats"
    if str(source.dtype) not in _IMAGEJ_DTYPES:
        raise InputError(
            f"ImageJ's hyperstacks hold {', '.join(_IMAGEJ_DTYPES)} and the image is {source.dtype}; {remedy}."
        )
    size = int(source.array.size) * source.dtype.itemsize
    if size > _IMAGEJ_BYTES:
        raise InputError(f"the image has {size / 2**30:.1f} GiB and ImageJ's hyperstacks hold 4; {remedy}.")


@contextmanager
def _whole_file(target: Path, *, overwrite: bool) -> Iterator[Path]:
    """A file beside the target that takes its name once it is whole and on the disk, and vanishes if it is not."""
    if target.is_dir() or (target.exists() and not overwrite):
        raise OutputError(f"{target} exists; give another name, or --overwrite.")
    partial = target.with_name(f".{target.name}.{uuid4().hex[:8]}.partial")
    try:
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        if overwrite:
            partial.replace(target)
        else:
            _name_anew(partial, target)
    except OSError as error:
        raise OutputError(
            f"{target} cannot be written ({error.strerror or first_line(error)}); choose another place."
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def _name_anew(partial: Path, target: Path) -> None:
    """Give the file its name, unless another has taken it meanwhile."""
    try:
        os.link(partial, target)
    except FileExistsError as error:
        raise OutputError(f"{target} exists; give another name, or --overwrite.") from error
    except OSError:  # a file system without links
        partial.replace(target)


def _write_ome(partial: Path, source: Source) -> int:
    levels = _levels(source)
    with tifffile.TiffWriter(partial, bigtiff=True, ome=True) as file:
        for index, level in enumerate(levels):
            tiled = min(level.shape) > TILE
            file.write(
                _tiles(level) if tiled else level.planes(CANONICAL),
                shape=(*source.shape[:3], *level.shape),
                dtype=source.dtype,
                tile=(TILE, TILE) if tiled else None,
                rowsperstrip=None if tiled else level.shape[0],
                photometric="minisblack",
                compression="adobe_deflate",
                subifds=len(levels) - 1 if index == 0 else None,
                subfiletype=0 if index == 0 else 1,
                metadata=_ome_metadata(source) if index == 0 else None,
            )
    return len(levels)


def _write_imagej(partial: Path, source: Source) -> int:
    y, x = (source.metadata.axes.index(axis) for axis in "yx")
    sizes = _sizes(source)
    metadata = _imagej_metadata(source, sizes)
    scale = [sizes.get("y", source.metadata.scale[y]), sizes.get("x", source.metadata.scale[x])]
    with tifffile.TiffWriter(partial, imagej=True) as file:
        file.write(
            _Level(source, 1).planes("tzcyx"),
            shape=_shape_along("tzcyx", source),
            dtype=source.dtype,
            resolution=(1 / scale[1], 1 / scale[0]),
            resolutionunit="none",
            metadata=metadata,
        )
    return 1


@dataclass(frozen=True)
class _Level:
    """Planes of a level: those that the image holds, or area means over `factor` x `factor` pixels of them."""

    source: Source
    factor: int

    @property
    def shape(self) -> tuple[int, int]:
        height, width = self.source.shape[3:]
        return -(-height // self.factor), -(-width // self.factor)

    def planes(self, order: str) -> Iterator[NDArray[Any]]:
        """Every plane, the first axis of `order` slowest."""
        shape = self.source.shape
        for indices in product(*(range(shape[CANONICAL.index(axis)]) for axis in order if axis not in "yx")):
            at = dict(zip(order, indices, strict=False))
            starts = [at["t"], at["c"], at["z"], 0, 0]
            plane = self.source.read_or_refuse(to_region(starts, [*(i + 1 for i in starts[:3]), *shape[3:]]))[0, 0, 0]
            yield plane if self.factor == 1 else _as_dtype(area_average(plane, self.factor), plane.dtype)


def _as_dtype(means: NDArray[np.float32], dtype: np.dtype[Any]) -> NDArray[Any]:
    if dtype.kind == "f":
        return means.astype(dtype)
    limits = np.iinfo(dtype)
    return np.clip(np.rint(means.astype(np.float64)), limits.min, limits.max).astype(dtype)


def _levels(source: Source) -> list[_Level]:
    """The image's own levels of planes, or area means by powers of two, down to one tile."""
    found = [_Level(source, 1), *(_Level(level, 1) for level in smaller_levels(source))]
    if len(found) == 1:
        while max(found[-1].shape) > TILE:
            found.append(_Level(source, 2 * found[-1].factor))
    return found


def _tiles(level: _Level) -> Iterator[NDArray[Any]]:
    height, width = level.shape
    for plane in level.planes(CANONICAL):
        for y, x in product(range(0, height, TILE), range(0, width, TILE)):
            tile = plane[y : y + TILE, x : x + TILE]
            missing = [(0, TILE - length) for length in tile.shape]
            yield np.pad(tile, missing) if tile.shape != (TILE, TILE) else np.ascontiguousarray(tile)


def _shape_along(order: str, source: Source) -> list[int]:
    return [source.shape[CANONICAL.index(axis)] for axis in order]


def _sizes(source: Source) -> dict[str, float]:
    """Micrometers and seconds between pixels, planes and frames, where the image says so."""
    metadata = source.metadata
    return {
        axis: size * (SECONDS if axis == "t" else MICROMETERS)[unit]
        for axis, size, unit in zip(metadata.axes, metadata.scale, metadata.units, strict=True)
        if unit in (SECONDS if axis == "t" else MICROMETERS)
    }


def _ome_metadata(source: Source) -> dict[str, Any]:
    found: dict[str, Any] = {"axes": CANONICAL.upper(), "Name": source.metadata.name or source.place.name}
    for axis, size in _sizes(source).items():
        name = "TimeIncrement" if axis == "t" else f"PhysicalSize{axis.upper()}"
        found |= {name: size, f"{name}Unit": "s" if axis == "t" else "\u00b5m"}
    if source.metadata.channels:
        found["Channel"] = {
            "Name": list(source.metadata.labels),
            "Color": [_ome_color(channel) for channel in source.metadata.channels],
        }
    return found


def _ome_color(channel: Mapping[str, Any]) -> int:
    """Red, green, blue and opacity in a signed integer of 32 bits."""
    value = int(f"{channel.get('color', 'FFFFFF')}FF", 16)
    return value - 2**32 if value >= 2**31 else value


def _imagej_metadata(source: Source, sizes: Mapping[str, float]) -> dict[str, Any]:
    n_t, n_c, n_z = source.shape[:3]
    found: dict[str, Any] = {"axes": "TZCYX"}
    if "x" in sizes:
        found["unit"] = "micron"
    if "z" in sizes:
        found["spacing"] = sizes["z"]
    if "t" in sizes:
        found |= {"finterval": sizes["t"], "tunit": "s"}
    channels = source.metadata.channels
    if channels:
        found["Labels"] = list(source.metadata.labels) * (n_t * n_z)
        ramp = np.arange(256, dtype=np.uint16)
        colors = (bytes.fromhex(channel.get("color", "FFFFFF")) for channel in channels)
        found["LUTs"] = [np.stack([ramp * part // 255 for part in color]).astype(np.uint8) for color in colors]
    if n_c > 1:
        found["mode"] = "composite"
    return found
