"""The options of the command line, in the groups that its commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

Command = Callable[..., Any]


def grouped(*decorators: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Several decorators as one."""

    def decorate(command: Command) -> Command:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorate


storage_option = click.option(
    "--storage-options",
    multiple=True,
    metavar="JSON|KEY=VALUE",
    callback=lambda _context, _parameter, given: given or None,
    help="Credentials and endpoint of s3://, gs://, https://; never recorded. May be repeated.",
)

statistics_options = grouped(
    click.option("--sigma", type=float, metavar="PX", help="Smoothing before median and mode.  [default: 2]"),
    click.option("--pmin", type=float, metavar="P", help="Lower percentile.  [default: 2]"),
    click.option("--pmax", type=float, metavar="P", help="Upper percentile.  [default: 99.8]"),
    click.option("--percentiles", metavar="P,P,...", help="More percentiles for the table."),
    click.option(
        "--scope",
        type=click.Choice(["image", "position", "series"]),
        help="Pixels pooled for the statistic: of a frame, over t, or over t and z.  [default: image]",
    ),
    click.option(
        "--smooth-time", type=int, metavar="N", help="Running median of the statistic over N frames.  [default: 1]"
    ),
    click.option(
        "--illumination",
        metavar="NAME|PATH",
        help="Uneven light: none, gaussian or polynomial (per frame), temporal or basic (per position), or a profile."
        "  [default: none]",
    ),
    click.option(
        "--illumination-mode",
        type=click.Choice(["divide", "subtract"]),
        help="What is done with it.  [default: divide]",
    ),
    click.option("--downscale", type=int, metavar="N", help="Area average over N x N pixels first.  [default: 1]"),
    click.option("--axes", metavar="AXES", help="Axes of a bare array, such as tyx."),
    click.option("--channel", metavar="INDEX|NAME", help="Channel to process.  [default: all]"),
    click.option("--frames", metavar="T|START:STOP[:STEP]", help="Frames along t, as in Python.  [default: all]"),
    click.option(
        "--memory", metavar="SIZE", help="Memory the run may use, such as 8GB.  [default: half of what is free]"
    ),
    click.option(
        "--workers",
        "--inflight",
        "workers",
        type=int,
        metavar="N",
        help="Units read, computed and written at once.  [default: up to 4, one per core, as --memory allows]",
    ),
    click.option("--threads", type=int, metavar="N", help="Of codecs and the network on a CPU.  [default: all cores]"),
    storage_option,
    click.option("--scheduler", metavar="ADDRESS", help="Dask scheduler to run on.  [default: this process]"),
)

run_options = grouped(
    click.argument("input"),
    click.argument("output", required=False),
    click.option(
        "--model", metavar="NAME|DIR|none", help="Bundled name or CSBDeep model folder; none normalizes only."
    ),
    click.option(
        "--normalize",
        metavar="METHOD",
        help="median, mode, percentile, minmax, fixed, zscore, none, or a registered one.  [default: the model's own]",
    ),
    click.option(
        "--factor", type=float, metavar="F", help="Multiple of the median or mode that becomes 1.  [default: 1]"
    ),
    click.option("--value", type=float, metavar="V", help="Divisor of --normalize fixed."),
    click.option("--stats", metavar="FILE", help="Table of `phbatch stats`, read in place of measuring."),
    statistics_options,
    click.option(
        "--dtype",
        type=click.Choice(["float32", "float16", "uint16", "uint8"]),
        help="Of the output.  [default: float32]",
    ),
    click.option("--rescale/--no-rescale", default=None, help="Undo the normalization: intensities of the input."),
    click.option(
        "--range",
        metavar="LOW:HIGH",
        help="Normalized values that the ends of --dtype uint8 or uint16 stand for, such as 0:4.",
    ),
    click.option(
        "--scale", type=float, metavar="N", help="Integer that stands for a normalized value of 1, such as 10000."
    ),
    click.option("--upscale-back", is_flag=True, default=None, help="Return to the input's grid, bilinearly."),
    click.option("--uncertainty", is_flag=True, default=None, help="Also write the scale of a probabilistic model."),
    click.option(
        "--nan", type=click.Choice(["refuse", "skip"]), help="Frames with NaN or infinity.  [default: refuse]"
    ),
    click.option(
        "--bad-frames",
        type=click.Choice(["normalize", "skip", "copy"]),
        help="Frames that are outliers of their series.  [default: normalize]",
    ),
    click.option("--tile", metavar="AUTO|N", help="Tile length, halo included."),
    click.option("--batch", metavar="AUTO|N", help="Tiles per call of the network."),
    click.option("--backend", type=click.Choice(["tensorflow", "jax"]), help="Of Keras.  [default: tensorflow]"),
    click.option(
        "--network",
        metavar="AUTO|FORM",
        help="Form of the network: plain, upsampling, polyphase-1 to -3.  [default: the fastest measured]",
    ),
    click.option(
        "--precision",
        metavar="AUTO|PRECISION",
        help="float32, tf32, float16 or bfloat16, checked against float32 on this input.  [default: auto]",
    ),
    click.option(
        "--precision-bound", type=float, metavar="B", help="Difference that is allowed, over the std.  [default: 0.01]"
    ),
    click.option(
        "--codec",
        type=click.Choice(["auto", "blosc-lz4", "blosc-zstd", "zstd", "none"]),
        help="Compression of the output.  [default: auto, which is blosc-lz4]",
    ),
    click.option("--shuffle", type=click.Choice(["auto", "byte", "bit"]), help="Before Blosc.  [default: auto]"),
    click.option("--shard", metavar="SIZE", help="Size of the output's shards, such as 64MB.  [default: none]"),
    click.option(
        "--config", type=click.Path(dir_okay=False), metavar="FILE.toml", help="Options by name; the command line wins."
    ),
    click.option(
        "--retries", type=int, metavar="N", help="Attempts after the first one where a unit fails.  [default: 3]"
    ),
    click.option("--overwrite", is_flag=True, default=None, help="Start afresh where an output of phbatch exists."),
)

comparison_options = grouped(
    click.option("--model", metavar="NAME|DIR|none", help="Whose rule it is held against.  [default: the bundled one]"),
    click.option("--value", type=float, metavar="V", help="Also compare division by V."),
    click.option("--sigma", type=float, metavar="PX", help="Smoothing before median and mode.  [default: 2]"),
    click.option("--illumination", metavar="NAME|PATH", help="Uneven light, as in `run`.  [default: none]"),
    click.option("--illumination-mode", type=click.Choice(["divide", "subtract"]), help="As in `run`."),
    click.option("--downscale", type=int, metavar="N", help="Area average over N x N pixels first.  [default: 1]"),
    click.option("--axes", metavar="AXES", help="Axes of a bare array, such as tyx."),
    click.option("--channel", metavar="INDEX|NAME", help="Channel to sample.  [default: the first]"),
    click.option("--frames", metavar="T|START:STOP[:STEP]", help="Frames along t, as in Python.  [default: all]"),
    click.option("--memory", metavar="SIZE", help="Memory it may use.  [default: half of what is free]"),
    storage_option,
)

quiet_option = click.option("--quiet", is_flag=True, help="Show no progress and no notices, only warnings and results.")

common_options = grouped(
    click.option("--json", "as_json", is_flag=True, help="Print one machine-readable record, and nothing else."),
    click.option("--debug", is_flag=True, help="Show the traceback of an error."),
)

redo_options = grouped(
    click.option("--input", metavar="PATH", help="The input, where it was moved."),
    click.option("--model", metavar="DIR", help="The model folder, where it was moved."),
    click.option("--memory", metavar="SIZE", help="Memory it may use.  [default: half of what is free]"),
    click.option("--workers", type=int, metavar="N", help="Units worked on at once.  [default: up to 4, one per core]"),
    storage_option,
    click.option("--scheduler", metavar="ADDRESS", help="Dask scheduler to run on.  [default: this process]"),
)
