"""The report on many images: its facts are those of the images, and the overview works in a browser."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import phbatch
from tests.browser import Page, needs_browser
from tests.handmade import CommandLine
from tests.test_plates import make_image, make_plate

WELLS = [f"{row}/{column}" for row in "AB" for column in (1, 2, 12)]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plate of six wells and two fields: a black frame, a torn chunk, a damaged image, a well twice as bright."""
    folder = tmp_path_factory.mktemp("plates")
    plate = make_plate(folder / "p.zarr", WELLS, size=24)
    for field in ("0", "1"):
        bright: Any = zarr.open_array(plate / "B/2" / field / "0")
        bright[:] = bright[:] * 2
    black: Any = zarr.open_array(plate / "A/2/1/0")
    black[1, 0] = 0
    (plate / "A/12/0/0/c/0/1/0/0").write_bytes(b"torn")
    (plate / "B/1/0/0/zarr.json").write_bytes(b"{")
    phbatch.run(plate, folder / "o.zarr", model="none", workers=2, retries=0, channel="PH,GFP")
    return folder / "o.zarr"


def test_facts_are_those_of_the_images(finished: Path) -> None:
    facts = phbatch.collect_report(finished).facts
    assert facts["images"] == {"all": 11, "aside": 1}
    assert facts["frames"] == {"all": 44, "finished": 42}
    assert sorted(facts["failed"]) == ["A/12/0/t0-1/c1", "B/1/0"]
    assert list(facts["flagged"]["listed"]) == ["A/2/1/t1/c0/z0"]
    overview = facts["overview"]
    assert (overview["rows"], overview["columns"]) == (["A", "B"], ["1", "2", "12"])
    wells = {well["name"]: well for well in overview["wells"]}
    assert list(wells) == ["A1", "A2", "A12", "B1", "B2", "B12"]
    assert [wells[name]["failed"] for name in ("A1", "A12", "B1")] == [0, 1, 1]
    assert (wells["A2"]["flagged"], wells["B1"]["frames"], wells["A12"]["finished"]) == (1, 4, 6)
    assert wells["B2"]["median"] == pytest.approx([2000, 2000], rel=0.01)
    assert wells["A1"]["median"] == pytest.approx([1000, 1000], rel=0.01)
    statistics = facts["statistics"][0]
    at = facts["positions"].index("B/2/0")
    assert statistics["median"][at] == pytest.approx(2000, rel=0.01)
    assert statistics["flags"] == {facts["positions"].index("A/2/1"): ["constant", "zero"]}
    assert facts["memory"]["peak_rss_bytes"] > 0
    assert facts["speed"]["calls"] == 1
    assert json.loads(json.dumps(facts))


def test_one_image_of_many_is_reported_and_explained(finished: Path) -> None:
    facts = phbatch.collect_report(finished / "A/2/1").facts
    assert (facts["frames"], facts["units"]) == ({"all": 4, "finished": 4}, {"all": 2, "finished": 2})
    assert list(facts["flagged"]["listed"]) == ["t1/c0/z0"]
    assert facts["looked_at"]["input_problem"] is None
    assert phbatch.collect_report(finished / "A/12/0").facts["failed"].keys() == {"t0-1/c1"}
    with pytest.raises(phbatch.OutputError, match=r"is no image of the output .* such as .*o\.zarr/A/1/0"):
        phbatch.explain(finished / "A/2")
    assert phbatch.explain(finished / "B/12/0").methods.startswith("4 frames of 24 x 24 pixels (uint16, 2 channels")
    many = phbatch.explain(finished).methods
    assert many.startswith("11 images with together 44 frames of 24 x 24 pixels (uint16, 2 channels, 2 time points)")
    assert "1 frame was flagged automatically (constant, zero)" in many
    assert "2 frames are missing" in many


def test_one_image_of_many_is_scored_in_the_units_of_its_run(tmp_path: Path) -> None:
    plate, output = make_plate(tmp_path / "p.zarr", ("A/1",), fields=1, size=48), tmp_path / "o.zarr"
    phbatch.run(plate, output, model="none", workers=1)
    phbatch.run(plate / "A/1/0", tmp_path / "one.zarr", model="none", workers=1)
    truth = zarr.create_group(tmp_path / "truth.zarr")
    smooth = np.full((2, 2, 48, 48), 1000.0, "float32") + np.linspace(0, 90, 48, dtype="float32")
    make_image(truth, "image", smooth)
    among, alone = (
        phbatch.evaluate(each, tmp_path / "truth.zarr/image") for each in (output / "A/1/0", tmp_path / "one.zarr")
    )
    assert among.as_dict() == alone.as_dict()
    moved = plate.rename(tmp_path / "moved.zarr")
    facts = phbatch.collect_report(output / "A/1/0", input=moved / "A/1/0").facts
    assert facts["looked_at"]["input_problem"] is None
    assert "p.zarr" in phbatch.collect_report(output).facts["looked_at"]["input_problem"]
    assert phbatch.collect_report(output, input=moved).facts["looked_at"]["input_problem"] is None
    with pytest.raises(phbatch.InputError, match="A/1/0"):
        phbatch.evaluate(output, tmp_path / "truth.zarr/image")


def test_images_that_are_no_plate(phbatch_command: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "day").mkdir()
    for name, size in (("m1", 16), ("m2", 16), ("m3", 20)):
        make_image(zarr.create_group(tmp_path / "day" / f"{name}.zarr"), "image", np.full((1, 1, size, size), 9.0) + 1)
        noise: Any = zarr.open_array(tmp_path / "day" / f"{name}.zarr/image/0")
        noise[:] = np.random.default_rng(0).normal(100, 3, noise.shape)
    pattern = f"{tmp_path}/day/*/image"
    assert phbatch_command("run", pattern, tmp_path / "o.zarr", "--model", "none", "--workers", "1") == 0
    page = tmp_path / "o.report.html"
    assert f"report: {page}" in phbatch_command.err
    text = page.read_text(encoding="utf-8")
    assert "All images" in text
    assert "3 images, 2 of them" in text
    assert phbatch_command("report", tmp_path / "o.zarr", "--json") == 0
    facts = json.loads(phbatch_command.out)
    assert [well["name"] for well in facts["overview"]["wells"]] == facts["positions"]
    assert facts["overview"]["rows"] is None


@needs_browser
@pytest.mark.parametrize("width", [1280, 400])
def test_the_overview_in_a_browser(finished: Path, page: Page, tmp_path: Path, width: int) -> None:
    found = phbatch.write_report(finished, tmp_path / "page.html")
    assert Path(str(found.path)).stat().st_size < 5e6
    page.resize(width)
    page.open((tmp_path / "page.html").as_uri())
    page.wait_for("document.querySelectorAll('.uplot canvas').length >= 6")
    assert page.run("document.documentElement.scrollWidth") <= width
    drawn = page.run("[...document.querySelectorAll('.well')].map((w) => w.querySelector('img.after').naturalWidth)")
    assert drawn == [24] * 6
    kinds = page.run("[...document.querySelectorAll('.well')].map((w) => w.className)")
    assert kinds == ["well", "well look", "well bad", "well bad", "well", "well"]
    boxes = page.run(
        "[...document.querySelectorAll('.well')].map((w) => {const b = w.getBoundingClientRect(); return [b.x, b.y]})"
    )
    assert [boxes[at][1] for at in range(3)] == [boxes[0][1]] * 3
    assert boxes[3][0] == boxes[0][0] < boxes[1][0] < boxes[2][0]
    assert boxes[3][1] > boxes[0][1]
    page.run("document.querySelectorAll('.well')[1].click()")
    said = page.run("document.getElementById('overview-said').textContent")
    assert said.startswith("A2: 8 of 8 frames of A/2/0, A/2/1; median ")
    assert said.endswith("; 1 flagged")
    choose = (
        "{const s = document.getElementById('overview-shown'); s.value = '%s'; s.dispatchEvent(new Event('change'))}"
    )
    page.run(choose % "before")
    assert page.run("[...document.querySelectorAll('.well img.before')].every((i) => !i.hidden)")
    page.run(choose % "median")
    assert page.run("[...document.querySelectorAll('.well img')].every((i) => i.hidden)")
    shades = page.run("[...document.querySelectorAll('.well')].map((w) => w.style.background)")
    assert len(set(shades)) > 1
    assert shades[4] != shades[0]
    assert not page.problems
