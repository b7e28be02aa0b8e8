"""What is taken before the first unit is restored: where light is estimated, and where large frames are measured."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from phbatch.frames.recipe import Recipe
from phbatch.kernels.smoothing import is_fixed_point
from phbatch.planning.image import Image
from phbatch.planning.memory import HEAP, MARGIN, STATE_BYTES

CORRECTIONS_AT_ONCE = 4
"""Maps of channels and planes that a process keeps of a profile of uneven light."""

SAMPLES = 32
"""Frames over t that a profile is estimated from, at most."""

_SKETCH = 80  # of a block with its halo: float64, smoothed, their bits, and what these index
_LARGE_CHUNK = 1024  # pixels a side that a task of a large frame reads, at least
_MERGED_STATE_BYTES = 1 << 20
_PREPARED = 14  # of a block: averages, corrected, rounded, and as what is counted


def sampled_frames(shape: Sequence[int], itemsize: int, spare_bytes: int, count: int) -> tuple[int, int]:
    """How many of some frames the light is estimated from in a number of bytes, and the bytes that each takes."""
    frame = shape[-2] * shape[-1] * (2 * itemsize + (4 if itemsize <= 4 else 12))
    room = max(int((spare_bytes - HEAP[0]) / MARGIN), min(int(spare_bytes / (MARGIN + 1 / 8)), 8 * HEAP[0]))
    return max(0, min(SAMPLES, count, room // frame)), frame


def sampling_bytes(sampled: int) -> int:
    """What frames of so many bytes take with what stays of them in the process's heap, units under way included."""
    return int(MARGIN * sampled) + min(sampled // 8, HEAP[0])


def profile_bytes(shape: Sequence[int], *, dark: bool) -> int:
    """Bytes of a profile of uneven light of a ``tczyx`` image, with or without the dark, and of the maps made of it."""
    planes = shape[1] * shape[2]
    return int(shape[-2] * shape[-1] * 4 * (2 if dark else 1) * (planes + min(planes, CORRECTIONS_AT_ONCE)))


def reduction_chunks(chunks: Sequence[int]) -> tuple[int, ...]:
    """Pixels along y and x that a task of a large frame reads: whole chunks, since it should be worth its overhead."""
    return tuple(-(-_LARGE_CHUNK // chunk) * chunk for chunk in chunks)


def reduction_bytes(
    shape: Sequence[int], chunks: Sequence[int], itemsize: int, *, fixed_point: bool, workers: int
) -> int:
    """Bytes that the reduction over the chunks of one large frame takes: three rows of chunks, and their states.

    Where blocks are not counted while they are smoothed, every worker has float64 copies of one besides.
    """
    height, width = (min(pair) for pair in zip(reduction_chunks(chunks[-2:]), shape[-2:], strict=True))
    columns = -(-shape[-1] // width)
    blocks = min(workers, columns)
    rows = (min(3 * height, shape[-2]) * shape[-1] + 2 * blocks * height * width) * itemsize  # decoded, with halo
    states = 2 * blocks * STATE_BYTES + columns * _MERGED_STATE_BYTES
    return rows + states + (0 if fixed_point else blocks * height * width * _SKETCH)


def piecewise_bytes(source: Image, recipe: Recipe, workers: int) -> int:
    """Bytes that frames take which are measured in pieces, as they are read and as they are prepared."""
    dtype, factor, light = source.dtype, recipe.preparation.downscale, recipe.preparation
    fixed_point = is_fixed_point(dtype)
    whole = reduction_bytes(source.shape, source.chunks, dtype.itemsize, fixed_point=fixed_point, workers=workers)
    if not light.changes_pixels:
        return whole
    shape, chunks = ([-(-length // factor) for length in lengths[3:]] for lengths in (source.shape, source.chunks))
    block = prod(min(pair) for pair in zip(reduction_chunks(chunks), shape, strict=True))
    itemsize = 2 if fixed_point else 4
    prepared = reduction_bytes(shape, chunks, itemsize, fixed_point=fixed_point, workers=workers)
    return max(whole, prepared + workers * block * (factor**2 * dtype.itemsize + _PREPARED))
