"""The preview of a crop is what a run makes of it, and a picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from matplotlib.figure import Figure
from rich.console import Console

import phbatch
from phbatch.tools import preview_picture
from phbatch.tools.preview_picture import as_blocks, save_preview
from tests.handmade import CommandLine, write_model


@pytest.fixture
def source(tmp_path: Path) -> Path:
    draw = np.random.default_rng(12)
    frames = (500 + 20 * draw.standard_normal((3, 91, 106)) + 200 * (draw.random((3, 91, 106)) > 0.97)).astype("uint16")
    zarr.create_array(tmp_path / "in.zarr", data=frames, chunks=(1, 91, 106))
    return tmp_path / "in.zarr"


def test_a_crop_is_what_a_run_makes_of_it(source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = write_model(tmp_path / "model")
    (model / "phbatch.json").write_text('{"normalization": {"method": "median"}}', encoding="utf-8")
    (row,) = phbatch.preview(source, [2], crop=40, corner=(27, 30), model=model).rows
    assert row.frame == "t2/c0/z0"
    ours = [record for record in caplog.records if record.name.startswith("phbatch")]
    assert not ours  # the crop is normalized by the model's own rule
    result = phbatch.run(source, model=model, workers=1)
    stored = zarr.open_array(f"{result.output}/0")[2, 27:67, 30:70]
    assert row.restored is not None
    np.testing.assert_allclose(row.restored, stored, atol=2e-6)
    assert row.normalized is not None
    assert row.removed is not None
    np.testing.assert_array_equal(row.removed, row.normalized - row.restored)
    result = phbatch.run(source, tmp_path / "mode.zarr", model="none", normalize="mode", workers=1)
    np.testing.assert_array_equal(
        row.rules["mode, factor 1, sigma 2 px"], zarr.open_array(f"{result.output}/0")[2, 27:67, 30:70]
    )


def test_command(phbatch_command: CommandLine, source: Path, tmp_path: Path) -> None:
    picture = tmp_path / "look.png"
    preview = ("preview", source, "--model", "none", "-o", picture)
    assert phbatch_command(*preview, "-t", "0,2", "--crop", "32", "--json") == 0
    found = json.loads(phbatch_command.out)
    assert [row["frame"] for row in found["frames"]] == ["t0/c0/z0", "t2/c0/z0"]
    assert found["frames"][0]["rules"]["median, factor 1, sigma 2 px"]["mean"] == pytest.approx(1, abs=0.05)
    assert found["frames"][0]["restored"] is None
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert phbatch_command(*preview, "-t", "3") == 2
    assert "none of the frames 0 to 2" in phbatch_command.err
    assert phbatch_command(*preview, "--at", "80,0", "--crop", "32") == 2
    assert phbatch_command(*preview, "--at", "5") == 2
    assert phbatch_command("preview", source, "-o", source / "inside.png") == 3


def test_ticks_that_are_not_shown_are_not_laid_out(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = phbatch.preview(source, [0], crop=32, model="none")
    ticks, save = list[int](), Figure.savefig

    def count(figure: Figure, *given: Any, **options: Any) -> None:
        ticks.extend(len(axes.get_xticks()) + len(axes.get_yticks()) for axes in figure.axes if not axes.axison)
        save(figure, *given, **options)

    monkeypatch.setattr(Figure, "savefig", count)
    save_preview(tmp_path / "bare.png", found)
    assert ticks
    assert not any(ticks)
    monkeypatch.undo()
    monkeypatch.setattr(preview_picture, "BARE", {})
    save_preview(tmp_path / "ticks.png", found)
    assert (tmp_path / "bare.png").read_bytes() == (tmp_path / "ticks.png").read_bytes()


def test_blocks_of_a_terminal() -> None:
    console = Console(force_terminal=True, color_system="truecolor", width=80)
    image = np.array([[0.0, 1.0], [1.0, 0.0]], np.float32)
    with console.capture() as shown:
        console.print(as_blocks([(image, (0, 1)), (None, (0, 1))], 2))
    assert "38;2;0;0;0;48;2;255;255;255" in shown.get()
