"""Geometries of runs, drawn by hypothesis."""

from __future__ import annotations

from hypothesis import strategies as st

from phbatch.planning.units import Geometry


@st.composite
def geometries(
    draw: st.DrawFn, longest: tuple[int, int, int, int, int], steps: int, shard_pixels: tuple[int, ...]
) -> Geometry:
    """Of images up to some lengths ``tczyx``, with steps along t and shards of some sizes."""
    shape = tuple(draw(st.integers(1, top)) for top in longest)
    chunks = tuple(draw(st.integers(1, size)) for size in shape)
    start = draw(st.integers(0, shape[0] - 1))
    times = range(start, draw(st.integers(start + 1, shape[0])), draw(st.integers(1, steps)))
    channels = sorted(draw(st.sets(st.integers(0, shape[1] - 1), min_size=1)))
    stacked = draw(st.booleans())
    return Geometry(
        shape,  # type: ignore[arg-type]
        chunks,  # type: ignore[arg-type]
        times,
        tuple(channels),
        volumes=draw(st.booleans()),
        stacked=stacked,
        n_output=draw(st.integers(1, 3)) if stacked or len(channels) == 1 else 1,
        downscale=draw(st.integers(1, 3)),
        upscaled=draw(st.booleans()),
        shard_pixels=draw(st.sampled_from(shard_pixels)),
    )
