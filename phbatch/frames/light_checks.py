"""Judging a profile of uneven light before it is used: what it cannot do is refused, what it does badly is said."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from phbatch.frames.light import Profile
from phbatch.kernels.flatfield import fine_structure, mend_dead_pixels
from phbatch.kernels.illumination import MAX_GAIN
from phbatch.words.errors import InputError
from phbatch.words.events import Notice

LEAST_FRAMES = 3
"""Of a median over time: of fewer, the frame itself would be its light."""

_FEW_FRAMES = 10  # a median of fewer keeps what moves slowly
_LARGEST_STRUCTURE = 0.03  # `fine_structure` of a profile of light, dirt and noise
_MOST_DEAD = 0.5
_STACKED = ("temporal", "basic")


def require_frames(method: str, count: int, name: str) -> None:
    """Refuse to take a median, or BaSiC, of too few frames.

    Raises
    ------
    InputError
        Fewer than 3 frames.
    """
    if method in _STACKED and count < LEAST_FRAMES:
        raise InputError(
            f"{name} needs at least {LEAST_FRAMES} frames over t and has {count}, which would be taken for"
            " its own light; use gaussian or polynomial, or a profile of another image."
        )


def judge_profile(
    profile: Profile, facts: Mapping[str, Any], mode: str, planes: Iterable[tuple[int, int]], name: str
) -> tuple[Notice, ...]:
    """Say what is wrong with a profile.

    Parameters
    ----------
    profile : Profile
        Estimated or given.
    facts : mapping
        `method` and `frames` of one that phbatch estimated; empty for any other.
    mode : {"divide", "subtract"}
        What will be done with it.
    planes : iterable of (c, z)
        Channels and planes that it will be used for.
    name : str
        Of the option or the file, for the sentences.

    Returns
    -------
    tuple of Notice
        Warnings: of dead pixels, bounded gains, few frames, fine structure, and of channels where it does nothing.

    Raises
    ------
    InputError
        More than half of its pixels are dead, or it is the median of one or two frames.
    """
    method, frames = str(facts.get("method", "")), facts.get("frames")
    count = len(frames) if isinstance(frames, list) and method in _STACKED else None
    if count is not None:
        require_frames(method, count, name)
    dead = dim = 0
    structure, even = 0.0, []
    used = {profile.place(c, z): (c, z) for c, z in planes}
    for place, (c, z) in used.items():
        light, found = _light(profile, mode, place, name)
        dead += found
        dim += int(np.count_nonzero(light < light.mean(dtype=np.float64) / MAX_GAIN)) if mode == "divide" else 0
        if light.min() == light.max():
            even.append(f"channel {c}, plane {z}")
        structure = max(structure, fine_structure(light))
    words = []
    if dead:
        pixels = "1 dead pixel" if dead == 1 else f"{dead} dead pixels"
        words.append(f"{name} has {pixels} (not above 0, or not finite): the light about them is taken.")
    if dim:
        words.append(
            f"{name} is below a tenth of its mean in {dim} pixels; they are brightened {MAX_GAIN:g} times only."
        )
    if even:
        words.append(
            f"{name} is even in {'; '.join(even[:3])}{' ...' if len(even) > 3 else ''}: nothing is corrected there."
        )
    if count is not None and count < _FEW_FRAMES:
        words.append(
            f"{name} is of {count} frames over t only: what moves slowly is taken for light and fades; {_REMEDY}"
        )
    if structure > _LARGEST_STRUCTURE and method not in ("gaussian", "polynomial"):
        words.append(
            f"{name} has fine structure that light cannot have ({structure:.1%} of its level, above"
            f" {_LARGEST_STRUCTURE:.0%}): cells that hardly moved, or dirt; where it is cells, they fade; {_REMEDY}"
        )
    return tuple(Notice(text, warning=True) for text in words)


_REMEDY = "smooth it with `phbatch illumination --method gaussian`, or use --illumination gaussian."


def _light(profile: Profile, mode: str, place: tuple[int, int], name: str) -> tuple[Any, int]:
    """What a plane of a profile divides by or subtracts, mended, and the number of its dead pixels."""
    background, dark = profile.background[place], None if profile.dark is None else profile.dark[place]
    background, dark, dead = mend_dead_pixels(background, dark, divides=mode == "divide")
    if dead > _MOST_DEAD * background.size:
        rule = "above 0 and finite" if mode == "divide" else "finite"
        raise InputError(
            f"{name} has {dead} dead pixels of {background.size} in channel {place[0]}, plane {place[1]}: at least half"
            f" must be {rule}{' (less the dark field)' if dark is not None else ''}; make another with `phbatch"
            " illumination`."
        )
    return background if dark is None else background - dark, dead
