"""The figures of the study, as SVG."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from .cells import RULES
from .results import Results
from .tables import loss_by_shift

FOLDER = Path(__file__).parents[2] / "docs" / "benchmarks"
NAMES = ("normalization-study-rules.svg", "normalization-study-drift.svg")

_PANELS = {
    "psnr_cells": "PSNR on cells, dB",
    "psnr_background": "PSNR on background, dB",
    "empty_error": "error on empty frames, %",
    "drift": "drift over the colony, %",
}
_STYLE: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "phbatch", "font.size": 9}


def draw(results: Results, folder: Path) -> None:
    """Both figures, where the main factor was computed."""
    import matplotlib

    with matplotlib.rc_context({**_STYLE, "backend": "agg"}):
        _draw_rules(results, folder / NAMES[0])
        _draw_drift(results, folder / NAMES[1])


def _save(figure: Any, path: Path) -> None:
    from matplotlib import pyplot

    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def _draw_rules(results: Results, path: Path) -> None:
    """A point a seed, a bar their mean; filled with patches of background, open without."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(_PANELS), figsize=(10, 2.9), sharey=True)
    for panel, (measure, title) in zip(axes, _PANELS.items(), strict=True):
        for row, rule in enumerate(RULES):
            for shift, word, face in ((-0.15, "with", "C0"), (0.15, "without", "none")):
                values = results.values("rules", f"{rule}, {word} background", measure)
                at = [row + shift] * len(values)
                panel.scatter(values, at, s=18, facecolors=face, edgecolors="C0", label=f"{word} background")
                if values:
                    panel.plot([fmean(values)] * 2, [row + shift - 0.13, row + shift + 0.13], color="black")
        panel.set_title(title, fontsize=9)
        panel.grid(axis="x", alpha=0.3)
    axes[0].set_yticks(range(len(RULES)), list(RULES))
    axes[0].invert_yaxis()
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles[:2], labels[:2], loc="lower center", ncols=2, frameon=False, bbox_to_anchor=(0.5, -0.02))
    figure.subplots_adjust(bottom=0.2)
    figure.savefig(path, metadata={"Date": None}, bbox_inches="tight")
    pyplot.close(figure)


def _draw_drift(results: Results, path: Path) -> None:
    """Level of the restored background less its truth as the colony grows; and what a shift of density costs."""
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 3.2))
    for rule in RULES:
        cells = results.cells_of("rules", f"{rule}, with background")
        if cells:
            covered = 100 * np.array(cells[0]["measures"]["drift_covered"])
            left.plot(covered, np.mean([cell["measures"]["drift_levels"] for cell in cells], axis=0), label=rule)
    left.set_xlabel("covered by cells, %")
    left.set_title("restored background less its truth, % of the light", fontsize=9)
    left.axhline(0, color="gray", linewidth=0.5)
    left.legend(frameon=False, fontsize=8)
    for shift, trained, face in ((-0.2, "dense", "C1"), (0.2, "sparse", "C2")):
        other = "sparse" if trained == "dense" else "dense"
        losses = [loss_by_shift(results, rule, trained) for rule in RULES]
        rows = [row for row, found in enumerate(losses) if found]
        heights = [fmean(losses[row]) for row in rows]
        right.bar([row + shift for row in rows], heights, 0.38, color=face, label=f"trained {trained}, tested {other}")
        for row in rows:
            right.scatter([row + shift] * len(losses[row]), losses[row], s=8, color="black", zorder=3)
    right.set_xticks(range(len(RULES)), list(RULES), rotation=20)
    right.axhline(0, color="gray", linewidth=0.5)
    right.set_title("PSNR less that of training on all densities, dB", fontsize=9)
    right.legend(frameon=False, fontsize=8)
    _save(figure, path)
