"""Cell after cell, each a file that is written whole: a study that was stopped goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

import phbatch
from phbatch.places.durable import replace_file
from phbatch.words.errors import OutputError

from .cells import LEVEL, OFFSET, RULES, Cell
from .frames import DENSITIES, ELECTRONS, SIDE, Sample, held_frames
from .measures import measure
from .real import measure_real, real_series
from .restore import options_of, restore
from .train import BACKGROUND, PIXELS, Effort, train

VERSION = 1
"""Raised where what is computed changes, so that cells of before are not taken for those of now."""


def settings_of(effort: Effort) -> dict[str, Any]:
    """What all cells of a study share."""
    shared = {"side": SIDE, "level": LEVEL, "offset": OFFSET, "electrons": list(ELECTRONS), "pixels": PIXELS}
    densities = {name: list(shares) for name, shares in DENSITIES.items()}
    return {"version": VERSION, **asdict(effort), **shared, "background": BACKGROUND, "densities": densities}


def read_cell(folder: Path, cell: Cell, effort: Effort) -> dict[str, Any] | None:
    """What was measured before; None where it was not.

    Raises
    ------
    OutputError
        It was measured with other settings.
    """
    path = folder / "cells" / f"{cell.name}.json"
    if not path.exists():
        return None
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if record["settings"] != settings_of(effort):
        raise OutputError(f"{path} is of other settings than these; give those again, or another --folder.")
    return record


def compute_cell(folder: Path, cell: Cell, effort: Effort) -> dict[str, Any]:
    """Train, unless another cell did, restore and measure."""
    started = perf_counter()
    training = cell.training
    trained = train(training, effort, folder / "models" / _model_name(cell))
    rule = RULES[cell.rule]

    def restored(samples: Sequence[Sample]) -> list[Any]:
        frames = [sample.noisy for sample in samples]
        return restore(frames, trained.folder, rule, light=training.light, downscale=training.downscale)

    test = held_frames()
    seen = phbatch.normalize(np.stack([sample.noisy for sample in test.colony]), "tyx", **options_of(rule))
    measured = measure(
        test, restored(test.cells), restored(test.empty), restored(test.dim), restored(test.colony), list(seen)
    )
    record = {
        "settings": settings_of(effort),
        "cell": asdict(cell),
        "background_share": trained.background_share,
        "loss": trained.loss,
        "measures": measured,
        "real": measure_real(cell, trained.folder) if cell.group != "shift" else {},
        "seconds": round(perf_counter() - started, 1),
    }
    path = folder / "cells" / f"{cell.name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, (json.dumps(record, indent=1) + "\n").encode())
    return record


def _model_name(cell: Cell) -> str:
    return "-".join(f"{name}={value}" for name, value in asdict(cell.training).items()).replace(" ", "")


def compute(folder: Path, cells: Sequence[Cell], effort: Effort, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """All cells, in their order, of which those that are there are read."""
    if not real_series():
        say("PHBATCH_DATA is not set or has none of the series: real frames are left out.")
    records = []
    for number, cell in enumerate(cells, 1):
        record = read_cell(folder, cell, effort)
        if record is None:
            record = compute_cell(folder, cell, effort)
            psnr = record["measures"]["psnr"]
            say(f"{number}/{len(cells)} {cell.name}: PSNR {psnr:.2f} dB, {record['seconds']:.0f} s")
        records.append(record)
    return records
