"""A preview and a comparison of many images show of each what they show of it alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import phbatch
from tests.handmade import CommandLine, write_model


@pytest.fixture(scope="module")
def plate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plate of 4 wells of 2 fields, under a lamp that flickers."""
    place = tmp_path_factory.mktemp("looking") / "p.zarr"
    movie = phbatch.PhaseContrast(shape=(96, 96), n_frames=6, seed=1, flicker=0.1)
    phbatch.write_plate(place, movie, wells=4, fields=2)
    return place


def test_a_preview_shows_a_few_fields_as_each_alone(plate: Path, tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    found = phbatch.preview(plate, crop=40, model=model)
    shown = ["A/1/0", "A/3/0", "B/1/1"]
    assert [row.frame for row in found.rows] == [f"{path}/t{t}/c0/z0" for path in shown for t in (0, 5)]
    assert f"3 of 8 images are looked at: {', '.join(shown)}; choose others" in found.notices[0]
    for path in shown:
        alone = phbatch.preview(plate / path, crop=40, model=model)
        ours = [row for row in found.rows if row.frame.startswith(path)]
        for row, other in zip(ours, alone.rows, strict=True):
            assert row.corner == other.corner == alone.corner
            np.testing.assert_array_equal(row.raw, other.raw)
            assert row.restored is not None
            assert other.restored is not None
            np.testing.assert_array_equal(row.restored, other.restored)
            assert row.rules.keys() == other.rules.keys()


def test_wells_and_fields_choose_what_is_previewed(plate: Path, tmp_path: Path, phbatch_command: CommandLine) -> None:
    picture = tmp_path / "look.png"
    asked = ("preview", plate, "--model", "none", "--crop", "32", "-t", "2", "-o", picture, "--json")
    assert phbatch_command(*asked, "--wells", "A2,B1", "--fields", "1") == 0
    record = json.loads(phbatch_command.out)
    assert [row["frame"] for row in record["frames"]] == ["A/2/1/t2/c0/z0", "B/1/1/t2/c0/z0"]
    assert record["notices"] == []
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert phbatch_command(*asked, "--wells", "C1") == 2


def test_a_comparison_has_the_drift_of_each_and_judges_all(plate: Path) -> None:
    found = phbatch.compare_rules(plate, fields=0, samples=24)
    assert [*dict.fromkeys(found.positions)] == ["A/1/0", "A/2/0", "A/3/0", "B/1/0"]
    assert found.frames == (*range(6), *range(6), *range(6), *range(6))
    for path in dict.fromkeys(found.positions):
        alone = {row.rule: row for row in phbatch.compare_rules(plate / path, samples=6)}
        for row in found:
            other = alone[row.rule]
            assert other.drift is not None
            assert row.drifts[path] == pytest.approx(other.drift * other.contrast / row.contrast, rel=1e-6)
    for row in found:
        assert row.drift is not None
        assert row.drift == pytest.approx(np.ptp(row.levels))
        assert row.drift >= max(drift for drift in row.drifts.values() if drift is not None) - 1e-12
    best = found.recommendation[0]
    assert best is not None
    assert best.rule.startswith(("median", "mode"))


def test_fields_of_one_frame_are_compared_with_each_other(tmp_path: Path, phbatch_command: CommandLine) -> None:
    plate, page = tmp_path / "p.zarr", tmp_path / "page.html"
    phbatch.write_plate(plate, phbatch.PhaseContrast(shape=(96, 96), n_frames=1, flicker=0.1), wells=24)
    assert phbatch_command("compare", plate, "-o", page) == 0
    assert "12 of 24 images are looked at: A/1/0, " in phbatch_command.out
    assert "recommended: m" in phbatch_command.out
    assert "drift of" in phbatch_command.out
    assert "A/1/0" in page.read_text(encoding="utf-8")
    assert phbatch_command("compare", plate, "--wells", "A1-A2", "--json") == 0
    record = json.loads(phbatch_command.out)
    assert record["positions"] == ["A/1/0", "A/2/0"]
    assert record["rules"][0]["drifts"] == {"A/1/0": None, "A/2/0": None}
    assert record["rules"][0]["drift"] is not None
