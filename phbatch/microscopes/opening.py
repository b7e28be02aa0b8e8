"""Which reader reads what lies at a place, and what is said where none does."""

from __future__ import annotations

import glob
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from phbatch.microscopes.czi import CziRecording
from phbatch.microscopes.lif import LifRecording
from phbatch.microscopes.micromanager import is_micromanager, open_micromanager
from phbatch.microscopes.nd2 import Nd2Recording
from phbatch.microscopes.oif import OifRecording, refuse_oir
from phbatch.microscopes.recording import Recording
from phbatch.microscopes.tiff import TIFF_SUFFIXES, TiffRecording
from phbatch.microscopes.tiff_folder import TiffFolder, tiffs_of
from phbatch.words.errors import InputError, UsageError

_ZARR = ("zarr.json", ".zgroup", ".zarray", ".zattrs")


@dataclass(frozen=True)
class Reader:
    """One format.

    Attributes
    ----------
    name : str
        As messages call it.
    claims : callable
        Whether a path, which exists, is of this format; it looks at names and headers alone.
    open : callable
        Makes the recording of a path, with the pattern of names and the axes that were given, if any.
    takes_pattern : bool
        Whether a pattern says something to it.
    """

    name: str
    claims: Callable[[Path], bool]
    open: Callable[[Path, str | None, str | None], Recording]
    takes_pattern: bool = False


def _is_tiff(path: Path) -> bool:
    return path.suffix.lower() in TIFF_SUFFIXES and path.is_file()


def _ends_in(*suffixes: str) -> Callable[[Path], bool]:
    return lambda path: path.suffix.lower() in suffixes and path.is_file()


READERS: tuple[Reader, ...] = (
    Reader("TIFF", _is_tiff, lambda path, _, axes: TiffRecording(path, axes)),
    Reader("ND2", _ends_in(".nd2"), lambda path, *_: Nd2Recording(path)),
    Reader("LIF", _ends_in(".lif"), lambda path, *_: LifRecording(path)),
    Reader("CZI", _ends_in(".czi"), lambda path, *_: CziRecording(path)),
    Reader("OIF or OIB", _ends_in(".oif", ".oib"), lambda path, *_: OifRecording(path)),
    Reader("OIR", _ends_in(".oir"), lambda path, *_: refuse_oir(path)),
    Reader("Micro-Manager or NDTiff", is_micromanager, lambda path, *_: open_micromanager(path)),
    Reader("folder of TIFFs", lambda path: bool(tiffs_of(path, first=True)), TiffFolder, takes_pattern=True),
)
"""The first that claims a path reads it: folders with metadata of their own come before folders of TIFFs."""


def find_reader(path: Path) -> Reader | None:
    """The reader of what lies at a path or matches it as a glob; None for Zarr, and for what nobody here knows."""
    if any((path / name).exists() for name in _ZARR):
        return None
    if not path.exists() and not is_glob(path):
        return None
    return next((reader for reader in READERS if reader.claims(path)), None)


def open_recording(path: Path, pattern: str | None = None, axes: str | None = None) -> Recording:
    """Open what a microscope wrote, without reading a pixel.

    Parameters
    ----------
    path : Path
        A file, a folder, or a glob such as ``data/*.tif``.
    pattern : str, optional
        How files of a folder are named, such as ``t{t:04}_c{c}.tif``.
    axes : str, optional
        What the dimensions of a file are, where it does not say.

    Raises
    ------
    InputError
        Nobody reads it, or it is damaged.
    UsageError
        A pattern where there are no names to look at.
    """
    reader = find_reader(path)
    if reader is None:
        raise InputError(
            f"{path} is nothing that phbatch reads; give a Zarr array, an OME-Zarr image, or one of"
            f" {', '.join(reader.name for reader in READERS if reader.name != 'OIR')}."
        )
    if pattern is not None and not reader.takes_pattern:
        raise UsageError(f"--pattern names the files of a folder, and {path} is read as {reader.name}; leave it out.")
    return reader.open(path, pattern, axes)


def is_glob(path: Path) -> bool:
    """Whether a path is a pattern of names and no name."""
    return glob.has_magic(path.name)
