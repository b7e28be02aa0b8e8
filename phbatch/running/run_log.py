"""The log of a call beside the ledger: JSON lines, bounded in size, without secrets, read also after a kill.

It is written from events, whatever the host does with its loggers: those are left as they are. A line is an event, and
now and then one of progress; what a unit does is in the ledger.
"""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import fields
from time import gmtime, monotonic, strftime, time
from typing import Any

import psutil

from phbatch.computing.versions import versions_here
from phbatch.places.own import PRIVATE
from phbatch.places.place import Place
from phbatch.words.errors import first_line
from phbatch.words.events import Event, Listener, Notice, UnitFailed, UnitFinished, UnitMeasured, in_words
from phbatch.words.given import StorageOptions

FOLDER = f"{PRIVATE}/log"

MOST_BYTES, MOST_FILES = 1 << 19, 100
"""Of the log of one call, and of the calls whose logs stay."""

_BEAT_S, _BEAT_SHARE = 10.0, 50  # fewer lines in a long run
_STORE_S = 30.0  # a store has no appending: its object is written anew
_SECRET_NAMES = re.compile(r"key|secret|token|password|credential|sas|auth|signature", re.IGNORECASE)
_IN_URLS = re.compile(
    r"(?<=://)[^/@\s:]+:[^/@\s]+(?=@)|(?<=[?&])((?:x-amz-|x-goog-)?[\w-]*(?:sig|token|credential|key)"
    r"[\w-]*)=[^&\s'\"]+",
    re.IGNORECASE,
)


class RunLog:
    """Writes what happens, as it comes.

    Parameters
    ----------
    output : Place
        Whose log it is; it must exist.
    command : str
        What was called.
    """

    def __init__(self, output: Place, command: str) -> None:
        self._output, self._secrets = output, secrets_of(output.options)
        self._key = f"{FOLDER}/{strftime('%Y%m%dT%H%M%S', gmtime())}-{os.getpid()}-{socket.gethostname()[:40]}.jsonl"
        self._lines: list[bytes] = []  # of a store
        self._size = 0
        self._broken = self._full = False
        self._began = self._told = self._stored = monotonic()
        self._counts = {"units": 0, "frames": 0, "measured": 0, "failed": 0, "flagged": 0}
        self._stages: dict[str, float] = {}
        self._forget_old()
        here = versions_here()
        facts = {"version": here["phbatch"], "python": here["python"], "host": socket.gethostname()}
        self._write("phbatch.running.run", "INFO", "started", command, facts | {"process": os.getpid()})

    def hear(self, event: Event) -> None:
        """Take an event in."""
        match event:
            case UnitFinished(_, frames):
                self._counts["units"] += 1
                self._counts["frames"] += frames
                self._counts["flagged"] += len(event.flagged)
                for stage, seconds in event.stages.items():
                    self._stages[stage] = self._stages.get(stage, 0.0) + seconds
            case UnitMeasured(_, frames):
                self._counts["measured"] += frames
            case _:
                self._counts["failed"] += isinstance(event, UnitFailed)
                self._tell(event)
        now = monotonic()
        if now - self._told > max(_BEAT_S, (now - self._began) / _BEAT_SHARE):
            self._told = now
            self._progress("progress", "")

    def close(self, error: BaseException | None) -> None:
        """Say how it ended."""
        self._full = False
        self._progress("ended", "" if error is None else f"{type(error).__name__}: {first_line(error)}")
        self._store()

    def _tell(self, event: Event) -> None:
        logger, level, text = in_words(event)
        own = {} if isinstance(event, Notice) else {each.name: getattr(event, each.name) for each in fields(event)}
        name = "WARNING" if level >= 30 else "INFO"
        self._write(logger, name, type(event).__name__, text, {key: own[key] for key in own if key != "error"})

    def _progress(self, what: str, text: str) -> None:
        facts = self._counts | {
            "rss": psutil.Process().memory_info().rss,
            "seconds": round(monotonic() - self._began, 3),
        }
        spent = {stage: round(seconds, 3) for stage, seconds in self._stages.items()}
        self._write("phbatch.running.run", "WARNING" if text else "INFO", what, text, facts | {"stages": spent})

    def _write(self, logger: str, level: str, event: str, text: str, facts: Mapping[str, Any]) -> None:
        if self._broken or self._full:
            return
        record = {"at": round(time(), 3), "level": level, "logger": logger, "event": event, "message": text, **facts}
        line = hide(json.dumps(record), self._secrets).encode() + b"\n"
        if self._size + len(line) > MOST_BYTES and event != "ended":
            self._full = True
            line = json.dumps({"at": record["at"], "level": "WARNING", "event": "full"}).encode() + b"\n"
        self._size += len(line)
        if not self._output.appends:
            self._lines.append(line)
            if monotonic() - self._stored > _STORE_S:
                self._store()
            return
        try:
            self._output.append_loosely(self._key, line)
        except OSError:
            self._broken = True  # the run says what is wrong with its place

    def _store(self) -> None:
        if self._output.appends or self._broken:
            return
        self._stored = monotonic()
        try:
            self._output.write(self._key, b"".join(self._lines))
        except OSError:
            self._broken = True

    def _forget_old(self) -> None:
        with suppress(OSError):
            names = sorted(self._output.names(FOLDER))
            if len(names) >= MOST_FILES:
                self._output.remove([f"{FOLDER}/{name}" for name in names[: len(names) - MOST_FILES + 1]])


@contextmanager
def keeping_log(output: Place, command: str, listener: Listener, said: Sequence[Event] = ()) -> Iterator[Listener]:
    """While inside, what the listener that it gives hears is logged beside the ledger, too.

    Parameters
    ----------
    output : Place
        That is held, and exists.
    command : str
        What was called.
    listener : callable
        Hears everything, as before.
    said : sequence of Event
        What was said before the output existed.
    """
    log = RunLog(output, command)
    for event in said:
        log.hear(event)

    def hear(event: Event) -> None:
        log.hear(event)
        listener(event)

    try:
        yield hear
    except BaseException as error:
        log.close(error)
        raise
    log.close(None)


def secrets_of(options: StorageOptions) -> tuple[str, ...]:
    """Values of the options of a store that nobody may read.

    Examples
    --------
    >>> from phbatch.words.given import parse_storage_options
    >>> secrets_of(parse_storage_options({"secret": "hunter22", "client_kwargs": {"region": "eu-1"}}))
    ('hunter22',)
    """
    if options is None:
        return ()

    def found(value: Any, name: str) -> Iterator[str]:
        if isinstance(value, Mapping):
            for key, part in value.items():
                yield from found(part, str(key))
        elif isinstance(value, str) and _SECRET_NAMES.search(name) and len(value) > 3:
            yield value

    return tuple(found(json.loads(options.get_secret_value()), ""))


def hide(text: str, secrets: Sequence[str] = ()) -> str:
    """A text without these, and without what URLs are signed with.

    Examples
    --------
    >>> hide("PUT https://a:b@host/x?X-Amz-Signature=abc&part=1 with hunter22", ["hunter22"])
    'PUT https://***@host/x?X-Amz-Signature=***&part=1 with ***'
    """
    for secret in secrets:
        text = text.replace(secret, "***").replace(json.dumps(secret)[1:-1], "***")
    return _IN_URLS.sub(lambda found: f"{found[1]}=***" if found[1] else "***", text)
