"""Settings that would do nothing beside others are refused: whoever gave them meant something else."""

from __future__ import annotations

from phbatch.words.errors import UsageError
from phbatch.words.normalization import METHODS, Normalization
from phbatch.words.settings import FLOAT32, RunSettings

_READS = {
    "factor": ("median", "mode"),
    "value": ("fixed",),
    "sigma": ("median", "mode", "zscore"),
    "pmin": ("percentile",),
    "pmax": ("percentile",),
}
"""The methods of phbatch's own that read a setting; one that a package registered may read all."""

_IN_TABLE = ("sigma", "pmin", "pmax")  # of every frame there is a row of statistics, whatever the method
_OF_NETWORK = ("tile", "batch", "backend", "network", "precision", "precision_bound", "uncertainty")


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
    own = rule.method in METHODS
    for name, methods in _READS.items():
        if own and rule.method not in methods and not (table and name in _IN_TABLE):
            _require_default(settings, name, f"normalize {rule.method}")
    if settings.illumination == "none":
        _require_default(settings, "illumination_mode", "illumination none")
    for name in () if network else _OF_NETWORK:
        _require_default(settings, name, "model none")
    if settings.precision == FLOAT32:
        _require_default(settings, "precision_bound", "precision float32")


def _require_default(settings: RunSettings, name: str, beside: str) -> None:
    value = getattr(settings, name)
    if value != RunSettings.model_fields[name].default:
        option = f"--{name.replace('_', '-')}" + ("" if value is True else f"={value}")
        raise UsageError(f"{option} does nothing with {beside}; leave it out, or choose what it acts on.")
