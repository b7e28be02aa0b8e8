"""Command lines and metadata drawn at random: no fault of phbatch's own, no hang, nothing silently changed.

Every draw is a test of its own, by its number: 100 in every run, 2,000 with ``PHBATCH_SOAK=1``.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import zarr

import phbatch
from phbatch.report import save_comparison
from tests.faults.fuzz import Image, Line, draw_image, draw_lines, expected_steps, write_surroundings
from tests.handmade import CommandLine, write_model

SOAK = bool(os.environ.get("PHBATCH_SOAK"))
DRAWS = 2000 if SOAK else 100
MODEL_EVERY = 50
HANG_S = 10  # of processor time
MODEL_HANG_S = 120  # a network is compiled, on a machine that may have one core


@contextmanager
def limit_processor_time(seconds: float) -> Iterator[None]:
    """Fail instead of going on for ever."""

    def give_up(*_: object) -> None:
        raise AssertionError(f"it took more than {seconds} s of processor time")

    before = signal.signal(signal.SIGPROF, give_up)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder where the shell is, with home and temporary folder beside it: nothing outside is ever an output."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path.parent / "keras"))
    for name, variable in (("home", "HOME"), ("tmp", "TMPDIR")):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(variable, str(tmp_path / name))
    monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path.parent / "matplotlib"))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path


@pytest.fixture(scope="module", autouse=True)
def warm(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What is imported and compiled once per process is not counted as a hang of the first draw."""
    folder = tmp_path_factory.mktemp("warm")
    for dtype in ("uint8", "uint16", "float32"):
        image = np.random.default_rng(0).integers(90, 110, (2, 40, 40)).astype(dtype)
        zarr.create_array(folder / f"{dtype}.zarr", data=image, chunks=(1, 40, 40))
        phbatch.run(folder / f"{dtype}.zarr", model="none", downscale=2, illumination="gaussian")
    save_comparison(folder / "page.html", phbatch.compare_rules(str(folder / "uint16.zarr")), "warm")


@pytest.mark.parametrize("number", range(DRAWS))
def test_a_draw(number: int, world: Path, phbatch_command: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    draw, work = Random(f"phbatch {number}"), world / "work"
    with_model = number % MODEL_EVERY == MODEL_EVERY - 1
    model = str(write_model(world / "model", unet_n_depth=1, unet_n_first=1)) if with_model else "none"
    image = draw_image(draw, work)
    write_surroundings(draw, work)
    monkeypatch.setenv("COLUMNS", str(draw.choice([20, 80, 200])))
    for line in draw_lines(draw, image, model):
        before = contents(world)
        with limit_processor_time(MODEL_HANG_S if with_model else HANG_S):
            code = phbatch_command(*line.arguments)
        said = f"{line.arguments}\n{phbatch_command.out}\n{phbatch_command.err}"
        assert code in (0, 2, 3, 4), said
        assert "error: unexpected" not in phbatch_command.err, said
        assert "Traceback" not in phbatch_command.err or "--debug" in line.arguments, said
        require_untouched(before, contents(world), line, said)
        if "--json" in line.arguments and "--help" not in line.arguments:
            require_one_record(phbatch_command.out, code)
        if line.command == "run" and code == 0:
            require_same_image(image, work / line.places[-1], line, said)


def contents(world: Path) -> dict[str, bytes | None]:
    """Every file with its bytes, and every folder."""
    return {str(path.relative_to(world)): path.read_bytes() if path.is_file() else None for path in world.rglob("*")}


def require_untouched(before: dict[str, Any], after: dict[str, Any], line: Line, said: str) -> None:
    """Nothing has changed but the output, and there nothing that was no output."""
    places = [f"work/{place}" for place in line.places if place not in (".", "")]
    ours = (*places, *(f"{place.removesuffix('.zarr')}.report.html" for place in places))
    changed = {key for key in before.keys() | after.keys() if before.get(key, "") != after.get(key, "")}
    foreign = {key for key in changed if not any(key == place or key.startswith(f"{place}/") for place in ours)}
    precious = {
        key for key in changed if before.get(key) is not None and key.startswith(("work/mine", "work/note", "work/in."))
    }
    written = ("work/in.phbatch.zarr", "work/in.ome.phbatch.zarr", "work/mine/new.zarr")  # by an earlier line
    precious -= {key for key in precious if key.startswith(written) or key.endswith(".report.html")}
    assert not foreign | precious, f"{sorted(foreign | precious)[:5]} changed\n{said}"


def require_one_record(out: str, code: int) -> None:
    """Standard output is one JSON record, which says what went wrong where anything did."""
    record = json.loads(out)
    if code in (2, 3) and isinstance(record, dict) and "error" in record:
        assert record["exit_code"] == code


def require_same_image(image: Image, output: Path, line: Line, said: str) -> None:
    """Axes, number of channels and scale are the input's, as far as its metadata say them."""
    attributes: dict[str, Any] = zarr.open_group(output, mode="r").attrs.asdict()
    multiscale = attributes.get("ome", attributes)["multiscales"][0]
    axes = "".join(axis["name"] for axis in multiscale["axes"])
    steps = dict(zip(axes, multiscale["datasets"][0]["coordinateTransformations"][0]["scale"], strict=True))
    stored = zarr.open_array(output / multiscale["datasets"][0]["path"], mode="r").shape
    assert len(stored) == len(axes)
    if image.axes is None or "--axes" in line.arguments:
        return
    lengths, found = dict(zip(image.axes, image.shape, strict=True)), dict(zip(axes, stored, strict=True))
    assert set(axes) == set(image.axes), said
    if "--channel" not in line.arguments:
        assert found.get("c", 1) == lengths.get("c", 1), said
    if "--downscale" not in line.arguments:
        assert (found["y"], found["x"]) == (lengths["y"], lengths["x"]), said
    if image.scale is not None:
        assert steps == pytest.approx(expected_steps(image.scale, line.arguments)), said
