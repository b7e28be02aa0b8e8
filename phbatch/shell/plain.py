"""Options as a command takes them, and records as it prints them."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from math import isfinite
from pathlib import Path
from time import gmtime, strftime
from typing import Any

from phbatch.clusters.settings import DECIDED, TYPED
from phbatch.words.errors import OutputError, UsageError
from phbatch.words.settings import SETTINGS


def without_storage_options(arguments: list[str]) -> list[str]:
    """Arguments of a command line that may be recorded."""
    name = "--storage-options"
    return [
        argument
        for before, argument in zip(["", *arguments], arguments, strict=False)
        if name not in (before, argument) and not argument.startswith(f"{name}=")
    ]


def recorded_command() -> str:
    """The command that is recorded: what was typed, also by who submitted the job that this process is."""
    return os.environ.get(TYPED) or shlex.join(["phbatch", *without_storage_options(sys.argv[1:])])


def given(options: dict[str, Any]) -> dict[str, Any]:
    """Options without those that were not given."""
    return {name: value for name, value in options.items() if value is not None}


def written(options: Mapping[str, Any]) -> str:
    """Options of a run as they are typed for `phbatch submit`, without those that its cluster decides, and credentials.

    Examples
    --------
    >>> written({"model": "none", "frames": "0:3", "upscale_back": True, "workers": 4})
    ' --model none --frames 0:3 --upscale-back'
    """
    words = []
    for name, value in options.items():
        flag = name.replace("_", "-")
        if name in (*DECIDED, "storage_options"):
            continue
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            words += [f"--{flag}", ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)]
    return "".join(f" {shlex.quote(word)}" for word in words)


def with_config(options: dict[str, Any]) -> dict[str, Any]:
    """Options of the configuration file, overruled by those of the command line."""
    path = options.pop("config", None)
    if path is None:
        return given(options)
    try:
        with Path(path).open("rb") as file:
            stored = tomllib.load(file)
    except (OSError, ValueError) as error:  # text that is not UTF-8 is no TOMLDecodeError
        raise UsageError(f"--config {path} cannot be read as TOML ({error}); correct it or leave it out.") from error
    unknown = sorted(stored.keys() - SETTINGS.keys())
    if unknown:
        raise UsageError(f"{unknown[0]!r} is no setting of phbatch; see `phbatch run --help` for their names.")
    return stored | given(options)


def print_record(record: Any) -> None:
    """Print one record as JSON."""
    print(json.dumps(_plain(record), allow_nan=False))


def print_records(records: Iterable[Any]) -> None:
    """Print a list, one record in memory at a time."""
    separator = "["
    for record in records:
        print(separator, json.dumps(_plain(record), allow_nan=False), sep="", end="")
        separator = ", "
    print("]" if separator == ", " else "[]")


def require_folder(output: str | None, input: str, option: str = "--output") -> None:
    """Refuse a file in no folder, or in the input, before the work, not after it."""
    if output is None:
        return
    folder = Path(output).absolute().parent
    if not folder.is_dir():
        raise OutputError(f"{option} {output} lies in no folder; make {folder} first.")
    if folder.resolve().is_relative_to(Path(input.removeprefix("file://")).expanduser().resolve()):
        raise OutputError(f"{option} {output} lies inside the input; choose another place.")


@contextmanager
def writing(output: str) -> Iterator[None]:
    """While inside, a file that cannot be written is refused in one sentence."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"--output {output} cannot be written ({error.strerror}); choose another place.") from error


def _plain(value: Any) -> Any:
    """A value without NaN and infinity, which JSON does not have."""
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and not isfinite(value) else value


_ONE = r"Traceback \(most recent call last\):\n(?: .*\n)*(\S.*)(?:\n|$)"
_TRACEBACK = re.compile(rf"^{_ONE}(?:\n(?:The above|During handling).*\n\n{_ONE})*", re.MULTILINE)
_PARTING = (
    *("distributed.comm.core.CommClosedError", "tornado.iostream.StreamClosedError"),
    *("asyncio.exceptions.CancelledError", "ConnectionResetError", "BrokenPipeError"),
)


def telling(text: str) -> str:
    r"""A log without tracebacks that end in a closed connection: Dask logs them whenever somebody leaves.

    Examples
    --------
    >>> begin = "Traceback (most recent call last):\n  File 'a.py', line 1, in a\n"
    >>> again = f"\nThe above exception was the direct cause of the following exception:\n\n{begin}"
    >>> telling(f"leaving\n{begin}OSError: gone\n{again}distributed.comm.core.CommClosedError: in <TCP>\nbye\n")
    'leaving\nbye\n'
    >>> telling(f"{begin}ValueError: of a unit\n").count("\n")
    3
    """
    return _TRACEBACK.sub(lambda found: "" if (found[2] or found[1]).startswith(_PARTING) else found[0], text)


def readable(line: str) -> str:
    """A line of the log of a run, for people.

    Examples
    --------
    >>> readable('{"at": 1.5, "level": "INFO", "logger": "phbatch", "event": "ended", "message": "", "frames": 3}')
    '1970-01-01 00:00:01 INFO ended frames 3'
    """
    try:
        record = json.loads(line)
        at, level, event = record.pop("at"), record.pop("level"), record.pop("event")
        message, _ = record.pop("message", ""), record.pop("logger", "")
    except (ValueError, KeyError, AttributeError):  # torn
        return line
    said = message or " ".join([event, *(f"{name} {value}" for name, value in record.items())])
    return f"{strftime('%Y-%m-%d %H:%M:%S', gmtime(at))} {level} {said}"
