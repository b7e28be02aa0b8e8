"""Profiles of uneven light, estimated from a bounded sample of the frames of an image.

One plane after the other, in this process and without a graph: a median over t takes all sampled frames of a plane at
once, and memory is planned for one plane.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import product
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, Unpack, get_args

import numpy as np
from numpy.typing import NDArray

from phbatch.computing.machine import available_bytes, machine_of
from phbatch.computing.tasks import Job, forget_open_stores
from phbatch.frames.light import Profile, background_of
from phbatch.frames.light_checks import LEAST_FRAMES, judge_profile, require_frames
from phbatch.inputs.image import Source
from phbatch.inputs.light_profile import read_facts, require_replaceable, write_profile
from phbatch.inputs.opening import open_input
from phbatch.inputs.positions import list_images
from phbatch.inputs.presence import require_chunks
from phbatch.kernels.background import temporal_background
from phbatch.kernels.finite import is_finite
from phbatch.outputs.image import require_separate
from phbatch.places.place import Place
from phbatch.planning.memory import (
    RESERVED_BYTES,
    RESERVED_NETWORK_BYTES,
    format_bytes,
)
from phbatch.planning.passes import profile_bytes, sampled_frames, sampling_bytes
from phbatch.planning.resolve import resolve_statistics
from phbatch.planning.units import Geometry
from phbatch.running.begin import PROFILE, AcceptedRun, require_profile
from phbatch.words.axes import to_region
from phbatch.words.choices import ESTIMATED_BACKGROUNDS, FRAME_BACKGROUNDS
from phbatch.words.errors import InputError, MemoryLimitError, UsageError
from phbatch.words.events import Listener, Notice
from phbatch.words.option_types import SampleOptions
from phbatch.words.options import parse_options
from phbatch.words.settings import RunSettings

IlluminationMethod = Literal["gaussian", "polynomial", "temporal", "basic"]


@dataclass(frozen=True, eq=False)
class IlluminationResult:
    """A profile that was estimated.

    Attributes
    ----------
    profile : Profile
        Background and dark field, in counts, for every channel that was asked for.
    facts : dict
        Method, input, sampled frames.
    notices : tuple of str
        What to look at before it is used.
    """

    profile: Profile
    facts: dict[str, Any]
    notices: tuple[str, ...] = ()


def illumination(
    input: str | Path,
    output: str | Path | None = None,
    *,
    method: str = "temporal",
    **options: Unpack[SampleOptions],
) -> IlluminationResult:
    """Estimate the uneven light of an image from at most 32 frames over t, in bounded memory whatever its length.

    Parameters
    ----------
    input : str or Path
        As for `phbatch.run`; of a plate, a collection or a pattern, the sample is of all images of the first one's
        shape.
    output : str or Path, optional
        Where to write the profile, as a Zarr group; `phbatch.run` takes its path as `illumination`.
    method : {"temporal", "gaussian", "polynomial", "basic"}
        ``temporal`` is the median of the sample over t, per channel and plane; ``gaussian`` and ``polynomial`` smooth
        it (`phbatch.kernels.background`); ``basic`` is BaSiC (Peng et al. 2017, https://doi.org/10.1038/ncomms14836)
        by the library BaSiCPy, which gives a dark field, too.
    **options
        `axes`, `wells`, `fields`, `channel`, `frames`, `pattern`, `position`, `memory`, `storage_options`.

    Returns
    -------
    IlluminationResult
        The profile, and how it was made.

    Raises
    ------
    InputError, UsageError, OutputError, MemoryLimitError
        What is wrong, in one sentence.
    """
    if method not in get_args(IlluminationMethod):
        raise UsageError(f"--method {method} is none of {', '.join(get_args(IlluminationMethod))}; choose one of them.")
    settings = parse_options("illumination", options)
    sources = [open_input(path, settings) for path in list_images(input, settings).values()]
    source = sources[0]
    alike = [other for other in sources if other.shape[1:] == source.shape[1:]]
    machine = machine_of(None)
    resolved = resolve_statistics(settings, source, available_bytes=machine.available_bytes, cores=machine.cores)
    require_chunks(source, resolved.geometry.times, resolved.geometry.channels)
    place = Place.at(output, settings.storage_options) if output is not None else None
    if place:
        require_separate(source, place)
        require_replaceable(place)
    estimated = _estimate(source, resolved.geometry, method, settings, "the profile", alike[1:])
    if place:
        write_profile(place, estimated.profile.background, estimated.profile.dark, estimated.facts)
    return estimated


def estimate_profile(
    source: Source, geometry: Geometry, method: str, settings: RunSettings, others: Sequence[Source] = ()
) -> tuple[Profile, dict[str, Any]]:
    """Estimate a profile for the channels of a run; one that was not asked for is 1 everywhere.

    Raises
    ------
    InputError, MemoryLimitError, UsageError
        Too few frames, too little memory, or BaSiCPy is missing.
    """
    frames = [(source, t) for t in geometry.times]
    frames += [(other, t) for other in others for t in settings.select_frames(other.shape[0])]
    require_frames(method, len(frames), f"illumination {method}")
    sample = _sample(frames, settings)
    n_c, n_z = source.shape[1:3]
    background = np.ones((n_c, n_z, *source.shape[3:]), np.float32)
    dark = np.zeros_like(background) if method == "basic" else None
    for c in geometry.restored:
        for z in range(n_z):
            stack = np.stack(list(_read_planes(sample, c, z)))
            if not is_finite(stack).all():
                raise InputError(
                    f"channel {c}, plane {z} has NaN or infinity in the frames that the light is estimated from; choose"
                    " others with --frames."
                )
            if method == "basic":
                background[c, z], fitted = _fit_basic(stack)
                if dark is not None:
                    dark[c, z] = fitted
                continue
            median = temporal_background(_even_levels(stack))
            background[c, z] = (
                background_of(median, method, light=bool(np.median(median) > 0))
                if method in FRAME_BACKGROUNDS
                else median
            )
    facts: dict[str, Any] = {"method": method, "input": source.path, "frames": [t for _, t in sample], "axes": "czyx"}
    if others:
        facts |= {"images": len(others) + 1, "sampled": [each.path for each, _ in sample]}
    return Profile(background, dark), facts


def estimate_light(accepted: AcceptedRun) -> tuple[AcceptedRun, IlluminationResult | None]:
    """Estimate the profile of a run, unless an earlier call did, while nothing is written and all may be refused.

    Raises
    ------
    InputError, MemoryLimitError, UsageError
        As for `estimate_profile`; or the frames hold no light.
    """
    settings, method = accepted.settings, accepted.settings.illumination
    if method not in ESTIMATED_BACKGROUNDS or method in FRAME_BACKGROUNDS:
        return accepted, None
    if accepted.continued and _is_kept(accepted):
        return accepted, None
    found = _estimate(accepted.source, accepted.resolved.geometry, method, settings, f"illumination {method}")
    notices = (Notice(text, warning=True) for text in found.notices)
    return replace(accepted, notices=(*accepted.notices, *notices)), found


def keep_light(accepted: AcceptedRun, estimated: IlluminationResult | None) -> None:
    """Keep what `estimate_light` found in the output, unless an earlier call did."""
    if estimated is None or _is_kept(accepted):
        return
    profile = estimated.profile
    write_profile(accepted.output, profile.background, profile.dark, estimated.facts, PROFILE)
    forget_open_stores()


@contextmanager
def light_aside(accepted: AcceptedRun, estimated: IlluminationResult | None) -> Iterator[Job]:
    """The job of a run that measures before its output is there: an estimated profile lies in a temporary folder."""
    if estimated is None:
        yield accepted.job
        return
    with _scratch(estimated.profile, estimated.facts) as place:
        yield replace(accepted.job, profile=place)


@contextmanager
def profile_of(settings: RunSettings, source: Source, geometry: Geometry, listener: Listener) -> Iterator[Place | None]:
    """Place of the profile that statistics are measured with: given, or estimated into a temporary folder.

    Raises
    ------
    UsageError
        It would have to be estimated, and workers elsewhere could not read it.
    """
    method = settings.illumination
    if method == "none" or method in FRAME_BACKGROUNDS:
        yield None
    elif method not in ESTIMATED_BACKGROUNDS:
        for notice in require_profile(settings, source, geometry)[1]:
            listener(notice)
        yield Place.at(method, settings.storage_options)
    elif settings.scheduler is not None:
        raise UsageError(
            f"--illumination {method} would be estimated here, where the workers of --scheduler cannot read it; make a"
            " profile with `phbatch illumination` and give its path."
        )
    else:
        found = _estimate(source, geometry, method, settings, f"illumination {method}")
        for text in found.notices:
            listener(Notice(text, warning=True))
        with _scratch(found.profile, found.facts) as place:
            yield place


@contextmanager
def _scratch(profile: Profile, facts: dict[str, Any]) -> Iterator[Place]:
    with TemporaryDirectory(prefix="phbatch-") as folder:
        place = Place.at(folder) / "profile.zarr"
        write_profile(place, profile.background, profile.dark, facts)
        yield place


def _is_kept(accepted: AcceptedRun) -> bool:
    return "method" in (read_facts(accepted.output, PROFILE) or {})


def _estimate(
    source: Source,
    geometry: Geometry,
    method: str,
    settings: RunSettings,
    name: str,
    others: Sequence[Source] = (),
) -> IlluminationResult:
    """Estimate a profile and judge it."""
    profile, facts = estimate_profile(source, geometry, method, settings, others)
    planes = product(geometry.restored, range(source.shape[2]))
    notices = judge_profile(profile, facts, settings.illumination_mode, planes, name)
    return IlluminationResult(profile, facts, tuple(notice.text for notice in notices))


def _sample(frames: Sequence[tuple[Source, int]], settings: RunSettings) -> list[tuple[Source, int]]:
    """Evenly spaced frames, as many as the memory takes."""
    source = frames[0][0]
    allowed = int(settings.memory) if settings.memory is not None else available_bytes() // 2
    libraries = RESERVED_BYTES + (RESERVED_NETWORK_BYTES if settings.model != "none" else 0)
    kept = profile_bytes(source.shape, dark=True) + prod(source.chunks) * source.dtype.itemsize
    spare = allowed - libraries - kept
    count, frame_bytes = sampled_frames(source.shape, source.dtype.itemsize, spare, len(frames))
    if count < min(LEAST_FRAMES, len(frames)):
        needed = allowed - spare + sampling_bytes(LEAST_FRAMES * frame_bytes)
        raise MemoryLimitError(
            f"estimating the light needs {format_bytes(needed)} and may use {format_bytes(allowed)}; raise --memory."
        )
    picked = np.unique(np.linspace(0, len(frames) - 1, count).round().astype(int))
    return [frames[int(index)] for index in picked]


def _read_planes(frames: Sequence[tuple[Source, int]], c: int, z: int) -> Iterator[NDArray[Any]]:
    for source, t in frames:
        yield source.read_or_refuse(to_region((t, c, z, 0, 0), (t + 1, c + 1, z + 1, *source.shape[3:])))[0, 0, 0]


def _even_levels(stack: NDArray[Any]) -> NDArray[np.float32]:
    """Frames brought to one median, so that a flickering lamp does not choose which frames the background is of."""
    levels = np.median(stack, axis=(1, 2))
    with np.errstate(over="ignore"):
        factors = (np.median(levels) / np.where(levels > 0, levels, np.inf)).astype(np.float32)
        factors[(factors == 0) | np.isinf(factors)] = 1  # black frames stay black
        even: NDArray[np.float32] = stack * factors[:, np.newaxis, np.newaxis]
        return even.astype(np.float32, copy=False)


def _fit_basic(stack: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    try:
        from basicpy import BaSiC
    except ImportError as error:
        raise UsageError(
            f"illumination 'basic' needs the library BaSiCPy ({error}); install it with `pip install 'phbatch[basic]'"
            " && pip install --no-deps basicpy`, or choose temporal, gaussian or polynomial."
        ) from error
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="get_darkfield=True", category=UserWarning)
        fitted = BaSiC(get_darkfield=True)
    fitted.fit(stack)
    dark = np.asarray(fitted.darkfield, np.float32)
    level = np.float32(np.median(stack - dark))
    return np.asarray(fitted.flatfield, np.float32) * level + dark, dark
