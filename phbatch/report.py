"""What people see: progress, tables, and before/after pictures."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from phbatch.frames.clock import STAGES
from phbatch.frames.table import Rows
from phbatch.places.table_file import csv_lines, require_table_name, write_rows
from phbatch.planning.memory import format_bytes
from phbatch.planning.request import ClusterRequest
from phbatch.tools.progress import ProgressReport
from phbatch.tools.training_progress import TrainingProgress
from phbatch.words.results import PlanReport, RunResult, VerifyReport

if TYPE_CHECKING:
    from phbatch.tools.evaluation_page import print_evaluation, save_evaluation
    from phbatch.tools.pages import print_comparison, save_comparison
    from phbatch.tools.pictures import save_before_after, save_profile
    from phbatch.tools.preview_picture import print_preview, save_preview

__all__ = [
    "ProgressReport",
    "TrainingProgress",
    "print_comparison",
    "print_evaluation",
    "print_info",
    "print_plan",
    "print_preview",
    "print_profile",
    "print_request",
    "print_result",
    "print_statistics",
    "print_verification",
    "require_table_name",
    "save_before_after",
    "save_comparison",
    "save_evaluation",
    "save_preview",
    "save_profile",
    "save_statistics",
    "visible",
]

_DRAWN = {
    "print_comparison": "pages",
    "save_comparison": "pages",
    "print_evaluation": "evaluation_page",
    "save_evaluation": "evaluation_page",
    "save_before_after": "pictures",
    "save_profile": "pictures",
    "print_preview": "preview_picture",
    "save_preview": "preview_picture",
}


def __getattr__(name: str) -> Any:
    """What draws comes with matplotlib, which is imported where it is used."""
    if name not in _DRAWN:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"phbatch.tools.{_DRAWN[name]}"), name)


_FRAMES_SHOWN = 50


def print_plan(plan: PlanReport) -> None:
    """Print a plan as a table on standard output."""
    rows = {
        "input": f"{plan.input}  ({_by(plan.shape)} tczyx)",
        "output": f"{plan.output}  ({plan.axes}, {_by(plan.output_shape)}, {plan.dtype})",
        "chunks": _by(plan.output_chunks),
        **({"levels": ", ".join(map(_by, plan.levels))} if len(plan.levels) > 1 else {}),
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


def print_request(request: ClusterRequest, kind: str | None, input: str, output: str, options: str = "") -> None:
    """Print what to ask a cluster for, with the command that asks a kind of cluster for it; options are the run's."""
    print()
    for line in request.arithmetic:
        print(line)
    if kind is not None:
        gpus = f" --gpus-per-worker {request.gpus_per_worker}" if request.gpus_per_worker else ""
        asked = (
            f"--workers {request.workers}{gpus} --cores-per-worker {request.cores_per_worker} --memory-per-worker"
            f" {request.memory_bytes // 10**9}GB --walltime {request.walltime_s // 60}m"
        )
        places = f"{shlex.quote(input)} {shlex.quote(output)}"
        print(f"\nphbatch submit {places} --cluster {shlex.quote(kind)} {asked}{options}")


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


def save_statistics(path: str, rows: Rows) -> None:
    """Write the statistics table as CSV, JSON or Parquet, by the suffix of the file."""
    write_rows(path, *rows.as_written())


def print_statistics(rows: Rows) -> None:
    """Print the statistics table: for people on a terminal, as CSV where it is piped."""
    if not sys.stdout.isatty():
        sys.stdout.writelines(csv_lines(*rows.as_written()))
        return
    table = Table(box=None, padding=(0, 1, 0, 0))
    for name in rows.names:
        table.add_column(name, justify="left" if name in ("flags", "position") else "right", overflow="fold")
    for row in rows:
        table.add_row(*(_cell(value) for value in row.values()))
    Console().print(table)


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
