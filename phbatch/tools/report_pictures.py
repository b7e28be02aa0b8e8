"""Pictures of a report as PNG within the page: crops before and after, and what was removed between them."""

from __future__ import annotations

import io
from base64 import b64encode
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from phbatch.kernels.downsample import area_average
from phbatch.tools.finished_run import FramePair

CROP = 512
"""Largest side of a crop in pixels."""

PIXELS = 4 * CROP * CROP
"""Of all crops of a page together, before and after each: a page stays under 5 MB."""

BARE: dict[str, Any] = {"xticks": [], "yticks": []}
"""Of axes that matplotlib does not show: it lays out their ticks all the same, for longer than it draws an image."""

_THUMBNAIL = 240


@dataclass(frozen=True, eq=False)
class Crop:
    """A frame made small, and a crop of its most textured place, before and after; drawn once limits are known."""

    pair: FramePair
    corner: tuple[int, int]
    side: int
    shape: tuple[int, ...]
    small: NDArray[np.float32]
    name: str

    @classmethod
    def of(cls, pair: FramePair, side: int, name: str) -> Crop:
        """Take it from a frame, of which the rest may then go."""
        shape = pair.after.shape
        side = min(side, *shape)
        y, x = textured_corner(pair.after, side)
        window = (slice(y, y + side), slice(x, x + side))
        before = pair.before[window].copy() if pair.before is not None and pair.before.shape == shape else None
        small = area_average(pair.after, -(-max(shape) // _THUMBNAIL))
        return cls(replace(pair, before=before, after=pair.after[window].copy()), (y, x), side, shape, small, name)

    def draw(self, limits: tuple[float, float]) -> dict[str, Any]:
        """Pictures as data URIs, and what they show."""
        pair, (y, x) = self.pair, self.corner
        box = (x / self.shape[1], y / self.shape[0], self.side / self.shape[1], self.side / self.shape[0])
        found: dict[str, Any] = {
            "frame": self.name,
            "channel": pair.channel,
            "flags": list(pair.flags),
            "corner": [y + pair.corner[0], x + pair.corner[1]],
            "side": self.side,
            "box": [round(100 * part, 2) for part in box],
            "thumbnail": as_uri(gray(self.small, limits)),
            "after": as_uri(gray(pair.after, limits)),
        }
        if pair.before is None:
            return found
        removed = pair.before - pair.after
        finite = np.abs(removed[np.isfinite(removed)])
        reach = (float(np.percentile(finite, 99.5)) if finite.size else 0.0) or 1.0
        return found | {
            "before": as_uri(gray(pair.before, limits)),
            "removed": as_uri(gray(removed, (-reach, reach))),
            "removed_range": float(f"{reach:.3g}"),
        }


def gray(image: NDArray[Any], limits: tuple[float, float]) -> NDArray[np.uint8]:
    """An image in 256 grays, from black at the first limit to white at the second."""
    low, high = limits
    scaled = (np.nan_to_num(image.astype(np.float32), nan=low) - low) * np.float32(255 / max(high - low, 1e-30))
    return np.asarray(np.clip(np.rint(scaled), 0, 255), np.uint8)


def as_uri(pixels: NDArray[np.uint8]) -> str:
    """A gray picture as a data URI."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="png", optimize=False)
    return f"data:image/png;base64,{b64encode(file.getvalue()).decode()}"


def textured_corner(image: NDArray[Any], side: int) -> tuple[int, int]:
    """Corner of the window on a coarse grid with the largest standard deviation; of a flat image the middle one."""
    step = max(1, side // 4)
    height, width = image.shape
    corners = [(y, x) for y in range(0, height - side + 1, step) for x in range(0, width - side + 1, step)]
    spread = [float(image[y : y + side : 4, x : x + side : 4].std()) for y, x in corners]
    if not np.isfinite(spread).all() or max(spread) == min(spread):
        return (height - side) // 2, (width - side) // 2
    return corners[int(np.argmax(spread))]
