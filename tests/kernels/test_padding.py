"""Padding is in no statistic, however a frame is cut; and what only looks like padding is image."""

from __future__ import annotations

from itertools import pairwise, product

import dask.array as da
import numpy as np
import pytest
from scipy import ndimage

import phbatch
from phbatch.kernels.counting import halo_of_counting
from phbatch.kernels.padding import Runs, find_padding, join_runs
from phbatch.kernels.stats import FrameStatistics, finalize, from_block, measure_frame, merge

SIZE = 160
RADIUS = halo_of_counting(2.0)
Y, X = np.mgrid[:SIZE, :SIZE]


def image(dtype: str = "uint16", seed: int = 0, slope: float = 0.0) -> np.ndarray:
    draw = np.random.default_rng(seed)
    level = 120.0 if dtype == "uint8" else 2000.0
    field = level * (1 + slope * (X / SIZE - 0.5)) + draw.normal(0, level / 60, (SIZE, SIZE))
    for y, x in draw.uniform(0, SIZE, (12, 2)):
        distance = np.hypot(Y - y, X - x)
        field += level * (0.25 * np.exp(-((distance - 9) ** 2) / 10) - 0.3 * np.exp(-(distance**2) / 30))
    return field.round().astype(dtype)


OUTLINES = {
    "strip": Y >= 7,
    "line": X < SIZE - 1,
    "two sides": (Y >= 5) & (X < SIZE - 11),
    "half": X >= 90,
    "circle": (Y - 80) ** 2 + (X - 78) ** 2 < 74**2,
    "turned": (X + 0.2 * Y > 20) & (X + 0.2 * Y < 175) & (Y - 0.2 * X > -18) & (Y - 0.2 * X < 145),
    "stitched": ((Y >= 10) | (X < 70)) & ((Y < 150) | (X >= 70)),
}


def clear_of(inside: np.ndarray) -> np.ndarray:
    """Pixels whose square neighbourhood, as far as smoothing and the Laplacian read, holds no padding."""
    return ndimage.minimum_filter(inside, 2 * RADIUS + 1, mode="nearest")


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
@pytest.mark.parametrize("outline", OUTLINES)
def test_statistics_are_those_of_the_image_alone(outline: str, dtype: str) -> None:
    inside = OUTLINES[outline]
    whole, padded = image(dtype), np.where(inside, image(dtype), 0).astype(dtype)
    row = measure_frame(padded, 2.0)
    smooth = ndimage.gaussian_filter(whole.astype(float), 2.0)
    clear, pixels = clear_of(inside), whole[inside]
    assert row.padding == pytest.approx(1 - inside.mean(), abs=1e-12)
    assert row.flags == ()
    assert (row.min, row.max) == (pixels.min(), pixels.max())
    assert row.zero == 0
    assert row.mean == pytest.approx(pixels.mean(dtype=float), rel=1e-9)
    assert row.std == pytest.approx(pixels.std(dtype=float), rel=1e-6)
    assert row.percentiles[99.8] == np.percentile(pixels, 99.8)
    assert row.median == pytest.approx(np.median(smooth[clear]), abs=0.4)
    assert row.focus == pytest.approx(ndimage.laplace(smooth, mode="reflect")[clear].var(), rel=0.05)
    assert row.mode == pytest.approx(measure_frame(whole, 2.0).mode, rel=0.02)


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_focus_is_a_variance_about_the_mean_of_what_is_not_padding(dtype: str) -> None:
    """Over a whole frame the Laplacian has the mean 0; here it is 4 wherever it counts."""
    bowl = (1000 + (Y - 80.0) ** 2 + (X - 70.0) ** 2).astype(dtype)
    inside = OUTLINES["circle"]
    laplacian = ndimage.laplace(ndimage.gaussian_filter(bowl.astype(float), 2.0), mode="reflect")[clear_of(inside)]
    assert laplacian.mean() == pytest.approx(4)
    assert abs(measure_frame(np.where(inside, bowl, 0).astype(dtype), 2.0).focus - laplacian.var()) < 0.1


def finalized_from_blocks(frame: np.ndarray, rows: list[int], columns: list[int]) -> FrameStatistics:
    spans = [list(pairwise(sorted({0, SIZE, *cuts}))) for cuts in (rows, columns)]
    runs = [[Runs.from_block(frame[slice(*ys), slice(*xs)]) for xs in spans[1]] for ys in spans[0]]
    padding = join_runs(runs, RADIUS)
    total = None
    for ys, xs in product(*spans):
        halo = [(min(RADIUS, a), min(RADIUS, SIZE - b)) for a, b in (ys, xs)]
        window = tuple(slice(a - h[0], b + h[1]) for (a, b), h in zip((ys, xs), halo, strict=True))
        own = padding and padding.window(slice(*ys), slice(*xs))
        state = from_block(np.ascontiguousarray(frame[window]), 2.0, halo, own)
        total = state if total is None else merge(state, total)
    assert total is not None
    return finalize(total)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("outline", OUTLINES)
def test_the_same_bits_whatever_the_blocks(outline: str, dtype: str) -> None:
    frame = np.where(OUTLINES[outline], image(dtype), 0).astype(dtype)
    whole = measure_frame(frame, 2.0)
    assert whole.padding > 0
    for rows, columns in [([], []), ([3, 40], [100]), (list(range(0, SIZE, 32)), [1, 80, 159])]:
        assert finalized_from_blocks(frame, rows, columns) == whole
    lazy = phbatch.image_statistics(da.from_array(frame, chunks=(48, 64)), "yx").compute()
    assert [float(lazy[name]) for name in ("median", "mode", "focus", "padding")] == [
        whole.median,
        whole.mode,
        whole.focus,
        whole.padding,
    ]


def test_floats_in_blocks_are_near_the_whole_frame() -> None:
    frame = np.where(OUTLINES["circle"], image("float32"), 0).astype("float32")
    whole, parts = measure_frame(frame, 2.0), finalized_from_blocks(frame, [1, 90], [30, 40])
    for name in ("median", "mad", "mean", "std", "min", "max", "focus", "padding", "zero", "saturated"):
        assert getattr(parts, name) == pytest.approx(getattr(whole, name), rel=1e-3, abs=1e-9), name


def test_every_pixel_of_the_padding_is_found_and_no_other() -> None:
    for inside in OUTLINES.values():
        padding = find_padding(np.where(inside, 5, 0), RADIUS)
        assert padding is not None
        np.testing.assert_array_equal(padding.image.mask(), inside)
        np.testing.assert_array_equal(padding.clear.mask(), clear_of(inside))


def test_what_is_no_padding() -> None:
    draw = np.random.default_rng(1)
    dark = draw.poisson(0.7, (SIZE, SIZE)).astype(np.uint8)  # half of the pixels are zero
    hole = image()
    hole[40:90, 50:120] = 0
    spots = image()
    spots[0, ::3] = 0
    bright = image("uint8")
    bright[:30] = 255
    for frame in (dark, hole, spots, bright, np.zeros((SIZE, SIZE), np.uint16), np.full((SIZE, SIZE), 9, np.uint8)):
        assert find_padding(frame, RADIUS) is None
        assert measure_frame(frame, 2.0).padding == 0
    assert measure_frame(bright, 2.0).saturated == 30 / SIZE


def test_a_volume_pools_the_image_of_every_plane() -> None:
    padded = np.where(OUTLINES["half"], image(), 0).astype(np.uint16)
    row = measure_frame(np.stack([image(), padded]), 2.0)
    assert row.padding == pytest.approx(90 / SIZE / 2)
    assert row.min > 500


def test_the_mode_of_half_a_frame_is_a_value_that_pixels_have() -> None:
    light = 1 + 0.4 * (Y / SIZE - 0.5)  # uneven: the peak of the image is lower than that of the zeros' smoothing
    frame = np.where(X >= 72, image(slope=0.4) * light, 0).astype(np.uint16)
    row = measure_frame(frame, 2.0)
    assert 1700 < row.mode < 2500
    assert row.background > 0.1
