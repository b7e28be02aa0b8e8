"""OMERO's rendering hints: names, colours and windows of channels, which say nothing about pixels.

Writers leave out, misspell or miscount them (the specification calls them transitional), so what is usable is kept, the
rest is said, and what is written is complete.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

from pydantic import ValidationError
from yaozarrs.v05 import OmeroChannel

Channel = Mapping[str, Any]

_COLORS = ("FF0000", "00FF00", "0000FF", "FF00FF", "00FFFF", "FFFF00")
"""Of several channels, as OMERO and Bio-Formats have them."""

_MADE_UP = re.compile("channel [0-9]+")

_WINDOW = {"min": 0.0, "max": 1.0, "start": 0.0, "end": 1.0}
_SUBSTITUTES = {"min": "start", "start": "min", "max": "end", "end": "max"}


def read_channels(omero: object, count: int) -> tuple[tuple[Channel, ...], tuple[str, ...]]:
    """What is usable of the rendering of an image of `count` channels, and what is to be said of the rest.

    Parameters
    ----------
    omero : object
        As the metadata have it, whatever it is.
    count : int
        Channels of the array.

    Returns
    -------
    channels : tuple of mapping
        One per channel of the array, complete ones as they are; empty where nothing is usable.
    notices : tuple of str
        Sentences.

    Examples
    --------
    >>> channels, notices = read_channels({"channels": [{"label": "PH"}]}, 2)
    >>> channels
    ({'label': 'PH'}, {})
    >>> notices[0]
    "the OMERO display hints name 1 channel and the image has 2: the first 1 is taken; pixels don't depend on it."
    """
    if omero is None:
        return (), ()
    listed = omero.get("channels") if isinstance(omero, Mapping) else omero
    if listed is None or listed == []:
        return (), ()
    if not isinstance(listed, list):
        return (), ("the OMERO display hints have no list of channels and are left out; pixels don't depend on them.",)
    notices = []
    if len(listed) != count:
        taken = min(len(listed), count)
        notices.append(
            f"the OMERO display hints name {len(listed)} channel{'s' * (len(listed) != 1)} and the image has {count}:"
            f" the first {taken} {'is' if taken == 1 else 'are'} taken; pixels don't depend on it."
        )
    padded = [*listed, *[{}] * count][:count]
    channels = tuple(_usable(channel) for channel in padded)
    wanting = [
        str(index)
        for index, (given, kept) in enumerate(zip(listed, channels, strict=False))
        if given != kept or not _is_complete(kept)
    ]
    if wanting:
        notices.append(
            f"the OMERO display hints of channel {', '.join(wanting[:4])}{' and more' * (len(wanting) > 4)} are"
            " incomplete or invalid: what is usable is kept; pixels don't depend on them."
        )
    return (channels if any(channels) else ()), tuple(notices)


def complete_channels(channels: Sequence[Channel]) -> list[dict[str, Any]]:
    """Hints with everything that viewers need: a colour and a window where there is none.

    Examples
    --------
    >>> complete_channels([{"label": "PH"}])
    [{'color': 'FFFFFF', 'window': {'min': 0.0, 'max': 1.0, 'start': 0.0, 'end': 1.0}, 'label': 'PH'}]
    """
    return [{"color": "FFFFFF", "window": dict(_WINDOW)} | dict(channel) for channel in channels]


def make_channels(indices: Sequence[int], name: str | None) -> tuple[Channel, ...]:
    """Labels and colours of channels that nobody named.

    Parameters
    ----------
    indices : sequence of int
        Of the channels.
    name : str or None
        Of the image, where it has no axis of channels; then its one channel has it, too.

    Examples
    --------
    >>> make_channels([0, 2], None)
    ({'label': 'channel 0', 'color': 'FF0000'}, {'label': 'channel 2', 'color': '00FF00'})
    >>> make_channels([0], "cells")
    ({'label': 'cells', 'color': 'FFFFFF'},)
    """
    colors = _COLORS if len(indices) > 1 else ("FFFFFF",)
    labels = (f"channel {index}" if name is None else name for index in indices)
    return tuple({"label": label, "color": color} for label, color in zip(labels, cycle(colors), strict=False))


def is_made_up(label: str, name: str | None) -> bool:
    """Whether a label may be one of `make_channels`, which got that name."""
    return label == name or _MADE_UP.fullmatch(label) is not None


def _is_complete(channel: Channel) -> bool:
    try:
        OmeroChannel.model_validate(dict(channel))
    except ValidationError:
        return False
    return _is_number(channel.get("coefficient") or 0)


def _usable(channel: object) -> dict[str, Any]:
    """The channel itself where it is complete, else those of its entries that mean something."""
    if not isinstance(channel, Mapping):
        return {}
    window, color, label = _window(channel.get("window")), _color(channel.get("color")), channel.get("label")
    if window and _is_complete(channel) and all(channel["window"][name] == window[name] for name in window):
        return dict(channel)
    found: dict[str, Any] = {}
    if isinstance(label, str | int | float) and not isinstance(label, bool) and str(label).strip():
        found["label"] = str(label)
    if color:
        found["color"] = color
    if window:
        found["window"] = window
    for name, kind in (("active", bool), ("inverted", bool), ("family", str)):
        if isinstance(channel.get(name), kind):
            found[name] = channel[name]
    return found


def _color(color: object) -> str | None:
    """Six hexadecimal digits; integers are OMERO's: RGB, or RGBA where they are larger or negative."""
    if isinstance(color, int) and not isinstance(color, bool):
        return f"{color if 0 <= color <= 0xFFFFFF else color >> 8 & 0xFFFFFF:06X}"
    digits = str(color).lstrip("#").upper()
    if re.fullmatch("[0-9A-F]{3}", digits):
        return "".join(2 * digit for digit in digits)
    return digits if re.fullmatch("[0-9A-F]{6}", digits) else None


def _window(window: object) -> dict[str, Any] | None:
    """Both ends of both ranges, of which one may stand for the other; None where neither is a range."""
    if not isinstance(window, Mapping):
        return None
    known = {name: window[name] for name in _WINDOW if _is_number(window.get(name))}
    full = {name: known[found] for name, other in _SUBSTITUTES.items() for found in (other, name) if found in known}
    if len(full) < len(_WINDOW) or full["start"] > full["end"] or full["min"] > full["max"]:
        return None
    return {name: full[name] for name in _WINDOW}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
