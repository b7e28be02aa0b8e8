"""Restoration equals ``CARE.predict`` on the whole frame, whatever the tile: 1e-5 of the output's std."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import tifffile
import zarr
from csbdeep.data import NoNormalizer, PercentileNormalizer
from csbdeep.models import CARE

import phbatch
from phbatch.csbdeep import MedianNormalizer, ModeNormalizer
from phbatch.kernels.tiling import required_halo
from tests.models import Case, make_model

DATA = Path(os.environ.get("PHBATCH_DATA", Path(__file__).parents[2] / "shared" / "data"))
BOUND = 1e-5

CASES = [
    Case(depth=1, kernel=3, residual=False),
    Case(depth=1, kernel=7, probabilistic=True),
    Case(depth=2, kernel=3, n_first=8, last="relu"),
    Case(depth=2, kernel=5),
    Case(depth=2, kernel=5, n_first=32),
    Case(depth=2, kernel=5, probabilistic=True, residual=False),
    Case(depth=2, kernel=7, channels=(2, 2)),
    Case(depth=3, kernel=3, channels=(1, 3), residual=False),
    Case(depth=3, kernel=5, probabilistic=True, n_first=5),
    Case(depth=4, kernel=3, n_first=3),
    Case(depth=2, kernel=3, channels=(3, 1), residual=False, last="relu"),
    Case(depth=2, kernel=3, channels=(4, 4), probabilistic=True),
    Case(depth=2, kernel=3, channels=(2, 4), residual=False, probabilistic=True),
    Case(n_dim=3, depth=1, kernel=3),
    Case(n_dim=3, depth=2, kernel=3, probabilistic=True),
    Case(n_dim=3, depth=1, kernel=5, channels=(2, 1), residual=False),
    Case(n_dim=3, depth=1, kernel=7),
    Case(n_dim=3, depth=3, kernel=3),
    Case(n_dim=3, depth=4, kernel=3, n_first=2),
    Case(n_dim=3, depth=1, kernel=3, channels=(2, 2), last="relu", probabilistic=True),
]


def make_frame(case: Case, dtype: str, seed: int = 1) -> np.ndarray:
    """One frame ``(c, [z,] y, x)`` of odd lengths, large enough that the smallest tile really tiles it."""
    tile = 2 * required_halo(case.depth, case.kernel) + 2**case.depth
    spatial = (tile + 2 * 2**case.depth + 5, tile + 2**case.depth + 3)
    if case.n_dim == 3:
        spatial = (7, *spatial)
    draw = np.random.default_rng(seed)
    frame = 2000 + 150 * draw.standard_normal((case.channels[0], *spatial))
    frame[:, ..., 5:20, 8:30] += 900
    return frame.astype(dtype)


def in_file(frame: np.ndarray, case: Case) -> tuple[np.ndarray, str]:
    """The frame as it is stored: without a channel axis where there is one channel."""
    spatial = "yx" if case.n_dim == 2 else "zyx"
    return (frame[0], spatial) if case.channels[0] == 1 else (frame, f"c{spatial}")


def predict_whole(model: Any, frame: np.ndarray, normalizer: Any, case: Case) -> tuple[np.ndarray, np.ndarray | None]:
    """CSBDeep on the whole frame: mean and scale as ``(c, ...)``."""
    axes = "CYX" if case.n_dim == 2 else "CZYX"
    if case.probabilistic:
        prediction = model.predict_probabilistic(frame, axes, normalizer=normalizer)
        return np.asarray(prediction.mean()), np.asarray(prediction.scale())
    return np.asarray(model.predict(frame, axes, normalizer=normalizer)), None


def assert_close(found: np.ndarray, expected: np.ndarray) -> None:
    """Within 1e-5 std, or within 16 units in the last place where the std is small against the values themselves.

    oneDNN sums in another order for other shapes of a tile, so less than its rounding cannot be asked of any tiling.
    """
    assert expected.std() > 0
    difference = float(np.abs(found.reshape(expected.shape) - expected).max())
    allowed = max(BOUND * float(expected.std()), 16 * float(np.spacing(np.abs(expected).max())))
    assert difference <= allowed, f"differs by {difference / expected.std():.2e} std"


NORMALIZERS = {
    "percentile": lambda after: PercentileNormalizer(2, 99.8, do_after=after),
    "median": lambda after: MedianNormalizer(do_after=after),
    "mode": lambda after: ModeNormalizer(factor=2.0, do_after=after),
    "none": lambda after: NoNormalizer(do_after=after),
}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_run_equals_care_predict_for_any_tile(tmp_path: Path, case: Case) -> None:
    model = make_model(tmp_path / "model", case)
    index = CASES.index(case)
    dtype = ("uint16", "float32", "uint8")[index % 3]
    frame = make_frame(case, "uint16") if dtype != "uint8" else (make_frame(case, "uint16") // 16).astype("uint8")
    frame = frame.astype(dtype)
    stored, axes = in_file(frame, case)
    zarr.create_array(tmp_path / "in.zarr", data=stored, chunks=tuple(max(1, size // 2) for size in stored.shape))
    smallest = 2 * required_halo(case.depth, case.kernel) + 2**case.depth
    rescale = case.channels[0] == case.channels[1] and index % 2 == 0
    method = ("percentile", "median", "mode")[index % 3]
    expected, scale = predict_whole(model, frame, NORMALIZERS[method](rescale), case)
    for tile in (None, smallest, smallest + 2**case.depth):
        options: dict[str, Any] = {
            "model": str(tmp_path / "model"),
            "axes": axes,
            "tile": tile,
            "batch": 1 if tile is None else 3,
            "normalize": method,
            "factor": 2.0 if method == "mode" else None,
            "rescale": rescale,
            "uncertainty": case.probabilistic,
            "workers": 1,
        }
        if tile is not None:
            assert phbatch.plan(tmp_path / "in.zarr", **options).tiles_per_frame > 1
        result = phbatch.run(tmp_path / "in.zarr", tmp_path / f"out{tile}.zarr", **options)
        assert_close(zarr.open_array(result.output, path="0")[:], expected)
        if scale is not None:
            assert_close(zarr.open_array(result.output, path="uncertainty/0")[:], scale)


def test_no_normalization_feeds_raw_counts(tmp_path: Path) -> None:
    case = Case()
    model = make_model(tmp_path / "model", case)
    frame = make_frame(case, "uint16")
    zarr.create_array(tmp_path / "in.zarr", data=frame[0])
    expected, _ = predict_whole(model, frame.astype(np.float32), None, case)
    result = phbatch.run(tmp_path / "in.zarr", model=str(tmp_path / "model"), axes="yx", normalize="none", workers=1)
    assert_close(zarr.open_array(result.output, path="0")[:], expected)


@pytest.mark.parametrize("case", [Case(kernel=5), Case(n_dim=3, depth=1, channels=(2, 2))], ids=str)
def test_lazy_restore_has_the_bits_of_run(tmp_path: Path, case: Case) -> None:
    make_model(tmp_path / "model", case)
    frame = make_frame(case, "uint16")
    stored, axes = in_file(frame, case)
    zarr.create_array(tmp_path / "in.zarr", data=stored)
    result = phbatch.run(tmp_path / "in.zarr", model=tmp_path / "model", axes=axes, normalize="median", workers=1)
    array = da.from_array(stored, chunks=tuple(max(1, size // 2) for size in stored.shape))
    lazy = phbatch.restore(array, axes, model=tmp_path / "model", normalize="median")
    np.testing.assert_array_equal(lazy.compute(), zarr.open_array(result.output, path="0")[:])


@pytest.mark.parametrize("name", ["care-2d-k3", "care-2d-k5-probabilistic"])
def test_real_models_on_real_frames(tmp_path: Path, name: str) -> None:
    if not DATA.is_dir():
        pytest.skip("shared data absent")
    frame = tifffile.imread(DATA / "t98g" / "t01.tif")[:301, :274]
    model = CARE(None, name, basedir=str(DATA / "models"))
    expected = model.predict(frame, "YX", normalizer=PercentileNormalizer())
    tiled = model.predict(frame, "YX", normalizer=PercentileNormalizer(), n_tiles=(2, 2))
    # On frames unlike its training the second model returns small differences of large numbers; CSBDeep's own two ways
    # differ more than the bound there, since oneDNN takes other kernels for other shapes.
    own = float(np.abs(tiled - expected).max() / expected.std())
    zarr.create_array(tmp_path / "in.zarr", data=frame)
    for tile in (None, 160, 128):
        result = phbatch.run(
            tmp_path / "in.zarr", model=DATA / "models" / name, axes="yx", rescale=True, tile=tile, overwrite=True
        )
        found = zarr.open_array(result.output, path="0")[:]
        assert np.abs(found - expected).max() / expected.std() <= max(BOUND, 2 * own)
