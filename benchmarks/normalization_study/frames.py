"""The frames: cells that cover nothing to 60 %, one microscope, uneven light, a flickering lamp, three noise levels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np
from numpy.typing import NDArray

from phbatch.simulate import Kind, PhaseContrast

from .cells import LEVEL, OFFSET, Densities

SIDE = 256
"""Of a frame, in pixels."""

DENSITIES: dict[Densities, tuple[float, ...]] = {
    "all": (0.0, 0.05, 0.15, 0.3, 0.45, 0.6),
    "sparse": (0.0, 0.05, 0.15),
    "dense": (0.3, 0.45, 0.6),
}
"""Shares of a frame that cells cover."""

ELECTRONS = (60.0, 400.0, 2500.0)
"""In a pixel of background: shot noise of 13, 5 and 2 % of it."""

READ_NOISE = 1.6
FRAMES = 36
"""Of a training."""

COLONY = 12
"""Frames of the growing colony."""

_KINDS: tuple[Kind, ...] = ("mixed", "round", "rods", "adherent")
_FLICKER, _UNEVEN = 0.1, 0.3
_BRIGHT = 8000.0  # saturates at eight times the background
_PER_KIND = 2  # of every density and noise
_TEST, _GROWTH = 900, 952

Float = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Sample:
    """A frame and its truth.

    Attributes
    ----------
    noisy : (y, x) ndarray of uint16
        As the camera gives it.
    truth : (y, x) ndarray of float32
        The same without noise, in counts.
    cells : (y, x) ndarray of bool
        Where cells lie.
    covered : float
        Share of the frame that they cover.
    electrons : float
        In the background: its noise.
    """

    noisy: NDArray[np.uint16]
    truth: Float
    cells: NDArray[np.bool_]
    covered: float
    electrons: float


def draw_scene(density: float, seed: int) -> tuple[Float, NDArray[np.bool_]]:
    """What even light would show, 1 in the background, and where cells lie; with more density the same and more."""
    movie = PhaseContrast(
        shape=(SIDE, SIDE),
        n_frames=1,
        seed=seed,
        kind=_KINDS[seed % len(_KINDS)],
        density=density,
        debris_per_mm2=2000.0 if density > 0 else 0.0,
        illumination=0.0,
        flicker=0.0,
        jump_probability=0.0,
        background_electrons=_BRIGHT,
        gain=1.0,
        offset=0.0,
    )
    return movie.clean(0) / np.float32(_BRIGHT), movie.cells(0)


def expose(
    scene: Float, cells: NDArray[np.bool_], electrons: float, lamp: float, field: Float, random: np.random.Generator
) -> Sample:
    """A camera's frame of a scene under a light field."""
    light = scene * field * np.float32(lamp)
    found = random.poisson(light * electrons) + READ_NOISE * random.standard_normal(scene.shape)
    noisy = np.clip(np.rint(found * (LEVEL / electrons) + OFFSET), 0, 65535).astype(np.uint16)
    truth = light * np.float32(LEVEL) + np.float32(OFFSET)
    return Sample(noisy, truth, cells, float(cells.mean()), electrons)


def _field(seed: int, uneven: float) -> Float:
    return PhaseContrast(shape=(SIDE, SIDE), seed=seed, illumination=uneven).light_field


def _flickering(random: np.random.Generator, size: float) -> float:
    return 1 + size * float(np.clip(random.standard_normal(), -2, 2))


@lru_cache(maxsize=1024)
def _sample(density: float, electrons: float, seed: int, number: int, dimmed: float) -> Sample:
    at = (number * len(DENSITIES["all"]) + DENSITIES["all"].index(density)) * len(ELECTRONS) + ELECTRONS.index(
        electrons
    )
    scene, cells = draw_scene(density, 1000 * seed + at)
    random = np.random.default_rng([14, seed, at])
    field = _field(1000 * seed + at, random.uniform(0, _UNEVEN))
    return expose(scene, cells, electrons, dimmed * _flickering(random, _FLICKER), field, random)


def training_samples(densities: Densities, seed: int, *, empty: bool, count: int = FRAMES) -> list[Sample]:
    """Frames to learn from, as many of each density and noise; without the empty ones where these are not wanted."""
    kinds = list(product(DENSITIES[densities], ELECTRONS))
    numbers = range(max(1, count // len(kinds)))
    return [_sample(*kind, seed, number, 1.0) for number in numbers for kind in kinds if empty or kind[0] > 0]


@dataclass(frozen=True, eq=False)
class HeldFrames:
    """What every network is tested on, and none learns from.

    Attributes
    ----------
    asked : sequence of float
        Density of each of `cells`, as in `DENSITIES`.
    cells, empty, dim, colony : sequence of Sample
        Frames with cells, without any, the former under half of the light, and the growing colony.
    """

    asked: Sequence[float]
    cells: Sequence[Sample]
    empty: Sequence[Sample]
    dim: Sequence[Sample]
    colony: Sequence[Sample]


@lru_cache(maxsize=1)
def held_frames() -> HeldFrames:
    """Frames of every density and noise, the same for all networks."""
    kinds = list(product(DENSITIES["all"][1:], ELECTRONS, range(_PER_KIND)))
    return HeldFrames(
        asked=[density for density, _, _ in kinds],
        cells=[_sample(*kind[:2], _TEST, kind[2], 1.0) for kind in kinds],
        empty=[_sample(0.0, electrons, _TEST, number, 1.0) for electrons in ELECTRONS for number in range(_PER_KIND)],
        dim=[_sample(*kind[:2], _TEST, kind[2], 0.5) for kind in kinds if kind[2] == 0],
        colony=_colony(),
    )


def _colony() -> list[Sample]:
    """A colony that grows from nothing to 60 % of the view, under the same uneven light, at the middle noise level."""
    field = _field(_GROWTH, _UNEVEN / 2)
    found = []
    for t, density in enumerate(np.linspace(0, max(DENSITIES["all"]), COLONY)):
        random = np.random.default_rng([_GROWTH, t])
        scene, cells = draw_scene(float(density), _GROWTH)
        found.append(expose(scene, cells, ELECTRONS[1], _flickering(random, _FLICKER / 2), field, random))
    return found
