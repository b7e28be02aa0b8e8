"""The commands for runs on clusters: submit, status, cancel and logs."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

import phbatch
from phbatch.clusters.settings import DECIDED, KIND_NAMES
from phbatch.computing.signals import stop_on_signal
from phbatch.shell.options import (
    cluster_options,
    common_options,
    config_option,
    quiet_option,
    settings_of,
)
from phbatch.shell.picture_commands import report_on, report_option
from phbatch.shell.plain import print_record, readable, recorded_command, telling, with_config
from phbatch.words.durations import format_duration

_TAIL_BYTES = 1 << 20


@click.command("submit")
@click.argument("input")
@click.argument("output", required=False)
@click.option(
    "--cluster", metavar="|".join([*KIND_NAMES, "FILE.toml"]), help="Kind of the cluster, or a profile that names it."
)
@click.option("--profile", metavar="NAME", help="A site's profile: NAME.toml here, or in your configuration folder.")
@click.option("--detach", is_flag=True, help="Make the controller a job, too, and return at once.")
@click.option("--dry-run", is_flag=True, help="Print the scripts or manifests, and submit nothing.")
@click.option("--verify", is_flag=True, help="Check the output once it is complete, as `phbatch verify` does.")
@click.option("--as-job", is_flag=True, hidden=True)
@report_option
@cluster_options
@settings_of("run", without=DECIDED)
@config_option
@quiet_option
@common_options
def submit_command(
    input: str, output: str | None, with_report: bool, quiet: bool, as_json: bool, debug: bool, **options: Any
) -> int:
    """Restore INPUT into OUTPUT on a cluster: one command, `run` there.

    What was submitted continues when it is submitted again. INPUT and OUTPUT must be seen from here and by the workers.
    """
    command = recorded_command()
    with phbatch.report.ProgressReport(quiet=quiet) as listener, stop_on_signal() as stop, _time_is_over() as over:
        done = phbatch.submit(
            input,
            output,
            report=with_report,
            listener=listener,
            stop=lambda: stop() or over(),
            command=command,
            **with_config(options),
        )
    worked = done.result is not None and (done.result.units_done or done.result.failed)
    page = report_on(done.output, quiet=quiet or as_json) if with_report and worked else None
    if as_json:
        print_record(done.as_dict() | ({"report": page} if page else {}))
    elif done.scripts:
        for name, text in done.scripts.items():
            print(f"# {name}\n{text}")
    elif done.result is not None:
        phbatch.report.print_result(done.result)
        if done.verification is not None:
            phbatch.report.print_verification(done.verification)
    else:
        print(f"output    {done.output}")
        print(f"job       {done.job} ({done.kind})")
        print(f"logs      {done.logs}")
    return done.exit_code


@click.command("status")
@click.argument("output")
@settings_of("info", without=("backend",))
@common_options
def status_command(output: str, as_json: bool, debug: bool, **options: Any) -> None:
    """Show how far the run into OUTPUT is, from anywhere that sees it."""
    found = phbatch.status(output, **options)
    if as_json:
        print_record(found.as_dict())
        return
    _print_status(found)


@click.command("cancel")
@click.argument("output")
@settings_of("info", without=("backend",))
@common_options
def cancel_command(output: str, as_json: bool, debug: bool, **options: Any) -> None:
    """Stop the run that was submitted into OUTPUT, from anywhere that sees it; submitting again continues."""
    found = phbatch.cancel(output, **options)
    if as_json:
        print_record(found.as_dict())
        return
    _print_status(found)


@click.command("logs")
@click.argument("output")
@click.option("--lines", type=click.IntRange(0), default=10, show_default=True, metavar="N", help="Last lines of each.")
@settings_of("info", without=("backend",))
@common_options
def logs_command(output: str, lines: int, as_json: bool, debug: bool, **options: Any) -> None:
    """Find the logs of the calls and jobs that computed OUTPUT, the latest last.

    Tracebacks of Dask that say no more than that somebody left are not shown; the files have them.
    """
    found = phbatch.logs(output, **options)
    if as_json:
        print_record([str(path) for path in found])
        return
    for path in found:
        print(f"== {path}")
        for line in _last_lines(path, lines):
            print(phbatch.report.visible(line))


def _last_lines(path: Path, count: int) -> list[str]:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
        text = file.read().decode("utf-8", "replace")
    lines = telling(text).splitlines()[-count:] if count else []
    return [readable(line) for line in lines] if path.suffix == ".jsonl" else lines


def _print_status(found: phbatch.RunStatus) -> None:
    print(f"state     {found.state}")
    if found.units:
        print(f"units     {found.done:,} of {found.units:,}")
    if found.failed:
        unit, why = next(iter(found.failed.items()))
        print(f"failed    {len(found.failed):,}, such as {unit}: {phbatch.report.visible(why)}")
    if found.units_per_hour is not None:
        print(f"rate      {found.units_per_hour:,.0f} units per hour")
    if found.seconds_left is not None:
        print(f"time left {format_duration(found.seconds_left)}")
    for text in found.where:
        print(f"where     {text}")
    if found.job:
        print(f"job       {found.job} ({found.kind})")
    if found.logs:
        print(f"logs      {found.logs}")


@contextmanager
def _time_is_over() -> Iterator[Callable[[], bool]]:
    """While inside, SIGUSR1, which clusters send a job before its end, asks to stop; nothing in flight is dropped."""
    asked, number = threading.Event(), getattr(signal, "SIGUSR1", None)
    before = signal.signal(number, lambda *_: asked.set()) if number is not None else None
    try:
        yield asked.is_set
    finally:
        if number is not None:
            signal.signal(number, before)
