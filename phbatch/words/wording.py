"""Sentences name options as the reader types them: as of the command line there, as arguments in Python.

They are written as for the command line, ``--bad-frames=skip``, and are put into Python's words when they are shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

_flags = {"benchmark"}

_FUNCTIONS = {"stats": "statistics", "compare": "compare_rules"}
_COMMAND = re.compile(r"`phbatch (run|plan|stats|compare|illumination|verify|repair|info|submit|train)( --help)?`")
_OPTION = re.compile(
    r"""(?<![\w-])--(?P<name>[a-z][a-z-]*[a-z])(?P<sign>[= ])?(?P<value>'[^']*'|"[^"]*"|[^\s;,)`]+)?"""
)
_PLAIN_WORDS = ("out", "it", "too", "instead", "or", "and", "to", "as", "is")
_speaking = {"command line": False}


def learn_flags(names: Iterable[str]) -> None:
    """Name options that take no value on the command line, and True in Python."""
    _flags.update(name.replace("_", "-") for name in names)


@contextmanager
def speaking_command_line() -> Iterator[None]:
    """While inside, sentences are for somebody who typed a command."""
    before = _speaking["command line"]
    _speaking["command line"] = True
    try:
        yield
    finally:
        _speaking["command line"] = before


def say(sentence: str) -> str:
    """A sentence in the words of whoever reads it."""
    return sentence if _speaking["command line"] else in_python(sentence)


def in_python(sentence: str) -> str:
    """A sentence with arguments of Python in the place of options.

    Examples
    --------
    >>> in_python("add --rescale, or pass such frames through flagged with --bad-frames skip.")
    "add rescale=True, or pass such frames through flagged with bad_frames='skip'."
    >>> in_python("raise --memory, or leave --axes out; measure it with `phbatch stats`.")
    'raise memory, or leave axes out; measure it with `phbatch.statistics`.'
    """
    return _COMMAND.sub(_function, _OPTION.sub(_argument, sentence))


def _function(match: re.Match[str]) -> str:
    name = f"phbatch.{_FUNCTIONS.get(match[1], match[1])}"
    return f"`help({name})`" if match[2] else f"`{name}`"


def _argument(match: re.Match[str]) -> str:
    name, sign, value = match["name"], match["sign"] or "", match["value"] or ""
    if name in ("help", "debug", "json", "no-deps", "version"):
        return match[0]
    if name.removeprefix("no-") in _flags:
        return f"{name.removeprefix('no-').replace('-', '_')}={not name.startswith('no-')}{sign}{value}"
    name = name.replace("-", "_")
    word = value.rstrip(".:")
    if not word or not (sign == "=" or _is_value(word, ends=_ends(match, value))):
        return f"{name}{sign}{value}"
    plain = word[0] in "'\"" or re.fullmatch(r"-?\d+(\.\d+)?(e-?\d+)?|None|True|False", word)
    return f"{name}={word if plain else repr(word)}{value[len(word) :]}"


def _ends(match: re.Match[str], value: str) -> bool:
    """Whether the sentence, or a part of it, ends behind a word."""
    return value[-1] in ".:" or match.end() == len(match.string) or match.string[match.end()] in ";,)`"


def _is_value(word: str, *, ends: bool) -> bool:
    """Whether what follows an option is its value and no word of the sentence."""
    if word[0] in "'\"" or any(letter.isdigit() for letter in word) or re.fullmatch("[tczyx]{2,5}", word):
        return True
    return ends and word.isidentifier() and word not in _PLAIN_WORDS
