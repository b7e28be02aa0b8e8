"""The command that scores a restoration against its truth: evaluate."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

import phbatch
from phbatch.shell.options import common_options, settings_of
from phbatch.shell.plain import given, print_record, require_folder, writing
from phbatch.words.errors import UsageError

_SUFFIXES = (".csv", ".json", ".parquet", ".png")


@click.command("evaluate")
@click.argument("restored")
@click.argument("truth")
@click.option("--input", metavar="PATH", help="What was restored.  [default: of a run's output, what it names]")
@click.option("--cells", metavar="PATH", help="Labels or mask of the cells.  [default: where the truth has structure]")
@click.option("--samples", type=click.IntRange(1), metavar="N", help="Frames along t to score.  [default: all]")
@settings_of("evaluate")
@click.option(
    "-o",
    "--output",
    "outputs",
    multiple=True,
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Also write scores of all frames, .csv, .json or .parquet, or a picture, .png; may be repeated.",
)
@common_options
def evaluate_command(
    restored: str,
    truth: str,
    outputs: tuple[str, ...],
    as_json: bool,
    debug: bool,
    **options: Any,
) -> None:
    """Score RESTORED against TRUTH frame by frame: PSNR, SSIM, NRMSE, on cells and background, and its uncertainty.

    The truth of an output of phbatch is given in counts, and is prepared and normalized as its frames were.
    """
    for output in outputs:
        if Path(output).suffix.lower() not in _SUFFIXES:
            raise UsageError(f"--output {output} does not end in {', '.join(_SUFFIXES)}; give a name that does.")
        if Path(output).suffix.lower() != ".png":
            phbatch.report.require_table_name(output)
        require_folder(output, restored)
    found = phbatch.evaluate(restored, truth, **given(options))
    for output in outputs:
        with writing(output):
            phbatch.report.save_evaluation(output, found)
    if as_json:
        print_record(found.as_dict())
        return
    phbatch.report.print_evaluation(found)
    for notice in found.notices:
        print(f"warning: {phbatch.report.visible(notice)}", file=sys.stderr)
    for output in outputs:
        print(output)
