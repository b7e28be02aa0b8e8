"""From what a person writes to what the settings hold: lists with commas, ranges, paths, credentials."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BeforeValidator, SecretStr


def _parse_auto(value: Any) -> Any:
    return None if isinstance(value, str) and value.upper() == "AUTO" else value


def _parse_numbers(value: Any) -> Any:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def _parse_lower_case(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def _parse_range(value: Any) -> Any:
    return tuple(value.split(":")) if isinstance(value, str) else value


def _parse_path(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def _parse_frames(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def select_indices(frames: str, count: int) -> range:
    """Indices that an index or a range selects of a number of frames, as in Python; may be empty.

    Raises
    ------
    ValueError
        It is neither.
    """
    text, indices = frames.strip(), range(count)
    if re.fullmatch(r"-?[0-9]+", text):
        return indices[int(text) :][:1] if -count <= int(text) else range(0)
    match = re.fullmatch(r"(-?[0-9]+)?:(-?[0-9]+)?(?::([0-9]+)?)?", text)
    if match is None or (match[3] is not None and int(match[3]) == 0):
        raise ValueError(f"frames {frames!r} are neither a number nor START:STOP[:STEP] with STEP from 1")
    return indices[slice(*(int(part) if part else None for part in match.groups()))]


def parse_storage_options(value: Any) -> SecretStr | None:
    """Options of object stores as JSON that no message shows.

    Parameters
    ----------
    value : mapping, str, sequence of str, SecretStr or None
        Names and values; JSON; ``key=value``; several of these, of which the later ones win.

    Examples
    --------
    >>> parse_storage_options(["key=A", '{"secret": "B"}']).get_secret_value()
    '{"key": "A", "secret": "B"}'
    """
    if value is None or isinstance(value, SecretStr):
        return value
    options: dict[str, Any] = {}
    for part in [value] if isinstance(value, str | Mapping) else value:
        if isinstance(part, Mapping):
            options |= part
        elif part.lstrip().startswith("{"):
            options |= _parse_json_object(part)
        else:
            name, sign, content = part.partition("=")
            if not sign or not name.strip():
                raise ValueError("options of a store are a JSON object, or key=value")
            options[name.strip()] = content
    return SecretStr(json.dumps(options, sort_keys=True)) if options else None


def _parse_json_object(text: str) -> dict[str, Any]:
    try:
        return dict(json.loads(text))
    except (ValueError, TypeError, RecursionError):
        raise ValueError("options of a store are no JSON object") from None


AUTO = BeforeValidator(_parse_auto)
"""``auto`` leaves the choice to phbatch."""

NUMBERS = BeforeValidator(_parse_numbers)
"""Numbers with commas between them."""

LOWER_CASE = BeforeValidator(_parse_lower_case)
RANGE = BeforeValidator(_parse_range)
"""``LOW:HIGH``."""

PATH = BeforeValidator(_parse_path)
FRAMES = BeforeValidator(_parse_frames)
"""One index, or a range of them."""
