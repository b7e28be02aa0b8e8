"""What a run made, one image or many: its units, and the frames that a stored object holds pixels of."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from phbatch.planning.positions import PositionUnits, split_key
from phbatch.planning.unit import Unit
from phbatch.planning.units import Geometry, Units
from phbatch.running.accept_positions import axes_of


@dataclass(frozen=True)
class Made:
    """What a run said of itself, and the shapes of its images: the path of the only one of a run is empty."""

    provenance: dict[str, Any]
    geometries: dict[str, Geometry]

    @property
    def several(self) -> bool:
        """Whether these are many images."""
        return "positions" in self.provenance

    @cached_property
    def units(self) -> Units | PositionUnits:
        """The units of all of them."""
        return PositionUnits(self.geometries) if self.several else self.geometries[""].units

    def all_frames(self, unit: Unit) -> tuple[str, ...]:
        """Keys of the frames of a unit."""
        path, _ = split_key(unit.key)
        return self._named(path, all_frames(unit, self.geometries[path]))

    def frames_of(self, key: str, unit: Unit) -> tuple[str, ...]:
        """Keys of the frames that a chunk of a unit holds pixels of."""
        path, _ = split_key(unit.key)
        axes = axes_of(self.provenance, path) if self.several else self.provenance["axes"]
        return self._named(path, _frames_of(key, unit, self.geometries[path], axes))

    def _named(self, path: str, frames: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(f"{path}/{frame}" for frame in frames) if path else frames


def all_frames(unit: Unit, geometry: Geometry) -> tuple[str, ...]:
    """Keys, in the input, of the frames of a unit."""
    return tuple(str(unit.frame_key(*index)) for index in unit.frame_indices(volumes=geometry.volumes))


def _frames_of(key: str, unit: Unit, geometry: Geometry, axes: str) -> tuple[str, ...]:
    """Frames, in the input, that a chunk of the output holds pixels of."""
    along = dict(zip(axes, (int(part) for part in key.split("/")[-len(axes) :]), strict=True))
    chunk_t, chunk_c, chunk_z = (along.get(axis, 0) for axis in "tcz")
    length_t, length_c, length_z = (geometry.output_shards or geometry.output_chunks)[:3]
    start_t, start_c, start_z = (part.start for part in unit.output[:3])
    count = geometry.n_output
    found = []
    for t, c, z in unit.frame_indices(volumes=geometry.volumes):
        channels = range(count) if geometry.stacked else range(c * count, (c + 1) * count)
        if (
            (start_t + t) // length_t == chunk_t
            and any((start_c + channel) // length_c == chunk_c for channel in channels)
            and (z is None or (start_z + z) // length_z == chunk_z)
        ):
            found.append(str(unit.frame_key(t, c, z)))
    return tuple(found)
