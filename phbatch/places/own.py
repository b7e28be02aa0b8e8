"""What runs write directly into an output, and what of a folder is none of theirs: that is never removed."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from phbatch.places.durable import PARTIAL
from phbatch.places.place import Place
from phbatch.words.errors import OutputError

PRIVATE = ".phbatch"
"""Group inside the output that holds the lock, the ledger, and scratch files while a run is going on."""

ROOT_DOCUMENTS = ("zarr.json", ".zgroup", ".zattrs", ".zmetadata")
"""Metadata of the output group, in the order in which they are removed."""

OWN_NAMES = frozenset({*ROOT_DOCUMENTS, PRIVATE, "uncertainty", "statistics", "illumination"})
"""What runs write directly into an output, besides levels (``0``): nothing else in there is ever removed."""

_DROPPINGS = frozenset({".DS_Store", "Thumbs.db", "desktop.ini", ".directory"})


def is_own(name: str) -> bool:
    """Whether runs write what has this name directly into an output.

    Examples
    --------
    >>> is_own("zarr.json"), is_own("0"), is_own("notes.txt")
    (True, True, False)
    """
    return name in OWN_NAMES or (name.isascii() and name.isdecimal()) or name.endswith(PARTIAL)


def find_strangers(names: Iterable[str]) -> list[str]:
    """Of the names in a folder, those that no run writes; what file managers drop everywhere does not count.

    Examples
    --------
    >>> find_strangers(["zarr.json", ".phbatch", "0", ".DS_Store", "thesis.docx"])
    ['thesis.docx']
    """
    return sorted(
        name for name in names if not is_own(name) and name not in _DROPPINGS and not name.startswith(("._", ".nfs"))
    )


def require_own(place: Place, also: Collection[str] = ()) -> None:
    """Refuse to start afresh where something lies that no run put there.

    Raises
    ------
    OutputError
        Names it; nothing was removed.
    """
    try:
        strangers = find_strangers(name for name in place.names() if name not in also)
    except (OSError, ImportError, ValueError) as error:
        raise OutputError(f"{place} cannot be reached ({error}); correct the URL or install its library.") from error
    if strangers:
        raise OutputError(
            f"{place} also holds {_few(strangers)}, which phbatch did not write and would not remove; move that away,"
            " or choose another place."
        )


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{', '.join(names[:3])}{more}"
