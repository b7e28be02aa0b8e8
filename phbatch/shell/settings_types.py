"""Writes `phbatch.words.option_types` anew from the table of settings: ``python -m phbatch.shell.settings_types``.

Type checkers and editors read files, so that what each function takes must stand in one; a test compares.
"""

from __future__ import annotations

from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

from phbatch.words import choices, settings
from phbatch.words.rows import Setting
from phbatch.words.settings import SETTINGS
from phbatch.words.training import TRAINING

FILE = Path(settings.__file__).with_name("option_types.py")
"""What is written."""

_CLASSES = {
    "SampleOptions": ("illumination", "`phbatch.illumination`", ""),
    "CompareOptions": ("compare_rules", "`phbatch.compare_rules`", ""),
    "EvaluateOptions": ("evaluate", "`phbatch.evaluate`", ""),
    "ExportOptions": ("export", "`phbatch.export`", ""),
    "StatisticsOptions": ("statistics", "`phbatch.statistics`", ""),
    "RunOptions": ("run", "`phbatch.run` and `phbatch.plan`", ""),
    "ConvertOptions": ("convert", "`phbatch.convert`", ""),
    "NormalizeOptions": ("normalize", "`phbatch.normalize`", "normalize"),
    "RestoreOptions": ("restore", "`phbatch.restore`", "model"),
    "RedoOptions": ("verify", "`phbatch.verify` and `phbatch.repair`", ""),
    "PartOptions": ("run_part", "`phbatch.run_part`", ""),
    "TrainOptions": ("train", "`phbatch.train`", ""),
}
"""Name of a class: its function, who takes it, and the setting that is an argument of its own there."""

_ALIASES = {str(kind): name for name, kind in vars(choices).items() if get_origin(kind) is Literal}

_HEAD = '''"""What each function takes, typed as a person writes it; `phbatch.shell.settings_types` writes this file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from phbatch.words.choices import (
{aliases}
)
'''

_CLASS = '''

class {name}(TypedDict, total=False):
    """What {takers} is given; None is as if it were not."""

{fields}
'''


def settings_types() -> str:
    """Text of the file."""
    known = [*SETTINGS.values(), *TRAINING.values()]
    used = {written_type(setting).split(" ", 1)[0] for setting in known} & set(_ALIASES.values())
    text = _HEAD.format(aliases="\n".join(f"    {name}," for name in sorted(used)))
    for name, (function, takers, apart) in _CLASSES.items():
        rows = [*SETTINGS.values(), *(TRAINING.values() if function == "train" else ())]
        taken = [setting for setting in rows if setting.acts_in(function) and setting.name != apart]
        fields = [f"    {setting.name}: {written_type(setting)}" for setting in taken]
        text += _CLASS.format(name=name, takers=takers, fields="\n".join(fields))
    return text


def written_type(setting: Setting) -> str:
    """Type of what a person may give, as it stands in a Python file."""
    kind = setting.row.given or _written(setting.info.annotation)
    return kind if kind.endswith("| None") else f"{kind} | None"


def _written(kind: Any) -> str:
    """A type as it stands in a Python file."""
    if str(kind) in _ALIASES:
        return _ALIASES[str(kind)]
    if get_origin(kind) is Annotated:
        return _written(get_args(kind)[0])
    if parts := get_args(kind):
        return " | ".join(_written(part) for part in parts)
    return "None" if kind is NoneType else str(kind.__name__)


if __name__ == "__main__":
    FILE.write_text(settings_types(), encoding="utf-8")
