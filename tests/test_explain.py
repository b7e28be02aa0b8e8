"""The paragraph of methods has the numbers of its run, and cites what the run used and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import phbatch
from tests.handmade import CommandLine


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({}, ("divided by the median", "standard deviation 2 pixels", "No network", "as float32 in OME-Zarr 0.5")),
        (
            {"normalize": "percentile", "pmin": 1, "pmax": 99, "downscale": 2, "illumination": "gaussian"},
            ("percentiles 1 and 99", "Blocks of 2 x 2", "a Gaussian-smoothed background", "divided out"),
        ),
        (
            {"normalize": "mode", "factor": 10, "smooth_time": 3, "dtype": "uint8", "scale": 2500},
            ("10 times the mode", "smoothed over 3 frames", "value = 0.0004", "were outside of the range of uint8"),
        ),
        ({"normalize": "zscore", "bad_frames": "copy"}, ("1.4826 times", "copied without restoration")),
    ],
)
def test_methods_have_the_numbers_of_the_run(tmp_path: Path, options: dict[str, Any], parts: tuple[str, ...]) -> None:
    frames = np.random.default_rng(3).normal(1000, 40, (5, 40, 48)).astype("uint16")
    frames[2] = 7
    zarr.create_array(tmp_path / "in.zarr", data=frames)
    result = phbatch.run(tmp_path / "in.zarr", model="none", workers=1, **options)
    found = phbatch.explain(result.output)
    for part in ("5 frames of 40 x 48 pixels (uint16)", "1 frame was flagged", *parts):
        assert part in found.methods
    assert "weigert2018care" not in found.bibtex
    assert "moore2021ngff" in found.bibtex


def test_a_network_is_described_and_cited(phbatch_command: CommandLine, tmp_path: Path, frames: np.ndarray) -> None:
    zarr.create_array(tmp_path / "in.zarr", data=frames)
    phbatch.run(tmp_path / "in.zarr", model="none", workers=1)
    group = zarr.open_group(tmp_path / "in.phbatch.zarr")
    config = {"n_dim": 2, "depth": 2, "kernel": 3, "n_first": 16, "residual": True, "probabilistic": False}
    model = {"name": "mine", "weights": "weights_best.h5", "sha256": "ab" * 32, "config": config, "facts": {}}
    tile = {"shape": [36, 36], "halo": 12, "grid": 4}
    group.attrs["phbatch"] = dict(group.attrs["phbatch"]) | {"model": model, "tile": tile}  # type: ignore[call-overload]
    assert phbatch_command("explain", tmp_path / "in.phbatch.zarr", "--json") == 0
    found = json.loads(phbatch_command.out)
    assert "network mine (weights weights_best.h5, SHA-256 abababababababab), a residual U-Net" in found["methods"]
    assert "in 2 tiles of 36 x 36 pixels" in found["methods"]
    assert "weigert2018care" in found["bibtex"]
    assert phbatch_command("explain", tmp_path / "in.zarr") == 3
