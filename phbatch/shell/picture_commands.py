"""The commands that show what was done to the pixels: preview, report, explain."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path
from typing import Any

import click

import phbatch
from phbatch.shell.options import common_options, settings_of
from phbatch.shell.plain import given, print_record, require_folder, writing
from phbatch.words.errors import UsageError

report_option = click.option(
    "--report/--no-report",
    "with_report",
    default=True,
    help="Write <stem>.report.html beside a local OUTPUT at the end.  [default: report]",
)


@click.command("preview")
@click.argument("input")
@click.option("-t", "--times", metavar="T,T,...", help="Frames by their index along t.  [default: the first, the last]")
@click.option("--crop", type=click.IntRange(8), default=512, show_default=True, metavar="N", help="Pixels a side.")
@click.option("--at", metavar="Y,X", help="First row and column of the crop.  [default: where most texture is]")
@settings_of(
    "compare_rules",
    {"model": "Network to restore with, or none.  [default: phase-2d-real]", "channel": "Channel to show."},
    without=("frames",),
)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False),
    metavar="FILE.png",
    help="Picture to write.  [default: <stem>.preview.png in this folder]",
)
@common_options
def preview_command(
    input: str,
    times: str | None,
    crop: int,
    at: str | None,
    output: str | None,
    as_json: bool,
    debug: bool,
    **options: Any,
) -> None:
    """Show what each rule and the network do to a crop of INPUT: raw, normalized, restored, removed and residual.

    Nothing is run; statistics are of the whole frames, so that the crop is what a run makes of it. A terminal of
    colours shows it, too.
    """
    path = Path(output) if output is not None else Path(f"{Path(input.rstrip('/')).stem}.preview.png")
    if path.suffix.lower() != ".png":
        raise UsageError(f"--output {path} does not end in .png; give a name that does.")
    require_folder(str(path), input)
    corner = None if at is None else _integers("--at", at, 2)
    found = phbatch.preview(
        input,
        None if times is None else _integers("--times", times),
        crop=crop,
        corner=None if corner is None else (corner[0], corner[1]),
        **given(options),
    )
    with writing(str(path)):
        phbatch.report.save_preview(path, found)
    if as_json:
        print_record({"picture": str(path), **found.as_dict()})
        return
    phbatch.report.print_preview(found)
    for notice in found.notices:
        print(f"warning: {phbatch.report.visible(notice)}", file=sys.stderr)
    print(path)


def _integers(option: str, text: str, count: int | None = None) -> list[int]:
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or (count is not None and len(found) != count):
        raise UsageError(
            f"{option} {text} is not {count or 'some'} integers with commas between; write {option} 0,100."
        )
    return found


@click.command("report")
@click.argument("output")
@click.option(
    "-o",
    "--output",
    "page",
    type=click.Path(dir_okay=False),
    metavar="FILE.html",
    help="Where to write the page.  [default: <stem>.report.html beside OUTPUT]",
)
@click.option("--input", metavar="PATH", help="The input, where it was moved.  [default: the one that was read]")
@settings_of("info", without=("backend",))
@common_options
def report_command(
    output: str, page: str | None, input: str | None, as_json: bool, debug: bool, **options: Any
) -> None:
    """Show what became of OUTPUT in one HTML page, which works offline: frames before and after, statistics, speed.

    With --json the same facts are printed, and a page is written only where -o names one.
    """
    if page is not None and Path(page).suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"--output {page} does not end in .html; give a name that does.")
    if as_json and page is None:
        print_record(phbatch.collect_report(output, input=input, **given(options)).as_dict())
        return
    found = phbatch.write_report(output, page, input=input, **given(options))
    if as_json:
        print_record(found.as_dict())
    else:
        print(found.path)


@click.command("explain")
@click.argument("output")
@settings_of("info", without=("backend",))
@common_options
def explain_command(output: str, as_json: bool, debug: bool, **options: Any) -> None:
    """Say what was done to the pixels of OUTPUT: a paragraph of methods with numbers, and BibTeX of what was used."""
    found = phbatch.explain(output, **given(options))
    if as_json:
        print_record(found.as_dict())
        return
    print(textwrap.fill(found.methods, 100, break_long_words=False, break_on_hyphens=False))
    print()
    print(found.bibtex, end="")


def report_on(output: str, *, quiet: bool) -> str | None:
    """Write the report at the end of a run, and say where it is; whatever goes wrong, the run has its own end."""
    if not Path(output).is_dir():
        return None
    try:
        found = phbatch.write_report(output)
    except Exception as error:  # a page must not fail a run that is whole
        print(f"no report: {phbatch.report.visible(str(error))}", file=sys.stderr)
        return None
    if not quiet:
        print(f"report: {found.path}", file=sys.stderr)
    return found.path
