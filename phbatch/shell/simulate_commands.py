"""The command that makes images of which the truth is known: simulate."""

from __future__ import annotations

import click

import phbatch
from phbatch.shell.options import common_options
from phbatch.shell.plain import print_record
from phbatch.words.errors import UsageError


@click.command("simulate")
@click.argument("output", metavar="OUT.zarr")
@click.option(
    "--wells", type=click.IntRange(1), metavar="N", help="Make a plate of so many wells.  [default: one image]"
)
@click.option("--fields", type=click.IntRange(1), metavar="N", help="Fields of every well.  [default: 1]")
@click.option("--frames", type=click.IntRange(1), default=1, show_default=True, metavar="N", help="Frames along t.")
@click.option("--size", type=click.IntRange(8), default=256, show_default=True, metavar="N", help="Pixels a side.")
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, metavar="N", help="Of all that is random."
)
@click.option("--clean", is_flag=True, help="Write the truth of these frames, float32, in place of noisy counts.")
@common_options
def simulate_command(
    output: str,
    wells: int | None,
    fields: int | None,
    frames: int,
    size: int,
    seed: int,
    clean: bool,
    as_json: bool,
    debug: bool,
) -> None:
    """Simulate phase contrast: a time-lapse, or with --wells a plate, as OME-Zarr.

    Each field has cells of its own, and the same command makes the same pixels.
    """
    simulation = phbatch.PhaseContrast(shape=(size, size), n_frames=frames, seed=seed)
    if wells is not None:
        phbatch.write_plate(output, simulation, wells=wells, fields=fields or 1, clean=clean)
    elif fields is not None:
        raise UsageError(f"--fields {fields} are of wells; add --wells, or leave it out.")
    else:
        phbatch.write_time_lapse(output, simulation, clean=clean)
    if as_json:
        print_record({"output": output, "wells": wells, "fields": fields or 1, "frames": frames, "size": size})
    else:
        print(output)
