"""From what a person writes to what the settings hold: lists with commas, ranges, paths, credentials."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, SecretStr, ValidationError

from phbatch.words.durations import parse_duration
from phbatch.words.errors import UsageError
from phbatch.words.wells import parse_fields, parse_wells


def _parse_auto(value: Any) -> Any:
    return None if isinstance(value, str) and value.upper() == "AUTO" else value


def _parse_numbers(value: Any) -> Any:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def _parse_lengths(value: Any) -> Any:
    return (value,) if isinstance(value, int | float) else _parse_numbers(value)


def _parse_devices(value: Any) -> Any:
    if isinstance(value, str) and value.strip().lower() == "all":
        return None
    names = value.split(",") if isinstance(value, str) else value if isinstance(value, list | tuple) else [value]
    found = tuple(str(name).strip() for name in names)
    if not found or not all(found) or len(set(found)) < len(found):
        raise ValueError("devices are all, or names with commas between them, each once")
    return found


def _parse_lower_case(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def require_positive(value: Any) -> Any:
    """A number of bytes above 0, or a word."""
    if isinstance(value, int) and value <= 0:
        raise ValueError(f"{value} bytes hold nothing; give more than 0")
    return value


def _parse_range(value: Any) -> Any:
    return tuple(value.split(":")) if isinstance(value, str) else value


def _parse_path(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def _parse_duration(value: Any) -> Any:
    if not isinstance(value, str) or value.strip() == "0":
        return value
    try:
        return parse_duration(value, "")
    except UsageError:
        raise ValueError("a time is written as 4h, 1h30m, 10m or 45s") from None


def _parse_channels(value: Any) -> Any:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) and value else value


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
    for part in value if isinstance(value, list | tuple) else [value]:
        if isinstance(part, Mapping):
            options |= part
        elif not isinstance(part, str):
            raise ValueError("options of a store are a mapping, a JSON object, or key=value")
        elif part.lstrip().startswith("{"):
            options |= _parse_json_object(part)
        else:
            name, sign, content = part.partition("=")
            if not sign or not name.strip():
                raise ValueError("options of a store are a JSON object, or key=value")
            options[name.strip()] = content
    return SecretStr(json.dumps(options, sort_keys=True)) if options else None


_RULES = {
    "int": "give a whole number, such as 4",
    "float": "give a number, such as 0.5",
    "finite": "give a finite number",
    "byte": "give a size as 8GB, 500MB or 1GiB, or a number of bytes",
    "string": "give text",
    "path": "give a path",
    "bool": "give true or false",
    "tuple": "give numbers or names with commas between them",
    "literal": "choose {expected}",
    "greater_than": "give more than {gt:g}",
    "greater_than_equal": "give {ge:g} or more",
    "less_than": "give less than {lt:g}",
    "less_than_equal": "give {le:g} or less",
}
"""What is asked for, by the type of pydantic's problem or the first word of it."""

_TWO = "give two numbers as LOW:HIGH"


def first_problem(error: ValidationError) -> str:
    """The first problem of a validation error in one sentence, with the value and the rule.

    Examples
    --------
    >>> from phbatch.words.settings import RunSettings
    >>> for name, value in {"memory": "8 parsecs", "tile": "wide", "retries": 200, "codec": "gzip"}.items():
    ...     try:
    ...         RunSettings(**{name: value})
    ...     except ValidationError as error:
    ...         print(first_problem(error))
    --memory '8 parsecs' is not valid: give a size as 8GB, 500MB or 1GiB, or a number of bytes.
    --tile 'wide' is not valid: give a whole number, such as 4.
    --retries 200 is not valid: give 100 or less.
    --codec 'gzip' is not valid: choose 'auto', 'blosc-lz4', 'blosc-zstd', 'zstd' or 'none'.
    """
    problem = error.errors()[0]
    message = problem["msg"].removeprefix("Value error, ")
    if not problem["loc"]:
        return f"{message}."
    name, kind = str(problem["loc"][0]), problem["type"]
    if kind == "extra_forbidden":
        return f"{name!r} is no setting of phbatch; see `phbatch run --help` for their names."
    is_range = name == "range"
    rule = _RULES.get(kind, _RULES.get(kind.partition("_")[0], ""))
    if is_range and kind in ("tuple_type", "missing", "too_long", "too_short"):
        rule = _TWO
    rule = rule.format(**problem.get("ctx", {})) or f"{message[:1].lower()}{message[1:]}"
    value = (
        "(not shown)" if name.startswith("storage_options") else as_typed(problem["input"], ":" if is_range else ",")
    )
    return f"--{name.replace('_', '-')} {value} is not valid: {rule}."


def as_typed(value: Any, sign: str = ",") -> str:
    """A value in a sentence, as it is given on the command line.

    Examples
    --------
    >>> as_typed("soon"), as_typed(3), as_typed(("0", "1"))
    ("'soon'", '3', '0,1')
    """
    return sign.join(map(str, value)) if isinstance(value, list | tuple) and value else repr(value)


def _parse_json_object(text: str) -> dict[str, Any]:
    try:
        return dict(json.loads(text))
    except (ValueError, TypeError, RecursionError):
        raise ValueError("options of a store are no JSON object") from None


AUTO = BeforeValidator(_parse_auto)
"""``auto`` leaves the choice to phbatch."""

NUMBERS = BeforeValidator(_parse_numbers)
"""Numbers with commas between them."""

DEVICES = BeforeValidator(_parse_devices)
"""Names or numbers with commas between them, or ``all``."""

LOWER_CASE = BeforeValidator(_parse_lower_case)
RANGE = BeforeValidator(_parse_range)
"""``LOW:HIGH``."""

DURATION = BeforeValidator(_parse_duration)
"""Seconds, or a number with its unit."""

PATH = BeforeValidator(_parse_path)
LENGTHS = BeforeValidator(_parse_lengths)
"""One number, or several with commas between them."""

NAMES = BeforeValidator(_parse_numbers)
"""Names with commas between them."""

CHANNELS = BeforeValidator(_parse_channels)
"""An index or a name, or several with commas between them."""

TEXT = BeforeValidator(_parse_frames)
"""A name, or a number."""

FRAMES = BeforeValidator(_parse_frames)
"""One index, or a range of them."""

WELLS = BeforeValidator(lambda value: None if value is None else parse_wells(value))
FIELDS = BeforeValidator(lambda value: None if value is None else parse_fields(value))
"""Positions of a plate."""

StorageOptions = Annotated[SecretStr | None, BeforeValidator(parse_storage_options)]
"""Credentials and endpoints of object stores, as JSON: they are neither printed nor recorded."""
