"""The page of a training: curves, frames that were held back, noise and scale of the data, and what to change."""

from __future__ import annotations

import io
import json
from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from phbatch.tools.report_pictures import as_uri, gray
from phbatch.training.checkpoint import Epoch
from phbatch.training.scores import Example
from phbatch.training.session import TrainingResult

_PAGE = Path(__file__).parent / "page"
_SHOWN = 4


def write_training_page(path: Path, found: TrainingResult) -> None:
    """Write the page: one HTML file that works offline."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_PAGE), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.get_template("training.html.j2").render(
        found=found,
        name=Path(found.model).name,
        style=(_PAGE / "report.css").read_text(encoding="utf-8"),
        curves=_draw_curves(found.history, found.best_epoch),
        pictures=[_pictures(example) for example in found.examples[:_SHOWN]],
        card=json.dumps({name: part for name, part in found.card.items() if name != "advice"}, indent=1),
    )
    path.write_text(page, encoding="utf-8")


def _draw_curves(history: Sequence[Epoch], best: int) -> str:
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    losses, rates = figure.subplots(1, 2, width_ratios=(2, 1))
    epochs = range(1, len(history) + 1)
    losses.plot(epochs, [epoch.loss for epoch in history], label="training")
    losses.plot(epochs, [epoch.validation_loss for epoch in history], label="validation")
    losses.axvline(best, color="gray", linestyle=":", label=f"kept: epoch {best}")
    losses.set_ylabel("loss")
    losses.legend()
    rates.plot(epochs, [epoch.rate for epoch in history])
    rates.set_ylabel("learning rate")
    rates.set_yscale("log")
    for axes in (losses, rates):
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110)
    return f"data:image/png;base64,{b64encode(picture.getvalue()).decode()}"


def _pictures(example: Example) -> dict[str, Any]:
    """One range of grays for all three, that of the high frame; of the difference, gray is nothing."""
    low, high = np.percentile(example.high, (0.2, 99.8))
    limits = (float(low), float(high))
    difference = example.restored - example.high
    reach = float(np.percentile(np.abs(difference), 99.5)) or 1.0
    return {
        "example": example,
        "reach": f"{reach:.3g}",
        "images": [
            ("low", as_uri(gray(example.low, limits))),
            ("restored", as_uri(gray(example.restored, limits))),
            ("high", as_uri(gray(example.high, limits))),
            ("restored minus high", as_uri(gray(difference, (-reach, reach)))),
        ],
    }
