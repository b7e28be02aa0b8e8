"""What is said of a setting beside its type, bounds, description and default: its row in the table of settings.

Each field of `phbatch.RunSettings` has one. From the rows come the options of the command line, what each function
takes, the page of settings in the documentation, and what two runs must share to continue each other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, Field
from pydantic.fields import FieldInfo

Group = Literal["input", "numbers", "network", "output", "machine", "cluster", "training"]
"""Where a setting is listed."""

Touches = Literal["numbers", "speed", "place"]
"""What a setting changes: what the output holds, how fast it is there, or where things are read, kept and computed."""

Function = Literal[
    "run",
    "plan",
    "convert",
    "statistics",
    "illumination",
    "compare_rules",
    "evaluate",
    "export",
    "normalize",
    "restore",
    "verify",
    "repair",
    "run_part",
    "info",
    "train",
]
"""Public functions that act on settings; `run` and `plan` on all."""


@dataclass(frozen=True)
class Row:
    """What is said of a field of the settings beside its type, bounds, description and default.

    Attributes
    ----------
    group : str
        Where it is listed.
    touches : str
        What it changes.
    also : tuple of str
        Functions that act on it besides `run` and `plan`.
    metavar : str
        Stands for its value in the help; not needed for choices and flags.
    unit : str
        Of its value.
    unset : str
        What is taken where it is not given, if its default does not say.
    of_model : bool
        Whether a run takes the value that its model was trained with where none is given.
    given : str
        Type of what a person may write, where that is more than what is held.
    stands : str
        Part of the fingerprint that stands for what it comes to; empty: the fingerprint holds its value as it is.
    repeated : bool
        Whether it may be given several times on the command line.
    methods : tuple of str
        The normalizations that read it; empty: all.
    flags : tuple of str
        Other names on the command line.
    """

    group: Group
    touches: Touches
    also: tuple[Function, ...] = ()
    metavar: str = ""
    unit: str = ""
    unset: str = ""
    of_model: bool = False
    given: str = ""
    stands: str = ""
    repeated: bool = False
    methods: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()

    def __call__(self, schema: dict[str, Any]) -> None:
        """Say the same in a JSON schema."""
        schema |= {"group": self.group, "touches": self.touches} | ({"unit": self.unit} if self.unit else {})


def setting(default: Any, description: str, row: Row, **field: Any) -> Any:
    """A field of the settings: `field` are pydantic's bounds and alias."""
    return Field(default, description=description, json_schema_extra=row, **field)


@dataclass(frozen=True)
class Setting:
    """One line of the table of settings.

    Attributes
    ----------
    name : str
        As a person gives it and as it is recorded.
    field : str
        Attribute of `phbatch.RunSettings`.
    info : FieldInfo
        Type, bounds, description and default.
    row : Row
        All else.
    """

    name: str
    field: str
    info: FieldInfo
    row: Row

    @property
    def is_flag(self) -> bool:
        """Whether it takes no value on the command line."""
        return self.info.annotation is bool

    @property
    def choices(self) -> tuple[str, ...]:
        """The words that may be given, where there are few; else empty."""
        return get_args(self.info.annotation) if get_origin(self.info.annotation) is Literal else ()

    @property
    def number(self) -> type[int] | type[float] | None:
        """The type of a number that is given as nothing else."""
        kinds = {self.info.annotation, *get_args(self.info.annotation)}
        kinds |= {inner for kind in kinds for inner in get_args(kind)}  # of Annotated
        if self.row.given or str in kinds:
            return None
        return float if float in kinds else int if int in kinds else None

    def facts(self, function: str = "run") -> list[str]:
        """Bounds and default in words, those that there are."""
        default = "" if self.is_flag else self.default(function)
        return [fact for fact in (self.bounds, f"default: {default}" if default else "") if fact]

    @property
    def identifies(self) -> bool:
        """Whether two runs must share its value as it is given to continue each other."""
        return self.row.touches == "numbers" and not self.row.stands

    def acts_in(self, function: str) -> bool:
        """Whether a public function acts on it."""
        return function in ("run", "plan", *self.row.also)

    def default(self, function: str = "run") -> str:
        """What a function takes where nothing is given, in words; empty where that is nothing."""
        value = self.info.default
        text = self.row.unset if self.row.unset or value in (None, ()) else _in_words(value)
        own = "the model's own" if self.row.of_model and function in ("run", "plan", "restore") else ""
        return ", or ".join(filter(None, (own, text)))

    @property
    def bounds(self) -> str:
        """The least and the largest value with the unit, in words; empty where there are none."""
        found = dict(_limits(self.info))
        low, high = found.get("ge"), found.get("le")
        unit = f" {self.row.unit}" if self.row.unit else ""
        if "gt" in found:
            return f"above {found['gt']:g}{unit}" if high is None else f"above {found['gt']:g}, to {high:g}{unit}"
        if low is None:
            return self.row.unit
        return f"{low:g} or more{unit}" if high is None else f"{low:g} to {high:g}{unit}"


def read_rows(model: type[BaseModel]) -> dict[str, Setting]:
    """The table of settings, by name, in the order of the fields.

    Raises
    ------
    TypeError
        A field has no row, or no description.
    """
    table = {}
    for field, info in model.model_fields.items():
        if not isinstance(info.json_schema_extra, Row) or not info.description:
            raise TypeError(f"{field} has no row: define it by `setting`, with a description")
        table[info.alias or field] = Setting(info.alias or field, field, info, info.json_schema_extra)
    return table


def _in_words(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def _limits(part: Any) -> Iterator[tuple[str, float]]:
    """Bounds of a field and of the types that it is made of."""
    if isinstance(part, FieldInfo):
        for limit in part.metadata:
            yield from ((mark, getattr(limit, mark)) for mark in ("gt", "ge", "le") if hasattr(limit, mark))
        yield from _limits(part.annotation)
    for inner in get_args(part):  # of Annotated, too
        yield from _limits(inner)


def describe(table: dict[str, Setting]) -> str:
    """The table as the part of a docstring that names attributes."""
    lines = ["", "", "    Attributes", "    ----------"]
    for setting in table.values():
        said = f" [{'; '.join(setting.facts())}]" if setting.facts() else ""
        choices = f" : {' or '.join(setting.choices)}" if setting.choices else ""
        lines += [
            f"    {setting.field}{choices}",
            f"        {setting.info.description}{said}",
        ]
    return "\n".join(lines) + "\n"
