"""The demonstration gains at least 3 dB on frames that the training never saw."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import zarr

import phbatch
from phbatch.network.model import BUNDLED, DEFAULT_MODEL, bundled_models, open_model
from phbatch.running import begin
from phbatch.tools.demo import DEMO_SEED
from tests.handmade import CommandLine


def test_demo_gains_three_decibels(tmp_path: Path) -> None:
    result = phbatch.run_demo(tmp_path / "demo", n_frames=2, shape=(256, 255))
    assert result.psnr_after - result.psnr_before >= 3
    assert result.ssim_after > result.ssim_before
    assert result.picture.stat().st_size > 10_000
    assert zarr.open_array(result.restored, path="0").shape == (2, 256, 255)
    again = phbatch.run_demo(tmp_path / "demo", n_frames=2, shape=(256, 255))
    np.testing.assert_equal(vars(again), vars(result))


def test_bundled_models_are_small_and_say_how_they_were_trained() -> None:
    assert bundled_models() == ("phase-2d", "phase-2d-real")
    assert sum(file.stat().st_size for name in bundled_models() for file in (BUNDLED / name).iterdir()) <= 2_000_000
    for name in bundled_models():
        model = open_model(name)
        assert model.normalization is not None
        first, last = model.facts["training"]["seeds"]
        held_first, held_last = model.facts["evaluation"]["seeds"]
        assert not first <= held_first <= last
        assert not first <= held_last <= last
        assert not first <= DEMO_SEED <= last
        before, after = model.facts["evaluation"]["psnr_db"]
        assert after - before >= 3


@pytest.mark.parametrize(
    ("page", "name"),
    [("README.md", DEFAULT_MODEL), *(("docs/reference/bundled-model.md", name) for name in bundled_models())],
)
def test_the_card_is_in_the_pages(page: str, name: str) -> None:
    text = (Path(__file__).parent.parent / page).read_text(encoding="utf-8")
    card = json.loads((BUNDLED / name / "phbatch.json").read_text(encoding="utf-8"))
    assert f"`{name}`" in text
    for value in (*card["evaluation"]["psnr_db"], *card["evaluation"]["ssim"]):
        assert f"{value:g}" in text


def test_the_help_names_the_default(phbatch_command: CommandLine) -> None:
    for command in ("run", "compare", "preview"):
        phbatch_command(command, "--help")
        assert f"default: {DEFAULT_MODEL}" in " ".join(phbatch_command.out.split())


def test_the_default_of_its_day_is_named_and_repaired_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An output that was begun without a model while another one was the default."""
    images = tmp_path / "many.zarr"
    zarr.create_group(images)
    for name in ("a", "b"):
        phbatch.write_time_lapse(str(images / name), phbatch.PhaseContrast(shape=(64, 64), n_frames=2, seed=3))
    for source, output in ((images / "a", tmp_path / "one.zarr"), (f"{images}/*", tmp_path / "all.zarr")):
        with monkeypatch.context() as before:
            before.setattr(begin, "DEFAULT_MODEL", "phase-2d")
            phbatch.run(source, output)
        with pytest.raises(phbatch.OutputError, match=r"repeat the old settings \(model='phase-2d'\) to continue"):
            phbatch.run(source, output)
        assert phbatch.run(source, output, model="phase-2d").units_done == 0
        chunk = next(path for path in sorted(output.rglob("0/c/**/*")) if path.is_file())
        written = chunk.read_bytes()
        chunk.unlink()
        assert phbatch.repair(output).units_done == 1
        assert chunk.read_bytes() == written
        assert phbatch.verify(output, deep=1).damages == ()
