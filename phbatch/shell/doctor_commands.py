"""The commands about an installation: doctor and completion."""

from __future__ import annotations

import shutil
import sys
import textwrap
from typing import Any

import click
from click.shell_completion import CompletionItem, get_completion_class

import phbatch
from phbatch.shell.options import common_options
from phbatch.shell.plain import print_record

PROGRAM, VARIABLE = "phbatch", "_PHBATCH_COMPLETE"
SHELLS = ("bash", "zsh", "fish")

_MARKS = {"ok": "ok", "missing": "-", "broken": "BROKEN"}
_PLACES = ("PATH", "FILE", "FOLDER", ".zarr", ".toml")


@click.command("doctor")
@click.argument("folder", required=False, default=".")
@common_options
def doctor_command(folder: str, as_json: bool, debug: bool) -> int:
    """Show what works on this machine, and what to install; FOLDER is on the disk whose speed is measured."""
    if sys.stderr.isatty():
        print("each backend restores a small image, which takes some seconds", file=sys.stderr)
    found = phbatch.doctor(folder)
    if as_json:
        print_record(found.as_dict())
        return found.exit_code
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else 120
    width = min(max(len(each.name) for each in found.findings), 24)
    for each in found.findings:
        text = phbatch.report.visible(f"{each.said}{f'; {each.remedy}' if each.remedy else ''}")
        start = f"{_MARKS[each.state]:<7}{each.name:<{width}}  "
        lines = textwrap.wrap(text, max(columns - len(start), 20), break_long_words=False, break_on_hyphens=False)
        print(f"\n{' ' * len(start)}".join([start + lines[0], *lines[1:]]) if columns > 60 else f"{start}\n  {text}")
    broken = [each.name for each in found.findings if each.state == "broken"]
    print(f"\nbroken: {', '.join(broken)}" if broken else "\nruns work here")
    return found.exit_code


@click.command("completion")
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion_command(context: click.Context, shell: str) -> None:
    """Print what completes commands, options and their values in SHELL.

    Put eval "$(phbatch completion bash)" into ~/.bashrc, the same for zsh into ~/.zshrc after compinit, or phbatch
    completion fish | source into ~/.config/fish/config.fish.
    """
    kind = get_completion_class(shell)
    if kind is None:
        raise click.ClickException(f"click completes nothing in {shell}.")
    print(kind(context.find_root().command, {}, PROGRAM, VARIABLE).source())


class _Place(click.types.StringParamType):
    """Text that is completed by names of files and folders."""

    def shell_complete(self, _context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[Any]:
        return [CompletionItem(incomplete, type="file")]


def know_places(group: click.Group) -> None:
    """Have paths completed, of all commands: they are text, since they may be URLs."""
    for command in group.commands.values():
        for parameter in command.params:
            shown = parameter.metavar or ""
            if parameter.type is click.STRING and (
                isinstance(parameter, click.Argument) or any(word in shown for word in _PLACES)
            ):
                parameter.type = _Place()
