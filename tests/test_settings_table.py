"""A setting is one row: the command line, the types, the page and the docstring come from it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import click
import pytest

import phbatch
from phbatch.computing.identity import find_differences
from phbatch.planning.idle import require_effect
from phbatch.shell.commands import cli
from phbatch.shell.options import settings_of
from phbatch.shell.settings_page import settings_page
from phbatch.shell.settings_types import FILE, settings_types
from phbatch.words import settings
from phbatch.words.choices import MOST_WORKERS
from phbatch.words.normalization import Normalization
from phbatch.words.options import ACTED_ON
from phbatch.words.rows import Group, Row, read_rows, setting
from phbatch.words.settings import SETTINGS, RunSettings

COMMANDS = {"stats": "statistics", "compare": "compare_rules"}
"""Commands whose function has another name."""


def show(command: str) -> str:
    """The help of a command, in one line."""
    found = cli.commands[command]
    return re.sub(r"\s+", " ", found.get_help(click.Context(found, info_name=command)))


def test_the_file_of_types_is_the_one_that_is_written() -> None:
    assert FILE.read_text(encoding="utf-8") == settings_types(), "run python -m phbatch.shell.settings_types"


@pytest.mark.parametrize(
    "command",
    [
        *("run", "plan", "stats", "compare", "illumination"),
        *("evaluate", "export", "verify", "repair", "info"),
    ],
)
def test_a_command_takes_what_its_function_acts_on(command: str) -> None:
    function = COMMANDS.get(command, command)
    found = {option.name: option for option in cli.commands[command].params if hasattr(option, "group")}
    assert found.keys() == ACTED_ON[function]
    for name, option in found.items():
        assert isinstance(option, click.Option)
        assert f"--{name.replace('_', '-')}" in option.opts
        assert option.default is None
        assert option.group == SETTINGS[name].row.group


def test_help_lists_settings_in_their_groups_with_defaults_and_bounds() -> None:
    text, groups = show("run"), [group for group in get_args(Group) if group not in ("cluster", "training")]
    starts = [text.index(f"{group.capitalize()} options: ") for group in groups]
    assert starts == sorted(starts)
    for group, start, stop in zip(groups, starts, [*starts[1:], len(text)], strict=True):
        for name, one in SETTINGS.items():
            assert (f" --{name.replace('_', '-')} " in text[start:stop].replace(",", " ")) or one.row.group != group
    assert "[0 to 100 px; default: the model's own, or 2]" in text
    assert "[0 to 100 px; default: 2]" in show("stats")
    assert f"one per core up to {MOST_WORKERS}" in text
    assert "up to 4" not in text


def test_words_of_defaults_are_what_is_done() -> None:
    plain = Normalization()
    for name in ("factor", "sigma", "pmin", "pmax"):
        assert float(SETTINGS[name].default("statistics")) == getattr(plain, name)
    for name, one in SETTINGS.items():
        assert one.row.unset or one.default() or one.info.default in (None, (), False), name
        assert one.info.default == getattr(RunSettings(), one.field)
    assert SETTINGS["retries"].default() == "3"
    assert SETTINGS["percentiles"].bounds == "0 to 100"
    assert SETTINGS["scale"].bounds == "above 1e-30, to 1e+30"


@pytest.mark.parametrize(
    "function",
    [*("statistics", "illumination", "compare_rules", "evaluate", "export"), *("verify", "repair", "normalize")],
)
def test_docstrings_name_what_a_function_acts_on(function: str) -> None:
    text = str(getattr(phbatch, function).__doc__)
    assert [name for name in ACTED_ON[function] if not re.search(rf"`?\b{name}\b", text)] == []


def test_a_field_without_a_row_is_refused() -> None:
    class Bare(RunSettings):
        colour: str = "red"

    with pytest.raises(TypeError, match="colour has no row"):
        read_rows(Bare)


class Wider(RunSettings):
    """Settings with one more: nothing else of it is written down anywhere."""

    speckle: int | None = setting(
        None,
        "Radius of the speckle that is taken out.",
        Row("numbers", "numbers", ("statistics",), "R", unit="px", methods=("median",)),
        ge=1,
    )
    glitter: bool = setting(False, "Whether it glitters.", Row("machine", "speed"))


def test_a_new_option_is_its_row_and_where_it_acts(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was typed by hand before: the option, its default, type, bounds, page, and what two runs must share."""
    for name, row in read_rows(Wider).items():
        monkeypatch.setitem(SETTINGS, name, row)  # as if the row stood in RunSettings
    monkeypatch.setattr(settings, "RunSettings", Wider)

    @click.command()
    @settings_of("statistics")
    def command(**given: Any) -> None:
        """Take options."""

    shown = re.sub(r"\s+", " ", command.get_help(click.Context(command)))
    assert "--speckle R Radius of the speckle that is taken out. [1 or more px]" in shown
    assert "glitter" not in shown
    assert command.make_context("stats", ["--speckle", "3"]).params["speckle"] == 3
    types = settings_types()
    assert types.count("    speckle: int | None\n") == 2
    assert types.count("    glitter: bool | None\n") == 1
    assert "| `--speckle R` | Radius of the speckle that is taken out. | `int`, 1 or more px |" in settings_page()
    with pytest.raises(phbatch.UsageError, match="speckle=0 is not valid"):
        settings.parse_settings({"speckle": 0})
    parsed: Any = settings.parse_settings({"speckle": "4"})
    assert parsed.speckle == 4
    found = find_differences({"settings": {}}, {"settings": {"speckle": 4}})
    assert found == ["settings.speckle was None and is 4"]


def test_settings_of_the_network_do_nothing_without_one() -> None:
    for name in ("tile", "uncertainty", "precision_bound"):
        value = {"tile": 64, "uncertainty": True, "precision_bound": 0.5}[name]
        with pytest.raises(phbatch.UsageError, match=rf"{name}.* does nothing with model none"):
            require_effect(RunSettings(**{name: value}), Normalization(), network=False)


def test_the_page_of_the_documentation_is_the_one_that_is_printed() -> None:
    page = Path(phbatch.__file__).parents[1] / "docs/reference/settings.md"
    command = "python -m phbatch.shell.settings_page > docs/reference/settings.md"
    assert page.read_text(encoding="utf-8") == settings_page(), f"run {command}"
