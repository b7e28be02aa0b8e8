"""Inputs of the campaign, and what an output must be byte for byte."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from phbatch.outputs.ledger import METADATA, Ledger
from phbatch.places.place import Place

LAYOUTS: dict[str, dict[str, Any]] = {
    "zarr 2": {"zarr_format": 2},
    "zarr 3": {"zarr_format": 3},
    "zarr 3, sharded": {"zarr_format": 3, "sharded": True},
    "zarr 3, sharded output": {"zarr_format": 3},
}
"""Of the input, whose format the output has; in the last one a unit writes whole shards of several chunks."""


def output_options(layout: str, shard_bytes: int) -> dict[str, Any]:
    """Options of a run whose output has a layout; shards are of about a size."""
    return {"shard": shard_bytes} if layout.endswith("sharded output") else {}


def units_of(output: str | Path) -> list[str]:
    """Keys of the units that are in the ledger of an output, in the order of time."""
    found = (name for name in Ledger(Place.at(output)).records() if name != METADATA)
    return sorted(found, key=lambda name: [int(number) for number in re.findall(r"\d+", name)])


def make_input(
    path: Path,
    shape: tuple[int, ...] = (6, 104, 60),
    chunks: tuple[int, ...] = (1, 52, 60),
    *,
    zarr_format: Any = 3,
    sharded: bool = False,
    dtype: str = "uint16",
) -> Path:
    """An OME-Zarr 0.4 image (Zarr 2) or a bare array (Zarr 3) of noise; its axes are the last ones of ``tczyx``."""
    image = np.random.default_rng(3).integers(100, 200, shape).astype(dtype)
    shards = tuple(
        -(-size // chunk) * chunk if at else chunk for at, (size, chunk) in enumerate(zip(shape, chunks, strict=True))
    )
    if zarr_format == 3:
        zarr.create_array(path, data=image, chunks=chunks, shards=shards if sharded else None)
        return path
    axes = {3: "tyx", 4: "tcyx", 5: "tczyx"}[len(shape)]
    kinds = {"t": "time", "c": "channel"}
    group = zarr.open_group(path, mode="w", zarr_format=2)
    group.create_array("0", data=image, chunks=chunks)
    group.attrs["multiscales"] = [
        {
            "version": "0.4",
            "axes": [{"name": axis, "type": kinds.get(axis, "space")} for axis in axes],
            "datasets": [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [1.0] * len(axes)}]}],
        }
    ]
    return path


def make_time_lapse(folder: Path) -> Path:
    """Four frames of 104 x 103, of which each is a unit of its own, with `small_frames`; its path in the folder."""
    frames = np.random.default_rng(3).integers(400, 600, (4, 104, 103), dtype="uint16")
    zarr.create_array(folder / "in.zarr", data=frames, chunks=(1, 52, 103))
    return folder / "in.zarr"


def files(output: str | Path) -> dict[str, bytes]:
    """Every file of an output but its private ones: the ledger holds times."""
    root = Path(output)
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and ".phbatch" not in path.relative_to(root).parts
    }
