"""The command line: options to the functions of `phbatch`, results to text; it decides nothing."""

from __future__ import annotations

import io
import json
import logging
import os
import sys
import traceback
from pathlib import Path
from typing import Any

import click

import phbatch
from phbatch.computing.heap import keep_heap
from phbatch.computing.signals import stop_on_signal
from phbatch.network.backend import start_sparingly
from phbatch.shell.cluster_commands import cancel_command, logs_command, status_command, submit_command
from phbatch.shell.convert_commands import convert_command
from phbatch.shell.doctor_commands import VARIABLE, completion_command, doctor_command, know_places
from phbatch.shell.evaluate_commands import evaluate_command
from phbatch.shell.export_commands import export_command
from phbatch.shell.options import (
    GroupedCommand,
    common_options,
    probe_options,
    quiet_option,
    repair_options,
    run_options,
    settings_of,
    take_probe_options,
    verify_options,
)
from phbatch.shell.part_commands import begin_parts_command, run_part_command
from phbatch.shell.picture_commands import explain_command, preview_command, report_command, report_on, report_option
from phbatch.shell.plain import (
    given,
    print_record,
    print_records,
    recorded_command,
    require_folder,
    with_config,
    writing,
    written,
)
from phbatch.shell.simulate_commands import simulate_command
from phbatch.shell.training_commands import train_command
from phbatch.words.errors import PhbatchError, UsageError
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
@report_option
@quiet_option
@common_options
def run(
    input: str,
    output: str | None,
    profile: bool,
    with_report: bool,
    quiet: bool,
    as_json: bool,
    debug: bool,
    **options: Any,
) -> int:
    """Normalize and restore every frame of INPUT into OUTPUT.

    A run that was stopped continues when it is called again. OUTPUT is <stem>.phbatch.zarr beside INPUT unless it is
    given.
    """
    chosen = with_config(options)
    command = recorded_command()
    with phbatch.report.ProgressReport(quiet=quiet) as listener, stop_on_signal() as stop:
        result = phbatch.run(input, output, listener=listener, command=command, stop=stop, **chosen)
    worked = result.units_done or result.failed
    page = report_on(result.output, quiet=quiet or as_json) if with_report and worked else None
    if as_json:
        print_record(result.as_dict() | ({"report": page} if page else {}))
        return result.exit_code
    phbatch.report.print_result(result)
    if profile:
        phbatch.report.print_profile(result)
    return result.exit_code


@cli.command()
@run_options
@click.option(
    "--graph",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Draw the Dask graph of the first units: .svg, .png, .pdf or .txt.",
)
@probe_options
@common_options
def plan(input: str, output: str | None, graph: str | None, as_json: bool, debug: bool, **options: Any) -> None:
    """Show what `run` would do; no pixel is read, but with --probe.

    With --probe a few units are restored, and nothing is written: then it says what to ask a cluster for, where
    --workers are the cluster's.
    """
    if graph is not None:
        require_folder(graph, input, "--graph")
    asked = take_probe_options(options)
    chosen = with_config(options)
    wanted = chosen.pop("workers", None) if asked.probe else None
    report = phbatch.plan(input, output, graph=graph, **chosen)
    request = None
    if asked.probe:
        with stop_on_signal() as stop:
            request = phbatch.request_cluster(
                input, output, cluster_workers=wanted, walltime=asked.walltime, price=asked.price, stop=stop, **chosen
            )
    if as_json:
        print_record(report.as_dict() | ({"request": request.as_dict()} if request is not None else {}))
        return
    phbatch.report.print_plan(report)
    if request is not None:
        phbatch.report.print_request(request, asked.cluster, input, report.output, written(chosen))


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
def stats(input: str, output: str | None, quiet: bool, as_json: bool, debug: bool, **options: Any) -> int:
    """Measure every frame of INPUT: one row each; of a plate, rows begin with the position."""
    if output is not None:
        phbatch.report.require_table_name(output)
    require_folder(output, input)
    with phbatch.report.ProgressReport(quiet=quiet) as listener, stop_on_signal() as stop:
        rows = phbatch.statistics(input, listener=listener, stop=stop, **given(options))
    if output is not None:
        phbatch.report.save_statistics(output, rows)
    if as_json:
        print_records(rows)
    elif output is not None:
        print(output)
    else:
        phbatch.report.print_statistics(rows)
    return rows.exit_code


@cli.command()
@click.argument("input")
@settings_of(
    "compare_rules",
    {
        "model": "Whose rule the others are held against.  [default: phase-2d-real]",
        "channel": "Channel to sample.  [default: the first]",
        "value": "Also compare division by V counts.  [above 0]",
    },
)
@click.option("--samples", type=click.IntRange(1), default=12, show_default=True, metavar="N", help="Frames to sample.")
@click.option(
    "--residual", is_flag=True, help="Also restore some of them with the model: is what it removes noise, or structure?"
)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Also write a page, FILE.html, or a picture, FILE.png.",
)
@common_options
def compare(
    input: str, output: str | None, samples: int, residual: bool, as_json: bool, debug: bool, **options: Any
) -> None:
    """Show which normalization keeps the background of INPUT steady, and recommend one."""
    if output is not None and Path(output).suffix.lower() not in (".html", ".png"):
        raise UsageError(f"--output {output} does not end in .html or .png; give a name that does.")
    require_folder(output, input)
    found = phbatch.compare_rules(input, samples=samples, residual=residual, **given(options))
    if output is not None:
        with writing(output):
            phbatch.report.save_comparison(Path(output), found, Path(input).name)
    if as_json:
        print_record(found.as_dict())
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
    found = phbatch.illumination(input, output, method=method, **given(options))
    picture = f"{output.rstrip('/').removesuffix('.zarr')}.png"
    with writing(picture):
        phbatch.report.save_profile(Path(picture), found)
    for text in found.notices:
        print(f"warning: {text}", file=sys.stderr)
    if as_json:
        print_record(found.facts)
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
        found = phbatch.verify(output, deep=deep, seed=seed, listener=listener, **given(options))
    if as_json:
        print_record(found.as_dict())
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
        result = phbatch.repair(output, listener=listener, stop=stop, **given(options))
    if as_json:
        print_record(result.as_dict())
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
    facts = phbatch.info(path, benchmark=benchmark, **given(options))
    if as_json:
        print_record(facts)
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
        print_record({name: str(value) if isinstance(value, Path) else value for name, value in vars(result).items()})
        return
    print(
        f"PSNR {result.psnr_before:.2f} dB -> {result.psnr_after:.2f} dB, SSIM {result.ssim_before:.3f} ->"
        f" {result.ssim_after:.3f}"
    )
    print(f"noisy     {result.noisy}")
    print(f"restored  {result.restored}")
    print(f"picture   {result.picture}")


for command in (
    *(simulate_command, convert_command, export_command),
    *(preview_command, report_command, explain_command, evaluate_command),
    *(submit_command, status_command, cancel_command, logs_command, begin_parts_command, run_part_command),
    *(doctor_command, completion_command, train_command),
):
    cli.add_command(command)


def main() -> None:
    """Entry point: one clear sentence per error and its exit code; a traceback only with ``--debug``."""
    keep_heap()
    start_sparingly()
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
    if VARIABLE in os.environ:
        know_places(cli)
    try:
        return cli.main(standalone_mode=False, complete_var=VARIABLE) or 0
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
