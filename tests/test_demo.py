"""The demonstration gains at least 3 dB on frames that the training never saw."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import zarr

import phbatch
from phbatch.network.model import BUNDLED, bundled_models, open_model
from phbatch.tools.demo import DEMO_SEED


def test_demo_gains_three_decibels(tmp_path: Path) -> None:
    result = phbatch.run_demo(tmp_path / "demo", n_frames=2, shape=(256, 255))
    assert result.psnr_after - result.psnr_before >= 3
    assert result.ssim_after > result.ssim_before
    assert result.picture.stat().st_size > 10_000
    assert zarr.open_array(result.restored, path="0").shape == (2, 256, 255)
    again = phbatch.run_demo(tmp_path / "demo", n_frames=2, shape=(256, 255))
    np.testing.assert_equal(vars(again), vars(result))


def test_bundled_models_are_small_and_say_how_they_were_trained() -> None:
    assert "phase-2d" in bundled_models()
    for name in bundled_models():
        assert sum(file.stat().st_size for file in (BUNDLED / name).iterdir()) <= 2_000_000
        model = open_model(name)
        assert model.normalization is not None
        first, last = model.facts["training"]["seeds"]
        held_first, held_last = model.facts["evaluation"]["seeds"]
        assert not first <= held_first <= last
        assert not first <= held_last <= last
        assert not first <= DEMO_SEED <= last
        before, after = model.facts["evaluation"]["psnr_db"]
        assert after - before >= 3


def test_the_card_is_in_the_readme() -> None:
    readme = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
    card = json.loads((BUNDLED / "phase-2d" / "phbatch.json").read_text(encoding="utf-8"))
    for value in (*card["evaluation"]["psnr_db"], *card["evaluation"]["ssim"]):
        assert f"{value:g}" in readme
