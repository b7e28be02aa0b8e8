"""The command line: options to the functions of `phbatch`, results to text; it decides nothing."""

from __future__ import annotations

import json
import shlex
import sys
import tomllib
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

import phbatch
from phbatch.errors import OutputError, PhbatchError, UsageError

Command = Callable[..., Any]


def _options(*decorators: Callable[[Command], Command]) -> Callable[[Command], Command]:
    def decorate(command: Command) -> Command:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorate


_storage_option = click.option(
    "--storage-options",
    multiple=True,
    metavar="JSON|KEY=VALUE",
    callback=lambda _context, _parameter, given: given or None,
    help="Credentials and endpoint of s3://, gs://, https://; never recorded. May be repeated.",
)

_statistics_options = _options(
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
    click.option("--frames", metavar="START:STOP[:STEP]", help="Frames along t.  [default: all]"),
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
    _storage_option,
    click.option("--scheduler", metavar="ADDRESS", help="Dask scheduler to run on.  [default: this process]"),
)

_run_options = _options(
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
    _statistics_options,
    click.option(
        "--dtype",
        type=click.Choice(["float32", "float16", "uint16", "uint8"]),
        help="Of the output.  [default: float32]",
    ),
    click.option("--rescale/--no-rescale", default=None, help="Undo the normalization: intensities of the input."),
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

_common_options = _options(
    click.option("--json", "as_json", is_flag=True, help="Print one machine-readable record last."),
    click.option("--debug", is_flag=True, help="Show the traceback of an error."),
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="phbatch")
def cli() -> None:
    """Robust normalization and CARE restoration of phase-contrast time-lapses, Zarr to OME-Zarr."""


@cli.command()
@_run_options
@click.option("--profile", is_flag=True, help="Show which stage the time went to.")
@_common_options
def run(input: str, output: str | None, profile: bool, as_json: bool, debug: bool, **options: Any) -> int:
    """Normalize and restore every frame of INPUT into OUTPUT.

    A run that was stopped continues when it is called again. OUTPUT is <stem>.phbatch.zarr beside INPUT unless it is
    given.
    """
    chosen = _with_config(options)
    command = shlex.join(["phbatch", *_without_storage_options(sys.argv[1:])])
    with phbatch.report.ProgressReport() as listener:
        result = phbatch.run(input, output, listener=listener, command=command, **chosen)
    phbatch.report.print_result(result)
    if profile:
        phbatch.report.print_profile(result)
    _print_record(as_json, result.as_dict())
    return result.exit_code


@cli.command()
@_run_options
@_common_options
def plan(input: str, output: str | None, as_json: bool, debug: bool, **options: Any) -> None:
    """Show what `run` would do; no pixel is read."""
    report = phbatch.plan(input, output, **_with_config(options))
    phbatch.report.print_plan(report)
    _print_record(as_json, report.as_dict())


@cli.command()
@click.argument("input")
@_statistics_options
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Write .csv, .json or .parquet instead of printing.",
)
@_common_options
def stats(input: str, output: str | None, as_json: bool, debug: bool, **options: Any) -> None:
    """Measure every frame of INPUT: one row each."""
    if output is not None:
        phbatch.report.require_table_name(output)
    _require_folder(output)
    with phbatch.report.ProgressReport() as listener:
        rows = phbatch.statistics(input, listener=listener, **_given(options))
    if output is not None:
        phbatch.report.save_statistics(output, rows)
        print(output)
    elif not as_json:
        phbatch.report.print_statistics(rows)
    if as_json:
        _print_record(as_json, list(rows))


@cli.command()
@click.argument("input")
@click.option("--axes", metavar="AXES", help="Axes of a bare array, such as tyx.")
@_storage_option
@click.option("--channel", metavar="INDEX|NAME", help="Channel to sample.  [default: the first]")
@click.option("--frames", metavar="START:STOP[:STEP]", help="Frames along t.  [default: all]")
@click.option("--samples", type=click.IntRange(1), default=12, show_default=True, metavar="N", help="Frames to sample.")
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Also write a page, FILE.html, or a picture, FILE.png.",
)
@_common_options
def compare(input: str, output: str | None, samples: int, as_json: bool, debug: bool, **options: Any) -> None:
    """Show which normalization keeps the background of INPUT steady, and recommend one."""
    if output is not None and Path(output).suffix.lower() not in (".html", ".png"):
        raise UsageError(f"--output {output} does not end in .html or .png; give a name that does.")
    _require_folder(output)
    found = phbatch.compare_rules(input, samples=samples, **_given(options))
    phbatch.report.print_comparison(found)
    if output is not None:
        with _writing(output):
            phbatch.report.save_comparison(Path(output), found, Path(input).name)
        print(output)
    _print_record(as_json, [row.as_dict() for row in found])


@cli.command()
@click.argument("input")
@click.option(
    "--method",
    type=click.Choice(["temporal", "gaussian", "polynomial", "basic"]),
    default="temporal",
    show_default=True,
    help="Median over t; the same smoothed; or BaSiC.",
)
@click.option("--axes", metavar="AXES", help="Axes of a bare array, such as tyx.")
@_storage_option
@click.option("--channel", metavar="INDEX|NAME", help="Channel to look at.  [default: all]")
@click.option("--frames", metavar="START:STOP[:STEP]", help="Frames along t to sample from.  [default: all]")
@click.option("--memory", metavar="SIZE", help="Memory it may use.  [default: half of what is free]")
@click.option("-o", "--output", required=True, metavar="PROFILE.zarr", help="Where to write the profile.")
@_common_options
def illumination(input: str, output: str, method: str, as_json: bool, debug: bool, **options: Any) -> None:
    """Estimate the uneven light of INPUT, for `run --illumination PROFILE.zarr`; a picture lies beside the profile."""
    found = phbatch.illumination(input, output, method=method, **_given(options))
    picture = f"{output.rstrip('/').removesuffix('.zarr')}.png"
    with _writing(picture):
        phbatch.report.save_profile(Path(picture), found)
    print(f"sampled   {len(found.facts['frames'])} frames over t")
    print(f"profile   {output}")
    print(f"picture   {picture}")
    _print_record(as_json, found.facts)


_redo_options = _options(
    click.option("--input", metavar="PATH", help="The input, where it was moved."),
    click.option("--model", metavar="DIR", help="The model folder, where it was moved."),
    click.option("--memory", metavar="SIZE", help="Memory it may use.  [default: half of what is free]"),
    click.option("--workers", type=int, metavar="N", help="Units worked on at once.  [default: up to 4, one per core]"),
    _storage_option,
    click.option("--scheduler", metavar="ADDRESS", help="Dask scheduler to run on.  [default: this process]"),
)


@cli.command()
@click.argument("output")
@click.option(
    "--deep", type=click.IntRange(0), default=0, metavar="N", help="Also compute N units again, and compare them."
)
@click.option("--seed", type=int, default=0, show_default=True, metavar="N", help="Of the draw of these units.")
@_redo_options
@_common_options
def verify(output: str, deep: int, seed: int, as_json: bool, debug: bool, **options: Any) -> int:
    """Check that OUTPUT is whole: every unit finished, every object there, every checksum right."""
    with phbatch.report.ProgressReport() as listener:
        found = phbatch.verify(output, deep=deep, seed=seed, listener=listener, **_given(options))
    phbatch.report.print_verification(found)
    _print_record(as_json, found.as_dict())
    return found.exit_code


@cli.command()
@click.argument("output")
@_redo_options
@_common_options
def repair(output: str, as_json: bool, debug: bool, **options: Any) -> int:
    """Do again exactly what is missing or wrong in OUTPUT, with the settings that made it."""
    with phbatch.report.ProgressReport() as listener:
        result = phbatch.repair(output, listener=listener, **_given(options))
    phbatch.report.print_result(result)
    _print_record(as_json, result.as_dict())
    return result.exit_code


@cli.command()
@click.argument("path")
@click.option("--benchmark", is_flag=True, help="Measure every form of a model's network on this machine.")
@click.option("--backend", type=click.Choice(["tensorflow", "jax"]), help="Of Keras.  [default: tensorflow]")
@_storage_option
@_common_options
def info(path: str, benchmark: bool, as_json: bool, debug: bool, **options: Any) -> None:
    """Show what is at PATH: an image, an output of phbatch, or a model."""
    facts = phbatch.info(path, benchmark=benchmark, **_given(options))
    if not as_json:
        phbatch.report.print_info(facts)
    _print_record(as_json, facts)


@cli.command()
@click.argument("folder", required=False, default="phbatch-demo")
@_common_options
def demo(folder: str, as_json: bool, debug: bool) -> None:
    """Restore a simulated time-lapse in FOLDER and draw a before/after picture."""
    with phbatch.report.ProgressReport() as listener:
        result = phbatch.run_demo(Path(folder), listener=listener)
    print(
        f"PSNR {result.psnr_before:.2f} dB -> {result.psnr_after:.2f} dB, SSIM {result.ssim_before:.3f} ->"
        f" {result.ssim_after:.3f}"
    )
    print(f"noisy     {result.noisy}")
    print(f"restored  {result.restored}")
    print(f"picture   {result.picture}")
    _print_record(
        as_json, {name: str(value) if isinstance(value, Path) else value for name, value in vars(result).items()}
    )


def main() -> None:
    """Entry point: one clear sentence per error and its exit code; a traceback only with ``--debug``."""
    debug = "--debug" in sys.argv
    try:
        code = cli.main(standalone_mode=False) or 0
    except click.ClickException as error:
        error.show()
        code = error.exit_code
        _print_error_record(error.format_message(), code)
    except (KeyboardInterrupt, click.exceptions.Abort):
        code = _complain("interrupted; call the same command again to continue.", 130)
    except PhbatchError as error:
        code = _complain(str(error), error.exit_code, debug=debug)
    except Exception as error:  # a fault of phbatch: say so, without burying the user in a traceback
        code = _complain(f"unexpected {type(error).__name__}: {error}; see the traceback with --debug.", 1, debug=debug)
    sys.exit(code)


def _complain(message: str, code: int, *, debug: bool = False) -> int:
    if debug:
        traceback.print_exc()
    print(f"error: {phbatch.report.visible(message)}", file=sys.stderr)
    _print_error_record(message, code)
    return code


def _print_error_record(message: str, code: int) -> None:
    if "--json" in sys.argv:
        print(json.dumps({"error": message, "exit_code": code}))


def _require_folder(output: str | None) -> None:
    """Refuse a file in no folder before the work, not after it."""
    if output is not None and not Path(output).absolute().parent.is_dir():
        raise OutputError(f"--output {output} lies in no folder; make {Path(output).absolute().parent} first.")


@contextmanager
def _writing(output: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"--output {output} cannot be written ({error.strerror}); choose another place.") from error


def _without_storage_options(arguments: list[str]) -> list[str]:
    """Arguments of a command line that may be recorded."""
    name = "--storage-options"
    return [
        argument
        for before, argument in zip(["", *arguments], arguments, strict=False)
        if name not in (before, argument) and not argument.startswith(f"{name}=")
    ]


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _with_config(options: dict[str, Any]) -> dict[str, Any]:
    """Options of the configuration file, overruled by those of the command line."""
    path = options.pop("config", None)
    if path is None:
        return _given(options)
    try:
        with Path(path).open("rb") as file:
            stored = tomllib.load(file)
    except (OSError, ValueError) as error:  # text that is not UTF-8 is no TOMLDecodeError
        raise UsageError(f"--config {path} cannot be read as TOML ({error}); correct it or leave it out.") from error
    unknown = sorted(stored.keys() - phbatch.RunSettings.model_fields.keys())
    if unknown:
        raise UsageError(f"{unknown[0]!r} is no setting of phbatch; see `phbatch run --help` for their names.")
    return stored | _given(options)


def _print_record(as_json: bool, record: Any) -> None:
    if as_json:
        print(json.dumps(record))


if __name__ == "__main__":
    main()
