"""Units of bands partition the output, own whole chunks and shards of every level, and read what they are made of."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from math import prod

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from phbatch.planning.unit import region_size
from phbatch.planning.units import Geometry, source_reads
from tests.geometries import geometries


@st.composite
def banded(draw: st.DrawFn) -> Geometry:
    """A geometry whose frames are cut into bands, with as many levels as these allow."""
    geometry = draw(geometries((5, 3, 3, 70, 12), 3, (0, 0, 1, 300)))
    exponent = draw(st.integers(0, 5))
    return replace(
        geometry,
        volumes=False,
        upscaled=False,
        band=2**exponent,
        levels=draw(st.integers(1, exponent + 1)),
        margin=draw(st.integers(0, 9)),
    )


@settings(max_examples=150, deadline=None)
@given(banded())
def test_bands_partition_the_output_and_every_chunk_and_shard_has_one_owner(geometry: Geometry) -> None:
    units = list(geometry.units)
    for level in geometry.output_levels:
        written = np.zeros(level.shape, int)
        owners: dict[tuple[int, ...], set[str]] = {}
        for unit in units:
            rows, columns = unit.output[3:]
            place = (
                *unit.output[:3],
                slice(rows.start // level.factor, -(-rows.stop // level.factor)),
                slice(0, -(-columns.stop // level.factor)),
            )
            written[place] += 1
            for stored in {level.chunks, level.shards or level.chunks}:
                ranges = (
                    range(part.start // size, -(-part.stop // size)) for part, size in zip(place, stored, strict=True)
                )
                for index in product(*ranges):
                    owners.setdefault((*stored, *index), set()).add(unit.key)
        assert (written == 1).all()
        if level.shards is None or geometry.time_groups.even_size:
            assert all(len(keys) == 1 for keys in owners.values())


@settings(max_examples=150, deadline=None)
@given(banded())
def test_units_of_bands_are_found_by_their_keys_and_read_their_margin(geometry: Geometry) -> None:
    units, whole = geometry.units, replace(geometry, band=0, margin=0)
    keys = [unit.key for unit in units]
    assert len({*keys}) == len(units) == len(whole.units) * geometry.bands
    height, factor, rows = geometry.shape[3], geometry.downscale, geometry.output_shape[3]
    for at, unit in enumerate(units):
        assert units.find(unit.key) == at
        read, written = unit.source[3], unit.output[3]
        assert read.start <= max(0, written.start - geometry.margin) * factor
        assert read.stop >= min(height, min(rows, written.stop + geometry.margin) * factor)
        assert [*unit.frame_indices(volumes=False)] == [*whole.units[at // geometry.bands].frame_indices(volumes=False)]
    assert prod(geometry.largest_source) == max(region_size(unit.source) for unit in units)
    assert prod(geometry.largest_output) == max(region_size(unit.output) for unit in units)
    assert source_reads(geometry) == sum(region_size(unit.source) for unit in units)
    assert Geometry.from_dict(geometry.as_dict()) == geometry


def test_frames_that_are_not_cut_say_nothing_of_bands() -> None:
    geometry = Geometry((1, 1, 1, 64, 64), (1, 1, 1, 64, 64), range(1), (0,))
    assert geometry.units[0].key == "t0/c0"
    assert not {"band", "margin"} & geometry.as_dict().keys()
    cut = replace(geometry, band=32)
    assert [unit.key for unit in cut.units] == ["t0/c0/y0-31", "t0/c0/y32-63"]
