"""The simulator: seeded, random access, and with the marks of phase contrast."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaozarrs
import zarr

import phbatch
from phbatch.kernels.stats import measure_frame
from phbatch.simulate import PhaseContrast
from tests.handmade import CommandLine

SMALL = PhaseContrast(shape=(121, 90), n_frames=8, seed=4)


def test_frames_are_a_pure_function_of_settings_and_time() -> None:
    backwards = [SMALL.pair(t) for t in reversed(range(3))][::-1]
    for t in range(3):
        noisy, clean = replace(SMALL).pair(t)
        np.testing.assert_array_equal(noisy, backwards[t][0])
        np.testing.assert_array_equal(clean, backwards[t][1])
        np.testing.assert_array_equal(SMALL.frame(t), noisy)
        np.testing.assert_array_equal(SMALL.clean(t), clean)


def test_shapes_and_dtypes() -> None:
    noisy, clean = SMALL.pair(0)
    assert (noisy.shape, noisy.dtype, clean.shape, clean.dtype) == ((121, 90), np.uint16, (121, 90), np.float32)


def test_other_seeds_and_times_are_other_frames() -> None:
    first = SMALL.clean(0)
    assert np.abs(replace(SMALL, seed=5).clean(0) - first).max() > 1
    assert np.abs(SMALL.clean(7) - first).max() > 1


def test_noise_is_shot_and_read_noise_of_the_truth() -> None:
    movie = replace(SMALL, shape=(400, 400), gain=3.0, read_noise_electrons=2.0)
    noisy, clean = movie.pair(1)
    expected = movie.gain * (clean - movie.offset) + (movie.gain * movie.read_noise_electrons) ** 2 + 1 / 12
    assert ((noisy - clean) ** 2).mean() == pytest.approx(expected.mean(), rel=0.02)
    assert (noisy - clean).mean() == pytest.approx(0, abs=0.15)


@pytest.mark.parametrize("kind", ["rods", "round", "adherent", "mixed"])
def test_most_of_a_frame_is_background(kind: str) -> None:
    clean = PhaseContrast(shape=(300, 300), seed=2, kind=kind, illumination=0.0, density=0.1).clean(3)  # type: ignore[arg-type]
    assert (np.abs(clean / np.median(clean) - 1) < 0.05).mean() > 0.5


def test_cells_are_dark_with_a_bright_halo_that_the_ring_makes() -> None:
    movie = PhaseContrast(
        shape=(200, 200),
        seed=8,
        kind="round",
        illumination=0.0,
        roughness_rad=0.0,
        debris_per_mm2=0.0,
        flicker=0.0,
        jump=0.0,
    )
    clean = movie.clean(0) - movie.offset
    background = np.median(clean)
    assert clean.min() < 0.6 * background
    assert clean.max() > 1.15 * background
    # A ring that neither dims nor is narrow is hardly a phase ring: the negative one turns the contrast round.
    negative = replace(movie, contrast="negative").clean(0) - movie.offset
    cell = clean < 0.6 * background
    assert negative[cell].mean() > np.median(negative)


def test_lamp_flickers_in_time_and_the_field_is_uneven() -> None:
    movie = replace(SMALL, flicker=0.05, jump_probability=0.0, n_frames=30, illumination=0.3, density=0.0)
    levels = np.array([np.median(movie.clean(t) - movie.offset) for t in range(30)])
    assert levels.std() / levels.mean() == pytest.approx(0.05, rel=0.5)
    frame = movie.clean(0) - movie.offset
    assert frame.max() / frame.min() > 1.1


def test_truth_and_noisy_frame_have_one_median() -> None:
    noisy, clean = replace(SMALL, shape=(256, 256)).pair(2)
    assert measure_frame(noisy, 2.0).median == pytest.approx(measure_frame(clean, 2.0).median, rel=0.01)


@pytest.mark.parametrize(
    "wrong", [{"density": 2.0}, {"shape": (3, 3)}, {"kind": "worms"}, {"pixel_size_um": 0.6}, {"gain": float("nan")}]
)
def test_settings_that_describe_no_microscope_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        replace(SMALL, **wrong)  # type: ignore[arg-type]


def test_there_is_no_frame_beyond_the_end() -> None:
    with pytest.raises(ValueError, match="does not exist"):
        SMALL.clean(8)


def test_the_offset_is_added_to_light() -> None:
    np.testing.assert_allclose(replace(SMALL, offset=250.0).clean(1) - SMALL.clean(1), 150.0, atol=1e-3)


def test_no_seam_where_the_fourier_transform_wraps_round() -> None:
    steps = []
    for seed in range(6):
        clean = PhaseContrast(shape=(160, 150), seed=seed, illumination=0.0).clean(0)
        inner = np.abs(np.diff(clean, axis=0)).mean()
        edges = (clean[:2], clean[-2:], clean[:, :2].T, clean[:, -2:].T)
        steps += [np.abs(np.diff(edge, axis=0)).mean() / inner for edge in edges]
        # Opposite edges are not neighbours: a wrapped field would make them continue each other.
        assert np.abs(clean[0] - clean[-1]).mean() > 2 * inner
    assert np.mean(steps) < 2


def test_the_light_field_is_what_makes_frames_uneven() -> None:
    uneven = replace(SMALL, illumination=0.3)
    even = (replace(SMALL, illumination=0.0).clean(2) - SMALL.offset) * uneven.light_field + SMALL.offset
    np.testing.assert_allclose(uneven.clean(2), even, rtol=1e-5)
    assert np.abs(uneven.light_field - 1).max() == pytest.approx(0.3)


def test_a_plate_of_96_wells_is_one_command_and_its_run_another(
    phbatch_command: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert phbatch_command("simulate", "plate.zarr", "--wells", "96", "--size", "32", "--seed", "4") == 0
    yaozarrs.validate_zarr_store(str(tmp_path / "plate.zarr"))
    assert not (tmp_path / "plate.zarr/.phbatch").exists()
    root: Any = zarr.open_group(tmp_path / "plate.zarr")
    wells = [well["path"] for well in root.attrs["ome"]["plate"]["wells"]]
    assert (len(wells), wells[0], wells[-1]) == (96, "A/1", "H/12")
    pixels = {well: root[f"{well}/0/0"][0] for well in wells}
    np.testing.assert_array_equal(pixels["A/2"], PhaseContrast(shape=(32, 32), n_frames=1, seed=5).frame(0))
    assert len({frame.tobytes() for frame in pixels.values()}) == 96
    assert phbatch_command("run", "plate.zarr", "--model", "none", "--workers", "2") == 0
    yaozarrs.validate_zarr_store(str(tmp_path / "plate.phbatch.zarr"))
    assert phbatch_command("simulate", "plate.zarr") == 3
    assert phbatch_command("simulate", "x.zarr", "--fields", "2") == 2


def test_plates_of_other_sizes(tmp_path: Path) -> None:
    tiny = replace(SMALL, shape=(16, 16), n_frames=2)
    phbatch.write_plate(tmp_path / "p.zarr", tiny, wells=5, fields=2)
    plate: Any = zarr.open_group(tmp_path / "p.zarr").attrs["ome"]
    assert [len(plate["plate"][part]) for part in ("rows", "columns", "wells")] == [2, 3, 5]
    field: Any = zarr.open_array(tmp_path / "p.zarr/B/2/1/0")
    np.testing.assert_array_equal(field[1], replace(tiny, seed=tiny.seed + 9).frame(1))
    with pytest.raises(phbatch.UsageError, match="1 to 1536 wells"):
        phbatch.write_plate(tmp_path / "q.zarr", tiny, wells=1537)
    with pytest.raises(phbatch.OutputError, match="exists"):
        phbatch.write_time_lapse(tmp_path / "p.zarr", tiny)


def test_cells_are_where_the_image_changes_with_them() -> None:
    movie = replace(SMALL, shape=(200, 200), illumination=0.0, density=0.1)
    changed = np.abs(movie.clean(1) - replace(movie, density=0.0).clean(1))
    cells = movie.cells(1)
    assert 0.03 < cells.mean() < 0.25
    assert changed[cells].mean() > 3 * changed[~cells].mean()
    assert not replace(movie, density=0.0).cells(1).any()


def test_crowded_cells_lie_over_each_other_and_sparse_ones_stay_where_they_are() -> None:
    crowded = replace(SMALL, shape=(200, 200), density=0.55)
    assert crowded.cells(0).mean() == pytest.approx(0.55, abs=0.15)
    sparse = replace(crowded, density=0.1).cells(0)
    assert crowded.cells(0)[sparse].mean() > 0.99
