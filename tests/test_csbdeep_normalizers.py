"""CSBDeep users train and predict with the rule that phbatch runs."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Literal

import numpy as np
import pytest
import zarr
from csbdeep.data import RawData, create_patches
from scipy import ndimage

import phbatch
from phbatch.csbdeep import MedianNormalizer, ModeNormalizer, RobustNormalizer, patch_normalization
from phbatch.kernels.stats import measure_frame

NORMALIZERS = [MedianNormalizer(factor=2.0), ModeNormalizer(sigma=1.0)]


def image(seed: int, shape: tuple[int, ...] = (60, 50)) -> np.ndarray:
    draw = np.random.default_rng(seed)
    return (1000 + 300 * seed + 40 * draw.standard_normal(shape) + 300 * (draw.random(shape) > 0.97)).astype("uint16")


@pytest.mark.parametrize("normalizer", NORMALIZERS)
def test_one_instance_is_safe_in_many_threads(normalizer: RobustNormalizer) -> None:
    images = [image(seed) for seed in range(40)]
    alone = [type(normalizer)(normalizer.rule.factor, normalizer.rule.sigma) for _ in images]
    expected = [own.before(one, "YX") for own, one in zip(alone, images, strict=True)]

    def round_trip(one: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        normalized = normalizer.before(one, "YX")
        return normalized, normalizer.after(normalized, normalized, "YX")[0]

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(round_trip, images))
    for (normalized, back), one, right in zip(results, images, expected, strict=True):
        np.testing.assert_array_equal(normalized, right)
        np.testing.assert_allclose(back, one, rtol=1e-6)


@pytest.mark.parametrize("normalizer", NORMALIZERS)
def test_eight_threads_between_before_and_after_do_not_mix(normalizer: RobustNormalizer) -> None:
    barrier = Barrier(8, timeout=30)

    def round_trip(seed: int) -> tuple[np.ndarray, np.ndarray]:
        normalized = normalizer.before(image(seed), "YX")
        barrier.wait()  # every thread has measured its own image before any undoes its own
        return normalized, normalizer.after(normalized, None, "YX")[0]

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(round_trip, range(8)))
    for seed, (normalized, back) in enumerate(results):
        np.testing.assert_array_equal(normalized, type(normalizer)(*_parameters(normalizer)).before(image(seed), "YX"))
        np.testing.assert_allclose(back, image(seed), rtol=1e-6)


@pytest.mark.parametrize("axes", ["YX", "XY", "YXC", "CYX", "ZYX", "ZYXC", "CZYX", "YCXZ"])
@pytest.mark.parametrize("normalizer", NORMALIZERS)
def test_after_undoes_before_for_axes_in_any_order(normalizer: RobustNormalizer, axes: str) -> None:
    ordered = [axis for axis in "CZYX" if axis in axes]
    planes = np.stack([image(seed, (40, 50)) for seed in range(6)]).reshape(2, 3, 40, 50)  # (c, z, y, x)
    stored = planes[tuple(slice(None) if axis in axes else 0 for axis in "CZYX")]
    moved = stored.transpose([ordered.index(axis) for axis in axes])
    normalized = normalizer.before(moved, axes)
    assert (normalized.shape, normalized.dtype) == (moved.shape, np.float32)
    back, scale = normalizer.after(normalized, np.ones_like(normalized), axes)
    np.testing.assert_allclose(back, moved, rtol=1e-6)
    np.testing.assert_allclose(scale * normalized, moved, rtol=1e-6)
    # The order of the axes is no matter for the numbers: as if every channel came alone, with its planes pooled.
    channels = stored if "C" in axes else stored[np.newaxis]
    alone = np.stack([normalizer.before(channel, "ZYX" if "Z" in axes else "YX") for channel in channels])
    expected = (alone if "C" in axes else alone[0]).transpose([ordered.index(axis) for axis in axes])
    np.testing.assert_array_equal(normalized, expected)


def _parameters(normalizer: RobustNormalizer) -> tuple[float, float]:
    return normalizer.rule.factor, normalizer.rule.sigma


@pytest.mark.parametrize("dtype", ["uint16", "uint8", "float32"])
@pytest.mark.parametrize("method", ["median", "mode"])
def test_channels_of_run_are_normalized_alike(tmp_path: Path, method: Literal["median", "mode"], dtype: str) -> None:
    frames = np.stack([image(seed) for seed in range(6)]).reshape(3, 2, 60, 50) // (16 if dtype == "uint8" else 1)
    frames = frames.astype(dtype)
    zarr.create_array(tmp_path / "in.zarr", data=frames, chunks=(1, 2, 30, 25))
    result = phbatch.run(tmp_path / "in.zarr", axes="tcyx", model="none", normalize=method, sigma=1.0, workers=2)
    expected = np.stack([RobustNormalizer(method, 1.0, 1.0).before(frame, "CYX") for frame in frames])
    np.testing.assert_array_equal(zarr.open_array(result.output, path="0")[:], expected)


@pytest.mark.parametrize("method", ["median", "mode"])
def test_it_is_what_run_computes(tmp_path: Path, method: Literal["median", "mode"]) -> None:
    zarr.create_array(tmp_path / "in.zarr", data=image(1))
    result = phbatch.run(tmp_path / "in.zarr", model="none", normalize=method, factor=3.0)
    expected = RobustNormalizer(method, 3.0).before(image(1), "YX")
    np.testing.assert_array_equal(zarr.open_array(result.output, path="0")[:], expected)


def test_channels_have_their_own_statistic_and_planes_are_pooled() -> None:
    volume = np.stack([np.stack([image(c + z) for z in range(3)]) for c in (0, 5)])  # (c, z, y, x)
    normalized = MedianNormalizer().before(volume.transpose(1, 2, 3, 0), "ZYXC")
    for c in range(2):
        smooth = np.stack([ndimage.gaussian_filter(plane.astype(float), 2.0) for plane in volume[c]])
        np.testing.assert_allclose(normalized[..., c], volume[c] / np.median(smooth), rtol=1e-3)
    constant = np.full((20, 20, 1), 7, np.uint16)
    np.testing.assert_array_equal(MedianNormalizer().before(constant, "YXC"), constant)


def test_scale_comes_back_to_counts() -> None:
    normalizer = MedianNormalizer(factor=2.0)
    mean = normalizer.before(image(2), "YX")
    width = np.ones_like(mean)
    counts, scale = normalizer.after(mean, width, "YX")
    assert scale is not None
    np.testing.assert_allclose(counts, image(2), rtol=1e-6)
    assert scale[0, 0] == pytest.approx(2 * measure_frame(image(2), 2.0).median)
    assert normalizer.after(mean, None, "YX")[1] is None
    assert normalizer.do_after
    assert not MedianNormalizer(do_after=False).do_after


@pytest.mark.parametrize("method", ["median", "mode"])
def test_patches_share_the_statistic_and_keep_the_ratio(method: Literal["median", "mode"]) -> None:
    noisy = image(3, (80, 90))
    clean = ndimage.uniform_filter(noisy, 3)
    raw = RawData.from_arrays([noisy], [clean], axes="YX")
    np.random.seed(0)  # noqa: NPY002
    x, y, _ = create_patches(
        raw, (32, 32), 6, patch_filter=None, normalization=patch_normalization(method, 2.0, 1.0), verbose=False
    )
    statistic = getattr(measure_frame(noisy, 1.0), method)
    whole = RobustNormalizer(method, 2.0, 1.0).before(noisy, "YX")
    windows = np.lib.stride_tricks.sliding_window_view(whole, (32, 32))
    targets = np.lib.stride_tricks.sliding_window_view(clean, (32, 32))
    for px, py in zip(x[:, 0], y[:, 0], strict=True):
        place = np.argwhere((windows == px).all(axis=(2, 3)))
        assert len(place) == 1
        np.testing.assert_allclose(py, targets[tuple(place[0])] / np.float32(2 * statistic), rtol=1e-6)


def test_patches_with_channels() -> None:
    noisy = np.stack([image(1), image(9)])
    raw = RawData.from_arrays([noisy], [noisy], axes="CYX")
    np.random.seed(0)  # noqa: NPY002
    x, y, axes = create_patches(
        raw, (2, 32, 32), 4, patch_filter=None, normalization=patch_normalization("median"), verbose=False
    )
    assert axes == "SCYX"
    np.testing.assert_array_equal(x, y)
    assert np.median(x[:, 0]) == pytest.approx(1, abs=0.02)
    assert np.median(x[:, 1]) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("method", ["median", "mode"])
def test_patches_of_a_volume_share_the_statistic_of_its_pooled_planes(method: Literal["median", "mode"]) -> None:
    noisy = np.stack([image(seed, (64, 70)) for seed in range(5)])
    clean = noisy // 2
    raw = RawData.from_arrays([noisy], [clean], axes="ZYX")
    np.random.seed(0)  # noqa: NPY002
    x, y, axes = create_patches(
        raw, (4, 32, 32), 5, patch_filter=None, normalization=patch_normalization(method, 2.0, 1.0), verbose=False
    )
    assert axes == "SCZYX"
    whole = RobustNormalizer(method, 2.0, 1.0).before(noisy, "ZYX")
    windows = np.lib.stride_tricks.sliding_window_view(whole, (4, 32, 32))
    targets = np.lib.stride_tricks.sliding_window_view(clean, (4, 32, 32))
    statistic = getattr(measure_frame(noisy, 1.0), method)
    assert statistic != pytest.approx(getattr(measure_frame(noisy[0], 1.0), method), rel=0.01)
    for px, py in zip(x[:, 0], y[:, 0], strict=True):
        place = np.argwhere((windows == px).all(axis=(3, 4, 5)))
        assert len(place) == 1
        np.testing.assert_allclose(py, targets[tuple(place[0])] / np.float32(2 * statistic), rtol=1e-6)
