"""Planning: which units there are, who writes which chunks, which tiles and how much memory. Integers only."""

from __future__ import annotations

import re
import sys
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import accumulate
from math import prod
from typing import Any, overload

from phbatch.kernels.bands import rows_about
from phbatch.planning.chunks import Level, chunk_length
from phbatch.planning.unit import Unit, region_size
from phbatch.words.axes import CANONICAL, FrameGrid, Shape
from phbatch.words.groups import TimeGroups

_UNIT_PIXELS = 1 << 20  # small frames are taken together until a unit has this many
_KEY = re.compile(
    r"t([0-9]{1,18})(?:-[0-9]+)?/c([0-9]{1,18})(?:-[0-9]+)?(?:/z([0-9]{1,18})(?:-[0-9]+)?)?(?:/y([0-9]{1,18})(?:-[0-9]+)?)?"
)


@dataclass(frozen=True)
class Geometry:
    """Shape of the work.

    Attributes
    ----------
    shape, chunks : tuple of int
        Of the source, along ``tczyx``.
    times : range
        Selected indices along t.
    channels : tuple of int
        Selected indices along c, in ascending order.
    volumes : bool
        Whether a frame is a ``zyx`` volume.
    stacked : bool
        Whether the channels go into the network together.
    n_output : int
        Output channels per frame.
    downscale : int
        Pixels along y and x that are averaged into one.
    upscaled : bool
        Whether the output is on the source's grid again.
    shard_pixels : int
        Output pixels that are stored in one object, about; 0 where every chunk is an object.
    levels : int
        Resolutions of the output.
    copied : tuple of int
        Those of `channels` whose pixels are copied.
    band : int
        Rows of the output that a unit has, a power of two; 0 where units have whole frames.
    margin : int
        Rows on either side that a band is made of besides, on the grid of what is restored.
    """

    shape: Shape
    chunks: Shape
    times: range
    channels: tuple[int, ...]
    volumes: bool = False
    stacked: bool = False
    n_output: int = 1
    downscale: int = 1
    upscaled: bool = False
    shard_pixels: int = 0
    levels: int = 1
    copied: tuple[int, ...] = ()
    band: int = 0
    margin: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Plain values; `from_dict` is the inverse."""
        found = asdict(self) | {"times": [self.times.start, self.times.stop, self.times.step]}
        return {name: value for name, value in found.items() if self.band or name not in ("band", "margin")}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Geometry:
        """The inverse of `as_dict`."""
        tuples = {name: tuple(values[name]) for name in ("shape", "chunks", "channels")}
        tuples["copied"] = tuple(values.get("copied", ()))
        return cls(**(dict(values) | tuples | {"times": range(*values["times"])}))

    @property
    def restored(self) -> tuple[int, ...]:
        """Those of `channels` that are not copied."""
        return tuple(channel for channel in self.channels if channel not in self.copied)

    @property
    def work_shape(self) -> Shape:
        """Shape of what is normalized and restored, along ``tczyx``."""
        t, c, z, y, x = self.shape
        return (t, c, z, -(-y // self.downscale), -(-x // self.downscale))

    @property
    def output_shape(self) -> Shape:
        """Shape of the output along ``tczyx``."""
        groups = 1 if self.stacked else len(self.channels)
        return (len(self.times), groups * self.n_output, *(self.shape if self.upscaled else self.work_shape)[2:])

    @cached_property
    def output_chunks(self) -> Shape:
        """Chunks of the output along ``tczyx``: one frame, or one unit of small frames; at most 1024 pixels a side."""
        return self.output_levels[0].chunks

    @cached_property
    def output_shards(self) -> Shape | None:
        """Shards of the output along ``tczyx``: whole frames, those of one unit along t; None where there are none."""
        return self.output_levels[0].shards

    @cached_property
    def output_levels(self) -> tuple[Level, ...]:
        """All resolutions of the output, the full one first.

        A unit writes whole frames, and every level is cut along t, c and z as level 0 is: so whoever owns a frame owns
        the chunks and shards of all its levels. Bands are cut along y alike: each owns rows of chunks of every level.
        """
        return tuple(self._level(2**level) for level in range(self.levels))

    @property
    def output_pixels(self) -> int:
        """Pixels of all levels."""
        return sum(prod(level.shape) for level in self.output_levels)

    @cached_property
    def units(self) -> Units:
        """All units, in the order of t, c, z, y; none is made before it is asked for."""
        return Units(self)

    @property
    def grid(self) -> FrameGrid:
        """The frames that are measured, by their indices in the source."""
        return FrameGrid(self.times, self.channels, None if self.volumes else self.shape[2])

    @property
    def keeps_channels(self) -> bool:
        """Whether each channel of the output is made of one of the input."""
        return self.output_shape[1] == len(self.channels)

    @property
    def shown_grid(self) -> FrameGrid:
        """The frames that are written: as `grid`, but that channels which are made of several are counted anew."""
        return self.grid if self.keeps_channels else replace(self.grid, channels=tuple(range(self.output_shape[1])))

    @property
    def frames(self) -> int:
        """Number of frames that are measured."""
        return len(self.grid)

    @property
    def network_frames(self) -> int:
        """Number of frames that the network sees."""
        if self.stacked:
            return self.frames // len(self.channels)
        return self.frames // len(self.channels) * len(self.restored)

    @property
    def network_frame_shape(self) -> tuple[int, ...]:
        """Spatial shape of what the network sees as a whole: ``(y, x)`` or ``(z, y, x)``."""
        return self.work_shape[2:] if self.volumes else self.work_shape[3:]

    @property
    def bands(self) -> int:
        """How many units a frame is cut into."""
        return -(-self.output_shape[3] // self.band) if self.band else 1

    def band_rows(self, at: int) -> tuple[slice, slice]:
        """Rows of the source that a band is made of, and those of the output that it is."""
        height, rows = self.shape[3], self.output_shape[3]
        if not self.band:
            return slice(0, height), slice(0, rows)
        start, stop = rows_about(rows, self.band, self.margin, at)
        read = slice(start * self.downscale, min(stop * self.downscale, height))
        return read, slice(at * self.band, min((at + 1) * self.band, rows))

    @property
    def largest_source(self) -> Shape:
        """Lengths, along ``tczyx``, of what the largest unit reads; each axis is cut by itself."""
        times = (self.time_groups.largest - 1) * self.times.step + 1
        channels = max(stop - start for start, stop, _ in self.channel_groups)
        return (times, channels, self.plane_step, self.band_rows(0)[0].stop, self.shape[4])

    @property
    def largest_work(self) -> Shape:
        """Lengths of it on the grid of what is restored."""
        *outer, rows, _ = self.largest_source
        return (*outer, -(-rows // self.downscale), self.work_shape[4])  # type: ignore[return-value]

    @property
    def largest_output(self) -> Shape:
        """Lengths, along ``tczyx``, of what the largest unit writes."""
        channels = max(self.output_channels(kept) for _, _, kept in self.channel_groups)
        return (self.time_groups.largest, channels, self.plane_step, self.band_rows(0)[1].stop, self.output_shape[4])

    @cached_property
    def time_groups(self) -> TimeGroups:
        """Selected frames along t, by the unit that they belong to."""
        return TimeGroups(self.times, self._frames_per_unit)

    @cached_property
    def channel_groups(self) -> tuple[tuple[int, int, tuple[int, ...]], ...]:
        """First and last source index of every unit along c, and the selected ones."""
        if self.stacked:
            return ((self.channels[0], self.channels[-1] + 1, self.channels),)
        groups: dict[int, list[int]] = {}
        for c in self.channels:
            groups.setdefault(c // self.chunks[1], []).append(c)
        return tuple((kept[0], kept[-1] + 1, tuple(kept)) for kept in groups.values())

    @property
    def plane_step(self) -> int:
        """Planes along z of every unit but the last."""
        return self.shape[2] if self.volumes else min(self.chunks[2], self.shape[2])

    def output_channels(self, channels: Sequence[int]) -> int:
        """How many channels are made of some."""
        return self.n_output if self.stacked else len(channels) * self.n_output

    def _level(self, factor: int) -> Level:
        *outer, height, width = self.output_shape
        lengths = [-(-height // factor), -(-width // factor)]
        owned = [self.band // factor or lengths[0], lengths[1]]  # what a unit has of it
        chunk = [chunk_length(size) for size in owned]
        together, length = self._frames_together, self._even_group
        if self.shard_pixels > 0:
            length = together if length % together == 0 else 1
        chunk_t, shards = length if together > 1 else 1, None
        if self.shard_pixels > 0:
            whole = (-(-size // of) * of for size, of in zip(owned, chunk, strict=True))
            shards = (-(-self._even_group // chunk_t) * chunk_t, 1, 1, *whole)
        return Level(factor, (*outer, *lengths), (chunk_t, 1, 1, *chunk), shards)  # type: ignore[arg-type]

    @cached_property
    def _frames_together(self) -> int:
        """Source frames along t in whole chunks, more of them while the frames are small."""
        planes = self.shape[2] if self.volumes else self.chunks[2]
        pixels = self.chunks[0] * planes * self.shape[3] * self.shape[4]
        return self.chunks[0] * max(1, _UNIT_PIXELS // max(pixels, 1))

    @property
    def _frames_per_unit(self) -> int:
        """Source frames along t that a unit takes: as many as fill a shard, where there are shards."""
        frame_pixels = self.output_shape[3] * self.output_shape[4]
        return self._frames_together * max(1, self.shard_pixels // (self._frames_together * frame_pixels))

    @property
    def _even_group(self) -> int:
        """Frames along t of every unit but the last; 1 where they differ."""
        return self.time_groups.even_size or 1


class Units(Sequence[Unit]):
    """Units of a geometry in the order of t, c, z, y: each is made when it is asked for, by arithmetic.

    Parameters
    ----------
    geometry : Geometry
        Of the run.
    positions : range, optional
        Which of all units; a slice of units has some.

    Examples
    --------
    >>> units = Geometry((10**8, 1, 1, 2048, 2048), (1, 1, 1, 2048, 2048), range(10**8), (0,)).units
    >>> len(units), units[-1].key, units.index("t7/c0"), "t7/c1" in units
    (100000000, 't99999999/c0', 7, False)
    """

    def __init__(self, geometry: Geometry, positions: range | None = None) -> None:
        self._geometry = geometry
        self._times, self._channels = geometry.time_groups, geometry.channel_groups
        counts = (geometry.output_channels(kept) for _, _, kept in self._channels)
        self._first_channels = list(accumulate(counts, initial=0))
        self._output_width = geometry.output_shape[4]
        self._planes, self._bands = -(-geometry.shape[2] // geometry.plane_step), geometry.bands
        count = len(self._times) * len(self._channels) * self._planes * self._bands
        self._positions = range(count) if positions is None else positions

    def __len__(self) -> int:
        return len(self._positions)

    @overload
    def __getitem__(self, index: int) -> Unit: ...
    @overload
    def __getitem__(self, index: slice) -> Units: ...
    def __getitem__(self, index: int | slice) -> Unit | Units:
        if isinstance(index, slice):
            return Units(self._geometry, self._positions[index])
        return self._make(self._positions[index])

    def __iter__(self) -> Iterator[Unit]:
        return map(self._make, self._positions)

    def __contains__(self, unit: object) -> bool:
        return self.find(unit) is not None

    def index(self, value: object, start: int = 0, stop: int = sys.maxsize) -> int:
        """Position of a unit, or of the one that has a key.

        Raises
        ------
        ValueError
            It is none of these.
        """
        found = self.find(value)
        if found is None or found not in range(*slice(start, stop).indices(len(self))):
            raise ValueError(f"{value!r} is none of these units")
        return found

    def find(self, unit: object) -> int | None:
        """As `index`; None where it is none of these."""
        key = unit.key if isinstance(unit, Unit) else unit
        match = _KEY.fullmatch(key) if isinstance(key, str) else None
        if match is None:
            return None
        t, c, z, y = (int(part or 0) for part in match.groups())
        if t >= len(self._geometry.times) or c >= self._first_channels[-1]:
            return None
        at_c = bisect_right(self._first_channels, c) - 1
        at = (self._times.index(t) * len(self._channels) + at_c) * self._planes + z // self._geometry.plane_step
        at = at * self._bands + (y // self._geometry.band if self._geometry.band else 0)
        if at not in self._positions or self._key(at) != key:
            return None
        return self._positions.index(at)

    def _spans(self, position: int) -> tuple[int, int, int, int, int, int]:
        """First and one past the last index in the output, along t, c and z."""
        rest, at_z = divmod(position // self._bands, self._planes)
        at_t, at_c = divmod(rest, len(self._channels))
        step = self._geometry.plane_step
        return (
            self._times.first(at_t),
            self._times.first(at_t + 1),
            self._first_channels[at_c],
            self._first_channels[at_c + 1],
            at_z * step,
            min((at_z + 1) * step, self._geometry.shape[2]),
        )

    def _key(self, position: int) -> str:
        t, t_stop, c, c_stop, z, z_stop = self._spans(position)
        found = f"{_span('t', t, t_stop)}/{_span('c', c, c_stop)}"
        if self._geometry.shape[2] > 1:
            found += f"/{_span('z', z, z_stop)}"
        rows = self._geometry.band_rows(position % self._bands)[1]
        return f"{found}/{_span('y', rows.start, rows.stop)}" if self._bands > 1 else found

    def _make(self, position: int) -> Unit:
        t, t_stop, c, c_stop, z, z_stop = self._spans(position)
        times = self._geometry.times[t:t_stop]
        first_c, last_c, channels = self._channels[position // self._bands // self._planes % len(self._channels)]
        planes, (read, written) = slice(z, z_stop), self._geometry.band_rows(position % self._bands)
        return Unit(
            key=self._key(position),
            source=(
                slice(times[0], times[-1] + 1),
                slice(first_c, last_c),
                planes,
                read,
                slice(0, self._geometry.shape[4]),
            ),
            keep_t=range(0, times[-1] - times[0] + 1, times.step),
            keep_c=tuple(channel - first_c for channel in channels),
            output=(slice(t, t_stop), slice(c, c_stop), planes, written, slice(0, self._output_width)),
        )


def source_reads(geometry: Geometry) -> int:
    """Pixels that all units read together."""
    channels = sum(stop - start for start, stop, _ in geometry.channel_groups)
    rows = sum(region_size(geometry.band_rows(at)[:1]) for at in range(geometry.bands))
    return geometry.time_groups.extent * channels * geometry.shape[2] * rows * geometry.shape[4]


def present_axes(axes: str, shape: Shape) -> tuple[int, ...]:
    """Lengths of the axes that exist, from those along ``tczyx``."""
    return tuple(size for axis, size in zip(CANONICAL, shape, strict=True) if axis in axes)


def _span(letter: str, start: int, stop: int) -> str:
    return f"{letter}{start}" if stop == start + 1 else f"{letter}{start}-{stop - 1}"
