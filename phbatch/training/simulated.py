"""Pairs that need no microscope: simulated frames of many kinds of cells, optics and cameras, and their truth."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np

from phbatch.simulate import Kind, PhaseContrast
from phbatch.training.scenes import Block, Scene
from phbatch.words.axes import FrameKey

PIXEL_SIZE_UM = 0.1625
"""In the middle of those that are drawn."""

_FRAMES = 60  # of a time-lapse, of which one is taken


def draw_settings(random: np.random.Generator, least_density: float = 0.0) -> dict[str, Any]:
    """Settings of a time-lapse, drawn over the ranges of phase contrast in practice."""
    na = random.uniform(0.45, 0.9)
    return {
        "kind": str(random.choice(get_args(Kind))),
        "density": random.uniform(least_density, 0.25),
        "na": na,
        "pixel_size_um": random.uniform(0.09, 0.9 * 0.55 / (2 * na)),
        "ring_radius": random.uniform(0.4, 0.6),
        "ring_width": random.uniform(0.08, 0.2),
        "ring_transmission": random.uniform(0.15, 0.4),
        "contrast": "positive" if random.random() < 0.9 else "negative",
        "defocus_um": random.uniform(0.0, 1.5),
        "illumination": random.uniform(0.0, 0.35),
        "background_electrons": float(np.exp(random.uniform(np.log(25), np.log(1500)))),
        "gain": random.uniform(0.5, 4.0),
        "offset": random.uniform(0.0, 250.0),
        "read_noise_electrons": random.uniform(0.5, 3.0),
    }


def simulated_scenes(count: int, side: int, seed: int) -> list[Scene]:
    """Time-lapses of which one frame each is taken: noisy, and without noise.

    Parameters
    ----------
    count : int
        How many.
    side : int
        Of a frame, in pixels.
    seed : int
        Of what is drawn.
    """
    return [_scene(index, side, seed) for index in range(count)]


def _scene(index: int, side: int, seed: int) -> Scene:
    def read(key: FrameKey, random: np.random.Generator) -> tuple[Block, Block]:
        drawn = np.random.default_rng([seed, 4, index])
        movie = PhaseContrast(shape=(side, side), n_frames=_FRAMES, seed=seed * 100_003 + index, **draw_settings(drawn))
        noisy, clean = movie.pair(int(drawn.integers(_FRAMES)))
        return noisy[np.newaxis, np.newaxis, np.newaxis], clean[np.newaxis, np.newaxis, np.newaxis]

    return Scene(
        name=f"simulated {index}",
        keys=(FrameKey(0, 0, 0),),
        lengths=(1, side, side),
        channels=(1, 1),
        read=read,
        identity={"simulate": index, "side": side},
        pixel_size_um=PIXEL_SIZE_UM,
    )
