"""The design: which networks are trained, and by which rule each of them restores."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from typing import Literal

from phbatch.words.normalization import Normalization

LEVEL = 1000.0
"""Counts of light in the background of every frame under an even lamp; the camera's offset comes on top."""

OFFSET = 100.0

RULES = {
    "percentile": Normalization(method="percentile"),
    "fixed": Normalization(method="fixed", value=LEVEL + OFFSET),
    "median": Normalization(method="median"),
    "mode": Normalization(method="mode"),
    "10 x median": Normalization(method="median", factor=10.0),
    "10 x mode": Normalization(method="mode", factor=10.0),
}
"""The main factor. The divisor of `fixed` is the level of a background under an even lamp, its best case."""

SEEDS = (0, 1, 2)

Group = Literal["rules", "mismatch", "shift", "factors"]
Densities = Literal["all", "dense", "sparse"]


@dataclass(frozen=True)
class Training:
    """How a network is trained; the default is the base, of which one factor is changed at a time.

    Attributes
    ----------
    rule : str
        Of `RULES`.
    background : bool
        Whether there are patches of background: a share of those of every frame, and empty frames.
    densities : {"all", "dense", "sparse"}
        Frames that are learnt from.
    light : bool
        Whether uneven light is corrected, in training and in inference.
    probabilistic : bool
        Whether the network learns a scale, too.
    patch : int
        Side in pixels. A step has as many pixels for every side.
    downscale : int
        As of `run`.
    target : {"auto", "low"}
        Whose statistic normalizes the truth: as CSBDeep its own with percentiles ("auto"), or the noisy frame's.
    longer : int
        Times the steps of all others.
    seed : int
        Of first weights, frames and patches.
    """

    rule: str = "median"
    background: bool = True
    densities: Densities = "all"
    light: bool = False
    probabilistic: bool = False
    patch: int = 64
    downscale: int = 1
    target: Literal["auto", "low"] = "auto"
    longer: int = 1
    seed: int = 0


@dataclass(frozen=True)
class Cell:
    """A network and the rule that it restores by: one measurement, and one file.

    Attributes
    ----------
    group : str
        What it is compared with.
    condition : str
        In words; the same for all seeds.
    training : Training
        Of the network.
    rule : str
        Of `RULES`, in inference.
    """

    group: Group
    condition: str
    training: Training
    rule: str

    @property
    def name(self) -> str:
        """Of its file."""
        words = f"{self.group} {self.condition} {self.training.seed}".replace(",", "").split()
        return "-".join(words)


BASE = "median, with background"
"""phbatch's own default in training, and what the project's question proposes."""

PERCENTILE = "percentile, with background"

BY_NOISY = "percentile, truth by noisy frame"
"""Percentiles as they are not CSBDeep's: those of the noisy frame normalize its truth, too."""

_BY_NOISY = Training(rule="percentile", target="low")

FACTORS = {
    "light corrected": Training(light=True),
    "probabilistic": Training(probabilistic=True),
    "patches of 32": Training(patch=32),
    "patches of 128": Training(patch=128),
    "downscale 2": Training(downscale=2),
    BY_NOISY: _BY_NOISY,
    f"{BY_NOISY}, without background": replace(_BY_NOISY, background=False),
}
"""One factor at a time from the base; the last two say what it costs that CSBDeep takes the truth's own percentiles."""

LONGER = {
    f"{rule}, three times the steps": Training(rule, longer=3) for rule in ("median", "10 x median", "percentile")
}
"""Whether what differs after the steps of all others still does later."""


def design(seeds: Iterable[int] = SEEDS) -> list[Cell]:
    """All cells in the order in which they are computed: the main factor, mismatch, shift, one factor at a time."""
    seeds = list(seeds)
    return [replace(cell, training=replace(cell.training, seed=seed)) for cell in _conditions() for seed in seeds]


_SHIFTED: tuple[Densities, ...] = ("dense", "sparse")


def _conditions() -> Iterator[Cell]:
    for rule in RULES:
        for background in (True, False):
            condition = f"{rule}, {'with' if background else 'without'} background"
            yield Cell("rules", condition, Training(rule, background), rule)
    yield Cell("mismatch", "trained median, restored percentile", Training("median"), "percentile")
    yield Cell("mismatch", "trained percentile, restored median", Training("percentile"), "median")
    for rule in RULES:
        for densities in _SHIFTED:
            yield Cell("shift", f"{rule}, trained {densities}", Training(rule, densities=densities), rule)
    for densities in _SHIFTED:
        training = replace(_BY_NOISY, densities=densities)
        yield Cell("shift", f"{BY_NOISY}, trained {densities}", training, training.rule)
    for condition, training in (*FACTORS.items(), *LONGER.items()):
        yield Cell("factors", condition, training, training.rule)


def choose(cells: Iterable[Cell], patterns: Iterable[str]) -> list[Cell]:
    """Those whose name fits a shell pattern; all where none is given.

    Examples
    --------
    >>> len(design()), len(choose(design(), ["rules-*"]))
    (114, 36)
    """
    patterns = list(patterns)
    return [cell for cell in cells if not patterns or any(fnmatch(cell.name, pattern) for pattern in patterns)]
