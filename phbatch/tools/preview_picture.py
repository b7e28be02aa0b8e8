"""A preview as a picture, and in a terminal."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.console import Console
from rich.style import Style
from rich.text import Text

from phbatch.kernels.downsample import area_average
from phbatch.tools.preview import Preview, PreviewRow
from phbatch.tools.report_pictures import BARE, gray

_INCHES = 3.0
_COLUMNS = 4
_IN_TERMINAL = ("raw", "normalized", "restored", "removed")

Panel = tuple[str, NDArray[Any] | None, tuple[float, float]]


def save_preview(path: Path, found: Preview) -> None:
    """Save a preview as PNG: of each frame raw and by each rule above, and what the network does below.

    Each kind of picture has one contrast for all frames, which stands above it, so that flicker shows.

    Parameters
    ----------
    path : Path
        PNG to write.
    found : Preview
        What `phbatch.preview` returned.
    """
    rows = [_panels(found, row) for row in found.rows]
    lines = [panels[at : at + _COLUMNS] for panels in rows for at in range(0, len(panels), _COLUMNS)]
    starts = [index for panels in rows for index in range(0, len(panels), _COLUMNS)]
    figure = Figure(figsize=(_INCHES * _COLUMNS, (_INCHES + 0.35) * len(lines) + 0.7), layout="constrained")
    axes = figure.subplots(len(lines), _COLUMNS, squeeze=False, subplot_kw=BARE)
    names = iter(found.rows)
    for line, start, cells in zip(lines, starts, axes, strict=True):
        for cell in cells:
            cell.set_axis_off()
        for cell, (title, image, limits) in zip(cells, line, strict=False):
            if image is not None:
                cell.imshow(image, cmap="gray", vmin=limits[0], vmax=limits[1], interpolation="nearest")
            else:
                cell.text(0.5, 0.5, "no scale", ha="center", va="center", transform=cell.transAxes)
            cell.set_title(title, fontsize=9)
        if start == 0:
            row = next(names)
            flags = f" ({', '.join(row.flags)})" if row.flags else ""
            corner = f" y {row.corner[0]} x {row.corner[1]}" if row.corner != found.corner else ""
            cells[0].set_title(f"{row.frame}{corner}{flags}, {line[0][0]}", fontsize=9, fontweight="bold")
    y, x = found.corner
    model = f", restored by {found.model} after {found.model_rule}" if found.model else ""
    figure.suptitle(f"{found.side} x {found.side} pixels from y {y}, x {x}{model}", fontsize=10)
    figure.savefig(path, format="png", dpi=110)


def print_preview(found: Preview) -> None:
    """Show raw, normalized, restored and removed crops in a terminal of colours; elsewhere nothing."""
    console = Console()
    if not (sys.stdout.isatty() and console.color_system in ("256", "truecolor")):
        return
    for row in found.rows:
        panels = [panel for panel in _panels(found, row) if panel[0].partition(":")[0] in _IN_TERMINAL]
        if len(panels) < 2:
            panels = _panels(found, row)[:_COLUMNS]
        width = max(8, console.width // 2 - 1)
        console.print(Text(row.frame, style="bold"))
        for pair in (panels[:2], panels[2:4]):
            titles = (title.partition(":")[0][: width - 1] for title, _, _ in pair)
            console.print(Text("".join(f"{title:<{width + 1}}" for title in titles)))
            console.print(as_blocks([(image, limits) for _, image, limits in pair], width))


def as_blocks(images: list[tuple[NDArray[Any] | None, tuple[float, float]]], width: int) -> Text:
    """Images side by side, of so many characters each: two pixels, one above the other, in every character."""
    grays = []
    for image, limits in images:
        pixels = np.zeros((width, width), np.uint8)
        if image is not None:
            small = area_average(image.astype(np.float32), max(1, min(image.shape) // width))
            at = [np.linspace(0, length - 1, width).round().astype(int) for length in small.shape]
            pixels = gray(small, limits)[np.ix_(*at)]
        grays.append(pixels[: width // 2 * 2])
    text = Text(no_wrap=True)
    for y in range(0, width // 2 * 2, 2):
        for pixels in grays:
            for upper, lower in zip(pixels[y].tolist(), pixels[y + 1].tolist(), strict=True):
                text.append("▀", Style(color=_color(upper), bgcolor=_color(lower)))
            text.append(" ")
        text.append("\n")
    return text


def _color(value: int) -> str:
    return f"#{value:02x}{value:02x}{value:02x}"


def _panels(found: Preview, row: PreviewRow) -> list[Panel]:
    """What is drawn of a frame, with the contrast that it has in all frames; lines are filled before the network's."""
    raw = _limits([each.raw for each in found.rows])
    panels: list[Panel] = [(f"raw: {_span(raw)}", row.raw, raw)]
    for name, image in row.rules.items():
        limits = _limits([each.rules[name] for each in found.rows])
        panels += [(f"{name.removesuffix(' px')}: {_span(limits)}", image, limits)]
    if row.restored is None:
        return panels
    panels += [("", np.ones((1, 1)), (0.0, 1.0))] * (-len(panels) % _COLUMNS)
    limits = _limits([each.normalized for each in found.rows])
    reach = _reach([each.removed for each in found.rows])
    rest = _reach([each.residual for each in found.rows])
    return [
        *panels,
        (f"normalized: {_span(limits)}", row.normalized, limits),
        (f"restored: {_span(limits)}", row.restored, limits),
        (f"removed: ±{reach:.2g}", row.removed, (-reach, reach)),
        (f"residual (smoothed): ±{rest:.2g}", row.residual, (-rest, rest)),
    ]


def _span(limits: tuple[float, float]) -> str:
    low, high = (f"{limit:.0f}" if abs(limit) >= 1000 else f"{limit:.3g}" for limit in limits)
    return f"{low} to {high}"


def _limits(images: list[NDArray[Any] | None]) -> tuple[float, float]:
    pixels = [image.ravel() for image in images if image is not None]
    if not pixels:
        return 0.0, 1.0
    low, high = np.nanpercentile(np.concatenate(pixels), (0.2, 99.8))
    return float(low), float(high if high > low else low + 1)


def _reach(images: list[NDArray[Any] | None]) -> float:
    pixels = [np.abs(image).ravel() for image in images if image is not None]
    return (float(np.nanpercentile(np.concatenate(pixels), 99.5)) if pixels else 0.0) or 1.0
