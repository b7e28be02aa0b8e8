"""Planning: which units there are, who writes which chunks, which tiles and how much memory. Integers only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from math import prod
from typing import Any

from phbatch.kernels.stats import FrameStatistics
from phbatch.words.axes import CANONICAL, FrameGrid, FrameKey, Region, Shape, frame_indices, to_region

_UNIT_PIXELS = 1 << 20  # small frames are taken together until a unit has this many
_CHUNK_LENGTH = 1024  # of the output along y and x, at most


@dataclass(frozen=True)
class Unit:
    """One piece of work: whole source chunks in, whole output chunks out, one owner.

    Attributes
    ----------
    key : str
        Its name in the ledger, in events and in errors: the output indices along t, c and z.
    source : tuple of slice
        What is read, along ``tczyx``.
    keep_t, keep_c : tuple of int
        Indices along t and c, within what is read, of the frames that were asked for.
    output : tuple of slice
        What is written, along ``tczyx`` of the output.
    measured : mapping of (t, c, z) to FrameStatistics, or None
        What an earlier pass found for its frames, by their indices within the unit.
    """

    key: str
    source: Region
    keep_t: tuple[int, ...]
    keep_c: tuple[int, ...]
    output: Region
    measured: Mapping[tuple[int, int, int | None], FrameStatistics] | None = None

    def frame_indices(self, *, volumes: bool) -> Iterator[tuple[int, int, int | None]]:
        """Index within the unit of every frame, as (t, c, z); z is None for whole volumes."""
        planes = self.source[2].stop - self.source[2].start
        return frame_indices((len(self.keep_t), len(self.keep_c), planes, 1, 1), volumes=volumes)

    def frame_key(self, t: int, c: int, z: int | None) -> FrameKey:
        """Key, in the input, of a frame by its indices among those kept."""
        first_z = self.source[2].start
        return FrameKey(
            self.source[0].start + self.keep_t[t],
            self.source[1].start + self.keep_c[c],
            None if z is None else first_z + z,
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

    def as_dict(self) -> dict[str, Any]:
        """Plain values; `from_dict` is the inverse."""
        return asdict(self) | {"times": [self.times.start, self.times.stop, self.times.step]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Geometry:
        """The inverse of `as_dict`."""
        tuples = {name: tuple(values[name]) for name in ("shape", "chunks", "channels")}
        return cls(**(dict(values) | tuples | {"times": range(*values["times"])}))

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
        y, x = (-(-size // -(-size // _CHUNK_LENGTH)) for size in self.output_shape[3:])
        together, length = self._frames_together, self._even_group
        if self.shard_pixels > 0:
            length = together if length % together == 0 else 1
        return (length if together > 1 else 1, 1, 1, y, x)

    @cached_property
    def output_shards(self) -> Shape | None:
        """Shards of the output along ``tczyx``: whole frames, those of one unit along t; None where there are none."""
        if self.shard_pixels == 0:
            return None
        chunk_t, _, _, *chunk = self.output_chunks
        y, x = (-(-size // length) * length for size, length in zip(self.output_shape[3:], chunk, strict=True))
        return (-(-self._even_group // chunk_t) * chunk_t, 1, 1, y, x)

    @cached_property
    def units(self) -> tuple[Unit, ...]:
        """All units, in the order of t, c, z."""
        return tuple(self._make_units())

    @property
    def grid(self) -> FrameGrid:
        """The frames that are measured, by their indices in the source."""
        return FrameGrid(self.times, self.channels, None if self.volumes else self.shape[2])

    @property
    def frames(self) -> int:
        """Number of frames that are measured."""
        return len(self.grid)

    @property
    def network_frames(self) -> int:
        """Number of frames that the network sees."""
        return self.frames // (len(self.channels) if self.stacked else 1)

    @property
    def network_frame_shape(self) -> tuple[int, ...]:
        """Spatial shape of what the network sees as a whole: ``(y, x)`` or ``(z, y, x)``."""
        return self.work_shape[2:] if self.volumes else self.work_shape[3:]

    @property
    def largest_unit_frames(self) -> int:
        """Frames, of all channels that a unit reads, in the largest unit."""
        return max(region_size(unit.source[: 2 if self.volumes else 3]) for unit in self.units)

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
        groups = [len(kept) for _, _, kept in self._time_groups]
        return groups[0] if all(size == groups[0] for size in groups[:-1]) and groups[-1] <= groups[0] else 1

    @cached_property
    def _time_groups(self) -> list[tuple[int, int, list[int]]]:
        """First and last source index of every unit along t, and the selected ones."""
        length = self._frames_per_unit
        groups: dict[int, list[int]] = {}
        for t in self.times:
            groups.setdefault(t // length, []).append(t)
        return [(kept[0], kept[-1] + 1, kept) for kept in groups.values()]

    def _channel_groups(self) -> list[tuple[int, int, list[int]]]:
        """First and last source index of every unit along c, and the selected ones."""
        if self.stacked:
            return [(self.channels[0], self.channels[-1] + 1, list(self.channels))]
        groups: dict[int, list[int]] = {}
        for c in self.channels:
            groups.setdefault(c // self.chunks[1], []).append(c)
        return [(kept[0], kept[-1] + 1, kept) for kept in groups.values()]

    def _make_units(self) -> Iterator[Unit]:
        size_z, size_y, size_x = self.shape[2:]
        step_z = size_z if self.volumes else self.chunks[2]
        planes = [(start, min(start + step_z, size_z)) for start in range(0, size_z, step_z)]
        out_t = 0
        for t_start, t_stop, times in self._time_groups:
            out_c = 0
            for c_start, c_stop, channels in self._channel_groups():
                n_c = self.n_output if self.stacked else len(channels) * self.n_output
                for z_start, z_stop in planes:
                    yield Unit(
                        key=_key((out_t, out_t + len(times)), (out_c, out_c + n_c), (z_start, z_stop), size_z),
                        source=to_region((t_start, c_start, z_start, 0, 0), (t_stop, c_stop, z_stop, size_y, size_x)),
                        keep_t=tuple(t - t_start for t in times),
                        keep_c=tuple(c - c_start for c in channels),
                        output=to_region(
                            (out_t, out_c, z_start, 0, 0),
                            (out_t + len(times), out_c + n_c, z_stop, *self.output_shape[3:]),
                        ),
                    )
                out_c += n_c
            out_t += len(times)


def region_size(region: Sequence[slice]) -> int:
    """Pixels of a region."""
    return prod(int(part.stop) - int(part.start) for part in region)


def source_reads(geometry: Geometry) -> int:
    """Pixels that all units read together."""
    return sum(region_size(unit.source) for unit in geometry.units)


def present_axes(axes: str, shape: Shape) -> tuple[int, ...]:
    """Lengths of the axes that exist, from those along ``tczyx``."""
    return tuple(size for axis, size in zip(CANONICAL, shape, strict=True) if axis in axes)


def _key(times: tuple[int, int], channels: tuple[int, int], planes: tuple[int, int], size_z: int) -> str:
    def span(letter: str, start: int, stop: int) -> str:
        return f"{letter}{start}" if stop == start + 1 else f"{letter}{start}-{stop - 1}"

    parts = [span("t", *times), span("c", *channels)]
    return "/".join(parts if size_z == 1 else [*parts, span("z", *planes)])
