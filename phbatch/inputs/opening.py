"""The input as a person gives it: a Zarr, or what a microscope wrote, with what the person knows of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from phbatch.inputs.image import Source, open_source
from phbatch.microscopes.opening import find_reader
from phbatch.microscopes.store import RecordingPlace
from phbatch.places.ome import ImageMetadata
from phbatch.places.place import LocalPlace, Place
from phbatch.words.errors import InputError, UsageError
from phbatch.words.settings import RunSettings


def open_input(path: str | Path, settings: RunSettings) -> Source:
    """Open an image without reading a pixel, and add what the settings say of it.

    Raises
    ------
    InputError, UsageError
        As `open_source`; or a setting says what cannot be of this image.
    """
    place: Place = place_of(path, settings)
    if isinstance(place, RecordingPlace):
        source = open_source(place)
        notices = (f"input: {place.recording.kind}{_which(place)}, read as it lies.", *source.notices)
        return _calibrated(replace(source, notices=notices), settings)
    for name in ("pattern", "position"):
        if getattr(settings, name) is not None:
            raise UsageError(f"--{name} is of files that a microscope wrote, and {place} is none; leave it out.")
    return _calibrated(open_source(place, settings.axes), settings)


def place_of(path: str | Path, settings: RunSettings) -> Place:
    """Where an input lies: a `RecordingPlace` where a reader of microscopes' files knows it."""
    place = Place.at(path, settings.storage_options)
    if isinstance(place, LocalPlace) and find_reader(Path(place.path)) is not None:
        return RecordingPlace(place.path, None, settings.pattern, settings.axes, settings.position)
    return place


def _which(place: RecordingPlace) -> str:
    positions = place.recording.positions
    if len(positions) == 1:
        return ""
    return f", position {f'{place.number} {place.seen.name}'.strip()} of {len(positions)}"


def _calibrated(source: Source, settings: RunSettings) -> Source:
    """A source with the pixel size, interval and channel names that were given."""
    metadata, said = source.metadata, list(source.notices)
    if settings.pixel_size is not None:
        *deep, y, x = (settings.pixel_size * 2)[:2] if len(settings.pixel_size) == 1 else settings.pixel_size
        if deep and "z" not in metadata.axes:
            raise UsageError(
                f"--pixel-size names three lengths and the input has the axes {metadata.axes}; give y and x."
            )
        metadata = _with(metadata, dict(zip("yxz", (y, x, *deep), strict=False)), "micrometer", said)
    if settings.interval is not None:
        if "t" not in metadata.axes:
            raise UsageError(
                f"--interval is between frames along t, and the input has the axes {metadata.axes}; leave it out."
            )
        metadata = _with(metadata, {"t": settings.interval}, "second", said)
    if settings.channel_names is not None:
        count = source.shape[1]
        if len(settings.channel_names) != count:
            raise InputError(
                f"--channel-names names {len(settings.channel_names)} channels and the input has {count}; name each."
            )
        known = metadata.channels or ({},) * count
        pairs = zip(known, settings.channel_names, strict=True)
        metadata = replace(metadata, channels=tuple({**channel, "label": name} for channel, name in pairs))
    return replace(source, metadata=metadata, notices=tuple(said))


def _with(metadata: ImageMetadata, scale: dict[str, float], unit: str, said: list[str]) -> ImageMetadata:
    """Metadata with other scales; where the image says otherwise, it is a notice."""
    scales, units = list(metadata.scale), list(metadata.units)
    for axis, value in scale.items():
        at = metadata.axes.index(axis)
        if units[at] == unit and abs(scales[at] / value - 1) > 1e-3:
            said.append(f"the input says {scales[at]:g} {unit} along {axis}, and {value:g} was given, which is taken.")
        scales[at], units[at] = value, unit
    return replace(metadata, scale=tuple(scales), units=tuple(units))


def one_path(inputs: Sequence[str | Path]) -> str:
    """The one path, folder or glob that several files are, as a shell hands them over.

    Raises
    ------
    UsageError
        No folder and no glob is exactly these.

    Examples
    --------
    >>> one_path(["a.tif"])
    'a.tif'
    """
    if len(inputs) == 1:
        return str(inputs[0])
    paths = [Path(each) for each in inputs]
    folder, names = paths[0].parent, sorted(path.name for path in paths)
    if all(path.parent == folder for path in paths):
        first, last = names[0], names[-1]
        shortest = min(map(len, names))
        head = next((at for at in range(shortest) if len({name[at] for name in names}) > 1), shortest)
        tail = next((at for at in range(shortest - head) if len({name[-1 - at] for name in names}) > 1), 0)
        found = folder / f"{first[:head]}*{last[len(last) - tail :]}"
        if sorted(path.name for path in folder.glob(found.name)) == names:
            return str(found)
    raise UsageError(
        f"{len(inputs)} inputs from {inputs[0]} on are neither one folder nor one glob; give the folder with --pattern,"
        " or the glob in quotes."
    )
