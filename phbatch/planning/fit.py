"""What a run takes, and how frames are cut where whole ones do not fit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from phbatch.frames.recipe import Recipe
from phbatch.network.device import Device
from phbatch.network.model import Model
from phbatch.planning.image import Image
from phbatch.planning.memory import (
    RESERVED_BYTES,
    RESERVED_NETWORK_BYTES,
    MemoryPlan,
    table_memory,
    unit_knobs,
    unit_memory,
)
from phbatch.planning.passes import piecewise_bytes, profile_bytes, sampled_frames, sampling_bytes
from phbatch.planning.tiles import resolve_tiles
from phbatch.planning.units import Geometry
from phbatch.words.choices import ESTIMATED_BACKGROUNDS, FRAME_BACKGROUNDS, MOST_WORKERS
from phbatch.words.events import Notice
from phbatch.words.settings import RunSettings

BAND = 1024
"""Rows of a band, at most, unless levels want more."""

_LEAST_BAND = 64


@dataclass(frozen=True)
class Planned:
    """What is done, and what it takes, perhaps more than is allowed; as of `phbatch.planning.resolve.ResolvedRun`."""

    geometry: Geometry
    recipe: Recipe
    memory: MemoryPlan
    workers: int
    readers: int
    notices: tuple[Notice, ...] = ()


@dataclass(frozen=True)
class Fit:
    """Plans a run for the memory that it may take.

    Attributes
    ----------
    settings, source, model
        Of the run.
    allowed : int
        Bytes.
    tile : tuple of int or None
        Of the run that is continued.
    device : Device or None
        The GPU that computes the network.
    cores : int
        Of the machine.
    most_units : int or None
        Units at once, at most; all of the image by default.
    ahead : int
        Units that are on the GPU besides, at most.
    """

    settings: RunSettings
    source: Image
    model: Model | None
    allowed: int
    tile: tuple[int, ...] | None
    device: Device | None
    cores: int
    most_units: int | None
    ahead: int

    def choose(self, geometry: Geometry, recipe: Recipe, band: int | None) -> Planned:
        """The plan of whole frames, or of bands of so many rows; None takes bands where not one frame fits.

        Of those bands that fit it is the one whose tiles compute the fewest pixels; of several the largest.
        """
        if band and band % (1 << geometry.levels - 1) == 0:
            return self._in_bands(geometry, recipe, band)
        if band == 0 or not self._may_be_cut(geometry) or self._holds_a_frame(geometry, recipe):
            return self._plan(geometry, recipe)
        options = [self._in_bands(geometry, recipe, rows) for rows in self._bands(geometry)]
        fitting = [option for option in options if option.memory.projected_mem <= self.allowed]
        return min(fitting, key=_overhead) if fitting else options[-1]

    def _bands(self, geometry: Geometry) -> Iterator[int]:
        """Rows of bands, of which each holds whole chunks of every level, in descending order."""
        least = max(_LEAST_BAND, 1 << geometry.levels - 1, self.model.config.grid if self.model is not None else 1)
        rows = max(BAND, least)
        while rows >= least:
            if rows < geometry.output_shape[3] or rows == least:
                yield rows
            rows //= 2

    def _may_be_cut(self, geometry: Geometry) -> bool:
        """Whether a unit is one plane, and a band of it needs no more than its rows and a margin."""
        whole = geometry.volumes or geometry.upscaled or self.settings.illumination in FRAME_BACKGROUNDS
        channels = 1 if geometry.stacked else max(len(kept) for _, _, kept in geometry.channel_groups)
        single = geometry.time_groups.largest * geometry.plane_step * channels == 1
        return single and not whole and geometry.output_shape[3] > _LEAST_BAND

    def _holds_a_frame(self, geometry: Geometry, recipe: Recipe) -> bool:
        """Whether memory holds one unit of whole frames, and the network on the smallest tile."""
        least = 0
        if self.model is not None:
            side = 2 * self.model.config.halo + self.model.config.grid
            tile = tuple(min(side, size + -size % self.model.config.grid) for size in geometry.network_frame_shape)
            least = self._network_bytes(self.model, tile, recipe.batch)
        memory = replace(self._memory(geometry, recipe), in_flight=1, network_mem=least)
        return memory.projected_mem <= self.allowed

    def _in_bands(self, geometry: Geometry, recipe: Recipe, rows: int) -> Planned:
        margin = self.model.config.halo + self.model.config.grid if self.model is not None else 0
        planned = self._plan(replace(geometry, band=rows, margin=margin), replace(recipe, in_bands=True))
        height, width = geometry.output_shape[3:]
        text = f"frames of {height} x {width} do not fit the memory: they are restored in bands of {rows} rows."
        return replace(planned, notices=(Notice(text),))

    def _plan(self, geometry: Geometry, recipe: Recipe) -> Planned:
        settings, memory = self.settings, self._memory(geometry, recipe)
        if self.model is not None:
            batch = recipe.batch
            room = memory.network_room // batch
            tiles = resolve_tiles(settings, geometry, self.model, room, self.tile, self.device, batch)
            recipe = replace(recipe, tiles=tiles)
            asked = (("tile", settings.tile), ("batch", batch))
            knobs = tuple(f"lower --{name}" for name, value in asked if (value or 1) > 1)
            network = self._network_bytes(self.model, tiles.tile, batch)
            memory = replace(memory, network_mem=network, network_knobs=knobs)
            most_ahead = min(self.ahead, len(geometry.units) - 1) if self.device is not None else 0
            fitting = [count for count in range(most_ahead, 0, -1) if replace(memory, ahead=count).fitting]
            memory = replace(memory, ahead=fitting[0] if fitting else 0)
        most = min(MOST_WORKERS, self.cores, self.most_units or len(geometry.units))
        workers = settings.workers or max(1, min(most, memory.fitting))
        memory, readers = replace(memory, in_flight=workers), workers
        if recipe.in_bands and not recipe.given:
            options = [replace(memory, reducing_mem=self._reducing(recipe, count)) for count in range(workers, 0, -1)]
            fits = [option.projected_mem <= self.allowed for option in options]
            at = fits.index(True) if any(fits) else -1
            memory, readers = options[at], range(workers, 0, -1)[at]
        return Planned(geometry, recipe, memory, workers, readers)

    def _reducing(self, recipe: Recipe, readers: int) -> int:
        return piecewise_bytes(self.source, recipe, readers)

    def _network_bytes(self, model: Model, tile: tuple[int, ...], batch: int) -> int:
        config = model.config
        return (config.staging_bytes if self.device is not None else config.workspace_bytes)(tile, batch)

    def _memory(self, geometry: Geometry, recipe: Recipe) -> MemoryPlan:
        """Of one unit at once, without the network's tensors."""
        settings, source, network = self.settings, self.source, self.model is not None
        unit = unit_memory(geometry, recipe, source.dtype, network=network, copied=source.copied)
        table, judging = table_memory(geometry, recipe)
        libraries = RESERVED_BYTES + (RESERVED_NETWORK_BYTES if network else 0)
        return MemoryPlan(
            libraries + profile_mem(settings, source),
            unit.computing,
            0,
            settings.workers or 1,
            self.allowed,
            waiting_mem=unit.waiting,
            sampling_mem=sampling_mem(settings, source, geometry, self.allowed - libraries),
            table_mem=table,
            judging_mem=judging,
            unit_knobs=unit_knobs(geometry, recipe, unit, source.dtype),
        )


def _overhead(planned: Planned) -> float:
    tiles = planned.recipe.tiles
    return 0.0 if tiles is None else tiles.overhead


def profile_mem(settings: RunSettings, source: Image) -> int:
    """What the profile of a run takes."""
    if settings.illumination in ("none", *FRAME_BACKGROUNDS):
        return 0
    return profile_bytes(source.shape, dark=settings.illumination != "temporal")


def sampling_mem(settings: RunSettings, source: Image, geometry: Geometry, spare: int) -> int:
    """What the estimate of a profile takes of what is spare: as many frames as fit."""
    if settings.illumination not in ESTIMATED_BACKGROUNDS or settings.illumination in FRAME_BACKGROUNDS:
        return 0
    count, frame = sampled_frames(source.shape, source.dtype.itemsize, spare, len(geometry.times))
    return sampling_bytes(count * frame)
