"""The command that hands an image to programs that read no Zarr: export."""

from __future__ import annotations

from typing import Any

import click

import phbatch
from phbatch.shell.options import common_options, settings_of
from phbatch.shell.plain import given, print_record


@click.command("export")
@click.argument("path")
@click.argument("output", metavar="OUT.tif")
@click.option("--imagej", is_flag=True, help="ImageJ's hyperstack in place of an OME-TIFF, up to 4 GB.")
@click.option("--overwrite", is_flag=True, help="Replace a file that exists.")
@settings_of("export")
@common_options
def export_command(
    path: str,
    output: str,
    imagej: bool,
    overwrite: bool,
    as_json: bool,
    debug: bool,
    **options: Any,
) -> None:
    """Write the image at PATH as one TIFF: OME-TIFF with a pyramid, or ImageJ's hyperstack.

    A plane at a time is in memory. The file is there once it is whole.
    """
    found = phbatch.export(path, output, imagej=imagej, overwrite=overwrite, **given(options))
    if as_json:
        print_record(found)
        return
    shape = " x ".join(map(str, found["shape"]))
    print(f"output    {found['output']}")
    print(f"image     {shape} ({found['axes']}) {found['dtype']}, {found['levels']} level{'s' * (found['levels'] > 1)}")
    print(f"size      {found['bytes'] / 1e6:.3g} MB")
