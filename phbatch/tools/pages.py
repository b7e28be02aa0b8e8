"""What people see of a comparison of rules: a table, a page, a picture."""

from __future__ import annotations

import io
import sys
from base64 import b64decode, b64encode
from collections.abc import Iterator, Sequence
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from rich.console import Console
from rich.table import Table

from phbatch.tools.comparison import ComparisonReport, Picture
from phbatch.tools.report_pictures import BARE
from phbatch.tools.residual import ResidualCheck

_COLUMNS = ("level", "drift", "noise", "stretch", "contrast", "outside", "ms_per_mpx")
_WORDS = (
    "level: of the background. drift: its largest change over the frames, in units of the contrast. noise: of the"
    " background, in the same units. stretch: largest over smallest noise. contrast: range of the smoothed frame, from"
    " 0.2 to 99.8 %. outside: fraction of pixels outside of [0, 1]. ms_per_mpx: cost per megapixel on one core. Orange:"
    " the patches that are taken for background."
)
_STYLE = (
    "body{font:15px sans-serif;margin:2em;max-width:75em}td,th{padding:.3em .8em;text-align:right}"
    "td:first-child{text-align:left}tr.best{font-weight:bold}img{max-width:100%}"
    ".places{position:relative;display:inline-block}"
    ".places i{position:absolute;border:1px solid #ff7f0e;box-sizing:border-box}"
)
_REMOVED = (
    "What is removed from the middle of the frame where most looks like structure, area averaged; gray is nothing,"
    " orange: places of structure."
)


def print_comparison(found: ComparisonReport) -> None:
    """Print the rules side by side, and the recommendation."""
    table = Table(box=None, padding=(0, 1, 0, 0))
    table.add_column("rule")
    for name in _COLUMNS:
        table.add_column(name, justify="right")
    for row in found:
        table.add_row(row.rule, *(_cell(getattr(row, name)) for name in _COLUMNS))
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    if found.positions:
        _print_drifts(found)
    for notice in found.notices:
        print(notice)
    print(f"recommended: {found.recommendation[1]}")
    if found.residual is not None:
        print(f"removed by {found.model}: {found.residual.sentence}")


def _print_drifts(found: ComparisonReport) -> None:
    """Print how far the background of each image drifts by each rule."""
    table = Table(box=None, padding=(0, 1, 0, 0))
    table.add_column("drift of")
    for row in found:
        table.add_column(row.rule, justify="right")
    for path in dict.fromkeys(found.positions):
        table.add_row(path, *(_cell(row.drifts[path]) for row in found))
    Console(width=None if sys.stdout.isatty() else 120).print(table)


def save_comparison(path: Path, found: ComparisonReport, title: str) -> None:
    """Write the comparison: a picture where `path` ends in .png, else a page with tables and pictures."""
    if path.suffix.lower() == ".png":
        path.write_bytes(_draw_curves(found, removed=True))
        return
    best, reason = found.recommendation
    head = "".join(f"<th>{escape(name)}</th>" for name in ("rule", *_COLUMNS))
    body = "".join(
        f"<tr{' class=best' if row is best else ''}><td>{escape(row.rule)}</td>"
        + "".join(f"<td>{_cell(getattr(row, name))}</td>" for name in _COLUMNS)
        + "</tr>"
        for row in found
    )
    page = (
        f"<!doctype html><meta charset=utf-8><title>{escape(title)}</title><style>{_STYLE}</style>"
        f"<h1>Normalization of {escape(title)}</h1><p>Recommended: {escape(reason)}</p>"
        f"{''.join(f'<p>{escape(notice)}</p>' for notice in found.notices)}"
        f"<table><tr>{head}</tr>{body}</table>{_drifts_part(found)}"
        f"{_embed('background over time', _draw_curves(found))}"
        f"<h2>{len(found.frames)} frames were looked at, such as</h2>"
        f"{_embed('frames', _draw_frames(found.pictures))}"
        f"{_removed_part(found)}"
        f"<p>{escape(_WORDS)}</p>"
    )
    path.write_text(page, encoding="utf-8")


def _drifts_part(found: ComparisonReport) -> str:
    """Table of the drift of each image by each rule; empty of one alone."""
    if not found.positions:
        return ""
    head = "".join(f"<th>{escape(text)}</th>" for text in ("drift of", *(row.rule for row in found)))
    body = "".join(
        f"<tr><td>{escape(path)}</td>{''.join(f'<td>{_cell(row.drifts[path])}</td>' for row in found)}</tr>"
        for path in dict.fromkeys(found.positions)
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def _removed_part(found: ComparisonReport) -> str:
    """Section of the residual check; empty where it was not asked."""
    check = found.residual
    if check is None:
        return ""
    boxes = "".join(
        f'<i style="left:{x:.3f}%;top:{y:.3f}%;width:{width:.3f}%;height:{height:.3f}%"></i>'
        for x, y, width, height in check.boxes
    )
    return (
        f"<h2>What {escape(str(found.model))} removes</h2><p>{escape(check.sentence)}</p>"
        f'<p><span class=places><img alt="what was removed" src="{check.picture}">{boxes}</span></p>'
        f"<p>{_REMOVED}</p>"
    )


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _embed(words: str, picture: bytes) -> str:
    return f'<img alt="{words}" src="data:image/png;base64,{b64encode(picture).decode()}">'


def _draw_curves(found: ComparisonReport, *, removed: bool = False) -> bytes:
    check = found.residual if removed else None
    figure = Figure(figsize=(11 if check is None else 15, 4), layout="constrained")
    left, right, *more = figure.subplots(1, 2 if check is None else 3)
    if check is not None:
        _show_removed(more[0], check, str(found.model))
    apart = len(found.times) > 1 and len({*found.times}) == 1  # images of one frame
    times = tuple(map(float, range(len(found.times)))) if apart else found.times
    for index, row in enumerate(found):
        width = max(1.0, 5.0 - 0.8 * index)  # of rules that do the same, each shows beneath the next
        for part in _images(found):
            style: dict[str, Any] = {"linewidth": width, "marker": "o", "markersize": 3, "color": f"C{index}"}
            label = row.rule if part.start == 0 else None
            left.plot(times[part], row.levels[part], label=label, **style)
            right.plot(times[part], row.noises[part], **style)
    left.set_ylabel("drift of the background / contrast")
    right.set_ylabel("noise of the background / its median")
    for axes in (left, right):
        axes.set_xlabel("image" if apart else "frame" if found.time_unit is None else f"time / {found.time_unit}")
        axes.grid(alpha=0.3)
        if apart or found.time_unit is None:
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=min(len(found), 6), fontsize=9)
    return _as_png(figure)


def _images(found: ComparisonReport) -> Iterator[slice]:
    """The frames of each image, which lie together."""
    start = 0
    for _, frames in groupby(found.positions or [""] * len(found.frames)):
        stop = start + len(list(frames))
        yield slice(start, stop)
        start = stop


def _show_removed(axes: Axes, check: ResidualCheck, model: str) -> None:
    """What was removed, with the places of structure; the picture is in percent as they are."""
    image = imread(io.BytesIO(b64decode(check.picture.partition(",")[2])))
    axes.imshow(image, cmap="gray", extent=(0, 100, 100, 0), aspect=image.shape[0] / image.shape[1])
    for x, y, width, height in check.boxes:
        axes.add_patch(Rectangle((x, y), width, height, fill=False, edgecolor="tab:orange", linewidth=0.8))
    axes.set_title(f"removed by {model}: {check.verdict}", fontsize=9)
    axes.set_axis_off()


def _draw_frames(pictures: Sequence[Picture]) -> bytes:
    """Frames side by side in one range of intensities, with the patches that are taken for background."""
    height, width = pictures[0].image.shape
    figure = Figure(figsize=(2.75 * len(pictures), 2.75 * min(max(height / width, 0.2), 3) + 0.3), layout="constrained")
    low, high = np.percentile(np.concatenate([picture.image.ravel() for picture in pictures]), (0.2, 99.8))
    shown = figure.subplots(1, len(pictures), squeeze=False, subplot_kw=BARE)[0]
    for axes, picture in zip(shown, pictures, strict=True):
        axes.imshow(picture.image, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
        for y, x, side in picture.patches:
            axes.add_patch(Rectangle((x - 0.5, y - 0.5), side, side, fill=False, edgecolor="tab:orange", linewidth=0.8))
        axes.set_title(picture.title, fontsize=9)
        axes.set_axis_off()
    return _as_png(figure)


def _as_png(figure: Figure) -> bytes:
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110)
    return picture.getvalue()
