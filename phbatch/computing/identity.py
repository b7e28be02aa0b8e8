"""What makes two runs the same run: their fingerprint, and what differs between two of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from phbatch.inputs.image import Source
from phbatch.kernels.intensity import describe_normalizer
from phbatch.network.model import Model, bundled_models
from phbatch.outputs.ledger import Ledger
from phbatch.places.place import Place
from phbatch.planning.resolve import ResolvedRun
from phbatch.words.choices import ESTIMATED_BACKGROUNDS, FLOAT32, FRAME_BACKGROUNDS
from phbatch.words.errors import OutputError
from phbatch.words.settings import SETTINGS, RunSettings

NUMBERS_VERSION = 5
"""Raised whenever the pixels or statistics that phbatch computes change."""

_EXACT_VERSION = 4
"""The last one in which those of float32, or without a network, changed: runs of these that began since go on."""

_DIGEST = re.compile("[0-9a-f]{64}")


def fingerprint(
    settings: RunSettings, resolved: ResolvedRun, source: Source, model: Model | None, given: Mapping[str, str | None]
) -> dict[str, Any]:
    """What two runs must share to continue each other, as nested plain values; `given` has digests of given files.

    It holds every setting that touches the numbers as it was given, unless its row says what of the fingerprint stands
    for it.
    """
    recipe, geometry = resolved.recipe, resolved.geometry
    # Where a frame's statistics depend on other frames, a repaired chunk changes them all; else each unit's ledger
    # record says what it was read from.
    sampled = settings.illumination in ESTIMATED_BACKGROUNDS and settings.illumination not in FRAME_BACKGROUNDS
    return {
        "input": source.identity(pixels=sampled or recipe.passes > 1),
        "settings": {
            "normalization": recipe.rule.model_dump(),
            **_as_given(settings),
            "packing": asdict(recipe.packing) if recipe.packing else None,
            "frames": [geometry.times.start, geometry.times.stop, geometry.times.step],
            "channels": list(geometry.restored),
            "tile": list(recipe.tiles.tile) if recipe.tiles else None,
            "batch": recipe.batch if model else None,
            "backend": settings.backend if model else None,
            "network": recipe.network if model else None,
            "precision": recipe.precision if model else None,
            "levels": geometry.levels,
        },
        "model": {"name": model.name, "sha256": model.sha256} if model else None,
        "normalizer": describe_normalizer(recipe.rule.method),
        "given": dict(given),
        "numbers_version": NUMBERS_VERSION if model and recipe.precision != FLOAT32 else _EXACT_VERSION,
    }


def find_differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Names and values of what differs between two fingerprints: the model first, then settings.

    One that is older than a setting was made with its default.

    Examples
    --------
    >>> find_differences({"a": {"b": 1}, "c": 2}, {"a": {"b": 3}, "c": 2})
    ['a.b was 1 and is 3']
    >>> find_differences({"digest": 64 * "0"}, {"digest": 64 * "1"})
    ['digest was 00000000 and is 11111111']
    >>> find_differences({"settings": {"packing": None}}, {"settings": {"packing": 2.0, "bad_frames": "normalize"}})
    ['settings.packing (range, scale) was None and is 2.0']
    """
    recorded = old.get("settings", {})
    defaults = _as_given(RunSettings()) | {"levels": 1}  # auto would be more, but there were none
    since = {name: defaults[name] for name in new.get("settings", {}) if name in defaults and name not in recorded}
    found = _compare(old | {"settings": recorded | since}, {"settings": {}} | new, "")
    return sorted(found, key=lambda name: (not name.startswith("model"), not name.startswith("settings.")))


def _as_given(settings: RunSettings) -> dict[str, Any]:
    """Values of the settings that two runs must share as they are given."""
    fields = {setting.field for setting in SETTINGS.values() if setting.identifies}
    return settings.model_dump(mode="json", by_alias=True, include=fields)


def _compare(old: Any, new: Any, place: str) -> list[str]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        found = []
        for key in sorted({*old, *new}):
            found += _compare(old.get(key), new.get(key), f"{place}.{key}" if place else str(key))
        return found
    if old == new:
        return []
    digests = all(isinstance(value, str) and _DIGEST.fullmatch(value) for value in (old, new))
    name = place + _other_names(place)
    return [f"{name} was {old[:8]} and is {new[:8]}" if digests else f"{name} was {old} and is {new}"]


def _other_names(place: str) -> str:
    """The settings that a part of a fingerprint stands for, where it has not their names."""
    keys = place.split(".")
    parts = {".".join(keys[: depth + 1]) for depth in range(len(keys))}
    names = [name for name, setting in SETTINGS.items() if setting.row.stands in parts and name not in keys]
    return f" ({', '.join(names)})" if names else ""


def require_same(output: Place, recorded: Mapping[str, Any], mark: dict[str, Any]) -> None:
    """Refuse an output that holds units of another run.

    Parameters
    ----------
    output : Place
        Of an output that was begun.
    recorded : mapping
        What it says of its run.
    mark : dict
        Fingerprint of the run that is asked for.

    Raises
    ------
    OutputError
        What differs, and what to do.
    """
    differences = find_differences(recorded["fingerprint"], mark)
    if differences and (recorded["status"] == "complete" or Ledger(output).holds_units()):
        raise OutputError(
            f"{output} exists and was begun differently ({'; '.join(differences[:4])}); repeat the old settings"
            f"{_old_model(recorded['fingerprint'], mark)} to continue, choose another output, or start afresh with"
            " --overwrite."
        )


def _old_model(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """The option of the model that an output was begun with, where a name alone gives it and another one was taken."""
    was, now = ((mark.get("model") or {}).get("name", "none") for mark in (old, new))
    return f" (--model={was})" if was != now and was in ("none", *bundled_models()) else ""
