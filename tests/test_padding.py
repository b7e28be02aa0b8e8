"""Padded images through everything: frames beyond memory, several passes, averages, uneven light, registered series."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import phbatch
from phbatch.frames.light import Preparation, prepare_frame
from phbatch.inputs.image import open_source
from phbatch.kernels.intensity import Affine
from phbatch.kernels.stats import measure_frame
from phbatch.places.place import Place
from phbatch.planning.resolve import resolve_statistics
from phbatch.running.large import LargeFrames
from phbatch.words.settings import RunSettings


def movie(shape: tuple[int, int] = (160, 170), n: int = 6, **options: Any) -> np.ndarray:
    found = phbatch.PhaseContrast(shape=shape, n_frames=n, seed=6, **options)
    return np.stack([found.frame(t) for t in range(n)])


def cropped(frames: np.ndarray) -> np.ndarray:
    """A circular crop: zeros about a disk."""
    y, x = np.mgrid[: frames.shape[-2], : frames.shape[-1]]
    inside = (y - frames.shape[-2] / 2) ** 2 + (x - frames.shape[-1] / 2) ** 2 < (min(frames.shape[-2:]) / 2 - 3) ** 2
    return np.where(inside, frames, 0).astype(frames.dtype)


def store(path: Path, frames: np.ndarray, chunks: tuple[int, ...]) -> str:
    zarr.create_array(path, data=frames, chunks=chunks)
    return str(path)


@pytest.mark.parametrize("chunks", [(1, 30, 50), (1, 30, 410)])
def test_frames_beyond_memory_have_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunks: tuple[int, ...]
) -> None:
    monkeypatch.setattr("phbatch.planning.passes._LARGE_CHUNK", 60)
    frames = movie((300, 410), 3)
    frames[1] = cropped(frames[1:2])[0]
    frames[2, :23] = 0
    source = open_source(Place.at(store(tmp_path / "large.zarr", frames, chunks)), None)
    resolved = resolve_statistics(RunSettings(), source, available_bytes=10**10, cores=2)
    measured = LargeFrames(source, resolved.recipe, 2).statistics(resolved.geometry.grid)
    pieces = [row.statistics for row in measured]
    assert pieces == [measure_frame(frame, 2.0) for frame in frames]
    assert pieces[0].padding == 0
    assert pieces[1].padding == pytest.approx(1 - np.count_nonzero(frames[1]) / frames[1].size)


@pytest.mark.parametrize("options", [{}, {"downscale": 2}, {"downscale": 3, "dtype": "float32"}], ids=str)
def test_passes_and_chunks_agree(tmp_path: Path, options: dict[str, Any]) -> None:
    frames = cropped(movie())
    results = [
        phbatch.run(source, tmp_path / f"{name}.zarr", model="none", **options, **more)
        for name, source, more in (
            ("one", store(tmp_path / "a.zarr", frames, (3, 160, 170)), {}),
            ("two", str(tmp_path / "a.zarr"), {"bad_frames": "copy"}),
            ("cut", store(tmp_path / "b.zarr", frames, (1, 64, 50)), {}),
        )
    ]
    assert all(result.flagged == {} for result in results)
    first, *others = [zarr.open_array(result.output, path="0")[:] for result in results]
    assert np.median(first[first > 0]) == pytest.approx(1, abs=0.05)
    for other in others:
        np.testing.assert_array_equal(other, first)


@pytest.mark.parametrize("factor", [1, 2, 3])
@pytest.mark.parametrize("mode", ["divide", "subtract"])
def test_prepared_frames_leave_it_out(factor: int, mode: Any) -> None:
    frame = movie()[0]
    frame[:, :40] = 0
    preparation = Preparation(factor, "polynomial", mode)
    prepared = prepare_frame(frame[np.newaxis, np.newaxis, np.newaxis], (0, 0, 0), preparation, None)
    found = prepared.measure(2.0, (2.0, 99.8))
    assert found.padding == pytest.approx(40 / 170, abs=factor / 170)
    assert found.zero == 0
    values = prepared.normalize(Affine())[:, -(-40 // factor) :]
    assert found.min == pytest.approx(values.min(), abs=0.51)
    assert found.median == pytest.approx(np.median(values), rel=0.02)


def test_no_frame_of_a_registered_series_is_bad(tmp_path: Path) -> None:
    frames = movie((256, 256), 8, flicker=0.0)
    shifts = np.random.default_rng(1).integers(1, 12, (8, 2))
    for frame, (dy, dx) in zip(frames[1:], shifts, strict=False):
        frame[:dy] = 0
        frame[:, -dx:] = 0
    result = phbatch.run(
        store(tmp_path / "in.zarr", frames, (1, 256, 256)), model="none", normalize="mode", bad_frames="skip"
    )
    assert result.flagged == {}
    levels = np.median(zarr.open_array(result.output, path="0")[:], axis=(1, 2))
    np.testing.assert_allclose(levels, 1, atol=0.05)
