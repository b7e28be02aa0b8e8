"""Units read whole chunks once and own whole output chunks: a brute-force twin checks the arithmetic."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings

from phbatch.planning.unit import region_size
from phbatch.planning.units import Geometry, source_reads
from tests.geometries import geometries

GEOMETRIES = geometries((23, 4, 5, 40, 40), 4, (0, 0, 1, 5_000_000))


@settings(max_examples=200, deadline=None)
@given(GEOMETRIES)
def test_units_partition_the_output_in_whole_chunks(geometry: Geometry) -> None:
    owners = np.zeros(geometry.output_shape, int)
    for unit in geometry.units:
        owners[unit.output] += 1
        for part, chunk, size in zip(unit.output, geometry.output_chunks, geometry.output_shape, strict=True):
            assert part.start % chunk == 0
            assert part.stop % chunk == 0 or part.stop == size
        for part, shard, chunk, size in zip(
            unit.output,
            geometry.output_shards or geometry.output_chunks,
            geometry.output_chunks,
            geometry.output_shape,
            strict=True,
        ):
            assert shard % chunk == 0
            assert part.start % shard == 0
            assert part.stop % shard == 0 or part.stop == size
    assert (owners == 1).all()
    assert len({unit.key for unit in geometry.units}) == len(geometry.units)


@settings(max_examples=200, deadline=None)
@given(GEOMETRIES)
def test_every_selected_frame_is_read_once_and_no_chunk_twice(geometry: Geometry) -> None:
    reads: dict[tuple[int, ...], int] = {}
    found = []
    for unit in geometry.units:
        touched = [
            range(part.start // chunk, (part.stop - 1) // chunk + 1)
            for part, chunk in zip(unit.source, geometry.chunks, strict=True)
        ]
        for t in touched[0]:
            for c in touched[1]:
                for z in touched[2]:
                    reads[t, c, z] = reads.get((t, c, z), 0) + 1
        planes = [None] if geometry.volumes else range(unit.source[2].stop - unit.source[2].start)
        for t in range(len(unit.keep_t)):
            for c in range(len(unit.keep_c)):
                found += [unit.frame_key(t, c, z) for z in planes]
    assert set(reads.values()) == {1}
    assert sorted(found, key=str) == sorted(geometry.grid, key=str)
    assert source_reads(geometry) == sum(region_size(unit.source) for unit in geometry.units)


def test_small_frames_are_taken_together_and_share_a_chunk() -> None:
    geometry = Geometry((1000, 1, 1, 64, 64), (1, 1, 1, 64, 64), range(1000), (0,))
    assert len(geometry.units) == 4
    assert geometry.output_chunks == (256, 1, 1, 64, 64)


def test_large_frames_have_one_unit_each_and_chunks_of_at_most_1024() -> None:
    geometry = Geometry((3, 1, 1, 2048, 2100), (1, 1, 1, 512, 512), range(3), (0,))
    assert [unit.key for unit in geometry.units] == ["t0/c0", "t1/c0", "t2/c0"]
    assert geometry.output_chunks == (1, 1, 1, 1024, 700)
