"""Units are arithmetic: they equal the list that loops over all frames make, and nothing grows with their number."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any

import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

import phbatch
from phbatch.planning import units as planning
from phbatch.planning.unit import Unit, region_size
from phbatch.planning.units import Geometry, Units, source_reads
from phbatch.words.axes import to_region
from phbatch.words.groups import TimeGroups
from tests.geometries import geometries


def grouped(indices: range | tuple[int, ...], length: int) -> list[list[int]]:
    groups: dict[int, list[int]] = {}
    for index in indices:
        groups.setdefault(index // length, []).append(index)
    return list(groups.values())


def listed_units(geometry: Geometry) -> Iterator[Unit]:
    """The units by loops over every frame, as they were made before they were arithmetic."""
    size_z, size_y, size_x = geometry.shape[2:]
    step_z = size_z if geometry.volumes else geometry.chunks[2]
    channel_groups = [[*geometry.channels]]
    if not geometry.stacked:
        channel_groups = grouped(geometry.channels, geometry.chunks[1])
    out_t = 0
    for times in grouped(geometry.times, geometry._frames_per_unit):
        out_c = 0
        for channels in channel_groups:
            n_c = geometry.n_output if geometry.stacked else len(channels) * geometry.n_output
            for z_start in range(0, size_z, step_z):
                z_stop = min(z_start + step_z, size_z)
                spans = [("t", out_t, out_t + len(times)), ("c", out_c, out_c + n_c), ("z", z_start, z_stop)]
                names = [f"{axis}{a}" if b == a + 1 else f"{axis}{a}-{b - 1}" for axis, a, b in spans]
                source = to_region(
                    (times[0], channels[0], z_start, 0, 0), (times[-1] + 1, channels[-1] + 1, z_stop, size_y, size_x)
                )
                output = to_region(
                    (out_t, out_c, z_start, 0, 0),
                    (out_t + len(times), out_c + n_c, z_stop, *geometry.output_shape[3:]),
                )
                yield Unit(
                    "/".join(names[: 2 if size_z == 1 else 3]),
                    source,
                    tuple(t - times[0] for t in times),  # type: ignore[arg-type]
                    tuple(c - channels[0] for c in channels),
                    output,
                )
            out_c += n_c
        out_t += len(times)


def plain(unit: Unit) -> tuple[object, ...]:
    return (unit.key, unit.source, tuple(unit.keep_t), unit.keep_c, unit.output, unit.measured)


GEOMETRIES = geometries((90, 5, 5, 9, 9), 12, (0, 0, 1, 300))
unit_pixels = st.sampled_from([1, 50, 400, 1 << 20])


@settings(max_examples=150, deadline=None)
@given(GEOMETRIES, unit_pixels, st.data())
def test_units_equal_those_of_loops_over_all_frames(geometry: Geometry, pixels: int, data: st.DataObject) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planning, "_UNIT_PIXELS", pixels)
        units, expected = geometry.units, list(listed_units(geometry))
        assert [plain(unit) for unit in units] == [plain(unit) for unit in expected]
        assert len(units) == len(expected)
        part = slice(
            *(data.draw(st.none() | st.integers(-100, 100)) for _ in range(2)),
            data.draw(st.none() | st.sampled_from([-7, -1, 1, 3])),
        )
        assert [unit.key for unit in units[part]] == [unit.key for unit in expected[part]]
        for at, unit in enumerate(expected):
            assert plain(units[at]) == plain(units[at - len(units)]) == plain(unit)
            assert units.index(unit.key) == units.index(units[at]) == at
            assert unit.key in units
            assert (unit.key in units[part]) == (unit.key in [each.key for each in expected[part]])
        sources, outputs = ([region_size(getattr(unit, name)) for unit in expected] for name in ("source", "output"))
        assert prod(geometry.largest_source) == max(sources)
        assert prod(geometry.largest_output) == max(outputs)
        assert source_reads(geometry) == sum(sources)


@given(st.integers(0, 50), st.integers(1, 300), st.integers(1, 40), st.integers(1, 40))
def test_groups_of_frames_equal_those_of_a_loop(start: int, count: int, step: int, length: int) -> None:
    times = range(start, start + count * step, step)
    groups, expected = TimeGroups(times, length), grouped(times, length)
    sizes = [len(group) for group in expected]
    firsts = [groups.first(at) for at in range(len(groups) + 1)]
    assert [[*times[a:b]] for a, b in pairwise(firsts)] == expected
    assert [groups.index(at) for at in range(count)] == [at for at, size in enumerate(sizes) for _ in range(size)]
    stretches = [group[0] // length for group in expected]
    assert [groups.stretch(at) for at in range(len(groups))] == stretches
    found = [groups.find(stretch) for stretch in range(stretches[-1] + 3)]
    assert found == [stretches.index(at) if at in stretches else None for at in range(stretches[-1] + 3)]
    assert groups.largest == max(sizes)
    assert groups.extent == sum(group[-1] - group[0] + 1 for group in expected)
    even = all(size == sizes[0] for size in sizes[:-1]) and sizes[-1] <= sizes[0]
    assert groups.even_size == (sizes[0] if even else None)


@pytest.mark.parametrize(
    "key",
    [
        *("", "metadata", "t0", "t8/c0", "t0/c1", "t0/c0/z0", "t00/c0", "t0-1/c0", "t-1/c0", "t\u0663/c0", "t0/c0\n"),
        *(f"t{'9' * 4000}/c0", 3, None),
    ],
)
def test_what_is_no_key_is_no_unit(key: object) -> None:
    units = Geometry((8, 1, 1, 2048, 2048), (1, 1, 1, 2048, 2048), range(8), (0,)).units
    assert key not in units
    with pytest.raises(ValueError, match="none of these"):
        units.index(key)


def test_a_hundred_million_units_take_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    make = Units._make
    monkeypatch.setattr(Units, "_make", lambda self, place: made.append("") or make(self, place))
    count = 10**8
    tracemalloc.start()
    try:
        geometry = Geometry((count, 2, 1, 2048, 2048), (1, 1, 1, 2048, 2048), range(3, count, 2), (0, 1))
        units = geometry.units
        assert len(units) == count - 2
        assert units.index(units[-1].key) == len(units) - 1
        assert units[5::7][3].key == units[26].key
        assert source_reads(geometry) == len(units) * 2048**2
        assert prod(geometry.largest_output) == prod(geometry.largest_source) == 2048**2
        assert geometry.output_chunks == (1, 1, 1, 1024, 1024)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(made) == 3
    assert peak < 1_000_000


@pytest.mark.parametrize("side", [8, 2048])
def test_a_plan_of_a_hundred_million_frames_takes_no_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, side: int
) -> None:
    made: list[int] = []
    make = Units._make
    monkeypatch.setattr(Units, "_make", lambda self, place: made.append(place) or make(self, place))
    options: dict[str, Any] = {"axes": "tyx", "model": "none", "memory": "100GB"}
    few, many = (tmp_path / f"{count}.zarr" for count in (10, 10**8))
    for place, count in ((few, 10), (many, 10**8)):
        zarr.create_array(place, shape=(count, side, side), chunks=(1, side, side), dtype="uint16")
    phbatch.plan(few, **options)  # imports what it needs
    tracemalloc.start()
    try:
        plan = phbatch.plan(many, **options)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (plan.frames, plan.bytes_read) == (10**8, 10**8 * side**2 * 2)
    assert made == []
    assert peak < 5_000_000


def test_an_image_of_which_nothing_is_stored_is_refused_at_once_however_long(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "in.zarr", shape=(10**8, 8, 8), chunks=(1, 8, 8), dtype="uint16")
    tracemalloc.start()
    try:
        for frames in (None, "5::3", "5::20000"):
            with pytest.raises(phbatch.InputError, match="holds none of the"):
                phbatch.run(tmp_path / "in.zarr", axes="tyx", model="none", memory="100GB", frames=frames)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


def test_what_grows_with_frames_is_planned_for(tmp_path: Path) -> None:
    def planned(count: int, **options: Any) -> float:
        place = tmp_path / f"{count}.zarr"
        zarr.create_array(place, shape=(count, 2048, 2048), chunks=(1, 2048, 2048), dtype="uint16", overwrite=True)
        return phbatch.plan(place, axes="tyx", model="none", memory="100GB", workers=1, **options).projected_mem

    rows = (planned(200_000) - planned(10)) / 200_000
    assert 8 * 15 < rows < 8 * 60
    assert planned(10**8) - planned(10**7) > 9 * 10**7 * 8  # a column while it is written
    assert planned(10**7, smooth_time=3) > planned(10**7) + 10**7 * 8 * 3
    with pytest.raises(phbatch.MemoryLimitError, match=r"statistics of all frames.*fewer with frames"):
        phbatch.plan(tmp_path / f"{10**8}.zarr", axes="tyx", model="none", memory="1GB")


@given(geometry=GEOMETRIES)
def test_the_first_frame_of_a_unit_has_the_key_of_the_first(geometry: Geometry) -> None:
    for unit in geometry.units:
        first = unit.first_frame(volumes=geometry.volumes)
        (index,) = first.frame_indices(volumes=geometry.volumes)
        assert first.frame_key(*index) == unit.frame_key(*next(unit.frame_indices(volumes=geometry.volumes)))
        assert first.source[3:] == unit.source[3:]
        assert all(a.start <= b.start < b.stop <= a.stop for a, b in zip(unit.source, first.source, strict=True))
