"""What people see: progress, tables, and before/after pictures."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from phbatch.frames.clock import STAGES
from phbatch.frames.table import StatisticsTable
from phbatch.places.table_file import MEASURED, csv_lines, require_table_name, write_rows
from phbatch.planning.memory import format_bytes
from phbatch.running.illumination import IlluminationResult
from phbatch.tools.pages import print_comparison, save_comparison
from phbatch.words.events import Event, Notice, RunStarted, UnitFailed, UnitFinished
from phbatch.words.results import PlanReport, RunResult, VerifyReport

__all__ = [
    "ProgressReport",
    "print_comparison",
    "print_info",
    "print_plan",
    "print_profile",
    "print_result",
    "print_statistics",
    "print_verification",
    "require_table_name",
    "save_before_after",
    "save_comparison",
    "save_profile",
    "save_statistics",
    "visible",
]

_PLAIN_INTERVAL_S = 10.0


class ProgressReport:
    """Listener that shows a run: a bar on a terminal, plain lines where the output is piped.

    Parameters
    ----------
    console : rich.console.Console, optional
        Default: the standard error stream.
    quiet : bool
        Whether only warnings and failures are shown.
    """

    def __init__(self, console: Console | None = None, *, quiet: bool = False) -> None:
        self._console = console or Console(stderr=True)
        self._quiet = quiet
        self._bar: Progress | None = None
        self._task: Any = None
        self._total = self._done = self._frames_now = 0
        self._pixels = 0
        self._started = self._told = monotonic()

    def __enter__(self) -> ProgressReport:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, event: Event) -> None:
        """Show an event."""
        match event:
            case Notice(text, True):
                self._say(f"warning: {text}", "yellow")
            case UnitFailed(unit, error):
                self._say(f"unit {unit} failed: {error}", "red")
            case _ if self._quiet:
                pass
            case Notice(text):
                self._say(text)
            case RunStarted():
                self._start(event)
            case UnitFinished(_, frames):
                self._advance(frames)

    def _start(self, event: RunStarted) -> None:
        self._total, self._done, self._pixels = event.frames, event.frames_done, event.frame_pixels
        self._started = self._told = monotonic()
        if event.units_done:
            self._say(f"continuing: {event.units_done} of {event.units} units are finished")
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("frames  {task.fields[rate]}"),
                TimeRemainingColumn(),
                console=self._console,
            )
            self._task = self._bar.add_task("phbatch", total=self._total, completed=self._done, rate="")
            self._bar.start()

    def _advance(self, frames: int) -> None:
        self._done += frames
        self._frames_now += frames
        now = monotonic()
        per_second = self._frames_now / max(now - self._started, 1e-9)
        rate = f"{per_second:.2f} frames/s  {per_second * self._pixels / 1e6:.2f} MPx/s"
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done, rate=rate)
        elif now - self._told > _PLAIN_INTERVAL_S or self._done == self._total:
            self._told = now
            left = (self._total - self._done) / max(per_second, 1e-9)
            self._say(f"{self._done}/{self._total} frames, {rate}, {left:.0f} s left")

    def _say(self, text: str, style: str | None = None) -> None:
        self._console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


_FRAMES_SHOWN = 50


def print_plan(plan: PlanReport) -> None:
    """Print a plan as a table on standard output."""
    rows = {
        "input": f"{plan.input}  ({_by(plan.shape)} tczyx)",
        "output": f"{plan.output}  ({plan.axes}, {_by(plan.output_shape)}, {plan.dtype})",
        "chunks": _by(plan.output_chunks),
        **({"preparation": plan.preparation} if plan.preparation else {}),
        "normalization": plan.normalization,
        "model": plan.model or "none (normalize only)",
        "units": f"{plan.units} ({plan.frames} frames), {plan.workers} at once",
        "passes": f"{plan.passes} over the input: {plan.passes_reason}",
        "read": f"{format_bytes(plan.bytes_read)} uncompressed",
        "written": f"{format_bytes(plan.bytes_written)} uncompressed",
        "memory": f"{format_bytes(plan.projected_mem)} projected, {format_bytes(plan.allowed_mem)} allowed",
    }
    if plan.tile:
        rows["tiles"] = f"{plan.tiles_per_frame} per frame of {_by(plan.tile)}, batches of {plan.batch}"
        rows["network"] = "the fastest form, chosen at the start" if plan.network == "auto" else f"{plan.network}"
        rows["halo"] = f"{plan.halo} pixels per side, {plan.tile_overhead:.2f} x the pixels computed"
    _print_pairs(rows)
    for notice in plan.notices:
        print(notice)


def print_result(result: RunResult) -> None:
    """Print what a run did."""
    rate = result.pixels / max(result.seconds, 1e-9) / 1e6
    skipped = f", {result.units_skipped} were finished before" if result.units_skipped else ""
    print(f"{result.units_done} of {result.units} units in {result.seconds:.1f} s ({rate:.2f} MPx/s){skipped}")
    print(f"peak memory {format_bytes(result.peak_rss_bytes)}")
    if result.clipped:
        print(f"{result.clipped} pixels were clipped to the range of the output")
    _print_few("flagged", {frame: ", ".join(words) for frame, words in result.flagged.items()})
    _print_few("failed", result.failed)
    if result.failed:
        print("call the same command again to retry the failed units")
    print(result.output)


def print_profile(result: RunResult) -> None:
    """Print where the time went: seconds of every stage over all units, and their share of all workers' time.

    While a unit waits for the disk ("write") another one computes, so that the shares may exceed 1 together.
    """
    available = max(result.restoring_seconds * result.workers, 1e-9)
    waiting = available - sum(seconds for stage, seconds in result.stages.items() if stage != "write")
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("stage", "seconds", "busy"):
        table.add_column(name, justify="left" if name == "stage" else "right")
    for stage in (name for name in STAGES if name in result.stages):
        table.add_row(stage, f"{result.stages[stage]:.2f}", f"{result.stages[stage] / available:.0%}")
    table.add_row("other", f"{waiting:.2f}", f"{waiting / available:.0%}")
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    if result.stages:
        slowest = max(result.stages, key=lambda stage: result.stages[stage])
        print(f"most of the time goes to {slowest}, of {result.workers} units at once")


def print_verification(report: VerifyReport) -> None:
    """Print what `phbatch verify` found."""
    print(f"checked {report.objects:,} objects of {report.finished:,} units, {format_bytes(report.bytes)}")
    if report.recomputed:
        print(f"computed {report.recomputed} units again, largest difference {report.largest_difference:.2g} std")
    _print_few("damaged", {damage.place: damage.problem for damage in report.damages})
    if report.frames:
        more = f" and {len(report.frames) - _FRAMES_SHOWN} more" if len(report.frames) > _FRAMES_SHOWN else ""
        print(f"frames that are hurt: {', '.join(report.frames[:_FRAMES_SHOWN])}{more}")
    if report.unfinished:
        what = "a run is at it" if report.running else "the run was stopped"
        print(f"unfinished: {report.finished:,} of {report.units:,} units are done, {what}")
        if report.missing and not report.running:
            more = f" and {len(report.missing) - 10} more" if len(report.missing) > 10 else ""
            print(f"not done: {', '.join(report.missing[:10])}{more}")
    if report.damages and not report.running:
        print(f"mend it with: phbatch repair {report.output}")
    elif report.damages:
        print(f"wait for the run, then mend it with: phbatch repair {report.output}")
    elif report.unfinished and not report.running:
        print("what is done is whole; call the same `phbatch run` again to continue")
    else:
        print("what is done is whole" if report.unfinished else "the output is whole")


_INFO_LINES = 24  # of a terminal
_RUN_FACTS = ("status", "command", "input", "normalization", "model", "tile", "batch", "network", "precision")


def print_info(facts: Mapping[str, Any]) -> None:
    """Print what `phbatch.info` found, on one screen; ``--json`` has everything."""
    rows = {name: _fact(name, value) for name, value in facts.items() if name not in ("forms", "phbatch")}
    if facts["kind"] == "model":
        rows |= {name: _short(value) for name, value in rows.items()}
    run = facts.get("phbatch")
    if run:
        rows |= {name: _short(_run_fact(run[name])) for name in _RUN_FACTS if run.get(name) is not None}
        rows |= {"warnings": str(len(run["notices"]))} if run.get("notices") else {}
    lines = _INFO_LINES - 1 - (len(facts.get("forms", ())) + 1 if "forms" in facts else 0)
    shown = dict(list(rows.items())[: lines if len(rows) <= lines else lines - 1])
    _print_pairs({name: value.replace("\n", " ") for name, value in shown.items()})
    if len(shown) < len(rows):
        print(f"{len(rows) - len(shown)} more with --json")
    if "forms" in facts:
        _print_forms(facts["forms"])


def _fact(name: str, value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {part}" for key, part in value.items()) or "none"
    if isinstance(value, list):
        return _short(", ".join(str(part) for part in value)) or "none"
    return format_bytes(value) if name == "bytes" else str(value)


def _run_fact(value: Any) -> str:
    if isinstance(value, dict):
        for name in ("name", "method", "shape", "precision"):
            if name in value:
                return _fact(name, value[name])
    return _fact("", value)


def _short(text: str, length: int = 200) -> str:
    return text if len(text) <= length else f"{text[: length - 3]}..."


def _print_forms(forms: Sequence[Mapping[str, Any]]) -> None:
    table = Table(box=None, padding=(0, 1, 0, 0))
    for name in ("form", "MPx/s", "x plain", "difference / std"):
        table.add_column(name, justify="left" if name == "form" else "right")
    for row in forms:
        rate, relative, difference = row["mpx_per_s"], row["relative"], row["difference"]
        table.add_row(row["form"], f"{rate:#.3g}", f"{relative:.2f}", f"{difference:.1e}")
    Console(width=None if sys.stdout.isatty() else 120).print(table)


def save_statistics(path: str, rows: StatisticsTable) -> None:
    """Write the statistics table as CSV, JSON or Parquet, by the suffix of the file."""
    write_rows(path, *_with_measurement(rows))


def _with_measurement(rows: StatisticsTable) -> tuple[tuple[str, ...], Iterator[Mapping[str, Any]]]:
    """Names and rows of a file, which says how its frames were measured."""
    if not rows.measured:
        return rows.names, iter(rows)
    return (*rows.names, MEASURED), (row | {MEASURED: rows.measured} for row in rows)


def print_statistics(rows: StatisticsTable) -> None:
    """Print the statistics table: for people on a terminal, as CSV where it is piped."""
    if not sys.stdout.isatty():
        sys.stdout.writelines(csv_lines(*_with_measurement(rows)))
        return
    table = Table(box=None, padding=(0, 1, 0, 0))
    for name in rows.names:
        table.add_column(name, justify="left" if name == "flags" else "right", overflow="fold")
    for row in rows:
        table.add_row(*(_cell(value) for value in row.values()))
    Console().print(table)


def save_profile(path: Path, found: IlluminationResult) -> None:
    """Save a picture of a profile: the background of each channel (its middle plane) over its mean, and two sections.

    Parameters
    ----------
    path : Path
        PNG to write.
    found : IlluminationResult
        What `phbatch.illumination` returned.
    """
    backgrounds = found.profile.background[:, found.profile.background.shape[1] // 2]
    figure = Figure(figsize=(9.5, 3.6 * len(backgrounds)), layout="constrained")
    rows = figure.subplots(len(backgrounds), 2, squeeze=False)
    for channel, (background, (image, sections)) in enumerate(zip(backgrounds, rows, strict=True)):
        relative = background / background.mean(dtype=np.float64)
        reach = max(float(np.abs(relative - 1).max()), 1e-3)
        shown = image.imshow(relative, cmap="RdBu_r", vmin=1 - reach, vmax=1 + reach)
        image.set_title(f"channel {channel}: background / mean")
        image.set_axis_off()
        figure.colorbar(shown, ax=image)
        height, width = relative.shape
        sections.plot(np.arange(width) - width / 2, relative[height // 2], label="along x, middle row")
        sections.plot(np.arange(height) - height / 2, relative[:, width // 2], label="along y, middle column")
        sections.set_xlabel("pixels from the middle")
        sections.legend(fontsize=8)
    figure.savefig(path, dpi=110)


def save_before_after(path: Path, images: Sequence[tuple[str, NDArray[Any]]], crop: int = 160) -> None:
    """Save a picture of images side by side, whole above and a crop of the most textured place below.

    Parameters
    ----------
    path : Path
        PNG to write.
    images : sequence of (title, (y, x) ndarray)
        Of one shape and one range of intensities; the last sets the contrast.
    crop : int
        Side of the crop in pixels.
    """
    reference = images[-1][1]
    low, high = np.percentile(reference, (0.1, 99.9))
    crop = min(crop, *reference.shape)
    y, x = _textured_corner(reference, crop)
    with mpl.rc_context({"font.size": 11}):
        figure = Figure(figsize=(4.2 * len(images), 8.6), layout="constrained")
        axes = figure.subplots(2, len(images), squeeze=False)
        for column, (title, image) in enumerate(images):
            for row, part in enumerate((image, image[y : y + crop, x : x + crop])):
                axes[row][column].imshow(part, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
                axes[row][column].set_axis_off()
            axes[0][column].set_title(title)
            axes[0][column].add_patch(Rectangle((x, y), crop, crop, fill=False, edgecolor="tab:orange"))
        figure.savefig(path, dpi=110)


def _textured_corner(image: NDArray[Any], crop: int) -> tuple[int, int]:
    """Corner of the window, of those on a coarse grid, with the largest standard deviation."""
    step = max(1, crop // 4)
    corners = [
        (y, x) for y in range(0, image.shape[0] - crop + 1, step) for x in range(0, image.shape[1] - crop + 1, step)
    ]
    return max(corners, key=lambda at: float(image[at[0] : at[0] + crop, at[1] : at[1] + crop].std()))


def visible(text: str, *, keep_lines: bool = False) -> str:
    r"""Text from outside for a terminal: control characters, which could move the cursor or hide a line, as blanks.

    Examples
    --------
    >>> visible("DAPI\x1b[2J\nnext")
    'DAPI [2J next'
    """
    return "".join(sign if sign.isprintable() or (keep_lines and sign == "\n") else " " for sign in text)


def _by(lengths: Sequence[int]) -> str:
    return "x".join(str(length) for length in lengths)


def _print_pairs(rows: Mapping[str, str]) -> None:
    width = max(len(name) for name in rows)
    for name, value in rows.items():
        print(f"{name:<{width}}  {visible(value, keep_lines=True)}")


def _print_few(title: str, rows: Mapping[str, str], limit: int = 10) -> None:
    for name, text in list(rows.items())[:limit]:
        print(f"{title} {name}: {text}")
    if len(rows) > limit:
        print(f"{title}: {len(rows) - limit} more")


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(value)
    return "" if value is None else f"{value:.5g}" if isinstance(value, float) else str(value)
