"""The command that trains a network."""

from __future__ import annotations

from typing import Any

import click

import phbatch
from phbatch.computing.signals import stop_on_signal
from phbatch.shell.options import common_options, quiet_option, settings_of, training_options
from phbatch.shell.plain import given, print_record


@click.command("train")
@click.argument("low", required=False)
@click.argument("high", required=False)
@click.option("-o", "--output", required=True, metavar="MODEL", help="Folder of the model.")
@click.option("--pair", "pairs", nargs=2, multiple=True, metavar="LOW HIGH", help="A further pair; may be repeated.")
@training_options
@settings_of("train")
@quiet_option
@common_options
def train_command(
    low: str | None,
    high: str | None,
    output: str,
    pairs: tuple[tuple[str, str], ...],
    quiet: bool,
    as_json: bool,
    debug: bool,
    **options: Any,
) -> None:
    """Train a network on LOW and HIGH, images of the same cells, for `run --model MODEL`.

    Without a second image: --clean HIGH makes low frames of good ones, and --simulate N makes both. A training that was
    stopped continues when it is called again.
    """
    with phbatch.report.TrainingProgress(quiet=quiet) as listener, stop_on_signal() as stop:
        found = phbatch.train(low, high, output, pairs=pairs, listener=listener, stop=stop, **given(options))
    if as_json:
        print_record(found.as_dict())
        return
    before, after = found.psnr_db
    print(f"PSNR {before:.2f} dB -> {after:.2f} dB on {found.validation_frames} frames that were held back")
    for sentence in found.advice:
        print(phbatch.report.visible(sentence))
    print(f"model     {found.model}")
    print(f"report    {found.report}")
