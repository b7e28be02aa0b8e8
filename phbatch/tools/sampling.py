"""Frames that are looked at before anything is run: some of an image, or of a few among many images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from phbatch.computing.machine import machine_of
from phbatch.frames.light import PreparedFrame, Profile, prepare_frame
from phbatch.inputs.image import Source
from phbatch.inputs.light_profile import read_profile
from phbatch.inputs.opening import open_input
from phbatch.inputs.positions import find_positions
from phbatch.inputs.presence import require_chunks
from phbatch.planning.resolve import ResolvedStatistics, resolve_statistics
from phbatch.running.illumination import profile_of
from phbatch.words.axes import FrameKey, to_region
from phbatch.words.errors import UsageError
from phbatch.words.events import ignore
from phbatch.words.settings import RunSettings

FEW = 3
"""Images that are looked at of many, where none were chosen: the first, the middle and the last."""

MOST = 12
"""Images that are looked at of those that were chosen."""


@dataclass(frozen=True)
class FewImages:
    """Where the images lie that are looked at, by their paths among many, and what is said of the others."""

    places: Mapping[str, str]
    notices: tuple[str, ...] = ()


def few_images(input: str | Path, settings: RunSettings, frames: int = 0) -> FewImages:
    """Some of many images, evenly spread; of one that is alone, itself.

    Parameters
    ----------
    input : str or Path
        As for `phbatch.run`.
    settings : RunSettings
        Wells and fields.
    frames : int
        Frames that are wanted of all together: where an image has few of them, more images are taken.
    """
    found = find_positions(str(input), settings)
    if found is None:
        return FewImages({"": str(input)})
    places = found.places
    chosen = settings.wells is not None or settings.fields is not None
    most = MOST if chosen else FEW
    if frames and not chosen:
        first = open_input(next(iter(places.values())), settings)
        most = min(MOST, max(FEW, -(-frames // max(1, len(settings.select_frames(first.shape[0]))))))
    picked = np.unique(np.linspace(0, len(places) - 1, most).round().astype(int))
    paths = [list(places)[at] for at in picked]
    if len(paths) == len(places):
        return FewImages(places, found.notices)
    remedy = {"plate": "--wells and --fields", "collection": "--fields"}.get(found.kind, "a narrower pattern")
    said = f"{len(paths)} of {len(places)} images are looked at: {', '.join(paths)}; choose others with {remedy}."
    return FewImages({path: places[path] for path in paths}, (*found.notices, said))


@dataclass(frozen=True)
class SampledFrame:
    """A frame of an image.

    Attributes
    ----------
    position : str
        Path of the image among many; empty of one alone.
    key : FrameKey
        Of the frame in the image.
    """

    position: str
    key: FrameKey

    def __str__(self) -> str:
        return f"{self.position}/{self.key}".lstrip("/")

    @property
    def time(self) -> str:
        """Which time of which image, in short."""
        return f"{self.position}/t{self.key.t}" if self.position else str(self.key.t)


class Sampler:
    """Frames sampled over time, prepared as those of a run; one in memory at once."""

    def __init__(self, source: Source, resolved: ResolvedStatistics, samples: int, profile: Profile | None) -> None:
        times, first, middle = resolved.geometry.times, resolved.geometry.channels[0], source.shape[2] // 2
        picked = np.unique(np.linspace(0, len(times) - 1, samples).round())
        self.keys = [FrameKey(times[int(index)], first, middle) for index in picked]
        self.source = source
        self._preparation = resolved.recipe.preparation
        self._correction = None if profile is None else profile.correction(self._preparation, first, middle)

    @classmethod
    @contextmanager
    def open(cls, source: Source, settings: RunSettings, samples: int) -> Iterator[Sampler]:
        """While inside, with a profile of light that is estimated where one is asked for."""
        machine = machine_of(None)
        resolved = resolve_statistics(settings, source, available_bytes=machine.available_bytes, cores=machine.cores)
        if settings.channel is not None and len(resolved.geometry.channels) > 1:
            raise UsageError(f"--channel {settings.channel} are several and one is looked at here; give one of them.")
        require_chunks(source, resolved.geometry.times, resolved.geometry.channels)
        with profile_of(settings, source, resolved.geometry, ignore) as place:
            profile = Profile(*read_profile(place)) if place else None
            yield cls(source, resolved, samples, profile)

    def frame(self, key: FrameKey) -> PreparedFrame:
        """One frame, sampled or not."""
        start, stop = (key.t, key.c, key.z or 0), (key.t + 1, key.c + 1, (key.z or 0) + 1)
        block = self.source.read_or_refuse(to_region((*start, 0, 0), (*stop, *self.source.shape[3:])))
        correction = self._correction
        corrections = None if correction is None else lambda _c, _z: correction
        return prepare_frame(block, (0, 0, 0), self._preparation, corrections)


class Samples:
    """Frames sampled over time of some images, image after image."""

    def __init__(self, samplers: Mapping[str, Sampler]) -> None:
        self.samplers = samplers
        self.keys = [SampledFrame(path, key) for path, sampler in samplers.items() for key in sampler.keys]

    @classmethod
    @contextmanager
    def open(cls, places: Mapping[str, str], settings: RunSettings, samples: int) -> Iterator[Samples]:
        """While inside; `samples` are of all images together."""
        each = -(-samples // len(places))
        with ExitStack() as stack:
            yield cls(
                {
                    path: stack.enter_context(Sampler.open(open_input(place, settings), settings, each))
                    for path, place in places.items()
                }
            )

    def frames(self) -> Iterator[tuple[SampledFrame, PreparedFrame]]:
        """All that are sampled."""
        return ((sampled, self.frame(sampled)) for sampled in self.keys)

    def frame(self, sampled: SampledFrame) -> PreparedFrame:
        """One of them."""
        return self.samplers[sampled.position].frame(sampled.key)
