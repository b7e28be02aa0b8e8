"""The page of all settings, in Markdown: ``python -m phbatch.shell.settings_page > docs/reference/settings.md``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import get_args

from phbatch.shell.settings_types import written_type
from phbatch.words.rows import Function, Group, Setting
from phbatch.words.settings import SETTINGS

_HEAD = """# Settings

Each is an option of the command line, a keyword of `phbatch.run` with underscores, and a key of `--config FILE.toml`.
`phbatch plan` takes all of them; the last column names the other functions that take one, and so do their commands.

What a setting **touches** is what changes with it: *numbers*, what the output holds; *speed*, how fast it is there; or
*place*, where things are read, kept and computed. An output that was begun is continued with the same numbers: a
setting that touches them is refused, by its name, where it has changed.
"""

_TAIL = """## Options that are no settings

`--config FILE.toml` reads settings from a file; the command line wins. `--json`, `--quiet`, `--debug` and `--profile`
say how results are told, see [run a time-lapse](../howto/run-a-time-lapse.md).
"""

_COLUMNS = ("Setting", "What it is", "Values", "Default", "Touches", "Also in")


def settings_page() -> str:
    """The page, made from the table of settings."""
    parts = [_HEAD]
    for group in get_args(Group):
        rows = [_row(setting) for setting in SETTINGS.values() if setting.row.group == group]
        if not rows:  # what is asked of a cluster is no setting of a run
            continue
        table = [_line(_COLUMNS), _line("---" for _ in _COLUMNS), *map(_line, rows)]
        parts.append(f"## {group.capitalize()}\n\n" + "\n".join(table) + "\n")
    return "\n".join([*parts, _TAIL])


def _row(setting: Setting) -> tuple[str, ...]:
    also = [f"`{name}`" for name in get_args(Function) if name in setting.row.also]
    return (
        ", ".join(f"`{option}`" for option in _options(setting)),
        str(setting.info.description),
        _values(setting),
        _default(setting),
        setting.row.touches,
        ", ".join(also),
    )


def _options(setting: Setting) -> list[str]:
    names = [f"--{setting.name.replace('_', '-')}", *setting.row.flags]
    return [f"{name} {setting.row.metavar}".strip() for name in names]


def _default(setting: Setting) -> str:
    words = setting.row.unset or setting.row.of_model or setting.is_flag or not setting.default()
    return (setting.default() or "not given") if words else f"`{setting.default()}`"


def _values(setting: Setting) -> str:
    """What may be given: words, or a type with its bounds."""
    if setting.is_flag:
        return "`True`, `False`"
    if setting.choices:
        return ", ".join(f"`{choice}`" for choice in setting.choices)
    kind = f"`{written_type(setting).removesuffix(' | None')}`"
    return f"{kind}, {setting.bounds}" if setting.bounds else kind


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


if __name__ == "__main__":
    print(settings_page(), end="")
