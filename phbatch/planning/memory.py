"""The memory model: bytes that a run will take at its peak, said before it starts.

Fitted to peaks that `benchmarks/memory.py` measured: a plan is above the peak, and at most 1.5 times it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, prod
from typing import Any

import numpy as np

from phbatch.frames.columns import FRAMES_IN_MEMORY
from phbatch.frames.recipe import Recipe
from phbatch.kernels.smoothing import is_fixed_point
from phbatch.planning.units import Geometry
from phbatch.words.choices import FRAME_BACKGROUNDS
from phbatch.words.errors import MemoryLimitError

RESERVED_BYTES = 325_000_000
"""Interpreter, NumPy, Numba, Dask and Zarr: measured where kernels are compiled for the first time, 55 MB more."""

RESERVED_NETWORK_BYTES = 830_000_000
"""TensorFlow or JAX on top, with a network and hardly any tile; measured in the same way."""

STATE_BYTES = 8 << 20
"""Histograms of a frame of integers while they are made and merged."""

HEAP = (96 << 20, 32 << 20)
"""What the heap keeps at most where a unit is made of smaller, and of larger pieces."""

MARGIN = 1.05

UNITS_AHEAD = 3
"""Units that are on a GPU besides those that the cores work on: one goes up, one is computed, one comes down."""

# Per pixel of a frame, besides its raw pixels:
_FLOAT_STATISTICS = 32  # float64: the frame smoothed, its Laplacian, distances, and their sorted copy
_FLOAT_STATE = 48  # the same where it is to be merged with other frames
_PREPARED_STATISTICS = {True: 10, False: 8}  # corrected, rounded, and as integers; by whether those are counted
_BACKGROUND = 12  # of a frame by itself: reduced, smoothed, and made to a map
_CAST = 5  # rounded in float32, and what is outside

# Per frame of a unit: its statistics as an object, and as a row of plain values
_ROW = 3200

# Per frame of a run: its row of the table while it is in memory, see `phbatch.frames.columns`
_COLUMNS = 16  # besides percentiles: what is measured of a frame, its scale, and its flags
_COLUMNS_POOLED, _COLUMNS_SMOOTHED = 7, 2
_ROWS_MAPPED = 1 << 16  # of a table on disk, until they are left to the system
_JUDGING = 12 * 8  # of one series: copies of columns, deviations from the median, and what is found
_WRITING = 3 * 8  # a column while it is copied and encoded
_UNIT_BITS = 3  # finished, current in the ledger, and read from what was changed

_PIECE = 32 << 20  # what is freed of larger pieces goes back to the system; of smaller ones the heap keeps some
_CHUNKS_AT_ONCE = 10  # that zarr encodes or decodes


@dataclass(frozen=True)
class UnitMemory:
    """Bytes that one unit takes while it is read, measured, restored and encoded, which it is one after the other.

    Attributes
    ----------
    raw : int
        Pixels as they were read.
    reading, measuring, restoring, encoding : int
        What is alive at once.
    waiting : int
        Encoded pixels that wait for the disk while the next unit computes.
    codecs : int
        Chunks that are being encoded.
    rows : int
        Statistics of its frames, as objects and as rows of plain values.
    """

    raw: int
    reading: int
    measuring: int
    restoring: int = 0
    encoding: int = 0
    waiting: int = 0
    codecs: int = 0
    rows: int = 0

    @property
    def computing(self) -> int:
        """The largest of them, with what stays in the process's heap of it."""
        largest = max(self.reading, self.measuring, self.restoring, self.encoding)
        kept = min(largest * 3 // 2, HEAP[self.raw >= _PIECE])
        return int(MARGIN * (largest + kept + self.codecs + self.rows))

    @property
    def worst(self) -> str:
        """What takes the most: a field's name."""
        names = ("measuring", "restoring", "encoding", "reading")
        return max(names, key=lambda name: int(getattr(self, name)))


@dataclass(frozen=True)
class MemoryPlan:
    """Projected peak of a process, by what takes it, in bytes.

    Attributes
    ----------
    reserved_mem : int
        Libraries, before the first pixel.
    unit_mem : int
        One unit in flight: raw and restored pixels, and the working copies of one frame.
    network_mem : int
        The network's tensors for one batch of tiles; of a GPU, which has them in its own memory, what goes up and
        comes down.
    in_flight : int
        Units at once.
    allowed_mem : int
        What the run may use.
    waiting_mem : int
        What waits of every unit for the disk, where there are several at once.
    sampling_mem : int
        What the estimate of uneven light takes, before the first unit.
    table_mem : int
        What grows with the number of frames and units: statistics while they are in memory, and what is finished.
    judging_mem : int
        What the frames of a series take while they are judged, and a column of the table while it is written.
    ahead : int
        Units that are on a GPU of this process besides those in flight.
    reducing_mem : int
        What frames that are larger than a unit take while they are measured, before the first unit.
    unit_knobs, network_knobs : tuple of str
        What makes a unit, and the network's tensors, smaller.
    """

    reserved_mem: int
    unit_mem: int
    network_mem: int
    in_flight: int
    allowed_mem: int
    waiting_mem: int = 0
    sampling_mem: int = 0
    table_mem: int = 0
    judging_mem: int = 0
    ahead: int = 0
    reducing_mem: int = 0
    unit_knobs: tuple[str, ...] = ()
    network_knobs: tuple[str, ...] = ()

    @property
    def units_mem(self) -> int:
        """All units in flight, and on a GPU, in bytes."""
        waiting = self.waiting_mem if self.in_flight + self.ahead > 1 else 0
        return (self.unit_mem + waiting) * self.in_flight + self.unit_mem * self.ahead

    @property
    def projected_mem(self) -> int:
        """Peak of the process, in bytes."""
        restoring = max(self.units_mem, self.reducing_mem) + self.network_mem
        return self._kept_mem + max(self.sampling_mem, self.judging_mem, restoring)

    @property
    def network_room(self) -> int:
        """What the network's tensors may take, in bytes."""
        return max(0, self.allowed_mem - self._kept_mem - self.units_mem)

    @property
    def fitting(self) -> int:
        """Units at once that fit; 0 where not even one does."""
        spare = self.allowed_mem - self._kept_mem - self.network_mem - self.unit_mem * self.ahead
        if spare < self.unit_mem:
            return 0
        return max(0 if self.ahead else 1, spare // max(self.unit_mem + self.waiting_mem, 1))

    @property
    def _kept_mem(self) -> int:
        return self.reserved_mem + self.table_mem

    def require_fit(self, tile: tuple[int, ...] | None) -> None:
        """Refuse a plan that does not fit, naming the worst offender and the knobs that help.

        Raises
        ------
        MemoryLimitError
            The projected memory is above the allowed one.
        """
        if self.projected_mem <= self.allowed_mem:
            return
        tile_text = "x".join(str(size) for size in tile or ())
        units, knobs = f"a unit of {format_bytes(self.unit_mem)}", self.unit_knobs
        if self.in_flight > 1:
            units = f"{self.in_flight} units in flight of {format_bytes(self.units_mem // self.in_flight)} each"
            knobs = (f"lower --workers to {self.fitting}",) if self.fitting else ("lower --workers", *knobs)
        offenders: dict[str, tuple[int, tuple[str, ...]]] = {
            f"the libraries themselves, {format_bytes(self.reserved_mem)}": (self.reserved_mem, ()),
            units: (self.units_mem, knobs),
            f"the network on a tile of {tile_text}, {format_bytes(self.network_mem)}": (
                self.network_mem,
                self.network_knobs,
            ),
            f"the frames that the light is estimated from, {format_bytes(self.sampling_mem)}": (self.sampling_mem, ()),
            f"frames that are measured before, {format_bytes(self.reducing_mem)}": (
                self.reducing_mem,
                ("store the input in smaller chunks along y and x",),
            ),
            f"the statistics of all frames, {format_bytes(self.table_mem + self.judging_mem)}": (
                self.table_mem + self.judging_mem,
                ("choose fewer with --frames",),
            ),
        }
        name, (_, knobs) = max(offenders.items(), key=lambda item: item[1][0])
        raise MemoryLimitError(
            f"the run needs {format_bytes(self.projected_mem)} and may use {format_bytes(self.allowed_mem)}; most"
            f" of it is {name}: {', or '.join([f'raise --memory to {_round_up(self.projected_mem)}', *knobs])}."
        )


def unit_memory(geometry: Geometry, recipe: Recipe, dtype: np.dtype[Any], *, network: bool, copied: bool) -> UnitMemory:
    """What a unit that is restored takes while it is in flight.

    Parameters
    ----------
    geometry : Geometry
        Of the run.
    recipe : Recipe
        What its pixels go through; tiles may be missing.
    dtype : dtype
        Of the input.
    network : bool
        Whether padded and predicted copies of a frame are made.
    copied : bool
        Whether a block is copied once it is read, since the array's axes or bytes have another order.
    """
    raw = _raw_bytes(geometry, dtype)
    written = prod(geometry.largest_output)
    itemsize, scale_itemsize = np.dtype(recipe.dtype).itemsize, 4 if recipe.uncertainty else 0
    output = written * (itemsize + scale_itemsize)
    work = _frame_pixels(geometry, geometry.largest_work)
    frame_output = _frame_pixels(geometry, geometry.largest_output, channels=recipe.n_output)
    stored = output * geometry.output_pixels // prod(geometry.output_shape)  # of all levels
    # What of the output is filled before the last frame is measured; an array takes memory where it was written to.
    before = stored - stored * frame_output // written
    work_output = work // (len(geometry.channels) if geometry.stacked else 1) * recipe.n_output
    restoring = 0
    if recipe.dtype != "float32" or recipe.upscale_to is not None or recipe.rescale:
        restoring += work_output * 4
    if recipe.upscale_to is not None:
        restoring += frame_output * 4 + work_output * scale_itemsize
    if recipe.dtype != "float32":
        restoring += frame_output * (_CAST + itemsize)
    if network:
        restoring += 2 * work * np.dtype(recipe.windows).itemsize
    maps, rows = _map_bytes(recipe, work), _ROW * _unit_frames(geometry)
    chunk = prod(geometry.output_chunks) * itemsize
    return UnitMemory(
        raw=raw,
        reading=_reading_bytes(geometry, raw, dtype, copied=copied),
        measuring=raw + max(before, 0) + maps + _measuring_bytes(recipe, work, geometry, dtype),
        restoring=raw + stored + maps + restoring,
        encoding=stored * (3 if geometry.output_shards else 2),  # a shard is put together of what is encoded
        waiting=stored + rows // 2,
        rows=rows,
        codecs=0 if geometry.output_shards else 3 * min(_CHUNKS_AT_ONCE * chunk, output) // 2,
    )


def measuring_unit_memory(geometry: Geometry, recipe: Recipe, dtype: np.dtype[Any], *, copied: bool) -> UnitMemory:
    """What a unit takes that is only measured; parameters as for `unit_memory`."""
    raw, work = _raw_bytes(geometry, dtype), _frame_pixels(geometry, geometry.largest_work)
    return UnitMemory(
        raw=raw,
        reading=_reading_bytes(geometry, raw, dtype, copied=copied),
        measuring=raw + _map_bytes(recipe, work) + _measuring_bytes(recipe, work, geometry, dtype),
        rows=_ROW * _unit_frames(geometry),
    )


def table_memory(geometry: Geometry, recipe: Recipe) -> tuple[int, int]:
    """What tables and bits of a run take all along, and what is taken while series are judged and columns written."""
    columns = _COLUMNS + len(recipe.all_percentiles)
    columns += _COLUMNS_POOLED + len(recipe.all_percentiles) if recipe.scope != "image" else 0
    columns += _COLUMNS_SMOOTHED if recipe.smooth_time > 1 else 0
    first = recipe.passes > 1 or recipe.given
    rows = geometry.frames if geometry.frames <= FRAMES_IN_MEMORY else _ROWS_MAPPED
    kept = (1 + first) * rows * columns * 8 + _UNIT_BITS * len(geometry.units) // 8
    return kept, max(geometry.frames * _WRITING, len(geometry.times) * _JUDGING if recipe.passes > 1 else 0)


def unit_knobs(geometry: Geometry, recipe: Recipe, unit: UnitMemory, dtype: np.dtype[Any]) -> tuple[str, ...]:
    """What makes a unit smaller, given how the input is cut and what it takes the most memory for."""
    if geometry.shard_pixels:
        return ("lower --shard",)
    if prod(geometry.chunks[: 2 if geometry.volumes else 3]) > 1:
        return ("store the input in smaller chunks along t, c or z",)
    knobs = []
    if unit.worst == "measuring" and not is_fixed_point(dtype) and not recipe.given:
        knobs.append("measure it with `phbatch stats` and give the table with --stats")
    return (*knobs, "average pixels with --downscale 2") if recipe.preparation.downscale == 1 else tuple(knobs)


def _unit_frames(geometry: Geometry) -> int:
    """Frames of the largest unit."""
    channels = max(len(kept) for _, _, kept in geometry.channel_groups)
    return geometry.time_groups.largest * channels * (1 if geometry.volumes else geometry.plane_step)


def _raw_bytes(geometry: Geometry, dtype: np.dtype[Any]) -> int:
    return prod(geometry.largest_source) * dtype.itemsize


def _reading_bytes(geometry: Geometry, raw: int, dtype: np.dtype[Any], *, copied: bool) -> int:
    """Raw pixels, chunks that are being decoded, and a copy where pixels are brought in order or some are left out."""
    chunk = prod(geometry.chunks) * dtype.itemsize
    picked = geometry.times.step > 1 < geometry.time_groups.largest
    picked |= any(stop - start != len(kept) for start, stop, kept in geometry.channel_groups)
    return raw * (2 if copied or picked else 1) + max(chunk, min(raw, _CHUNKS_AT_ONCE * chunk))


def _frame_pixels(geometry: Geometry, shape: Sequence[int], channels: int | None = None) -> int:
    """Pixels of what the network takes, or gives, together; channels as for the input unless they are given."""
    planes = shape[2] if geometry.volumes else 1
    stacked = len(geometry.channels) if geometry.stacked else 1
    return prod(shape[3:]) * planes * (stacked if channels is None else channels)


def _map_bytes(recipe: Recipe, pixels: int) -> int:
    """Averages of a frame, and its own map of uneven light; `profile_bytes` has those that are shared."""
    preparation = recipe.preparation
    return pixels * 4 * ((preparation.downscale > 1) + (preparation.illumination in FRAME_BACKGROUNDS))


def _measuring_bytes(recipe: Recipe, pixels: int, geometry: Geometry, dtype: np.dtype[Any]) -> int:
    """Working copies of a frame that is prepared and measured, channel by channel."""
    pixels //= len(geometry.channels) if geometry.stacked else 1
    fixed_point, changed = is_fixed_point(dtype), recipe.preparation.changes_pixels
    background = pixels * _BACKGROUND if recipe.preparation.illumination in FRAME_BACKGROUNDS else 0
    if recipe.given or recipe.in_bands:
        return background
    prepared = pixels * _PREPARED_STATISTICS[fixed_point] if changed else 0
    per_pixel = _FLOAT_STATISTICS if recipe.scope == "image" else _FLOAT_STATE
    return max(background, prepared + (STATE_BYTES if fixed_point else pixels * per_pixel))


def _round_up(count: int) -> str:
    """A number of bytes for --memory, to two digits and not below.

    Examples
    --------
    >>> _round_up(1_510_000_000), _round_up(990_000_000)
    ('1.6GB', '1.0GB')
    """
    return f"{ceil(count / 1e8) / 10:.1f}GB"


def format_bytes(count: int) -> str:
    """A number of bytes for people.

    Examples
    --------
    >>> format_bytes(1_500_000_000), format_bytes(2_000)
    ('1.5 GB', '2.0 kB')
    """
    size = float(count)
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if size < 1000 or unit == "TB":
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    raise AssertionError("unreachable")
