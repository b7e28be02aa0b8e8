"""Low frames from good ones: the camera and optics of `phbatch.simulate` where the frames say what these were.

Their noise is measured in themselves: blocks of one intensity, the quiet ones of them, and a line through variances
over intensity (`phbatch.kernels.residual.photon_curve`). Its slope is the camera's gain, and its offset the square of
its read noise. A low frame is one of an exposure that is shorter by a factor, in the counts of the good one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from phbatch.kernels.downsample import area_average, upscale
from phbatch.kernels.residual import photon_curve
from phbatch.training.scenes import Block, Scene
from phbatch.words.events import Listener, Notice

EXPOSURE = (4.0, 64.0)
"""Factors that an exposure is shortened by, drawn evenly on a logarithmic scale: 2 to 8 times the frames' own noise."""

BLUR = (0.5, 1.5)
"""Standard deviations, in pixels, of the Gaussian that stands for a frame out of focus."""

FLICKER = 0.05
"""Standard deviation of the lamp's level, as a part of it."""

_FRAMES = 4
_DOWNSCALE = 2
_NO_NOISE = 1e-3  # of the level: gain that is taken where frames have no noise to measure


@dataclass(frozen=True)
class Camera:
    """What the noise of frames says of their camera.

    Attributes
    ----------
    gain : float
        Variance per count: counts per electron.
    read_noise : float
        Standard deviation without light, in counts.
    measured : bool
        Whether there was noise to measure.
    """

    gain: float
    read_noise: float
    measured: bool = True

    def expose(self, image: NDArray[np.float32], shorter: float, random: np.random.Generator) -> NDArray[np.float32]:
        """A frame as of an exposure that is shorter by a factor, in the counts of the good one."""
        noisy = np.maximum(image, 0)
        if self.gain > 0:
            unit = np.float32(self.gain * shorter)  # counts of the result per electron
            noisy = random.poisson(noisy / unit).astype(np.float32) * unit
        noisy += np.float32(self.read_noise * shorter) * random.standard_normal(image.shape, np.float32)
        return noisy


def measure_camera(scenes: Sequence[Scene]) -> Camera:
    """Gain and read noise from the noise of some good frames of all positions."""
    frames = [(scene, key) for scene in scenes for key in scene.keys]
    picked = np.unique(np.linspace(0, len(frames) - 1, _FRAMES).round().astype(int))
    curves, levels = [], []
    for index in picked:
        scene, key = frames[int(index)]
        high = scene.read(key, np.random.default_rng(0))[1][0, 0]
        plane = high[len(high) // 2].astype(np.float32)
        curves.append(photon_curve(plane))
        levels.append(float(np.median(plane)))
    offset, slope = np.median(np.array(curves), axis=0)
    level = float(np.median(levels))
    if offset + slope * level <= (1e-5 * level) ** 2:
        return Camera(_NO_NOISE * max(level, 1e-30), 0.0, measured=False)
    return Camera(float(slope), float(np.sqrt(offset)))


def degrade_scenes(
    scenes: Sequence[Scene], names: Sequence[str], listener: Listener
) -> tuple[list[Scene], Camera | None]:
    """Positions of good frames as positions of pairs.

    Parameters
    ----------
    scenes : sequence of Scene
        Of good frames alone.
    names : sequence of str
        What they go through, of `phbatch.words.training.DEGRADATIONS`.
    listener : callable
        Told what was measured.
    """
    camera = measure_camera(scenes) if "noise" in names else None
    if camera is not None:
        listener(Notice(_describe(camera)))
    return [_degraded(scene, tuple(names), camera) for scene in scenes], camera


def _describe(camera: Camera) -> str:
    how = "their noise over intensity" if camera.measured else "no noise is found in the frames, so a gain is assumed"
    low, high = EXPOSURE
    return (
        f"degrade: gain {camera.gain:.3g}, read noise {camera.read_noise:.3g} counts ({how}); exposures are shorter by"
        f" {low:g} to {high:g}."
    )


def _degraded(scene: Scene, names: tuple[str, ...], camera: Camera | None) -> Scene:
    def read(key: Any, random: np.random.Generator) -> tuple[Block, Block]:
        return make_worse(scene.read(key, random)[1], names, camera, random)

    return replace(scene, read=read, varies=True, identity=dict(scene.identity) | {"degrade": list(names)})


def make_worse(
    high: Block, names: Sequence[str], camera: Camera | None, random: np.random.Generator
) -> tuple[Block, Block]:
    """A low frame, and its truth, of one good frame ``(1, c, z, y, x)``; both keep its dtype.

    The lamp's level is that of both, so that the truth stays what the low frame would be without loss.
    """
    truth = high.astype(np.float32)
    if "flicker" in names:
        truth *= np.float32(1 + FLICKER * np.clip(random.standard_normal(), -3, 3))
    low = truth.copy()
    sigma = random.uniform(*BLUR)
    for index in np.ndindex(low.shape[:3]):
        if "defocus" in names:
            low[index] = gaussian_filter(low[index], sigma)
        if "downscale" in names:
            low[index] = upscale(area_average(low[index], _DOWNSCALE), _DOWNSCALE, low[index].shape)
    if camera is not None:
        shorter = float(np.exp(random.uniform(*np.log(EXPOSURE))))
        low = camera.expose(low, shorter, random)
    return _as_dtype(low, high.dtype), _as_dtype(truth, high.dtype) if "flicker" in names else high


def _as_dtype(image: NDArray[np.float32], dtype: np.dtype[Any]) -> Block:
    if dtype.kind == "f":
        return image.astype(dtype)
    limits = np.iinfo(dtype)
    return np.clip(np.rint(image), limits.min, limits.max).astype(dtype)
