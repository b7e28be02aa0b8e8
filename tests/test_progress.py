"""Progress as people see it: wide, narrow, and in a job's log."""

from __future__ import annotations

import io
import re
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import zarr
from rich.console import Console

import phbatch
from phbatch.tools import progress
from phbatch.tools.progress import ProgressReport
from phbatch.words.events import Event, Notice, RunStarted, StageStarted, UnitFailed, UnitFinished, UnitMeasured


class Screen(io.StringIO):
    """Keeps what is written at once."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[str] = []

    def write(self, text: str) -> int:
        self.writes.append(text)
        return super().write(text)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look at the clock is two seconds later."""
    ticks = count(0.0, 2.0)
    monkeypatch.setattr(progress, "monotonic", lambda: next(ticks))


def play(listener: ProgressReport, units: int = 30) -> None:
    listener(StageStarted("measuring", units))
    for number in range(units):
        listener(UnitMeasured(f"t{number}", 1))
    listener(RunStarted("out.zarr", units, 0, units, 0, 1 << 20, 3 << 30))
    for number in range(units):
        words = {f"t{number}/c0": ["saturated"]} if number % 3 == 0 else {}
        listener(UnitFinished(f"t{number}", 1, {"read": 0.1, "predict": 0.9}, words))
    listener(StageStarted("finishing"))


@pytest.mark.parametrize(
    ("width", "shown", "left_out"),
    [
        (80, ("30/30 frames", "frames/s", "MPx/s", "10 flagged"), (" left",)),
        (40, ("30/30", "frames/s"), ("predict", " left")),
    ],
    ids=str,
)
def test_a_terminal_has_two_lines_that_fit_and_are_drawn_at_once(
    width: int, shown: tuple[str, ...], left_out: tuple[str, ...], clock: None
) -> None:
    screen = Screen()
    with ProgressReport(Console(file=screen, force_terminal=True, width=width, height=20)) as listener:
        play(listener)
        listener(RunStarted("again.zarr", 30, 0, 30, 0, 1 << 20))
        listener(UnitFinished("t0", 10))
        assert " s left  " in progress.fitting(listener._facts(), width)
        listener(UnitFinished("t1", 20))
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen.getvalue())
    assert max(map(len, re.split(r"[\r\n]", plain))) <= width
    *_, bar, facts = plain.rstrip().splitlines()
    assert bar.split("\r")[-1].startswith("done ")
    assert [part for part in shown if part not in bar + facts] == []
    assert [part for part in left_out if part in bar + facts] == []
    assert "flagged t3/c0: saturated" in plain
    erasing = [text for text in screen.writes if "\x1b[2K" in text]
    assert erasing
    assert [text for text in erasing if "frames/s" not in text and "measuring" not in text] == []  # never only blank


def test_a_jobs_log_has_few_plain_lines_however_long_the_run(clock: None) -> None:
    screen, units = io.StringIO(), 20_000
    with ProgressReport(Console(file=screen, width=80)) as listener:
        listener(UnitFailed("t9", "disk"))
        play(listener, units)
    lines = screen.getvalue().splitlines()
    assert len(lines) < 600
    assert "\x1b" not in screen.getvalue()
    assert lines[1].startswith("measuring: ")
    assert re.fullmatch(
        r"20000/20000 frames, 0\.\d+ frames/s, 0 s left, 0\.\d+ MPx/s, memory .+ of 3\.2 GB, 6667 flagged, 1 failed,"
        " 90% predict",
        lines[-1],
    )
    assert sum(line.startswith("flagged ") for line in lines) == 20
    assert "more flagged frames are counted, not shown" in lines


def test_a_run_says_its_stages_and_each_event_has_the_logger_of_a_module(tmp_path: Path, frames: np.ndarray) -> None:
    image = frames.astype("float32")
    image[1] = 7
    zarr.create_array(tmp_path / "in.zarr", data=image, chunks=(1, 40, 36))
    heard: list[Event] = []
    options = {"model": "none", "normalize": "median", "scope": "series", "smooth_time": 1, "bad_frames": "skip"}
    result = phbatch.run(tmp_path / "in.zarr", tmp_path / "out.zarr", listener=heard.append, **options)
    stages = [event.stage for event in heard if isinstance(event, StageStarted)]
    assert stages == ["searching for NaN", "measuring", "finishing"]
    assert sum(event.frames for event in heard if isinstance(event, UnitMeasured)) == len(image)
    finished = [event for event in heard if isinstance(event, UnitFinished)]
    assert {frame for event in finished for frame in event.flagged} == set(result.flagged) != set()
    assert all(event.stages for event in finished)
    assert all(event.logger.startswith("phbatch.") for event in heard if isinstance(event, Notice))
