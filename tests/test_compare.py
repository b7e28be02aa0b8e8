"""The comparison finds what the project began with: percentiles exaggerate where there is little signal."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import zarr

import phbatch
from phbatch.tools.compare import RULES, compare_rules
from phbatch.tools.comparison import recommend
from tests.handmade import CommandLine


@pytest.fixture
def growing(tmp_path: Path) -> Path:
    """A flickering lamp, and cells that fill the view only towards the end."""
    array = zarr.create_array(tmp_path / "growing.zarr", shape=(10, 200, 192), chunks=(1, 200, 192), dtype="uint16")
    for t in range(10):
        movie = phbatch.PhaseContrast(
            shape=(200, 192),
            n_frames=10,
            seed=4,
            density=0.002 + 0.02 * t,
            flicker=0.1,
            illumination=0.02,
            kind="round",
        )
        array[t] = movie.frame(t)
    return tmp_path / "growing.zarr"


def test_percentiles_exaggerate_and_the_median_does_not(growing: Path) -> None:
    found = {row.rule: row for row in compare_rules(str(growing), samples=10)}
    assert len(found) == len(RULES)
    median, percentile, minmax = (found[name] for name in ("median, factor 1", "percentile 2 to 99.8", "minmax"))
    assert median.level == pytest.approx(1, abs=0.02)
    assert median.stretch < 1.5
    assert percentile.stretch > 1.3 * median.stretch
    assert percentile.drift > 2 * median.drift
    assert minmax.drift > 2 * median.drift
    best, reason = recommend(list(found.values()))
    assert best.rule.startswith(("median", "mode"))
    assert best.rule in reason
    tenth = found["mode, factor 10"]
    assert tenth.drift == pytest.approx(found["mode, factor 1"].drift, rel=1e-3)
    assert tenth.outside < found["mode, factor 1"].outside


def test_without_flicker_or_growth_nothing_drifts(tmp_path: Path) -> None:
    movie = phbatch.PhaseContrast(shape=(160, 160), n_frames=4, seed=2, flicker=0.0, jump=0.0, illumination=0.0)
    zarr.create_array(tmp_path / "in.zarr", data=np.stack([movie.frame(0)] * 4), chunks=(1, 160, 160))
    for row in compare_rules(str(tmp_path / "in.zarr")):
        assert row.drift == 0
        assert row.stretch == 1


def test_command_and_page(phbatch_command: CommandLine, growing: Path) -> None:
    strange = growing.rename(growing.parent / "<b>&growing.zarr")
    page = growing.parent / "page.html"
    assert phbatch_command("compare", strange, "--samples", "4", "-o", page, "--json") == 0
    record = json.loads(phbatch_command.out)
    assert len(record["rules"]) == len(RULES)
    assert all(len(row["levels"]) == 4 for row in record["rules"])
    assert record["recommended"].startswith("m")
    text = page.read_text()
    assert "&lt;b&gt;&amp;growing.zarr" in text
    assert "<b>" not in text
    assert "data:image/png;base64," in text
    assert phbatch_command("compare", strange, "-o", growing.parent / "page.pdf") == 2
    assert phbatch_command("compare", strange, "-o", growing.parent / "nowhere" / "page.html") == 3


def test_constant_frames_are_refused(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "in.zarr", data=np.full((3, 40, 40), 7, np.uint16))
    with pytest.raises(phbatch.InputError, match="none of the sampled frames"):
        compare_rules(str(tmp_path / "in.zarr"))


def store(path: Path, frames: np.ndarray) -> str:
    zarr.create_array(path, data=frames, chunks=(1, *frames.shape[1:]))
    return str(path)


def test_padding_and_saturation_are_no_background(tmp_path: Path) -> None:
    movie = phbatch.PhaseContrast(shape=(192, 192), n_frames=4, seed=2)
    frames = np.stack([movie.frame(t) for t in range(4)])
    whole = {row.rule: row for row in compare_rules(store(tmp_path / "whole.zarr", frames[:, :, 38:]), samples=4)}
    padded = frames.copy()
    padded[:, :, :38] = 0
    for row in compare_rules(store(tmp_path / "padded.zarr", padded), samples=4):
        assert row.stretch == pytest.approx(whole[row.rule].stretch, rel=0.2)
        assert row.contrast == pytest.approx(whole[row.rule].contrast, rel=0.2)
        assert row.noise == pytest.approx(whole[row.rule].noise, rel=0.2)
    bright = frames.copy()
    bright[:, :60] = 65535
    assert all(row.noise > 0 for row in compare_rules(store(tmp_path / "bright.zarr", bright), samples=4))
    with pytest.raises(phbatch.InputError, match="holds image and noise"):
        compare_rules(store(tmp_path / "line.zarr", frames[:, :, :1]), samples=4)
