"""Patches cover frames evenly, hold the share of background that was asked for, and go on from any place."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import numpy as np
import pytest
from numpy.typing import NDArray

from phbatch.simulate import Kind, PhaseContrast
from phbatch.training import patches
from phbatch.training.pairs import FrameAt, Pair
from phbatch.training.patches import SPARSE, PatchPlan, PatchStream, cells_of, cut, draw_corners
from phbatch.words.axes import FrameKey
from phbatch.words.errors import InputError


def frame_with_cells(seed: int = 0, side: int = 96) -> Pair:
    """Cells in one corner; pixels say where they lie."""
    random = np.random.default_rng(seed)
    high = random.normal(1, 0.01, (side, side, 1)).astype("float32")
    high[: side // 3, : side // 3] += random.normal(1, 0.4, (side // 3, side // 3, 1)).astype("float32")
    return Pair(high + np.float32(0.1), high, (0, 0), (1.0, 1.0))


class Reader:
    """Reads made frames, and notes which."""

    def __init__(self, frames: Sequence[Pair | None]) -> None:
        self.frames, self.reads = list(frames), list[tuple[int, int]]()

    def lengths(self, frame: FrameAt) -> tuple[int, ...]:
        """Of every frame."""
        return (96, 96)

    def read(self, frame: FrameAt, turn: int) -> Pair | None:
        """A made frame."""
        self.reads.append((frame.key.t, turn))
        return self.frames[frame.key.t]


def stream(reader: Reader, *, at_once: int = 2, keeps: bool = False, background: float = 0.25) -> PatchStream:
    frames = [FrameAt(0, FrameKey(t, 0, 0)) for t in range(len(reader.frames))]
    return PatchStream(reader, frames, PatchPlan((16, 16), background, 8, 3, at_once), keeps=keeps)


def test_every_turn_and_flip_is_a_view_of_the_same_place_in_both() -> None:
    pair = frame_with_cells()
    seen = set()
    for turned in range(8):
        low, high = cut(pair, (5, 7), (16, 16), turned)
        np.testing.assert_allclose(low - high, 0.1, rtol=1e-5)
        assert np.array_equal(np.sort(high.ravel()), np.sort(pair.high[5:21, 7:23].ravel()))
        seen.add(high.tobytes())
    assert len(seen) == 8


def test_the_share_of_background_is_what_was_asked_for() -> None:
    pair = frame_with_cells()
    assert cells_of(pair)[:32, :32].mean() > 0.8
    assert cells_of(pair)[40:, 40:].mean() < 0.05
    for share in (0.0, 0.25, 0.75, 1.0):
        plan = PatchPlan((16, 16), share, 8, 0, 1)
        found = [draw_corners(pair, plan, 12, np.random.default_rng(seed)) for seed in range(20)]
        assert sum(sparse for _, sparse in found) / 240 == pytest.approx(share, abs=0.06)
        corners = np.array([corner for corners, _ in found for corner in corners])
        assert (corners >= 0).all()
        assert (corners <= 80).all()


@pytest.mark.parametrize("kind", ["rods", "round", "adherent"])
@pytest.mark.parametrize(("density", "fewest", "most"), [(0.0, 0.9, 1.0), (0.3, 0.0, 0.5), (0.45, 0.0, 0.25)])
def test_frames_full_of_cells_are_not_taken_for_background(
    kind: Kind, density: float, fewest: float, most: float
) -> None:
    _, clean = PhaseContrast(shape=(512, 512), n_frames=1, seed=1, kind=kind, density=density).pair(0)
    high = (clean / np.median(clean)).astype("float32")[..., np.newaxis]
    cells = cells_of(Pair(high, high, (0, 0), (1.0, 1.0)))
    shares = cells.reshape(4, 128, 4, 128).mean(axis=(1, 3))
    assert fewest <= np.mean(shares < SPARSE) <= most


def test_patches_keep_off_the_margin_of_a_moved_frame() -> None:
    pair = frame_with_cells()
    moved = Pair(pair.low, pair.high, (30, 20), (1.0, 1.0))
    corners, _ = draw_corners(moved, PatchPlan((16, 16), 0.5, 8, 0, 1), 50, np.random.default_rng(0))
    assert min(y for y, _ in corners) >= 30
    assert max(x for _, x in corners) <= 96 - 20 - 16


def test_a_stream_goes_on_from_any_position_as_if_it_had_not_ended() -> None:
    frames: list[Pair | None] = [frame_with_cells(seed) for seed in range(5)]
    frames[2] = None
    whole = list(islice(stream(Reader(frames)).batches(), 45))
    for stop in (1, 9, 22, 44):
        batch, _ = next(stream(Reader(frames)).batches(whole[stop - 1][1]))
        np.testing.assert_array_equal(batch[0], whole[stop][0][0])
        np.testing.assert_array_equal(batch[1], whole[stop][0][1])
    assert whole[0][0][0].shape == (8, 16, 16, 1)


def test_few_frames_are_in_memory_and_all_are_gone_through() -> None:
    reader = Reader([frame_with_cells(seed) for seed in range(5)])
    patches = stream(reader)
    list(islice(patches.batches(), 5 * 36 * 2 // 8))
    turns = [sorted(t for t, turn in reader.reads if turn == number) for number in (0, 1)]
    assert turns == [list(range(5))] * 2
    kept = Reader([frame_with_cells(seed) for seed in range(2)])
    list(islice(stream(kept, keeps=True).batches(), 50))
    assert len(kept.reads) == 2


def test_cells_of_a_frame_that_is_kept_are_looked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    searched = list[bool]()

    def search(pair: Pair) -> NDArray[np.bool_]:
        searched.append(pair.cells is None)
        return cells_of(pair)

    monkeypatch.setattr(patches, "cells_of", search)
    frames = [frame_with_cells(), None, frame_with_cells(2)]
    kept = list(islice(stream(Reader(frames), at_once=3, keeps=True).batches(), 40))
    assert sum(searched) == 2
    read = list(islice(stream(Reader(frames), at_once=3).batches(), 40))
    assert sum(searched) > 4
    for (batch, _), (same, _) in zip(kept, read, strict=True):
        np.testing.assert_array_equal(batch, same)


def test_frames_of_which_none_has_a_scale_are_refused() -> None:
    with pytest.raises(InputError, match="none of 3 frames has a scale"):
        next(stream(Reader([None] * 3)).batches())
