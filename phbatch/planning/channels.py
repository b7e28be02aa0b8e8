"""Which channels of an input are restored, and which are copied beside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from phbatch.places.ome import ImageMetadata
from phbatch.words.axes import Shape
from phbatch.words.errors import InputError
from phbatch.words.settings import RunSettings


class HasChannels(Protocol):
    """An input."""

    @property
    def shape(self) -> Shape:
        """Lengths along ``tczyx``."""

    @property
    def metadata(self) -> ImageMetadata:
        """Names of channels."""


def chosen_channels(settings: RunSettings, source: HasChannels) -> tuple[int, ...]:
    """Indices of those that are chosen, in ascending order.

    Raises
    ------
    InputError
        One is not there, or its name is that of several.
    """
    count = source.shape[1]
    names = source.metadata.labels
    if settings.channel is None:
        return tuple(range(count))
    asked = str(settings.channel)
    parts = [asked] if asked in names else asked.split(",")
    return tuple(sorted({_find_channel(part.strip(), names, count) for part in parts}))


def copied_channels(settings: RunSettings, source: HasChannels, chosen: Sequence[int]) -> tuple[int, ...]:
    """Indices of the others, where these are copied."""
    return tuple(c for c in range(source.shape[1]) if c not in chosen) if settings.others == "copy" else ()


def _find_channel(asked: str, names: Sequence[str], count: int) -> int:
    found = [index for index, name in enumerate(names) if name == asked]
    if len(found) > 1:
        raise InputError(
            f"--channel {asked} is the name of channels {', '.join(map(str, found))}; give the index of one."
        )
    if found:
        return found[0]
    if asked.isdecimal() and int(asked) < count:
        return int(asked)
    known = f" or a name of {', '.join(names)}" if names else ""
    raise InputError(
        f"--channel {asked} is not there; the input has {count}, so give an index from 0 to {count - 1}{known}."
    )
