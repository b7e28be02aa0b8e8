"""Settings that would do nothing beside others are refused: whoever gave them meant something else."""

from __future__ import annotations

from phbatch.words.choices import FLOAT32
from phbatch.words.errors import UsageError
from phbatch.words.normalization import METHODS, Normalization
from phbatch.words.settings import SETTINGS, RunSettings

_OF_RULE = {name: setting.row.methods for name, setting in SETTINGS.items() if setting.row.methods}
_OF_NETWORK = ["devices", *(name for name, each in SETTINGS.items() if each.row.group == "network" and name != "model")]


def require_effect(settings: RunSettings, rule: Normalization, *, network: bool, table: bool = True) -> None:
    """Refuse a setting that nothing reads.

    Parameters
    ----------
    settings : RunSettings
        What was asked for.
    rule : Normalization
        What frames are normalized by.
    network : bool
        Whether there is one.
    table : bool
        Whether the statistics of every frame are kept, too.

    Raises
    ------
    UsageError
        Names the first such setting.
    """
    own = rule.method in METHODS  # one that a package registered may read all
    for name, methods in _OF_RULE.items():
        measured = table and SETTINGS[name].acts_in("statistics")  # each frame has a row of them, whatever the method
        if own and rule.method not in methods and not measured:
            _require_default(settings, name, f"normalize {rule.method}")
    if settings.illumination == "none":
        _require_default(settings, "illumination_mode", "illumination none")
    for name in () if network else _OF_NETWORK:
        _require_default(settings, name, "model none")
    if settings.precision == FLOAT32:
        _require_default(settings, "precision_bound", "precision float32")


def _require_default(settings: RunSettings, name: str, beside: str) -> None:
    value = getattr(settings, SETTINGS[name].field)
    if value != SETTINGS[name].info.default:
        option = f"--{name.replace('_', '-')}" + ("" if value is True else f"={value}")
        raise UsageError(f"{option} does nothing with {beside}; leave it out, or choose what it acts on.")
