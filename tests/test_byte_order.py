"""Pixels of foreign byte order give the numbers of native ones, at every door."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import zarr

import phbatch
from phbatch.csbdeep import MedianNormalizer, ModeNormalizer, patch_normalization
from phbatch.kernels.stats import finalize, from_block, measure_frame
from tests.movies import frames_of


def images(dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """The same two frames in the byte order of this machine, and in the other."""
    movie = phbatch.PhaseContrast(shape=(40, 52), n_frames=2, seed=1)
    own = frames_of(movie).astype(dtype)
    return own, own.astype(own.dtype.newbyteorder("S"))


@pytest.fixture(params=["uint16", "int16", "uint32", "float32", "float64"])
def pair(request: Any) -> tuple[np.ndarray, np.ndarray]:
    return images(request.param)


def test_kernels(pair: tuple[np.ndarray, np.ndarray]) -> None:
    own, foreign = (array[0] for array in pair)
    assert measure_frame(foreign, 2.0) == measure_frame(own, 2.0)
    assert finalize(from_block(foreign, 2.0)) == finalize(from_block(own, 2.0))


@pytest.mark.parametrize("chunks", [(1, 40, 52), (2, 20, 28)])
def test_dask(pair: tuple[np.ndarray, np.ndarray], chunks: tuple[int, ...]) -> None:
    own, foreign = (da.from_array(array, chunks=chunks) for array in pair)
    assert phbatch.image_statistics(foreign, "tyx").compute().tolist() == (
        phbatch.image_statistics(own, "tyx").compute().tolist()
    )
    for rule in ("median", "mode", "percentile"):
        expected = phbatch.normalize(own, "tyx", normalize=rule).compute()
        found = phbatch.normalize(foreign, "tyx", normalize=rule).compute()
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, expected)


def test_csbdeep(pair: tuple[np.ndarray, np.ndarray]) -> None:
    own, foreign = (array[0] for array in pair)
    for normalizer in (MedianNormalizer(), ModeNormalizer()):
        np.testing.assert_array_equal(normalizer.before(foreign, "YX"), normalizer.before(own, "YX"))
    rule = patch_normalization("median")
    for found, expected in zip(
        rule(foreign[np.newaxis], foreign[np.newaxis], foreign, foreign, None, None),
        rule(own[np.newaxis], own[np.newaxis], own, own, None, None),
        strict=True,
    ):
        np.testing.assert_array_equal(found, expected)


def test_stores(tmp_path: Path, pair: tuple[np.ndarray, np.ndarray]) -> None:
    rows = []
    for name, array in zip(("own", "foreign"), pair, strict=True):
        zarr.create_array(tmp_path / f"{name}.zarr", data=array, chunks=(1, 40, 52), zarr_format=2)
        rows.append(list(phbatch.statistics(tmp_path / f"{name}.zarr")))
    assert rows[0] == rows[1]
