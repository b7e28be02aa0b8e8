"""The settings that each function acts on; what would do nothing is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from phbatch.words.errors import UsageError
from phbatch.words.rows import Function
from phbatch.words.settings import SETTINGS, RunSettings, parse_settings

ACTED_ON: dict[str, frozenset[str]] = {
    function: frozenset(name for name, setting in SETTINGS.items() if setting.acts_in(function))
    for function in get_args(Function)
}
"""The settings that each public function acts on."""


def parse_options(function: str, options: Mapping[str, Any]) -> RunSettings:
    """Settings of a public function from options as a person wrote them.

    Raises
    ------
    UsageError
        One that the function does not act on, or a value that is not valid.

    Examples
    --------
    >>> parse_options("normalize", {"sigma": 3, "factor": None}).sigma
    3.0
    """
    given = {name: value for name, value in options.items() if value is not None}
    require_acted_on(function, given)
    return parse_settings(given)


def require_acted_on(function: str, names: Mapping[str, Any]) -> None:
    """Refuse settings, by their names, that a function does not act on; names of no setting are left to others."""
    ignored = sorted((names.keys() & SETTINGS.keys()) - ACTED_ON[function])
    if ignored:
        raise UsageError(
            f"--{ignored[0].replace('_', '-')} does nothing in `phbatch.{function}`, which acts on"
            f" {', '.join(sorted(ACTED_ON[function]))}; leave it out."
        )
