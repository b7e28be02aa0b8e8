"""The command line: options to the functions of `phbatch`, results to text; it decides nothing."""

from __future__ import annotations

import io
import json
import logging
import shlex
import sys
import tomllib
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from math import isfinite
from pathlib import Path
from typing import Any

import click

import phbatch
from phbatch.running.signals import stop_on_signal
from phbatch.shell.options import (
    GroupedCommand,
    common_options,
    quiet_option,
    repair_options,
    run_options,
    settings_of,
    verify_options,
)
from phbatch.words.errors import OutputError, PhbatchError, UsageError
from phbatch.words.settings import SETTINGS
from phbatch.words.wording import speaking_command_line


class _Commands(click.Group):
    command_class = GroupedCommand


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="phbatch")
def cli() -> None:
    """Robust normalization and CARE restoration of phase-contrast time-lapses, Zarr to OME-Zarr."""


@cli.command()
@run_options
@click.option("--profile", is_flag=True, help="Show which stage the time went to.")
@quiet_option
@common_options
def run(input: str, output: str | None, profile: bool, quiet: bool, as_json: bool, debug: bool, **options: Any) -> int:
    """Normalize and restore every frame of INPUT into OUTPUT.

    A run that was stopped continues when it is called again. OUTPUT is <stem>.phbatch.zarr beside INPUT unless it is
    given.
    """
    chosen = _with_config(options)
    command = shlex.join(["phbatch", *_without_storage_options(sys.argv[1:])])
    with phbatch.report.ProgressReport(quiet=quiet) as listener, stop_on_signal() as stop:
        result = phbatch.run(input, output, listener=listener, command=command, stop=stop, **chosen)
    if as_json:
        _print_record(result.as_dict())
        return result.exit_code
    phbatch.report.print_result(result)
    if profile:
        phbatch.report.print_profile(result)
    return result.exit_code


@cli.command()
@run_options
@common_options
def plan(input: str, output: str | None, as_json: bool, debug: bool, **options: Any) -> None:
    """Show what `run` would do; no pixel is read."""
    report = phbatch.plan(input, output, **_with_config(options))
    if as_json:
        _print_record(report.as_dict())
    else:
        phbatch.report.print_plan(report)


@cli.command()
@click.argument("input")
@settings_of("statistics")
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Write .csv, .json or .parquet instead of printing.",
)
@quiet_option
@common_options
def stats(input: str, output: str | None, quiet: bool, as_json: bool, debug: bool, **options: Any) -> None:
    """Measure every frame of INPUT: one row each."""
    if output is not None:
        phbatch.report.require_table_name(output)
    _require_folder(output, input)
    with phbatch.report.ProgressReport(quiet=quiet) as listener, stop_on_signal() as stop:
        rows = phbatch.statistics(input, listener=listener, stop=stop, **_given(options))
    if output is not None:
        phbatch.report.save_statistics(output, rows)
    if as_json:
        _print_records(rows)
    elif output is not None:
        print(output)
    else:
        phbatch.report.print_statistics(rows)


@cli.command()
@click.argument("input")
@settings_of(
    "compare_rules",
    {
        "model": "Whose rule the others are held against.  [default: the bundled one]",
        "channel": "Channel to sample.  [default: the first]",
        "value": "Also compare division by V counts.  [above 0]",
    },
)
@click.option("--samples", type=click.IntRange(1), default=12, show_default=True, metavar="N", help="Frames to sample.")
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Also write a page, FILE.html, or a picture, FILE.png.",
)
@common_options
def compare(input: str, output: str | None, samples: int, as_json: bool, debug: bool, **options: Any) -> None:
    """Show which normalization keeps the background of INPUT steady, and recommend one."""
    if output is not None and Path(output).suffix.lower() not in (".html", ".png"):
        raise UsageError(f"--output {output} does not end in .html or .png; give a name that does.")
    _require_folder(output, input)
    found = phbatch.compare_rules(input, samples=samples, **_given(options))
    if output is not None:
        with _writing(output):
            phbatch.report.save_comparison(Path(output), found, Path(input).name)
    if as_json:
        _print_record(found.as_dict())
        return
    phbatch.report.print_comparison(found)
    if output is not None:
        print(output)


@cli.command()
@click.argument("input")
@click.option(
    "--method",
    type=click.Choice(["temporal", "gaussian", "polynomial", "basic"]),
    default="temporal",
    show_default=True,
    help="Median over t; the same smoothed; or BaSiC.",
)
@settings_of("illumination", {"frames": "Frames along t to sample from, as in Python.  [default: all]"})
@click.option("-o", "--output", required=True, metavar="PROFILE.zarr", help="Where to write the profile.")
@common_options
def illumination(input: str, output: str, method: str, as_json: bool, debug: bool, **options: Any) -> None:
    """Estimate the uneven light of INPUT, for `run --illumination PROFILE.zarr`; a picture lies beside the profile."""
    found = phbatch.illumination(input, output, method=method, **_given(options))
    picture = f"{output.rstrip('/').removesuffix('.zarr')}.png"
    with _writing(picture):
        phbatch.report.save_profile(Path(picture), found)
    for text in found.notices:
        print(f"warning: {text}", file=sys.stderr)
    if as_json:
        _print_record(found.facts)
        return
    print(f"sampled   {len(found.facts['frames'])} frames over t")
    print(f"profile   {output}")
    print(f"picture   {picture}")


@cli.command()
@click.argument("output")
@click.option(
    "--deep", type=click.IntRange(0), default=0, metavar="N", help="Also compute N units again, and compare them."
)
@click.option("--seed", type=int, default=0, show_default=True, metavar="N", help="Of the draw of these units.")
@verify_options
@quiet_option
@common_options
def verify(output: str, deep: int, seed: int, quiet: bool, as_json: bool, debug: bool, **options: Any) -> int:
    """Check that OUTPUT is whole: every unit finished, every object there, every checksum right."""
    with phbatch.report.ProgressReport(quiet=quiet) as listener:
        found = phbatch.verify(output, deep=deep, seed=seed, listener=listener, **_given(options))
    if as_json:
        _print_record(found.as_dict())
    else:
        phbatch.report.print_verification(found)
    return found.exit_code


@cli.command()
@click.argument("output")
@repair_options
@quiet_option
@common_options
def repair(output: str, quiet: bool, as_json: bool, debug: bool, **options: Any) -> int:
    """Do again exactly what is missing or wrong in OUTPUT, with the settings that made it."""
    with phbatch.report.ProgressReport(quiet=quiet) as listener, stop_on_signal() as stop:
        result = phbatch.repair(output, listener=listener, stop=stop, **_given(options))
    if as_json:
        _print_record(result.as_dict())
    else:
        phbatch.report.print_result(result)
    return result.exit_code


@cli.command()
@click.argument("path")
@click.option("--benchmark", is_flag=True, help="Measure every form of a model's network on this machine.")
@settings_of("info")
@common_options
def info(path: str, benchmark: bool, as_json: bool, debug: bool, **options: Any) -> None:
    """Show what is at PATH: an image, an output of phbatch, or a model."""
    facts = phbatch.info(path, benchmark=benchmark, **_given(options))
    if as_json:
        _print_record(facts)
    else:
        phbatch.report.print_info(facts)


@cli.command()
@click.argument("folder", required=False, default="phbatch-demo")
@quiet_option
@common_options
def demo(folder: str, quiet: bool, as_json: bool, debug: bool) -> None:
    """Restore a simulated time-lapse in FOLDER and draw a before/after picture."""
    with phbatch.report.ProgressReport(quiet=quiet) as listener, stop_on_signal() as stop:
        result = phbatch.run_demo(Path(folder), listener=listener, stop=stop)
    if as_json:
        _print_record({name: str(value) if isinstance(value, Path) else value for name, value in vars(result).items()})
        return
    print(
        f"PSNR {result.psnr_before:.2f} dB -> {result.psnr_after:.2f} dB, SSIM {result.ssim_before:.3f} ->"
        f" {result.ssim_after:.3f}"
    )
    print(f"noisy     {result.noisy}")
    print(f"restored  {result.restored}")
    print(f"picture   {result.picture}")


def main() -> None:
    """Entry point: one clear sentence per error and its exit code; a traceback only with ``--debug``."""
    silence = logging.NullHandler()  # notices are printed once, by whoever listens
    logging.getLogger("phbatch").addHandler(silence)
    try:
        with speaking_command_line():
            code = _call()
    finally:
        logging.getLogger("phbatch").removeHandler(silence)
    sys.exit(code)


def _call() -> int:
    debug = "--debug" in sys.argv
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that knows no µ shows it escaped
            stream.reconfigure(errors="backslashreplace")
    try:
        return cli.main(standalone_mode=False) or 0
    except click.ClickException as error:
        error.show()
        _print_error_record(error.format_message(), error.exit_code)
        return error.exit_code
    except (KeyboardInterrupt, click.exceptions.Abort):
        return _complain("interrupted; call the same command again to continue.", 130)
    except PhbatchError as error:
        return _complain(str(error), error.exit_code, debug=debug)
    except Exception as error:  # a fault of phbatch: say so, without burying the user in a traceback
        return _complain(f"unexpected {type(error).__name__}: {error}; see the traceback with --debug.", 1, debug=debug)


def _complain(message: str, code: int, *, debug: bool = False) -> int:
    if debug:
        traceback.print_exc()
    print(f"error: {phbatch.report.visible(message)}", file=sys.stderr)
    _print_error_record(message, code)
    return code


def _print_error_record(message: str, code: int) -> None:
    if "--json" in sys.argv:
        print(json.dumps({"error": message, "exit_code": code}))


def _require_folder(output: str | None, input: str) -> None:
    """Refuse a file in no folder, or in the input, before the work, not after it."""
    if output is None:
        return
    folder = Path(output).absolute().parent
    if not folder.is_dir():
        raise OutputError(f"--output {output} lies in no folder; make {folder} first.")
    if folder.resolve().is_relative_to(Path(input.removeprefix("file://")).expanduser().resolve()):
        raise OutputError(f"--output {output} lies inside the input; choose another place.")


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
    unknown = sorted(stored.keys() - SETTINGS.keys())
    if unknown:
        raise UsageError(f"{unknown[0]!r} is no setting of phbatch; see `phbatch run --help` for their names.")
    return stored | _given(options)


def _print_record(record: Any) -> None:
    print(json.dumps(_plain(record), allow_nan=False))


def _print_records(records: Iterable[Any]) -> None:
    """Print a list, one record in memory at a time."""
    separator = "["
    for record in records:
        print(separator, json.dumps(_plain(record), allow_nan=False), sep="", end="")
        separator = ", "
    print("]" if separator == ", " else "[]")


def _plain(value: Any) -> Any:
    """A value without NaN and infinity, which JSON does not have."""
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and not isfinite(value) else value
