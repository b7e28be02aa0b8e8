"""Pictures as PNG: a profile of light, images side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from phbatch.running.illumination import IlluminationResult
from phbatch.tools.report_pictures import BARE


def save_profile(path: Path, found: IlluminationResult) -> None:
    """Save a picture of a profile: the background of each channel (its middle plane) over its mean, and two sections.

    Parameters
    ----------
    path : Path
        PNG to write.
    found : IlluminationResult
        What `phbatch.illumination` returned.
    """
    backgrounds = found.profile.background[:, found.profile.background.shape[1] // 2]
    figure = Figure(figsize=(9.5, 3.6 * len(backgrounds)), layout="constrained")
    rows = figure.subplots(len(backgrounds), 2, squeeze=False)
    for channel, (background, (image, sections)) in enumerate(zip(backgrounds, rows, strict=True)):
        relative = background / background.mean(dtype=np.float64)
        reach = max(float(np.abs(relative - 1).max()), 1e-3)
        shown = image.imshow(relative, cmap="RdBu_r", vmin=1 - reach, vmax=1 + reach)
        image.set_title(f"channel {channel}: background / mean")
        image.set_axis_off()
        figure.colorbar(shown, ax=image)
        height, width = relative.shape
        sections.plot(np.arange(width) - width / 2, relative[height // 2], label="along x, middle row")
        sections.plot(np.arange(height) - height / 2, relative[:, width // 2], label="along y, middle column")
        sections.set_xlabel("pixels from the middle")
        sections.legend(fontsize=8)
    figure.savefig(path, dpi=110)


def save_before_after(path: Path, images: Sequence[tuple[str, NDArray[Any]]], crop: int = 160) -> None:
    """Save a picture of images side by side, whole above and a crop of the most textured place below.

    Parameters
    ----------
    path : Path
        PNG to write.
    images : sequence of (title, (y, x) ndarray)
        Of one shape and one range of intensities; the last sets the contrast.
    crop : int
        Side of the crop in pixels.
    """
    reference = images[-1][1]
    low, high = np.percentile(reference, (0.1, 99.9))
    crop = min(crop, *reference.shape)
    y, x = _textured_corner(reference, crop)
    with mpl.rc_context({"font.size": 11}):
        figure = Figure(figsize=(4.2 * len(images), 8.6), layout="constrained")
        axes = figure.subplots(2, len(images), squeeze=False, subplot_kw=BARE)
        for column, (title, image) in enumerate(images):
            for row, part in enumerate((image, image[y : y + crop, x : x + crop])):
                axes[row][column].imshow(part, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
                axes[row][column].set_axis_off()
            axes[0][column].set_title(title)
            axes[0][column].add_patch(Rectangle((x, y), crop, crop, fill=False, edgecolor="tab:orange"))
        figure.savefig(path, dpi=110)


def _textured_corner(image: NDArray[Any], crop: int) -> tuple[int, int]:
    """Corner of the window, of those on a coarse grid, with the largest standard deviation."""
    step = max(1, crop // 4)
    corners = [
        (y, x) for y in range(0, image.shape[0] - crop + 1, step) for x in range(0, image.shape[1] - crop + 1, step)
    ]
    return max(corners, key=lambda at: float(image[at[0] : at[0] + crop, at[1] : at[1] + crop].std()))
