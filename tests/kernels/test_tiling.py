"""Tiles partition the frame, stay on the pooling grid, have their halo, and leave no trace."""

from __future__ import annotations

from itertools import pairwise, product
from math import prod

import numpy as np
import pytest
from csbdeep.data import PadAndCropResizer
from csbdeep.internals.predict import tile_overlap
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from phbatch.frames.tiles import Batches, NetworkFrame
from phbatch.kernels.tiling import TilePlan, choose_tile, count_spans, plan_spans, required_halo, split_padding
from phbatch.network.steps import Prediction, Windows

GRIDS = st.sampled_from([2, 4, 8, 16])


@st.composite
def spans(draw: st.DrawFn) -> tuple[int, int, int, int]:
    grid = draw(GRIDS)
    halo = grid * draw(st.integers(0, 6))
    size = grid * draw(st.integers(2 * halo // grid + 1, 2 * halo // grid + 20))
    length = draw(st.integers(size // grid, size // grid + 60)) * grid
    return length, size, halo, grid


@settings(max_examples=300, deadline=None)
@given(spans())
def test_spans_partition_the_axis_on_the_grid_with_their_halo(case: tuple[int, int, int, int]) -> None:
    length, size, halo, grid = case
    found = plan_spans(length, size, halo, grid)
    assert len(found) == count_spans(length, size, halo)
    assert (found[0].start, found[-1].stop) == (0, length)
    assert all(a.stop == b.start for a, b in pairwise(found))
    for span in found:
        assert span.start < span.stop
        assert span.read % grid == span.start % grid == span.stop % grid == 0
        assert 0 <= span.read <= span.read + size <= length
        assert span.start == 0 or span.start - span.read >= halo
        assert span.stop == length or span.read + size - span.stop >= halo


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(1, 70), min_size=2, max_size=3), GRIDS, st.integers(0, 3), st.data())
def test_identity_network_returns_the_frames_bit_for_bit_in_full_batches(
    shape: list[int], grid: int, halo_blocks: int, data: st.DataObject
) -> None:
    halo = grid * halo_blocks
    tile = []
    for size in shape:
        padded = size + -size % grid
        smallest = 2 * halo + grid
        options = [padded, *range(smallest, padded, grid)]
        tile.append(data.draw(st.sampled_from(options)))
    plan = TilePlan(tuple(shape), tuple(tile), halo, grid)
    assume(len(plan.tiles) <= 200)
    count, batch = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 5))
    frames = np.random.default_rng(0).random((count, *shape, 2), np.float32)
    sizes: list[int] = []

    def predict(windows: Windows) -> Prediction:
        sizes.append(len(windows.pixels))
        owned = [np.prod(lengths[:, 1] - lengths[:, 0]) for lengths in windows.owned]
        return Prediction(windows.pixels.copy(), None, np.array(owned, np.int32))

    scaling = np.ones((4, 2), np.float32)
    networked = (NetworkFrame(t, frame, scaling, np.empty_like(frame)) for t, frame in enumerate(frames))
    batches = Batches(plan, batch, predict)
    results = [done for frame in networked for done in batches.add(frame)] + batches.finish()
    assert [result.frame for result in results] == list(range(count))
    np.testing.assert_array_equal(np.stack([result.image for result in results]), frames)
    assert {result.clipped for result in results} == {np.prod(shape)}  # tiles own every pixel once
    assert sizes[:-1] == [batch] * (len(sizes) - 1)
    assert sum(sizes) == count * len(plan.tiles)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 40), st.integers(2, 40), GRIDS)
def test_padding_is_csbdeeps(height: int, width: int, grid: int) -> None:
    frame = np.random.default_rng(0).random((height, width, 1), np.float32)
    whole = tuple(size + -size % grid for size in (height, width))
    expected = PadAndCropResizer().before(frame, "YXC", (grid, grid, 1))
    np.testing.assert_array_equal(TilePlan((height, width), whole, 0, grid).pad(frame), expected)


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("kernel", [3, 5, 7])
def test_halo_is_within_a_block_of_csbdeeps_table(depth: int, kernel: int) -> None:
    grid = 2**depth
    rounded = -(-tile_overlap(depth, kernel) // grid) * grid
    assert rounded - grid <= required_halo(depth, kernel) <= rounded


def test_halo_of_kernels_that_csbdeep_has_no_table_for() -> None:
    assert [required_halo(depth, 9) for depth in (1, 2, 3, 4)] == [32, 80, 176, 384]
    assert required_halo(2, 1) == 0


def every_tile(shape: list[int], halo: int, grid: int) -> dict[tuple[int, ...], int]:
    """Every tile that covers a frame without a trace, and how many pixels are computed with it."""
    padded = [size + -size % grid for size in shape]
    lengths = [[n for n in range(grid, size + 1, grid) if n > 2 * halo or n == size] for size in padded]
    counts = [
        {n: len(plan_spans(size, n, halo, grid)) for n in options}
        for size, options in zip(padded, lengths, strict=True)
    ]
    return {
        tile: prod(tile) * prod(count[n] for count, n in zip(counts, tile, strict=True)) for tile in product(*lengths)
    }


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.integers(1, 250), min_size=2, max_size=2) | st.lists(st.integers(1, 90), min_size=3, max_size=3),
    st.sampled_from([(0, 4), (8, 4), (24, 8), (48, 8), (16, 16)]),
    st.integers(1, 40_000),
)
@example([250, 250], (24, 8), 10_000)
@example([200, 120], (24, 8), 64)
def test_the_chosen_tile_is_the_cheapest_of_all_that_fit(
    shape: list[int], network: tuple[int, int], max_pixels: int
) -> None:
    found = every_tile(shape, *network)
    fitting = {tile: computed for tile, computed in found.items() if prod(tile) <= max_pixels}
    tile = choose_tile(shape, *network, max_pixels)
    assert tile in (fitting or {min(found, key=prod)})
    assert found[tile] == min((fitting or found).values()) or not fitting
    cheapest = [other for other, computed in fitting.items() if computed == found[tile]]
    assert prod(tile) == min(map(prod, cheapest), default=prod(tile))
    assert choose_tile(shape, *network, prod(tile)) == tile  # with room for it and for no pixel more
    plan = TilePlan(tuple(shape), tile, *network)
    assert plan.overhead == pytest.approx(found[tile] / prod(plan.padded_shape))


def test_of_tiles_that_cost_the_same_the_longer_rows_are_taken() -> None:
    assert choose_tile((256, 256), 0, 4, 128 * 256) == (4, 4)
    assert choose_tile((100, 100), 24, 4, 76 * 100) == (76, 100)


def test_a_frame_that_fits_is_one_tile() -> None:
    assert choose_tile((517, 771), 40, 4, 10**6) == (520, 772)


@pytest.mark.parametrize(
    ("size", "grid", "expected"), [(5, 4, (1, 2)), (8, 4, (0, 0)), (7, 8, (0, 1)), (1, 16, (7, 8))]
)
def test_split_padding(size: int, grid: int, expected: tuple[int, int]) -> None:
    assert split_padding(size, grid) == expected


def test_a_tile_that_is_all_halo_is_refused() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        TilePlan((200, 200), (80, 80), 40, 4)
