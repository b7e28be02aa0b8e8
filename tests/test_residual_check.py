"""The residual check says "noise" of noise and names the places of what was not; the report shows it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr
from scipy.ndimage import gaussian_filter

import phbatch
from phbatch.tools.residual import ResidualCheck, ResidualChecker


def check(sigma: float | None, share: float = 1.0) -> ResidualCheck:
    """Of two frames with lines in one quarter, of which the second is smoothed by `sigma`."""
    clean = np.full((160, 160), 400.0)
    clean[100:150, 100:150:7] += 160
    checker = ResidualChecker()
    for index in range(2):
        noisy = np.random.default_rng(index).poisson(clean)
        kept = gaussian_filter(clean, sigma) if sigma and index else noisy + share * (clean - noisy)
        checker.add(f"t{index}/c0", noisy, kept, (1000, 2000))
    found = checker.result()
    assert found is not None
    return found


def test_removed_noise_is_called_noise() -> None:
    found = check(None)
    assert (found.verdict, found.places, found.structured) == ("noise", (), 0)
    assert found.sentence.startswith("noise: autocorrelation ")
    assert found.removed == pytest.approx(1, rel=0.1)
    assert len(found.intensity) == len(found.over_noise) == 8
    assert check(None, share=0.01).verdict == "nothing"


def test_planted_over_smoothing_is_called_structure_with_its_places() -> None:
    found = check(1.5)
    assert found.verdict == "structure"
    assert {place.frame for place in found.places} == {"t1/c0"}
    assert all(1096 <= place.y < 1160 and 2096 <= place.x < 2160 for place in found.places)
    worst = found.places[0]
    assert f"structure was removed, at these places: t1/c0 y {worst.y} x {worst.x}" in found.sentence
    assert found.picture.startswith("data:image/png;base64,")
    assert len(found.boxes) == found.structured
    assert all(x >= 60 and y >= 60 for x, y, _, _ in found.boxes)
    assert found.as_dict()["places"][0]["frame"] == "t1/c0"
    assert "picture" not in found.as_dict()


def test_frames_too_small_are_not_judged() -> None:
    checker = ResidualChecker()
    checker.add("t0/c0", np.zeros((8, 8)), np.zeros((8, 8)))
    assert checker.result() is None


def test_the_report_judges_what_a_network_removed(tmp_path: Path) -> None:
    frames = np.full((2, 64, 64), 1000.0)
    frames[:, 32:, 32::6] += 300
    zarr.create_array(tmp_path / "in.zarr", data=np.random.default_rng(0).poisson(frames).astype("uint16"))
    result = phbatch.run(tmp_path / "in.zarr", model="none", axes="tyx", workers=1)
    assert phbatch.collect_report(result.output).facts["looked_at"]["channels"][0]["residual"] is None
    stored = zarr.open_array(f"{result.output}/0")
    stored[:] = gaussian_filter(stored[:], (0, 1.5, 1.5))
    attributes = zarr.open_group(result.output).attrs
    attributes["phbatch"] = attributes["phbatch"] | {"model": {"name": "smooth", "weights": "", "sha256": ""}}
    report = phbatch.write_report(result.output)
    (entry,) = report.facts["looked_at"]["channels"]
    assert entry["residual"]["verdict"] == "structure"
    assert {(place["y"], place["x"]) for place in entry["residual"]["places"]} == {(32, 32)}
    page = Path(str(report.path)).read_text(encoding="utf-8")
    assert "structure was removed, at these places: t" in page
    assert "removed part" in page
