"""Progress of a run as people see it: two lines on a terminal, plain lines where the output is piped."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from time import monotonic
from typing import Any

import psutil
from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from phbatch.planning.memory import format_bytes
from phbatch.words.durations import format_duration
from phbatch.words.events import Event, Notice, RunStarted, StageStarted, UnitFailed, UnitFinished, UnitMeasured

_PLAIN_S, _PLAIN_SHARE = 10.0, 50
_SAMPLE_S, _SAMPLES = 1.0, 120  # the rate is that of the last two minutes
_DRAWN_PER_S = 4
_SHOWN = 20  # flagged frames, and failed units, that have a line of their own
_NARROW = 60


class Rate:
    """Frames per second of late.

    Examples
    --------
    >>> rate = Rate(0.0)
    >>> for second in range(1, 1001):  # two a second at first, then one
    ...     rate.add(2 * second if second <= 500 else 500 + second, float(second))
    >>> rate.of(1500, 1000.0)
    1.0
    """

    def __init__(self, now: float) -> None:
        self._seen: deque[tuple[float, int]] = deque([(now, 0)], _SAMPLES)

    def add(self, done: int, now: float) -> None:
        """Take in how many are done."""
        if now - self._seen[-1][0] >= _SAMPLE_S:
            self._seen.append((now, done))

    def of(self, done: int, now: float) -> float:
        """The rate, now that so many are done."""
        then, before = self._seen[0]
        return (done - before) / max(now - then, 1e-9)


class ProgressReport:
    """Listener that shows a run: a bar on a terminal, plain lines where the output is piped.

    Stage, frames, rates, time left, memory against what is planned, flagged frames, and which stage most of the time
    goes to: as much of it as the terminal is wide. Plain lines are few, at most one in ten seconds and fewer in a long
    run.

    Parameters
    ----------
    console : rich.console.Console, optional
        Default: the standard error stream.
    quiet : bool
        Whether only warnings and failures are shown.
    """

    _counted = "frames"

    def __init__(self, console: Console | None = None, *, quiet: bool = False) -> None:
        self._console = console or Console(stderr=True)
        self._quiet = quiet
        self._live: Live | None = None
        self._began = self._told = monotonic()
        self._begun = False
        self._planned = self._pixels = self._flagged = self._failed = 0
        self._spent: dict[str, float] = {}
        self._total = self._done = 0
        self._stage = ""
        self._begin("starting", 0, 0)

    def __enter__(self) -> ProgressReport:
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._stage = "done" if self._is_done() else self._stage
            self._live.stop()
            self._live = None

    def __call__(self, event: Event) -> None:
        """Show an event."""
        match event:
            case Notice(text, True):
                self._say(f"warning: {text}", "yellow")
            case UnitFailed(unit, error):
                self._failed += 1
                self._say_few(self._failed, f"unit {unit} failed: {error}", "failed units", "red")
            case _ if self._quiet:
                pass
            case Notice(text):
                self._say(text)
            case StageStarted(stage, frames):
                if frames or not self._is_done():
                    self._begin(stage, frames, 0)
                self._stage = stage
                self._show()
            case RunStarted():
                self._start(event)
            case UnitMeasured(_, frames):
                self._advance(frames)
            case UnitFinished(_, frames):
                self._take(event)
                self._advance(frames)

    def _start(self, event: RunStarted) -> None:
        self._pixels, self._planned = event.frame_pixels, event.planned_bytes
        if event.units_done and not self._begun:  # more frames may have come since
            self._say(f"continuing: {event.units_done} of {event.units} units are finished")
        self._begun, self._counted = self._begun or bool(event.output), event.counted
        self._begin("restoring" if event.output else "measuring", event.frames, event.frames_done)
        self._show()

    def _is_done(self) -> bool:
        return self._total > 0 and self._done == self._total

    def _begin(self, stage: str, total: int, done: int) -> None:
        self._stage, self._total, self._done, self._before = stage, total, done, done
        self._at = monotonic()
        self._rate, self._per_second = Rate(self._at), 0.0

    def _take(self, event: UnitFinished) -> None:
        for stage, seconds in event.stages.items():
            self._spent[stage] = self._spent.get(stage, 0.0) + seconds
        for frame, words in event.flagged.items():
            self._flagged += 1
            self._say_few(self._flagged, f"flagged {frame}: {', '.join(words)}", "flagged frames", "yellow")

    def _advance(self, frames: int) -> None:
        self._done += frames
        now = monotonic()
        self._rate.add(self._done - self._before, now)
        self._per_second, self._at = self._rate.of(self._done - self._before, now), now
        if self._live is None and (self._done == self._total or now - self._told > self._interval(now)):
            self._told = now
            stage = "" if self._stage == "restoring" else f"{self._stage}: "
            self._say(f"{stage}{self._done}/{self._total} {self._counted}, {', '.join(self._facts())}")

    def _interval(self, now: float) -> float:
        return max(_PLAIN_S, (now - self._began) / _PLAIN_SHARE)

    def _facts(self) -> Iterator[str]:
        """What is known, the most wanted first."""
        per_second = self._per_second  # as of the last unit: between two of them nothing gets slower
        if self._total and per_second > 0:
            yield f"{per_second:.2f} {self._counted}/s"
            left = (self._total - self._done) / per_second
            if left and self._live is not None:
                left = max(left - (monotonic() - self._at), 1.0)
            if left or self._live is None:
                yield f"{format_duration(left)} left"
            if self._pixels:
                yield f"{per_second * self._pixels / 1e6:.2f} MPx/s"
        if self._planned:
            yield f"memory {format_bytes(psutil.Process().memory_info().rss)} of {format_bytes(self._planned)}"
        if self._flagged:
            yield f"{self._flagged} flagged"
        if self._failed:
            yield f"{self._failed} failed"
        if whole := sum(self._spent.values()):
            most = max(self._spent, key=lambda stage: self._spent[stage])
            yield f"{self._spent[most] / whole:.0%} {most}"

    def _show(self) -> None:
        if self._live is None and self._console.is_terminal and not self._console.is_dumb_terminal:
            self._live = Live(
                console=self._console, get_renderable=self._draw, refresh_per_second=_DRAWN_PER_S, redirect_stdout=False
            )
            self._live.start()

    def _draw(self) -> RenderableType:
        width = self._console.width
        bar = ProgressBar(total=self._total or None, completed=self._done, pulse=not self._total)
        line = Table.grid(padding=(0, 1), expand=True)
        cells: list[Any] = [self._stage, bar]
        if self._total:
            cells.append(f"{self._done}/{self._total}{f' {self._counted}' if width >= _NARROW else ''}")
        for cell in cells:
            line.add_column(ratio=1 if cell is bar else None, no_wrap=True, overflow="ellipsis")
        line.add_row(*cells)
        drawn = Table.grid(expand=True)
        drawn.add_row(line)
        drawn.add_row(fitting(self._facts(), width - 1))
        return drawn

    def _say_few(self, number: int, text: str, what: str, style: str) -> None:
        if number <= _SHOWN:
            self._say(text, style)
        elif number == _SHOWN + 1:
            self._say(f"more {what} are counted, not shown", style)

    def _say(self, text: str, style: str | None = None) -> None:
        self._console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def fitting(facts: Iterator[str], width: int) -> str:
    """As many facts as a line holds.

    Examples
    --------
    >>> fitting(iter(["2.00 frames/s", "45 s left", "1.30 MPx/s"]), 26)
    '2.00 frames/s  45 s left'
    """
    text = ""
    for fact in facts:
        longer = f"{text}  {fact}" if text else fact
        if len(longer) > width:
            break
        text = longer
    return text
