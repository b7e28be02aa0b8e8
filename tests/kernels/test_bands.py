"""Bands of a frame put together are the frame: the same windows reach the network, and every pixel is written once."""

from __future__ import annotations

from math import prod
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from phbatch.frames.tiles import Batches, NetworkFrame
from phbatch.kernels.bands import BandedTiles, rows_about, window_of_band
from phbatch.network.steps import Prediction, Windows


class Seen(NamedTuple):
    """What became of a frame, and the windows that the network saw."""

    image: NDArray[np.float32]
    windows: list[bytes]


@st.composite
def plans(draw: st.DrawFn) -> BandedTiles:
    """Any frame and band, and any tile that fits them."""
    grid = draw(st.sampled_from([2, 4, 8]))
    halo = grid * draw(st.integers(0, 3))
    shape = (draw(st.integers(1, 150)), draw(st.integers(1, 60)))
    band = grid * draw(st.integers(1, 12))
    window = window_of_band(shape, halo, grid, band)
    tile = [draw(st.sampled_from([most, *range(2 * halo + grid, most, grid)])) for most in window]
    return BandedTiles(shape, tuple(tile), halo, grid, band)


def through(tiles: BandedTiles, frame: NDArray[np.float32], rows: int) -> Seen:
    """A frame through a network that gives back what it sees, in full batches."""
    windows: list[bytes] = []

    def predict(given: Windows) -> Prediction:
        windows.extend(window.tobytes() for window in given.pixels)
        owned = [prod(lengths[:, 1] - lengths[:, 0]) for lengths in given.owned]
        return Prediction(given.pixels.copy(), None, np.array(owned, np.int32))

    out = np.full((rows, *frame.shape[1:]), np.nan, np.float32)
    batches = Batches(tiles, 3, predict)
    batches.add(NetworkFrame(0, frame, np.ones((4, 1), np.float32), out))
    batches.finish()
    return Seen(out, windows)


@settings(max_examples=300, deadline=None)
@given(plans())
def test_bands_are_made_of_the_tiles_of_the_whole_frame(tiles: BandedTiles) -> None:
    height, width = tiles.shape
    frame = np.random.default_rng(0).random((height, width, 1), np.float32)
    whole = through(tiles, frame, height)
    np.testing.assert_array_equal(whole.image, frame)
    images, windows = [], []
    for at in range(tiles.bands):
        start, stop = rows_about(height, tiles.band, tiles.halo + tiles.grid, at)
        own = min(tiles.band, height - at * tiles.band)
        seen = through(tiles.part(at, slice(start, stop)), frame[start:stop].copy(), own)
        images.append(seen.image)
        windows += seen.windows
    np.testing.assert_array_equal(np.concatenate(images), frame)
    assert windows == whole.windows


@settings(max_examples=300, deadline=None)
@given(plans())
def test_tiles_of_bands_write_every_pixel_once_and_see_their_halo(tiles: BandedTiles) -> None:
    written = np.zeros(tiles.padded_shape, int)
    for tile in tiles.tiles:
        written[tuple(slice(span.start, span.stop) for span in tile)] += 1
        for span, size, length in zip(tile, tiles.tile, tiles.padded_shape, strict=True):
            assert span.read % tiles.grid == 0
            assert 0 <= span.read <= span.read + size <= length
            first, last = span.start // tiles.grid * tiles.grid, -(-span.stop // tiles.grid) * tiles.grid
            assert span.read == 0 or first - span.read >= tiles.halo
            assert span.read + size == length or span.read + size - last >= tiles.halo
    assert (written == 1).all()


@given(st.integers(1, 300), st.integers(1, 64), st.integers(0, 40))
def test_a_band_is_read_with_its_margin_and_all_take_as_many_rows(size: int, band: int, margin: int) -> None:
    for at in range(-(-size // band)):
        start, stop = rows_about(size, band, margin, at)
        assert start <= max(0, at * band - margin)
        assert stop >= min(size, (at + 1) * band + margin)
        assert stop - start == min(size, band + 2 * margin)


def test_a_tile_that_reads_beyond_a_band_is_refused() -> None:
    with pytest.raises(ValueError, match="bands of 32"):
        BandedTiles((200, 200), (160, 200), 24, 4, 32)
