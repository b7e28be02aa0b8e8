"""OME-Zarr images written by hand: nobody validates what they say."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr

AXES: dict[str, dict[str, Any]] = {
    "t": {"name": "t", "type": "time"},
    "c": {"name": "c", "type": "channel"},
    "z": {"name": "z", "type": "space"},
    "y": {"name": "y", "type": "space"},
    "x": {"name": "x", "type": "space"},
}
_UNIT_SCALE = "unit scale"


def scale_of(*numbers: float) -> dict[str, Any]:
    return {"type": "scale", "scale": list(numbers)}


def write_ome(
    path: Path,
    image: np.ndarray,
    axes: str | Sequence[Any] | None,
    version: str = "0.4",
    *,
    transforms: Any = _UNIT_SCALE,
    multiscale: Mapping[str, Any] | None = None,
    attributes: Mapping[str, Any] | None = None,
    stated: str | None = None,
    chunks: Sequence[int] | None = None,
) -> Path:
    """An image whose multiscale has `axes`, transformations of level 0, and other entries, whatever they are."""
    axes = [AXES[axis] for axis in axes] if isinstance(axes, str) else axes
    if transforms == _UNIT_SCALE:
        transforms = [scale_of(*[1.0] * image.ndim)]
    level = {"path": "0"} | ({} if transforms is None else {"coordinateTransformations": transforms})
    entry = {"name": "img"} | ({} if axes is None else {"axes": axes}) | {"datasets": [level]} | dict(multiscale or {})
    path.mkdir(parents=True)
    if version == "0.4":
        entry["version"] = stated or "0.4"
        (path / ".zgroup").write_text('{"zarr_format": 2}')
        (path / ".zattrs").write_text(json.dumps({"multiscales": [entry]} | dict(attributes or {})))
    else:
        ome = {"version": stated or "0.5", "multiscales": [entry]} | dict(attributes or {})
        document = {"zarr_format": 3, "node_type": "group", "attributes": {"ome": ome}}
        (path / "zarr.json").write_text(json.dumps(document))
    stored = tuple(chunks or (min(length, 16) for length in image.shape))
    zarr.create_array(
        path / "0", data=np.ascontiguousarray(image), chunks=stored, zarr_format=2 if version == "0.4" else 3
    )
    return path
