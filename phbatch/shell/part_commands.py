"""The commands for one output of many tasks, whatever starts these: begin-parts and run-part."""

from __future__ import annotations

import shlex
from typing import Any

import click

import phbatch
from phbatch.computing.signals import stop_on_signal
from phbatch.shell.options import PART_HELP, common_options, config_option, quiet_option, settings_of
from phbatch.shell.picture_commands import report_on, report_option
from phbatch.shell.plain import print_record, recorded_command, with_config
from phbatch.words.results import PartResult


@click.command("begin-parts")
@click.argument("input")
@click.argument("output", required=False)
@click.option("--parts", type=click.IntRange(1), required=True, metavar="N", help="Tasks that will share OUTPUT.")
@settings_of("run", without=("scheduler",))
@config_option
@quiet_option
@common_options
def begin_parts_command(
    input: str, output: str | None, parts: int, quiet: bool, as_json: bool, debug: bool, **options: Any
) -> None:
    """Create OUTPUT for N tasks that each do a part of INPUT with `run-part`: a job array of any batch system.

    All is settled here, once. What was begun goes on when it is begun again.
    """
    chosen = with_config(options)
    command = recorded_command()
    with phbatch.report.ProgressReport(quiet=quiet) as listener, stop_on_signal() as stop:
        found = phbatch.begin_parts(input, output, parts=parts, listener=listener, command=command, stop=stop, **chosen)
    if as_json:
        print_record(found.as_dict())
        return
    print(f"output    {found.output}")
    print(f"units     {found.units}, {found.units_done} of them done")
    if found.complete:
        print("complete  nothing is left to do")
        return
    print(f"next      phbatch run-part {shlex.quote(found.output)} --part 1, and so on to {parts}")
    if found.passes > 1:
        print(
            f"passes    {found.passes}: run all parts {found.passes} times, each time when all of the last have ended"
        )


@click.command("run-part")
@click.argument("output")
@click.option("--part", required=True, metavar="K", help="Number of the part, from 1 on, as 3 or as 3/5.")
@click.option("--input", metavar="PATH", help=PART_HELP["input"])
@settings_of("run_part", PART_HELP)
@config_option
@report_option
@quiet_option
@common_options
def run_part_command(
    output: str, part: str, with_report: bool, quiet: bool, as_json: bool, debug: bool, **options: Any
) -> int:
    """Do what is missing of one part of OUTPUT, which `begin-parts` made; the last task finishes, verifies, reports.

    Tasks may run at once, die, and be started again; the second of two that do one part is refused.
    """
    with phbatch.report.ProgressReport(quiet=quiet) as listener, stop_on_signal() as stop:
        result = phbatch.run_part(output, part, listener=listener, stop=stop, **with_config(options))
    finished = result.verified is not None  # by this task
    page = report_on(result.output, quiet=quiet or as_json) if with_report and finished else None
    if as_json:
        print_record(result.as_dict() | ({"report": page} if page else {}))
    else:
        _print_part(result)
    return result.exit_code


def _print_part(result: PartResult) -> None:
    print(f"output    {result.output}")
    if result.complete and not result.units:
        print("complete  nothing was left to do")
        return
    done = f"{result.units_skipped + result.units_done} of {result.units} done"
    done = done if result.units else "it has no units, since there are more parts than units"
    print(f"part      {result.part} of {result.parts}: {done}")
    for unit, error in result.failed.items():
        print(f"failed    {unit}: {error}")
    if result.measured:
        print(f"measured  {result.measured} units")
    if result.waiting:
        print(f"waits     for parts {', '.join(map(str, result.waiting))} to be measured; run them, and this one again")
    elif result.missing:
        others = result.missing - len(result.failed)
        print(f"to do     {f'{others} units of other parts' if others > 0 else 'the units that failed'}")
    elif not result.complete:
        print("complete  but for what another task, which is at work still, finishes")
    if result.verified is not None:
        phbatch.report.print_verification(result.verified)
