"""The options of the command line: made from the table of settings, and listed in its groups."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple, get_args

import click

from phbatch.clusters.settings import CLUSTER
from phbatch.words.choices import MOST_READERS, MOST_WORKERS
from phbatch.words.errors import UsageError
from phbatch.words.rows import Function, Group, Setting
from phbatch.words.settings import SETTINGS
from phbatch.words.training import TRAINING

Command = Callable[..., Any]
Decorator = Callable[[Command], Command]


class SettingOption(click.Option):
    """Option that is listed in the group of its setting."""

    def __init__(self, *arguments: Any, group: Group, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.group = group


class GroupedCommand(click.Command):
    """Command whose help lists settings in their groups; extensions of click that do so double the time of a help."""

    def format_options(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the groups, and then what is no setting."""
        listed: dict[str, list[tuple[str, str]]] = {group: [] for group in (*get_args(Group), "")}
        for option in self.get_params(context):
            record = option.get_help_record(context)
            if record and isinstance(option, click.Option):
                listed[getattr(option, "group", "")].append(record)
        for group, records in listed.items():
            if records:
                with formatter.section(f"{group} options".strip().capitalize()):
                    formatter.write_dl(records)


def settings_of(
    function: Function, helps: Mapping[str, str] | None = None, *, without: Collection[str] = ()
) -> Decorator:
    """Options for all settings that a public function acts on.

    Parameters
    ----------
    function : str
        Its name.
    helps : mapping of str to str, optional
        What a setting is for and its default, where that is not what its row says.
    without : collection of str
        Settings that are decided otherwise.
    """
    taken = [setting for setting in SETTINGS.values() if setting.acts_in(function) and setting.name not in without]
    return grouped(*(_option(setting, function, (helps or {}).get(setting.name, "")) for setting in taken))


def grouped(*decorators: Decorator) -> Decorator:
    """Several decorators as one."""

    def decorate(command: Command) -> Command:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorate


def _option(setting: Setting, function: Function, help: str) -> Decorator:
    row, name = setting.row, setting.name.replace("_", "-")
    said = "; ".join(setting.facts(function))
    return click.option(
        f"--{name}/--no-{name}" if setting.is_flag else f"--{name}",
        *row.flags,
        setting.name,
        cls=SettingOption,
        group=row.group,
        type=click.Choice(setting.choices) if setting.choices and not row.metavar else setting.number,
        default=None,
        multiple=row.repeated,
        callback=_none_if_empty if row.repeated else None,
        metavar=row.metavar or None,
        help=help or str(setting.info.description) + (f"  [{said}]" if said else ""),
    )


def _none_if_empty(_context: click.Context, _option: click.Parameter, given: tuple[str, ...]) -> tuple[str, ...] | None:
    return given or None


quiet_option = click.option("--quiet", is_flag=True, help="Show no progress and no notices, only warnings and results.")

common_options = grouped(
    click.option("--json", "as_json", is_flag=True, help="Print one machine-readable record, and nothing else."),
    click.option("--debug", is_flag=True, help="Show the traceback of an error."),
)

config_option = click.option(
    "--config", type=click.Path(dir_okay=False), metavar="FILE.toml", help="Options by name; the command line wins."
)

run_options = grouped(
    click.argument("input"), click.argument("output", required=False), settings_of("run"), config_option
)

training_options = grouped(*(_option(setting, "train", "") for setting in TRAINING.values()))

cluster_options = grouped(*(_option(setting, "run", "") for setting in CLUSTER.values()))

probe_options = grouped(
    click.option("--probe", is_flag=True, help="Measure units for some seconds, and say what to ask a cluster for."),
    click.option("--cluster", metavar="KIND", help="Also show the `phbatch submit` that asks this kind of cluster."),
    click.option("--walltime", metavar="TIME", help="That a job may take, such as 4h.  [default: what --workers need]"),
    click.option("--price", type=click.FloatRange(0), metavar="P", help="Of a worker, per hour."),
)


class Asked(NamedTuple):
    """What `probe_options` were given."""

    probe: bool
    cluster: str | None
    walltime: str | None
    price: float | None


def take_probe_options(options: dict[str, Any]) -> Asked:
    """Take these out of all options; without --probe they say nothing, and are refused."""
    asked = Asked(*(options.pop(name) for name in Asked._fields))
    for name in Asked._fields[1:]:
        if getattr(asked, name) is not None and not asked.probe:
            raise UsageError(f"--{name} says what to ask a cluster for, which follows from a unit; add --probe.")
    return asked


_AGAIN = {
    "input": "The input, where it was moved.  [default: the one that was read]",
    "model": "The model folder, where it was moved.  [default: the one that was used]",
    "workers": f"Objects checked at once, and units computed.  [1 or more; default: one per core, up to {MOST_READERS}"
    f" and up to {MOST_WORKERS}]",
}

PART_HELP = {name: _AGAIN[name] for name in ("input", "model")}
"""What is said of options of `run-part`."""

verify_options = grouped(click.option("--input", metavar="PATH", help=_AGAIN["input"]), settings_of("verify", _AGAIN))

repair_options = grouped(click.option("--input", metavar="PATH", help=_AGAIN["input"]), settings_of("repair", _AGAIN))
