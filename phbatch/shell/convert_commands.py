"""The command that copies what a microscope wrote to OME-Zarr."""

from __future__ import annotations

import shlex
import sys
from typing import Any

import click

import phbatch
from phbatch.computing.signals import stop_on_signal
from phbatch.shell.options import common_options, config_option, quiet_option, settings_of
from phbatch.shell.plain import print_record, with_config, without_storage_options
from phbatch.words.errors import UsageError


@click.command("convert")
@click.argument("paths", nargs=-1, required=True, metavar="INPUT... OUTPUT")
@settings_of("convert")
@config_option
@quiet_option
@common_options
def convert_command(paths: tuple[str, ...], quiet: bool, as_json: bool, debug: bool, **options: Any) -> int:
    """Copy INPUT to OUTPUT, an OME-Zarr image, pixel for pixel.

    INPUT is a TIFF, a folder of TIFFs, a glob, the files of one, or whatever `run` reads. What was stopped continues
    when it is called again.
    """
    *inputs, output = paths
    if not inputs:
        raise UsageError(f"convert needs a place for what it makes of {output}: add OUTPUT, such as out.zarr.")
    chosen = with_config(options)
    command = shlex.join(["phbatch", *without_storage_options(sys.argv[1:])])
    with phbatch.report.ProgressReport(quiet=quiet) as listener, stop_on_signal() as stop:
        result = phbatch.convert(inputs, output, listener=listener, command=command, stop=stop, **chosen)
    if as_json:
        print_record(result.as_dict())
    else:
        phbatch.report.print_result(result)
    return result.exit_code
