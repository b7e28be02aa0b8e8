"""Opening the pairs of a training, and refusing those that are none: grids, channels, scenes, shifts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from phbatch.computing.machine import machine_of
from phbatch.frames.light import Corrections, Preparation, Profile
from phbatch.inputs.image import Source
from phbatch.inputs.light_profile import read_profile
from phbatch.inputs.opening import open_input
from phbatch.inputs.pixel_size import MICROMETERS
from phbatch.inputs.positions import list_images
from phbatch.inputs.presence import require_chunks
from phbatch.kernels.shift import FARTHEST, SIGNIFICANT, Shift, find_shift
from phbatch.planning.resolve import resolve_statistics
from phbatch.running.illumination import profile_of
from phbatch.training.scenes import Scene, read_both
from phbatch.words.axes import FrameKey
from phbatch.words.errors import InputError, UsageError
from phbatch.words.events import Listener, Notice
from phbatch.words.settings import RunSettings
from phbatch.words.training import TrainingSettings

LARGEST_SHIFT = 1.0
"""Pixels between a low and a high frame from which on a network learns to blur."""

_LOOKED_AT = 6
_TOLERANCE = 0.01


@dataclass(frozen=True)
class Opened:
    """An image of a training: the frames that were chosen of it, its light, and channels of a frame of the network."""

    name: str
    source: Source
    keys: tuple[FrameKey, ...]
    channels: int
    corrections: Corrections | None

    def as_scene(self, name: str, other: Opened) -> Scene:
        """The pairs of this image and one of high frames."""
        z, y, x = self.source.shape[2:]
        channels = (self.channels, other.channels)
        return Scene(
            name=name,
            keys=self.keys,
            lengths=(z if self.keys[0].z is None else 1, y, x),
            channels=channels,
            read=read_both(self.source, other.source, channels),
            corrections=(self.corrections, other.corrections),
            identity={"low": self.source.identity(pixels=False), "high": other.source.identity(pixels=False)},
            pixel_size_um=pixel_size_um(self.source),
        )


@contextmanager
def open_pairs(
    pairs: Sequence[tuple[str | Path, str | Path]],
    settings: RunSettings,
    training: TrainingSettings,
    listener: Listener,
) -> Iterator[list[Scene]]:
    """While inside: the positions of all pairs, checked, with their light.

    Raises
    ------
    InputError
        The frames of a pair lie on different grids, or show different scenes.
    UsageError
        One of the two is a plate and the other is not, or they have other positions.
    """
    with ExitStack() as stack:
        scenes = []
        for low, high in pairs:
            lows, highs = list_images(low, settings), list_images(high, settings)
            if [*lows] != [*highs]:
                raise UsageError(
                    f"{low} and {high} are not the same positions ({len(lows)} and {len(highs)}); give images, or"
                    " plates of the same wells and fields."
                )
            for path in lows:
                name = f"{Path(str(low).rstrip('/')).name}/{path}".rstrip("/")
                both = (lows[path], highs[path])
                opened = [stack.enter_context(_open(each, settings, training, listener)) for each in both]
                scenes.append(_pair_up(opened[0], opened[1], name, training, listener))
        yield scenes


@contextmanager
def open_clean(
    path: str | Path, settings: RunSettings, training: TrainingSettings, listener: Listener
) -> Iterator[list[Scene]]:
    """While inside: the positions of good frames, each of which is its own pair."""
    with ExitStack() as stack:
        scenes = []
        for position, place in list_images(path, settings).items():
            found = stack.enter_context(_open(place, settings, training, listener))
            name = f"{Path(str(path).rstrip('/')).name}/{position}".rstrip("/")
            scenes.append(found.as_scene(name, found))
        yield scenes


@contextmanager
def _open(path: str, settings: RunSettings, training: TrainingSettings, listener: Listener) -> Iterator[Opened]:
    source = open_input(path, settings)
    for text in source.notices:
        listener(Notice(text))
    machine = machine_of(None)
    resolved = resolve_statistics(settings, source, available_bytes=machine.available_bytes, cores=machine.cores)
    times, channels = resolved.geometry.times, resolved.geometry.channels
    for text in require_chunks(source, times, channels):
        listener(Notice(text))
    volumes = training.dims == "3"
    if volumes and source.shape[2] < training.patch_depth:
        raise InputError(
            f"{path} has {source.shape[2]} planes along z and a patch takes {training.patch_depth}; lower"
            " --patch-depth, or leave --dims out."
        )
    starts = channels[:1] if training.together else channels
    if training.together and channels != tuple(range(channels[0], channels[0] + len(channels))):
        raise UsageError("--together takes all channels of the image; leave --channel out.")
    keys = tuple(
        FrameKey(t, c, z) for t in times for c in starts for z in ([None] if volumes else range(source.shape[2]))
    )
    with profile_of(settings, source, resolved.geometry, listener) as place:
        profile = Profile(*read_profile(place)) if place else None
        count = len(channels) if training.together else 1
        yield Opened(path, source, keys, count, _corrections(profile, resolved.recipe.preparation))


def _corrections(profile: Profile | None, preparation: Preparation) -> Corrections | None:
    if profile is None:
        return None
    return cache(lambda c, z: profile.correction(preparation, c, z))


def _pair_up(low: Opened, high: Opened, name: str, training: TrainingSettings, listener: Listener) -> Scene:
    _require_same_grid(low.source, high.source, low.name, high.name, together=training.together)
    if low.keys != high.keys:
        raise InputError(
            f"{low.name} and {high.name} have other frames ({len(low.keys)} and {len(high.keys)}); choose those of both"
            " with --frames and --channel."
        )
    return align(low.as_scene(name, high), register=training.registers, listener=listener)


def _require_same_grid(one: Source, other: Source, low: str, high: str, *, together: bool) -> None:
    for axis, first, second in zip("tczyx", one.shape, other.shape, strict=True):
        if first != second and not (axis == "c" and together):
            raise InputError(
                f"{low} and {high} are {first} and {second} along {axis}, and the frames of a pair must lie on one"
                " grid; crop or resample one of them."
            )
    names = one.metadata.channel_names, other.metadata.channel_names
    if all(names) and not together and names[0] != names[1]:
        raise InputError(
            f"{low} has the channels {', '.join(names[0])} and {high} {', '.join(names[1])}; give images of the same"
            " channels, or name them with --channel."
        )
    sizes = pixel_size_um(one), pixel_size_um(other)
    if sizes[0] and sizes[1] and abs(sizes[0] / sizes[1] - 1) > _TOLERANCE:
        raise InputError(
            f"{low} has pixels of {sizes[0]:g} micrometers and {high} of {sizes[1]:g}, and the frames of a pair must"
            " lie on one grid; resample one of them, or say --pixel-size where that is wrong."
        )


def pixel_size_um(source: Source) -> float | None:
    """Edge of a pixel in micrometers, where the image says it."""
    at = source.metadata.axes.index("x")
    factor = MICROMETERS.get(source.metadata.units[at] or "")
    size = None if factor is None else source.metadata.scale[at] * factor
    return size if size and 0 < size < float("inf") else None


def align(scene: Scene, *, register: bool, listener: Listener) -> Scene:
    """Measure the shift of a pair on some of its frames; refuse other scenes, warn of a shift, or have it undone.

    Raises
    ------
    InputError
        No frame of the two has structure in common.
    """
    picked = np.unique(np.linspace(0, len(scene.keys) - 1, _LOOKED_AT).round().astype(int))
    found = [find_shift(*_middle_planes(scene, scene.keys[index])) for index in picked]
    farthest = FARTHEST * min(scene.lengths[-2:])
    seen = [shift for shift in found if shift.height >= SIGNIFICANT and shift.length <= farthest]
    if not seen:
        raise InputError(
            f"the low and high frames of {scene.name} show other scenes, or nothing: within {farthest:.0f} px no peak"
            f" of their correlation reaches {SIGNIFICANT:g} standard deviations in {len(found)} frames; give frames of"
            " the same cells."
        )
    y, x = (float(np.median([getattr(shift, axis) for shift in seen])) for axis in "yx")
    shift = Shift(y, x, max(each.height for each in seen))
    sharp = [each for each in seen if each.height >= 2 * SIGNIFICANT]
    spread = max((np.hypot(each.y - y, each.x - x) for each in sharp), default=0.0)
    if spread > LARGEST_SHIFT:
        listener(
            Notice(
                f"the shift between low and high frames of {scene.name} differs by {spread:.1f} px between frames,"
                " which nothing here undoes: what moves between the two is learnt as blur.",
                warning=True,
            )
        )
    if register and shift.length > 0.05:
        listener(Notice(f"high frames of {scene.name} are moved by {-y:.2f}, {-x:.2f} px (y, x) onto the low ones."))
        return replace(scene, shift=shift)
    if shift.length > LARGEST_SHIFT:
        listener(
            Notice(
                f"high frames of {scene.name} lie {y:.2f} px lower and {x:.2f} px further right than the low ones,"
                " and a network learns that as blur: add --register.",
                warning=True,
            )
        )
    return scene


def _middle_planes(scene: Scene, key: FrameKey) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Of the first channel of both frames."""
    low, high = (block[0, 0] for block in scene.read(key, np.random.default_rng(0)))
    return low[len(low) // 2].astype(np.float32), high[len(high) // 2].astype(np.float32)
