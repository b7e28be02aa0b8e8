"""The command that hands an image to programs that read no Zarr: export."""

from __future__ import annotations

import sys
from typing import Any

import click

import phbatch
from phbatch.shell.options import common_options, settings_of
from phbatch.shell.plain import given, print_record


@click.command("export")
@click.argument("path")
@click.argument("output", metavar="OUT.tif|FOLDER")
@click.option("--imagej", is_flag=True, help="ImageJ's hyperstack in place of an OME-TIFF, up to 4 GB.")
@click.option("--overwrite", is_flag=True, help="Replace files that exist.")
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
) -> int:
    """Write the image at PATH as one TIFF: OME-TIFF with a pyramid, or ImageJ's hyperstack.

    Of a plate, a collection or a pattern each image becomes a file in FOLDER, such as A01_f0.ome.tif. A plane at a time
    is in memory. A file is there once it is whole; in a folder those that are there are kept.
    """
    found = phbatch.export(path, output, imagej=imagej, overwrite=overwrite, **given(options))
    if as_json:
        print_record(found)
        return _exit_code(found)
    if "files" in found:
        _print_files(found)
        return _exit_code(found)
    shape = " x ".join(map(str, found["shape"]))
    print(f"output    {found['output']}")
    print(f"image     {shape} ({found['axes']}) {found['dtype']}, {found['levels']} level{'s' * (found['levels'] > 1)}")
    print(f"size      {found['bytes'] / 1e6:.3g} MB")
    return 0


def _print_files(found: dict[str, Any]) -> None:
    kept = f", {found['kept']} of them were there and are kept" if found["kept"] else ""
    print(f"output    {found['output']}")
    print(f"files     {len(found['files'])}{kept}")
    print(f"size      {found['bytes'] / 1e6:.3g} MB")
    for path, why in found["left_out"].items():
        print(f"warning: {path} is left out: {phbatch.report.visible(why)}", file=sys.stderr)


def _exit_code(found: dict[str, Any]) -> int:
    return 4 if found.get("left_out") else 0
