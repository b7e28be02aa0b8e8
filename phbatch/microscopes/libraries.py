"""Formats that are read by a library of an extra: what is said where it lacks, and of files that it cannot read."""

from __future__ import annotations

import math
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as Xml

from phbatch.microscopes.recording import Recording
from phbatch.words.errors import InputError, first_line


def lacking(path: Path, kind: str, extra: str) -> InputError:
    """What is said where the library of a format is not installed."""
    return InputError(f"{path} is {kind}, which needs a library; install it with: pip install 'phbatch[{extra}]'.")


class LibraryRecording(Recording):
    """A file that a library has open as long as it is in use; one thread at a time asks it.

    Attributes
    ----------
    lock : threading.Lock
        Held while the library is asked.
    """

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.lock = threading.Lock()

    def file_of(self, position: int, t: int, c: int, z: int) -> Path | None:  # noqa: D102
        return Path(self.path)

    @property
    def files(self) -> list[Path]:  # noqa: D102
        return [Path(self.path)]

    def close_with(self, close: Callable[[], object]) -> None:
        """Close what the library has open once nobody uses the recording."""
        self.close = weakref.finalize(self, close)

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """While inside, what a damaged file makes a library raise is an `InputError`."""
        try:
            yield
        except (InputError, MemoryError):
            raise
        except Exception as error:  # what damaged files make a library raise has no bounds
            if isinstance(error, OSError) and error.errno is not None:  # the system's, and no library's
                raise
            said = first_line(error)[:200]
            raise InputError(f"{self.path} cannot be read as {self.kind} ({said}); restore it from a copy.") from error

    def require_axes(self, sizes: dict[str, int], known: Sequence[str]) -> None:
        """Refuse dimensions that have no place among ``tczyx``, unless they have a length of 1."""
        other = {axis: size for axis, size in sizes.items() if axis not in known and size > 1}
        if other:
            said = ", ".join(f"{axis} of {size}" for axis, size in other.items())
            raise InputError(
                f"{self.path} has dimensions that phbatch does not read ({said}); export what you want of it, such as"
                " to OME-TIFF."
            )


def parse_xml(text: str) -> Xml.Element | None:
    """Root of metadata that are XML; None where they are none. Entities, which may grow without bounds, are refused."""
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        return None
    try:
        return Xml.fromstring(text)  # noqa: S314
    except Xml.ParseError:
        return None


def spacing(coordinates: Any) -> float | None:
    """Mean distance between some coordinates; None where there are fewer than two, or it is not above 0."""
    if coordinates is None or len(coordinates) < 2:
        return None
    found = abs(float(coordinates[-1]) - float(coordinates[0])) / (len(coordinates) - 1)
    return float(f"{found:.9g}") or None


def positive(value: object) -> float | None:
    """A number above 0, as metadata have it; None for anything else.

    Examples
    --------
    >>> positive("0.325"), positive(0), positive(None)
    (0.325, None, None)
    """
    try:
        found = float(str(value))
    except ValueError:
        return None
    return found if math.isfinite(found) and found > 0 else None
