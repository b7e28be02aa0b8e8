"""The arithmetic of a memory plan, against trying every number of units at once."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phbatch.planning.memory import MemoryPlan
from phbatch.planning.passes import SAMPLES, reduction_bytes, sampled_frames, sampling_bytes
from phbatch.words.errors import MemoryLimitError

BYTES = st.integers(1, 10**9)
PLANS = st.builds(
    MemoryPlan,
    reserved_mem=BYTES,
    unit_mem=BYTES,
    network_mem=st.just(0) | BYTES,
    in_flight=st.integers(1, 9),
    allowed_mem=st.integers(1, 10**10),
    waiting_mem=BYTES,
    ahead=st.integers(0, 3),
)


@given(side=st.integers(1, 5000), itemsize=st.sampled_from([1, 2, 4, 8]), spare=st.integers(0, 10**11))
def test_as_many_frames_as_fit_are_sampled_with_what_the_heap_keeps_of_them(
    side: int, itemsize: int, spare: int
) -> None:
    count, frame = sampled_frames((100, 1, 1, side, side), itemsize, spare, 100)
    assert count == 0 or sampling_bytes(count * frame) <= spare
    assert count == SAMPLES or sampling_bytes((count + 1) * frame) >= spare - 2


def test_parts_add_up() -> None:
    plan = MemoryPlan(1000, 10, 5, 1, 2000, waiting_mem=3)
    assert plan.projected_mem == 1015
    assert [replace(plan, in_flight=n).projected_mem for n in (2, 3)] == [1000 + 26 + 5, 1000 + 39 + 5]
    assert replace(plan, sampling_mem=400).projected_mem == 1400
    assert replace(plan, in_flight=2).network_room == 2000 - 1000 - 26


@given(PLANS)
def test_as_many_units_fit_as_can_be_tried(plan: MemoryPlan) -> None:
    tried = [n for n in range(1, 40) if replace(plan, in_flight=n).projected_mem <= plan.allowed_mem]
    if len(tried) < 39:
        assert plan.fitting == max(tried, default=0)
    else:
        assert plan.fitting >= 39


@given(PLANS)
def test_what_does_not_fit_is_refused_and_names_what_is_enough(plan: MemoryPlan) -> None:
    if plan.projected_mem <= plan.allowed_mem:
        plan.require_fit(None)
        return
    with pytest.raises(MemoryLimitError) as refused:
        plan.require_fit((64, 64))
    named = re.search(r"memory to ([0-9.]+)GB", str(refused.value))
    assert named is not None
    assert plan.projected_mem <= float(named[1]) * 1e9 + 1 <= plan.projected_mem + 1.001e8


def test_a_large_frame_is_held_by_three_rows_of_chunks() -> None:
    shape, chunks = (1, 1, 1, 20_000, 20_480), (1, 1, 1, 1024, 1024)
    narrow, wide = (
        reduction_bytes((*shape[:4], width), chunks, 2, fixed_point=True, workers=2) for width in (20_480, 21_504)
    )
    column = 3 * 1024 * 1024 * 2
    assert column <= wide - narrow <= column + (2 << 20)
    floats = reduction_bytes(shape, chunks, 2, fixed_point=False, workers=2)
    assert floats - narrow == 2 * 1024 * 1024 * 80
    assert 3 * 1024 * 20_480 * 2 < narrow < 3 * 1024 * 20_480 * 2 + (80 << 20)
