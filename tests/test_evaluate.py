"""`phbatch evaluate` scores an output in the units of its truth, whatever the run did to them."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import phbatch
from phbatch.tools.evaluation import LEVELS
from phbatch.tools.scores import score_frame
from tests.handmade import CommandLine, write_model

SHAPE = (3, 80, 96)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A noisy time-lapse and its truth, in counts; the lamp flickers, and there is a bright stripe of cells."""
    folder = tmp_path_factory.mktemp("evaluate")
    clean = np.full(SHAPE, 1000.0)
    clean[:, 20:44, 10:60:5] += 300
    clean *= np.array([1.0, 1.3, 0.8])[:, np.newaxis, np.newaxis]
    noisy = np.random.default_rng(0).poisson(clean).astype("uint16")
    for name, frames in (("noisy", noisy), ("clean", clean.astype("float32"))):
        zarr.create_array(folder / f"{name}.zarr", data=frames, chunks=(1, *SHAPE[1:]))
    return folder / "noisy.zarr", folder / "clean.zarr"


def normalized(pair: tuple[Path, Path], output: Path, **options: Any) -> Path:
    phbatch.run(pair[0], output, model="none", normalize="median", axes="tyx", workers=1, **options)
    return output


def scores(found: phbatch.Evaluation) -> list[float]:
    return [row.psnr for row in found.rows]


def test_an_output_is_scored_in_the_units_of_its_truth(pair: tuple[Path, Path], tmp_path: Path) -> None:
    """A run that only normalizes is as far from its truth as its input is, whichever units it is stored in."""
    plain = phbatch.evaluate(*pair, axes="tyx")
    frames, truths = (zarr.open_array(path)[:] for path in pair)
    expected = [score_frame((t, 0, 0), frames[t], truths[t]).psnr for t in range(3)]
    assert scores(plain) == expected
    for name, options in {
        "float": {},
        "counts": {"rescale": True},
        "integers": {"dtype": "uint16", "scale": 20000},
    }.items():
        found = phbatch.evaluate(normalized(pair, tmp_path / f"{name}.zarr", **options), pair[1], axes="tyx")
        assert scores(found) == pytest.approx(expected, abs=0.01), name
        assert [row.input_psnr for row in found.rows] == pytest.approx(expected, abs=0.01)
        assert found.gain == pytest.approx(0, abs=0.01)
        assert found.notices == ()


def test_frames_and_pixels_are_those_of_the_run(pair: tuple[Path, Path], tmp_path: Path) -> None:
    whole = scores(phbatch.evaluate(*pair, axes="tyx"))
    some = normalized(pair, tmp_path / "some.zarr", frames="1:3")
    assert scores(phbatch.evaluate(some, pair[1], axes="tyx")) == pytest.approx(whole[1:], abs=0.01)
    small = normalized(pair, tmp_path / "small.zarr", downscale=2)
    found = phbatch.evaluate(small, pair[1], axes="tyx")
    truth = zarr.open_array(pair[1])[:].reshape(3, 40, 2, 48, 2).mean(axis=(2, 4))
    zarr.create_array(tmp_path / "truth.zarr", data=truth)
    divisors = zarr.open_array(small / "statistics" / "divisor")[:].ravel()
    expected = [score_frame((t, 0, 0), zarr.open_array(small / "0")[t], truth[t] / divisors[t]).psnr for t in range(3)]
    assert scores(found) == pytest.approx(expected, abs=0.01)
    assert scores(phbatch.evaluate(small, tmp_path / "truth.zarr", axes="tyx")) == pytest.approx(
        scores(found), abs=0.01
    )
    assert [row.t for row in phbatch.evaluate(*pair, axes="tyx", samples=2).rows] == [0, 2]


def test_light_is_corrected_in_the_truth_too(pair: tuple[Path, Path], tmp_path: Path) -> None:
    profile = np.broadcast_to(np.linspace(0.7, 1.3, SHAPE[2]), SHAPE)
    paths = []
    for path in pair:
        frames = zarr.open_array(path)
        zarr.create_array(tmp_path / path.name, data=(frames[:] * profile).astype(frames.dtype))
        paths.append(tmp_path / path.name)
    output = normalized((paths[0], paths[1]), tmp_path / "even.zarr", illumination="polynomial")
    (row, *_) = phbatch.evaluate(output, paths[1], axes="tyx").rows
    uneven = zarr.open_array(paths[1])[0] / zarr.open_array(output / "statistics" / "divisor")[:].ravel()[0]
    assert row.psnr > score_frame((0, 0, 0), zarr.open_array(output / "0")[0], uneven).psnr + 3


def test_cells_may_be_marked(pair: tuple[Path, Path], tmp_path: Path) -> None:
    labels = np.zeros(SHAPE, "uint8")
    labels[:, 20:44, 10:60] = 7
    zarr.create_array(tmp_path / "labels.zarr", data=labels)
    for image in (pair[0], normalized(pair, tmp_path / "half.zarr", downscale=2)):
        found = phbatch.evaluate(image, pair[1], cells=tmp_path / "labels.zarr", axes="tyx")
        assert found.rows[0].cells == pytest.approx(24 * 50 / (80 * 96))
        assert found.example.cells.mean() > 0.1


def test_the_scale_of_a_probabilistic_network_is_calibrated(pair: tuple[Path, Path], tmp_path: Path) -> None:
    """A scale is planted where the network's was; errors drawn by it are what it says, half of it is too small."""
    model = write_model(tmp_path / "model", probabilistic=True)
    options: dict[str, Any] = {"normalize": "median", "uncertainty": True, "axes": "tyx", "workers": 1}
    output = Path(phbatch.run(pair[0], tmp_path / "out.zarr", model=model, **options).output)
    draw = np.random.default_rng(2)
    scale = draw.uniform(0.01, 0.05, SHAPE).astype("float32")
    divisors = zarr.open_array(output / "statistics" / "divisor")[:].reshape(3, 1, 1)
    planted = zarr.open_array(output / "uncertainty" / "0")
    zarr.open_array(output / "0")[:] = zarr.open_array(pair[1])[:] / divisors + draw.laplace(0, scale)
    planted[:] = scale
    found = phbatch.evaluate(output, pair[1], axes="tyx").calibration
    assert found.expected == LEVELS
    np.testing.assert_allclose(found.found, LEVELS, atol=0.02)
    assert found.ratio == pytest.approx(1, abs=0.03)
    assert "the scale is right" in found.sentence
    planted[:] = scale / 2
    small = phbatch.evaluate(output, pair[1], axes="tyx")
    assert small.calibration.ratio == pytest.approx(2, abs=0.06)
    assert "the scale is too small: intervals that should hold 90% of the pixels hold 6" in small.calibration.sentence
    assert small.calibration.error > 5 * found.error
    phbatch.report.save_evaluation(tmp_path / "picture.png", small)
    assert (tmp_path / "picture.png").stat().st_size > 20_000


def test_command_table_csv_and_picture(pair: tuple[Path, Path], tmp_path: Path, phbatch_command: CommandLine) -> None:
    output = normalized(pair, tmp_path / "out.zarr")
    table, picture = tmp_path / "scores.csv", tmp_path / "scores.png"
    asked = ("evaluate", output, pair[1], "--axes", "tyx")
    assert phbatch_command(*asked, "-o", table, "-o", picture) == 0
    assert "scale and offset fitted" in phbatch_command.out
    assert "3 frames, +0.00 dB over the input; worst t" in phbatch_command.out
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert picture.read_bytes()[:4] == b"\x89PNG"
    assert phbatch_command(*asked, "--json") == 0
    record = json.loads(phbatch_command.out)
    assert [float(row["psnr"]) for row in rows] == [row["psnr"] for row in record["rows"]]
    assert record["mean"]["psnr"] == pytest.approx(np.mean([row["psnr"] for row in record["rows"]]))
    assert record["calibration"] is None
    assert phbatch_command(*asked, "-o", tmp_path / "scores.pdf") == 2
    assert phbatch_command(*asked, "-o", tmp_path / "nowhere" / "scores.csv") == 3


def test_frames_that_were_passed_through_are_left_out(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).poisson(500, (3, 40, 40)).astype("uint16")
    frames[1] = 0
    zarr.create_array(tmp_path / "in.zarr", data=frames)
    zarr.create_array(tmp_path / "truth.zarr", data=np.random.default_rng(1).normal(500, 9, (3, 40, 40)))
    output = tmp_path / "out.zarr"
    phbatch.run(tmp_path / "in.zarr", output, model="none", axes="tyx", workers=1)
    found = phbatch.evaluate(output, tmp_path / "truth.zarr", axes="tyx")
    assert [row.t for row in found.rows] == [0, 2]
    assert "frames t1/c0/z0 left out" in found.notices[0]


def test_images_that_are_not_aligned_are_refused(pair: tuple[Path, Path], tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "other.zarr", data=np.ones((3, 70, 96), "float32"))
    with pytest.raises(phbatch.InputError, match=r"3 x 1 x 1 x 70 x 96 and the restored image 3 x 1 x 1 x 80 x 96"):
        phbatch.evaluate(pair[0], tmp_path / "other.zarr", axes="tyx")
    output = normalized(pair, tmp_path / "out.zarr")
    with pytest.raises(phbatch.InputError, match="has 70 along y, the input of the run 80"):
        phbatch.evaluate(output, tmp_path / "other.zarr", axes="tyx")
    zarr.create_array(tmp_path / "even.zarr", data=np.ones(SHAPE, "float32"))
    with pytest.raises(phbatch.InputError, match="can be scored"):
        phbatch.evaluate(output, tmp_path / "even.zarr", axes="tyx")
    with pytest.raises(phbatch.UsageError, match="give 1 or more"):
        phbatch.evaluate(output, pair[1], samples=0)
    zarr.create_array(tmp_path / "tiny.zarr", data=np.ones((3, 5, 96), "float32"))
    with pytest.raises(phbatch.InputError, match="SSIM needs 7"):
        phbatch.evaluate(tmp_path / "tiny.zarr", tmp_path / "tiny.zarr", axes="tyx")
