"""A folder or a glob of numbered TIFFs, one or more planes in each."""

from __future__ import annotations

import glob
import os
import re
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from phbatch.microscopes.names import (
    Value,
    compile_pattern,
    missing_numbers,
    natural_key,
    sort_values,
    varying_numbers,
)
from phbatch.microscopes.recording import Position, Recording, make_position, stamp
from phbatch.microscopes.tiff import TIFF_SUFFIXES, TiffRecording
from phbatch.words.axes import CANONICAL
from phbatch.words.errors import InputError

_LOOKED_AT = 64
"""Files whose headers are read beforehand; the shape of every other is looked at when it is read."""


def tiffs_of(path: Path, *, first: bool = False, deep: bool = False) -> list[str]:
    """Names of the TIFFs of a folder (below it, where `deep`) or of a glob, in natural order; `first` stops at one."""
    if not path.is_dir():
        found = [name for name in glob.glob(str(path)) if Path(name).suffix.lower() in TIFF_SUFFIXES]  # noqa: PTH207
        return sorted(found, key=natural_key)
    names: list[str] = []
    for folder, folders, files in os.walk(path):
        names += [
            (Path(folder) / name).relative_to(path).as_posix()
            for name in files
            if name.lower().endswith(TIFF_SUFFIXES) and not name.startswith(".")
        ]
        folders[:] = [name for name in folders if deep and not name.startswith(".") and not name.endswith(".zarr")]
        if first and names:
            break
    return sorted(names, key=natural_key)


class TiffFolder(Recording):
    """Numbered TIFFs: what a pattern says of their names, or frames along t in natural order.

    Parameters
    ----------
    path : Path
        A folder, or a glob.
    pattern : str, optional
        How the files are named.
    axes : str, optional
        Of a file, where it has more than y and x.
    """

    kind = "folder of TIFFs"

    def __init__(self, path: Path, pattern: str | None = None, axes: str | None = None) -> None:
        self.path = str(path)
        names = tiffs_of(path, deep=pattern is not None and "/" in pattern)
        self._root = path if path.is_dir() else Path()
        self._axes = axes
        notices: list[str] = []
        if pattern is None:
            self._values, files = _in_order(path, names, notices)
        else:
            self._values, files = _by_pattern(path, names, pattern, notices)
        self._files = {index: self._root / name for index, name in files.items()}
        first = next(iter(self._files.values()))
        one = _single(first, axes)
        if (clash := set(one.axes) & set(self._outer) - {"p"}) and any(
            one.shape[CANONICAL.index(a)] > 1 for a in clash
        ):
            raise InputError(
                f"{first} has an axis {min(clash)} of its own, and so have the names of the files; say what the numbers"
                " are with --pattern, or what the dimensions of a file are with --axes."
            )
        self._one = one
        self._require_alike(first, one)
        self.positions = tuple(
            self._position(number, notices if number == 0 else []) for number in range(len(self._values.get("p", [""])))
        )

    @property
    def _outer(self) -> str:
        return "".join(self._values)

    def read(self, position: int, t: int, c: int, z: int) -> NDArray[Any]:  # noqa: D102
        path = self.file_of(position, t, c, z)
        if path is None:
            raise InputError(f"{self.path} lacks the file of t{t}/c{c}/z{z}; restore it from a copy.")
        recording = TiffRecording(path, self._axes)
        try:
            found = recording.positions[0]
            if found.shape != self._one.shape or found.dtype != self._one.dtype:
                raise _unlike(path, found, self._one)
            inner = (0 if axis in self._values else at for axis, at in zip("tcz", (t, c, z), strict=True))
            return recording.read(0, *inner)
        finally:
            recording.close()

    def file_of(self, position: int, t: int, c: int, z: int) -> Path | None:  # noqa: D102
        at = {"p": position, "t": t, "c": c, "z": z}
        return self._files.get(tuple(at[axis] for axis in self._values))

    @property
    def files(self) -> list[Path]:  # noqa: D102
        return sorted(self._files.values())

    def _position(self, number: int, notices: list[str]) -> Position:
        one, values = self._one, self._values
        lengths = {axis: one.shape[CANONICAL.index(axis)] for axis in one.axes}
        lengths |= {axis: len(found) for axis, found in values.items() if axis != "p"}
        names = one.channel_names
        if "c" in values:
            names = tuple(map(str, values["c"])) if any(isinstance(each, str) for each in values["c"]) else ()
        name = str(values["p"][number]) if "p" in values else Path(self.path).name if self._root != Path() else ""
        return make_position(
            name,
            lengths,
            one.dtype,
            pixel_size=one.pixel_size,
            interval=one.interval,
            channel_names=names,
            notices=(*notices, *one.notices),
        )

    def _require_alike(self, first: Path, one: Position) -> None:
        """Refuse files of differing shapes; those of another size than the first are looked at before others."""
        size = stamp(first)[0]
        odd = [path for path in self._files.values() if stamp(path)[0] != size]
        for at in range(0, len(odd), max(1, len(odd) // _LOOKED_AT)):
            found = _single(odd[at], self._axes)
            if found.shape != one.shape or found.dtype != one.dtype:
                raise _unlike(odd[at], found, one)


def _single(path: Path, axes: str | None) -> Position:
    """The one image of a file."""
    recording = TiffRecording(path, axes)
    try:
        if len(recording.positions) > 1:
            raise InputError(
                f"{path} holds {len(recording.positions)} images, and a folder of TIFFs one in each file; give that"
                " file alone."
            )
        return recording.positions[0]
    finally:
        recording.close()


def _unlike(path: Path, found: Position, one: Position) -> InputError:
    shapes = (
        f"{' x '.join(map(str, [n for n in each.shape[:3] if n > 1] + [*each.shape[3:]]))} {each.dtype}"
        for each in (found, one)
    )
    return InputError(
        f"{path} is {next(shapes)} and the first file is {next(shapes)}; files of one folder have one shape: move it"
        " elsewhere, or choose files by a glob or --pattern."
    )


def _in_order(
    path: Path, names: list[str], notices: list[str]
) -> tuple[dict[str, list[Value]], dict[tuple[int, ...], str]]:
    """All files as frames along t."""
    bare = [Path(name).name for name in names]
    numbers = varying_numbers([Path(name).stem for name in bare])
    counts = [len(set(column)) for column in numbers]
    if len(numbers) > 1 and prod(counts) == len(names):
        raise InputError(
            f"{path} holds {len(names)} files whose names count in {len(numbers)} places ({bare[0]} to {bare[-1]}); say"
            f" what each number is, as in --pattern '{_suggest(bare)}'."
        )
    if len(names) > 1:
        missing = missing_numbers(numbers[-1]) if len(numbers) == 1 else ""
        lack = f"; the numbers {missing} between them are missing, and left out" if missing else ""
        notices.append(f"{len(names)} TIFFs in natural order along t, from {bare[0]} to {bare[-1]}{lack}.")
    return {"t": list(range(len(names)))}, {(t,): name for t, name in enumerate(names)}


def _suggest(names: list[str]) -> str:
    """A pattern of names that count in several places: the last is most often the fastest."""
    parts = [re.split(r"(\d+)", name) for name in (names[0], *names)]
    letters, found = iter("tczp"), []
    for index, text in enumerate(parts[0]):
        varies = index % 2 and len({each[index] for each in parts}) > 1
        letter = next(letters, None) if varies else None
        found.append(f"{{{letter}}}" if letter else text)
    return "".join(found)


def _by_pattern(
    path: Path, names: list[str], pattern: str, notices: list[str]
) -> tuple[dict[str, list[Value]], dict[tuple[int, ...], str]]:
    expression = compile_pattern(pattern)
    matched = {}
    for name in names:
        match = expression.fullmatch(name if "/" in pattern else Path(name).name)
        if match is not None:
            matched[name] = match.groupdict()
    if not matched:
        shown = f", the first of which is {Path(names[0]).name}" if names else ""
        raise InputError(f"--pattern {pattern} fits none of the {len(names)} TIFFs of {path}{shown}; correct it.")
    axes = next(iter(matched.values())).keys()
    values = {axis: sort_values([found[axis] for found in matched.values()]) for axis in axes}
    files: dict[tuple[int, ...], str] = {}
    for name, found in matched.items():
        texts = {axis: int(found[axis]) if isinstance(values[axis][0], int) else found[axis] for axis in axes}
        index = tuple(values[axis].index(texts[axis]) for axis in axes)
        if index in files:
            raise InputError(
                f"{files[index]} and {name} have the same numbers by --pattern {pattern}; make it stricter."
            )
        files[index] = name
    if len(matched) < len(names):
        notices.append(
            f"{len(names) - len(matched)} of the {len(names)} TIFFs of {path} do not fit --pattern {pattern}."
        )
    for axis, each in values.items():
        missing = missing_numbers([value for value in each if isinstance(value, int)])
        if missing:
            notices.append(f"the numbers {missing} of {axis} are missing in all names, and left out.")
    grid = list(product(*(range(len(found)) for found in values.values())))
    lacking = [index for index in grid if index not in files]
    if lacking:
        shown = "/".join(f"{axis}{values[axis][at]}" for axis, at in zip(axes, lacking[0], strict=True))
        notices.append(f"{len(lacking)} of {len(grid)} files by --pattern {pattern} are missing, the first is {shown}.")
    return values, files
