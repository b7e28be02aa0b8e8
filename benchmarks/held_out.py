"""Which public frames train phase-2d-real and which judge a model; both scripts read them here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

DATA = Path(os.environ.get("PHBATCH_DATA", Path(__file__).parents[2] / "shared" / "data"))
"""TIFF folders of public phase-contrast images."""

SOURCES = {
    "t98g": "T98G cells, oist/Usiigaci 9501d80c, MIT",
    "caulobacter": "Caulobacter crescentus, JacobsWagnerLab/Oufti 796cf2be, MIT",
    "yeast": "budding yeast, rahi-lab/YeaZ-GUI b7e011a9, MIT",
    "zoom": "microtissue, elejeune11/woundcompute 620c1232, MIT",
}
"""Data sets that train: their left part, of frames before the last quarter."""

UNSEEN = {
    "ecoli": "Escherichia coli, JacobsWagnerLab/Oufti 796cf2be, MIT",
    "brightness-jump": "microtissue, elejeune11/woundcompute 620c1232, MIT",
}
"""Data sets of which no pixel trains."""

LEFT, RIGHT = 0.60, 0.65
"""Training sees columns before the first, judging those behind the second; the gap is wider than the halo."""

SIDE = 512
"""Of a crop that is judged."""


def training_frames() -> Iterator[tuple[str, NDArray[Any]]]:
    """Name and left part of every frame before the last quarter of its data set."""
    for name in SOURCES:
        files = _files(name)
        for path in files[: len(files) - max(1, len(files) // 4)]:
            frame = tifffile.imread(path)
            yield name, frame[:, : int(LEFT * frame.shape[1])]


def held_out_frames(per_set: int = 2) -> Iterator[tuple[str, NDArray[Any]]]:
    """Name and crop of frames that no training saw: of unseen sets the middle, of others the right, last frames."""
    for name in (*UNSEEN, *SOURCES):
        files = _files(name)
        if name in UNSEEN:
            chosen = [files[int(at)] for at in np.unique(np.linspace(0, len(files) - 1, per_set).round())]
        else:
            last = files[len(files) - max(1, len(files) // 4) :]
            chosen = [last[int(at)] for at in np.unique(np.linspace(0, len(last) - 1, per_set).round())]
        for path in chosen:
            frame = tifffile.imread(path)
            part = frame if name in UNSEEN else frame[:, int(RIGHT * frame.shape[1]) :]
            y, x = ((length - min(SIDE, length)) // 2 for length in part.shape)
            yield name, part[y : y + SIDE, x : x + SIDE]


def _files(name: str) -> list[Path]:
    return sorted(path for path in (DATA / name).iterdir() if path.suffix.lower() == ".tif")
