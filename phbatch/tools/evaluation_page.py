"""What people see of an evaluation: a table, a picture, a file of scores."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from phbatch.places.table_file import POSITION, write_rows
from phbatch.tools.evaluation import MEASURES, Calibration, Evaluation, Example
from phbatch.tools.report_pictures import BARE
from phbatch.tools.scores import COLUMNS

Panel = tuple[str, NDArray[np.float32], tuple[float, float]]

_NAMES, _FORMS = ("PSNR / dB", "SSIM", "NRMSE"), ("{:.2f}", "{:.4f}", "{:.4f}")
_POSITIONS_SHOWN = 24

_GROUPS = {
    "whole frame": "",
    "scale and offset fitted": "si_",
    "cells": "_cells",
    "background": "_background",
    "input": "input_",
}


def print_evaluation(found: Evaluation) -> None:
    """Print mean scores, of positions, too, the worst frame, and what a probabilistic network's scale is worth."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("mean over frames")
    for name in _NAMES:
        table.add_column(name, justify="right")
    for group, mark in _GROUPS.items():
        values = [found.mean(f"{name}{mark}" if mark.startswith("_") else f"{mark}{name}") for name in MEASURES]
        if values[0] is not None:
            table.add_row(group, *map(_cell, values, _FORMS))
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    if len(found.positions) > 1:
        _print_positions(found)
    worst = found.worst
    gain = "" if found.gain is None else f", {found.gain:+.2f} dB over the input"
    several = f" of {len(found.positions)} positions" if len(found.positions) > 1 else ""
    print(f"{len(found.rows)} frames{several}{gain}; worst {worst.key}: {worst.psnr:.2f} dB, SSIM {worst.ssim:.4f}")
    if found.calibration is not None:
        print(found.calibration.sentence)


def save_evaluation(path: str | Path, found: Evaluation) -> None:
    """Write the scores of all frames as .csv, .json or .parquet, or a picture as .png.

    Parameters
    ----------
    path : str or Path
        File to write.
    found : Evaluation
        What `phbatch.evaluate` returned.
    """
    if Path(path).suffix.lower() != ".png":
        columns = COLUMNS if "" in found.positions else (POSITION, *COLUMNS)
        write_rows(str(path), columns, (row.as_dict() for row in found.rows))
        return
    shown = _panels(found.example)
    figure = Figure(figsize=(3.2 * len(shown), 6.6), layout="constrained")
    upper, lower = figure.subfigures(2, 1, squeeze=False)[:, 0]
    curves = upper.subplots(1, 2 if found.calibration is None else 3)
    _draw_scores(curves[0], found, "psnr", "PSNR / dB")
    _draw_scores(curves[1], found, "ssim", "SSIM")
    if found.calibration is not None:
        _draw_calibration(curves[2], found.calibration)
    for axes, (title, image, limits) in zip(lower.subplots(1, len(shown), subplot_kw=BARE), shown, strict=True):
        axes.imshow(image, cmap="gray", vmin=limits[0], vmax=limits[1], interpolation="nearest")
        axes.set_title(title, fontsize=9)
        axes.set_axis_off()
        if title == "truth" and found.example.cells.any() and not found.example.cells.all():
            axes.contour(found.example.cells, levels=[0.5], colors="tab:orange", linewidths=0.7)
    figure.savefig(path, format="png", dpi=110)


def _print_positions(found: Evaluation) -> None:
    """Mean scores of every position, of many those of the lowest PSNR, and what was won over the input."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("position")
    for name in (*_NAMES, "gain / dB"):
        table.add_column(name, justify="right")
    lowest = sorted(found.positions, key=lambda path: found.mean("psnr", path) or 0.0)[:_POSITIONS_SHOWN]
    for path in found.positions:
        if path in lowest:
            values = [*(found.mean(name, path) for name in MEASURES), found.gain_of(path)]
            table.add_row(path, *map(_cell, values, (*_FORMS, "{:+.2f}")))
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    if len(lowest) < len(found.positions):
        print(f"of {len(found.positions)} positions those of the lowest PSNR; all are in -o FILE.csv and --json")


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def _draw_scores(axes: Axes, found: Evaluation, name: str, label: str) -> None:
    at = np.arange(len(found.rows))
    for mark, words in (("", "restored"), ("_cells", "cells"), ("_background", "background"), ("input_", "input")):
        named = f"{name}{mark}" if not mark or mark.startswith("_") else f"{mark}{name}"
        values = [getattr(row, named) for row in found.rows]
        if any(value is not None for value in values):
            drawn = np.array([np.nan if value is None else value for value in values], np.float64)
            style, width = "-" if len(found.positions) == 1 else "", 1 if mark else 2
            axes.plot(at, drawn, marker="o", markersize=3, linestyle=style, linewidth=width, label=words)
    axes.set_xlabel("frame" if len(found.positions) == 1 else "frame, position after position")
    axes.set_ylabel(label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)


def _draw_calibration(axes: Axes, found: Calibration) -> None:
    axes.plot([0, 1], [0, 1], color="gray", linewidth=1)
    axes.plot(found.expected, found.found, marker="o", markersize=3)
    axes.set_xlabel("share that an interval should hold")
    axes.set_ylabel("share that it holds")
    axes.grid(alpha=0.3)


def _panels(example: Example) -> list[Panel]:
    """Images of the worst frame in the truth's contrast, and the error about gray."""
    low, high = (float(value) for value in np.nanpercentile(example.truth, (0.2, 99.8)))
    error = example.restored - example.truth
    reach = float(np.nanpercentile(np.abs(error), 99.5)) or 1.0
    limits = (low, high if high > low else low + 1)
    panels: list[Panel] = [] if example.before is None else [("input", example.before, limits)]
    y, x = example.corner
    return [
        *panels,
        (f"restored: {example.frame} y {y} x {x}", example.restored, limits),
        ("truth", example.truth, limits),
        (f"restored - truth: ±{reach:.2g}", error, (-reach, reach)),
    ]
