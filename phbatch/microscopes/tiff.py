"""A TIFF file: baseline, OME-TIFF, ImageJ hyperstack, BigTIFF, or one of the dialects that tifffile knows."""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from phbatch.microscopes.recording import Position, Recording, make_position
from phbatch.microscopes.tiff_metadata import Said, read_said
from phbatch.words.axes import CANONICAL
from phbatch.words.errors import InputError, first_line

TIFF_SUFFIXES = (".tif", ".tiff", ".btf", ".tf8")

_COLOURS = ("red", "green", "blue", "alpha")

logging.getLogger("tifffile").addHandler(logging.NullHandler())  # what matters of odd files is said in our words


@dataclass(frozen=True, eq=False)
class Planes:
    """Where the planes of one image of a TIFF file are.

    Attributes
    ----------
    letters, lengths : str, tuple of int
        What comes before y and x, in the file's order; ``s`` are the samples of a pixel, each of which is a channel.
    frame : tuple of int
        Lengths along y, x, and of samples that come last.
    dtype : numpy.dtype
        As it is stored.
    path : Path
        Of the file with the first page.
    start : int or None
        Where the pixels begin, where they lie uncompressed and one plane after the other; else None.
    pages : sequence
        Of tifffile, each of one plane or more; None for one that was never written.
    """

    letters: str
    lengths: tuple[int, ...]
    frame: tuple[int, int, int]
    dtype: np.dtype[Any]
    path: Path
    start: int | None
    pages: Any
    per_page: int

    def index(self, t: int, c: int, z: int) -> tuple[int, int]:
        """Index of a plane in the file's order, and the sample of its pixels."""
        samples = self.lengths[self.letters.index("s")] if "s" in self.letters else self.frame[2]
        c, sample = divmod(c, samples)
        at, index = {"t": t, "c": c, "z": z, "s": sample}, 0
        for letter, length in zip(self.letters, self.lengths, strict=True):
            index = index * length + at[letter]
        return index, 0 if "s" in self.letters else sample

    @property
    def nbytes(self) -> int:
        """Of one plane with its samples."""
        return prod(self.frame) * self.dtype.itemsize

    def page(self, index: int) -> Any:
        """Page that holds a plane; None where it was never written."""
        return self.pages[index // self.per_page] if index // self.per_page < len(self.pages) else None


class TiffRecording(Recording):
    """A TIFF file, open as long as it is in use; each of its images is a position.

    Parameters
    ----------
    path : Path
        The file.
    axes : str, optional
        What its dimensions are, where the file does not say or says it wrongly: ``"tzyx"``.
    """

    def __init__(self, path: Path, axes: str | None = None) -> None:
        self.path = str(path)
        self._lock = threading.Lock()
        with refusing(path):
            self._file = tifffile.TiffFile(path)
        self.close = weakref.finalize(self, self._file.close)
        self._file.filehandle.set_lock(True)
        with refusing(path):
            self.kind = _kind(self._file)
            said = read_said(self._file)
            found = [series for series in self._file.series if len(series.shape) >= 2 and not _is_preview(series)]
            if not found:
                raise InputError(f"{path} holds no image of two dimensions or more; give another file.")
            read = [
                _read_series(self._file, path, series, said[number] if number < len(said) else Said(), axes)
                for number, series in enumerate(found)
            ]
        self._planes = [planes for _, planes in read]
        self.positions = tuple(self._end(number, position) for number, (position, _) in enumerate(read))
        self._last: tuple[tuple[int, int], NDArray[Any]] | None = None

    def read(self, position: int, t: int, c: int, z: int) -> NDArray[Any]:  # noqa: D102
        planes = self._planes[position]
        index, sample = planes.index(t, c, z)
        with refusing(planes.path):
            found = _read_at(planes, index) if planes.start is not None else self._decode(position, index)
        return np.ascontiguousarray(found[..., sample], self.positions[position].dtype)

    def file_of(self, position: int, t: int, c: int, z: int) -> Path | None:  # noqa: D102
        planes = self._planes[position]
        index, _ = planes.index(t, c, z)
        if planes.start is not None:
            return planes.path if planes.start + (index + 1) * planes.nbytes <= planes.path.stat().st_size else None
        with self._lock:
            page = planes.page(index)
        return None if page is None else Path(page.parent.filehandle.path)

    @property
    def files(self) -> list[Path]:  # noqa: D102 - only an OME-TIFF may lie in several files
        return super().files if self._file.is_ome else [Path(self.path)]

    def _decode(self, position: int, index: int) -> NDArray[Any]:
        """A plane of a page; a page of several planes or samples, which are asked for one by one, is kept."""
        planes = self._planes[position]
        number, within = divmod(index, planes.per_page)
        last = self._last
        if last is not None and last[0] == (position, number):
            return np.asarray(last[1][within])
        with self._lock:
            page = planes.page(index)
        if page is None:
            raise InputError(f"{planes.path} lacks plane {index}; restore it from a copy.")
        with nullcontext() if page.parent is self._file else self._lock:  # others are opened and closed by tifffile
            found: NDArray[Any] = np.asarray(page.asarray(maxworkers=1)).reshape(planes.per_page, *planes.frame)
        if planes.per_page > 1 or planes.frame[2] > 1:
            self._last = ((position, number), found)
        return np.asarray(found[within])

    def _end(self, number: int, position: Position) -> Position:
        """A position without the times at its end of which nothing was written."""
        n_t, n_c, n_z = position.shape[:3]
        written = n_t
        while written > 1 and not any(self.file_of(number, written - 1, c, z) for c in range(n_c) for z in range(n_z)):
            written -= 1
        if written == n_t:
            return position
        notice = (
            f"the TIFF declares {n_t} frames and ends after {written}: the {n_t - written} that were never written are"
            " left out."
        )
        shape = (written, *position.shape[1:])
        return position.with_shape(shape, notice)


@contextmanager
def refusing(path: Path) -> Iterator[None]:
    """While inside, what a damaged file makes tifffile raise is an `InputError`; codecs that lack are named."""
    try:
        yield
    except (InputError, MemoryError, OSError):
        raise
    except Exception as error:  # what damaged files make the library raise has no bounds
        said = first_line(error)[:200]
        if "imagecodecs" in said:
            raise InputError(
                f"{path} is compressed in a way that needs the library imagecodecs ({said}); install it with: pip"
                " install 'phbatch[tiff]'."
            ) from error
        raise InputError(f"{path} cannot be read as TIFF ({said}); restore it from a copy.") from error


def _read_at(planes: Planes, index: int) -> NDArray[Any]:
    found = np.empty(planes.frame, planes.dtype)
    view, start, done = memoryview(found.reshape(-1).view(np.uint8).data), planes.start or 0, 0
    with planes.path.open("rb", buffering=0) as file:
        file.seek(start + index * planes.nbytes)
        while done < len(view):
            count = file.readinto(view[done:])
            if not count:
                raise InputError(f"{planes.path} ends before plane {index}; restore it from a copy.")
            done += count
    return found


def _is_preview(series: tifffile.TiffPageSeries) -> bool:
    reduced = bool(getattr(series.keyframe, "is_reduced", False))
    return reduced or series.name.lower() in ("thumbnail", "label", "macro")


def _kind(file: tifffile.TiffFile) -> str:
    words = (("is_ome", "OME-TIFF"), ("is_imagej", "ImageJ TIFF"), ("is_stk", "MetaMorph STK"), ("is_lsm", "Zeiss LSM"))
    return next((word for name, word in words if getattr(file, name)), "TIFF")


def _read_series(
    file: tifffile.TiffFile, path: Path, series: tifffile.TiffPageSeries, said: Said, axes: str | None
) -> tuple[Position, Planes]:
    keyframe, start = series.keyframe, series.dataoffset
    if start is None:
        next(iter(keyframe.segments(maxworkers=1)), None)  # a codec that lacks is named before anything is written
    letters, shape = series.axes, tuple(map(int, series.shape))
    cut = _cut_imagej(file, series)
    if cut is not None:
        (letters, shape), start = cut, series.dataoffset
    notices = _notes(keyframe)
    named = _name_axes(path, letters, shape, axes, notices)
    y = named.index("y")
    if named[y : y + 2] != "yx" or named[y + 2 :] not in ("", "s"):
        raise InputError(
            f"{path} stores its dimensions as {named}, not planes of y and x; write it again with these last."
        )
    samples = shape[named.index("s")] if "s" in named else 1
    frame = (shape[y], shape[y + 1], samples if named.endswith("s") else 1)
    lengths = dict(zip(named, shape, strict=True))
    lengths.pop("s", None)
    names = said.channel_names
    if samples > 1:
        names = _name_samples(names, lengths.get("c"), samples)
        lengths["c"] = lengths.get("c", 1) * samples
    stored = np.dtype(series.dtype).newbyteorder(file.byteorder)
    position = make_position(
        said.name,
        lengths,
        np.dtype(np.uint8) if stored == np.bool_ else stored,
        pixel_size=said.pixel_size if "z" in lengths else (None, *said.pixel_size[1:]),
        interval=said.interval if "t" in lengths else None,
        channel_names=names if len(names) == lengths.get("c", 1) else (),
        notices=tuple(notices),
    )
    planes = Planes(
        named[:y],
        shape[:y],
        frame,
        stored,
        Path(keyframe.parent.filehandle.path),
        None if start is None or stored == np.bool_ else int(start),
        series.pages,
        max(1, int(prod(keyframe.shape)) // prod(frame)),
    )
    return position, planes


def _cut_imagej(file: tifffile.TiffFile, series: tifffile.TiffPageSeries) -> tuple[str, tuple[int, ...]] | None:
    """Axes and lengths that ImageJ declares, where the file ends before; tifffile then sees a single page."""
    said = file.imagej_metadata or {}
    images = int(said.get("images", 1))
    if not file.is_imagej or series.kind == "imagej" or series.dataoffset is None or images == 1 or series.ndim != 2:
        return None
    t, z, c = (int(said.get(name, 1)) for name in ("frames", "slices", "channels"))
    if t * z * c != images:
        t, z, c = images, 1, 1
    kept = [(letter, length) for letter, length in (("T", t), ("Z", z), ("C", c)) if length > 1]
    return "".join(letter for letter, _ in kept) + "YX", (*(length for _, length in kept), *map(int, series.shape))


def _name_samples(names: tuple[str, ...], channels: int | None, samples: int) -> tuple[str, ...]:
    colours = _COLOURS[:samples] if samples in (3, 4) else tuple(map(str, range(samples)))
    if channels is None:
        return colours
    own = names if len(names) == channels else tuple(map(str, range(channels)))
    return tuple(f"{name} {colour}" for name in own for colour in colours)


def _name_axes(path: Path, letters: str, shape: tuple[int, ...], axes: str | None, notices: list[str]) -> str:
    """Letters of ``tczyx``, and ``s`` for samples, for the dimensions of a series in their order."""
    sizes = " x ".join(map(str, shape))
    if axes is not None:
        given = axes.lower()
        if "S" in letters and len(given) == len(letters) - 1:
            at = letters.index("S")
            given = f"{given[:at]}s{given[at:]}"
        if len(given) != len(letters) or set(given) - {*CANONICAL, "s"} or len(set(given)) != len(given):
            raise InputError(f"--axes {axes} do not fit {path}, whose dimensions are {sizes}; name each by one letter.")
        if not {"y", "x"} <= set(given):
            raise InputError(f"--axes {axes} lack y or x; an image needs both, as in --axes tyx.")
        return given
    known = letters.lower()
    unknown = [letter for letter in known if letter not in (*CANONICAL, "s")]
    if "s" in known:
        notices.append(
            f"the TIFF has {shape[known.index('s')]} samples in each pixel, such as red, green and blue: they are taken"
            " as channels."
        )
    if not unknown:
        return known
    if len(unknown) == 1 and "t" not in known:
        pages = shape[known.index(unknown[0])]
        other = known.replace(unknown[0], "z").replace("s", "")
        notices.append(
            f"the TIFF does not say what its {pages} pages are: they are taken as frames along t; where they are planes"
            f" along z, say --axes {other}."
        )
        return known.replace(unknown[0], "t")
    raise InputError(
        f"{path} has the dimensions {sizes}, of which tifffile knows {letters}; say what each is, as in --axes"
        f" {CANONICAL[-len(letters) :]}."
    )


def _notes(keyframe: Any) -> list[str]:
    if keyframe.photometric == tifffile.PHOTOMETRIC.PALETTE:
        return ["the TIFF has a palette: its stored numbers are taken as intensities, and the colours left out."]
    if keyframe.photometric == tifffile.PHOTOMETRIC.MINISWHITE:
        return ["the TIFF says that 0 is white: its stored numbers are taken as they are, so that it looks inverted."]
    return []
