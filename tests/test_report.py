"""The report on a run: its facts are those of the output, a planted seam shows, and the page works in a browser."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import phbatch
from phbatch.kernels.seams import SeamCheck
from phbatch.outputs.accounts import keep_account
from phbatch.places.place import Place
from tests.browser import Page, needs_browser
from tests.handmade import CommandLine

SHAPE = (6, 2, 96, 128)
EDGE = 48


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two channels with a black frame, whose stored range clips, and whose tiles were 48 rows high."""
    folder = tmp_path_factory.mktemp("report")
    rng = np.random.default_rng(5)
    frames = rng.normal(1000, 40, SHAPE)
    frames[:, :, 30:50, 40:70] += 400
    frames[3, 0] = 0
    zarr.create_array(folder / "in.zarr", data=frames.astype("uint16"), chunks=(1, 1, 96, 128))
    options: dict[str, Any] = {"axes": "tcyx", "model": "none", "dtype": "uint8", "scale": 200, "workers": 1}
    phbatch.run(folder / "in.zarr", folder / "out.zarr", **options)
    provenance = zarr.open_group(folder / "out.zarr").attrs["phbatch"]
    assert isinstance(provenance, dict)
    tile = {"shape": [EDGE + 8, 128], "halo": 4, "grid": 4}
    zarr.open_group(folder / "out.zarr").attrs["phbatch"] = provenance | {"tile": tile, "batch": 1, "network": "plain"}
    return folder / "out.zarr"


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "out.zarr"))


def test_facts_are_those_of_the_output(finished: Path) -> None:
    facts = phbatch.collect_report(finished).facts
    source, stored = zarr.open_array(finished.parent / "in.zarr")[:], zarr.open_array(finished / "0")[:]
    assert facts["frames"] == {"all": 12, "finished": 12}
    assert facts["flagged"]["listed"]["t3/c0/z0"]
    assert facts["clipped"]["pixels"] == sum(facts["clipped"]["units"].values())
    assert [entry["channel"] for entry in facts["statistics"]] == [0, 1]
    assert list(facts["statistics"][0]["flags"]) == [3]
    good = [t for t in range(6) if t != 3]
    np.testing.assert_allclose(np.array(facts["statistics"][1]["median"])[good], 1000, rtol=0.05)
    histogram = facts["looked_at"]["channels"][1]["histogram"]
    mean = np.dot(histogram["values"], histogram["after"]) / sum(histogram["after"])
    assert mean == pytest.approx(float(stored[:, 1].mean()) / 200, rel=0.05)
    assert mean == pytest.approx(float(source[:, 1].mean()) / 1000, rel=0.05)
    assert facts["memory"]["peak_rss_bytes"] > 0
    assert facts["memory"]["projected_mem"] <= facts["memory"]["allowed_mem"]
    assert facts["speed"]["calls"] == 1
    assert json.loads(json.dumps(facts))
    looked = facts["looked_at"]["channels"]
    assert [("t3/c0/z0" in entry["frames"]) for entry in looked] == [False, False]


def test_a_planted_seam_shows(copied: Path) -> None:
    def seams() -> dict[str, Any]:
        return dict(phbatch.collect_report(copied).facts["looked_at"]["channels"][1]["seams"])

    before = seams()
    assert before["edges"] == 1
    assert not before["visible"]
    array = zarr.open_array(copied / "0", mode="r+")
    pixels = array[:]
    pixels[:, :, EDGE:] = np.minimum(pixels[:, :, EDGE:], 235) + 20
    array[:] = pixels
    after = seams()
    assert after["worst"] > before["worst"]
    assert after["visible"]


@pytest.mark.parametrize(("step", "visible"), [(0.0, False), (2.0, True)])
def test_bright_structures_are_no_seams(step: float, visible: bool) -> None:
    image = np.random.default_rng(1).normal(0, 1, (200, 160))
    image[20:60, 30:31] += 60
    image[:, 90:] += step
    check = SeamCheck(([], [90]))
    check.add(image)
    score = check.score()
    assert score is not None
    assert score.visible == visible


def test_the_profile_of_light_is_drawn(tmp_path: Path) -> None:
    light = np.linspace(0.8, 1.2, 64)
    frames = np.random.default_rng(0).normal(1000, 20, (9, 48, 64)) * light
    zarr.create_array(tmp_path / "in.zarr", data=frames.astype("uint16"))
    result = phbatch.run(tmp_path / "in.zarr", model="none", illumination="temporal", axes="tyx", workers=1)
    (found,) = phbatch.collect_report(result.output).facts["looked_at"]["channels"]
    np.testing.assert_allclose(found["light"]["profile"]["along_x"], light, atol=0.02)
    assert found["light"]["profile"]["unevenness"] > 8 * found["light"]["after"]["unevenness"]


def test_an_input_that_is_gone_is_said(copied: Path) -> None:
    found = phbatch.write_report(copied, input=copied.parent / "gone.zarr")
    assert "gone.zarr" in found.facts["looked_at"]["input_problem"]
    assert "The input cannot be shown" in Path(str(found.path)).read_text(encoding="utf-8")


def test_failed_units_and_what_is_not_finished(copied: Path) -> None:
    keep_account(Place.at(copied), {"failed": {"t0-5/c1": "<b>disk</b>", "t0-5/c0": "finished later"}})
    for ledger in copied.glob(".phbatch/ledger/*.jsonl"):
        kept = [line for line in ledger.read_bytes().splitlines(keepends=True) if b'"t0-5/c1"' not in line]
        ledger.write_bytes(b"".join(kept))
    found = phbatch.write_report(copied)
    assert found.facts["failed"] == {"t0-5/c1": "<b>disk</b>"}
    assert found.facts["frames"]["finished"] == 6
    assert [len(entry["frames"]) for entry in found.facts["looked_at"]["channels"]] == [3, 0]
    assert "&lt;b&gt;disk" in Path(str(found.path)).read_text(encoding="utf-8")


def test_at_the_end_of_a_run(
    phbatch_command: CommandLine, tmp_path: Path, frames: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    zarr.create_array(tmp_path / "in.zarr", data=frames)
    page = tmp_path / "out.report.html"
    run = ("run", tmp_path / "in.zarr", tmp_path / "out.zarr", "--model", "none", "--workers", "1")
    assert phbatch_command(*run, "--no-report") == 0
    assert not page.exists()
    assert phbatch_command(*run, "--overwrite") == 0
    assert f"report: {page}" in phbatch_command.err
    assert phbatch_command("report", tmp_path / "out.zarr", "--json") == 0
    assert json.loads(phbatch_command.out)["report"] is None
    assert phbatch_command("report", tmp_path / "out.zarr", "-o", tmp_path / "page.txt") == 2
    assert phbatch_command("report", tmp_path / "in.zarr") == 3

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("the page is torn")

    monkeypatch.setattr(phbatch, "write_report", fail, raising=False)
    assert phbatch_command(*run, "--overwrite") == 0
    assert "no report: the page is torn" in phbatch_command.err


@needs_browser
@pytest.mark.parametrize("width", [1280, 400])
def test_the_page_in_a_browser(finished: Path, page: Page, tmp_path: Path, width: int) -> None:
    found = phbatch.write_report(finished, tmp_path / "page.html")
    assert Path(str(found.path)).stat().st_size < 5e6
    page.resize(width)
    page.open((tmp_path / "page.html").as_uri())
    page.wait_for("document.querySelectorAll('.uplot canvas').length >= 10")
    assert page.run("document.documentElement.scrollWidth") <= width
    assert not page.problems
    page.run("document.querySelector('.crops').scrollIntoView()")
    box = page.run(
        "(() => {const b = document.querySelector('img-comparison-slider').getBoundingClientRect();"
        " return [b.x, b.y, b.width, b.height]})()"
    )
    x, y = box[0] + box[2] / 2, box[1] + box[3] / 2
    page.click(x, y, (x + box[2] / 4, y))
    page.wait_for("document.querySelector('img-comparison-slider').value > 60")
    page.run("document.getElementById('zoom-in').click()")
    widths = page.run("[...document.querySelectorAll('.pane img.after')].map((i) => i.getBoundingClientRect().width)")
    assert len(widths) >= 6
    np.testing.assert_allclose(widths, 1.6 * box[2], rtol=0.01)
    before = page.run("getComputedStyle(document.querySelector('.crops')).getPropertyValue('--x')")
    page.click(box[0] + 20, y, (box[0] + 60, y))
    assert page.run("getComputedStyle(document.querySelector('.crops')).getPropertyValue('--x')") != before
    page.run("{const s = document.getElementById('second'); s.value = 'removed'; s.dispatchEvent(new Event('change'))}")
    assert page.run("document.querySelector('img.after').hidden && !document.querySelector('img.removed').hidden")
    assert not page.problems
