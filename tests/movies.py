"""Simulated time-lapses that several tests look at, made once in a process: they take longer than most tests do."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

import phbatch


def frames_of(movie: phbatch.PhaseContrast) -> NDArray[np.uint16]:
    """All noisy frames, (t, y, x), to be changed at will."""
    return _frames(movie).copy()


@lru_cache(maxsize=16)
def _frames(movie: phbatch.PhaseContrast) -> NDArray[np.uint16]:
    return np.stack([movie.frame(t) for t in range(movie.n_frames)])
