"""The memory model: bytes that a run will take at its peak, said before it starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from phbatch.errors import MemoryLimitError

RESERVED_BYTES = 500_000_000
"""Interpreter, NumPy, Dask and Zarr, measured after a small run and rounded up."""

RESERVED_NETWORK_BYTES = 700_000_000
"""TensorFlow or JAX on top, without any tile."""

_FLOAT_STATISTICS_BYTES_PER_PIXEL = 48  # float64: the frame, smoothed, its Laplacian, distances, and their sorted copy
_PREPARING_BYTES_PER_PIXEL = 24  # averages, background, gain and bias in float32, and what is counted
CORRECTIONS_AT_ONCE = 4
"""Maps of channels and planes that a process keeps of a profile of uneven light."""
_SKETCH_BYTES_PER_PIXEL = 80  # of a block with its halo: float64, smoothed, their bits, and what these index
_LARGE_CHUNK = 1024  # pixels a side that a task of a large frame reads, at least
_STATE_BYTES = 8 << 20  # histograms of a frame of integers while they are made and merged
_MERGED_STATE_BYTES = 1 << 20


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
        The network's tensors for one batch of tiles.
    in_flight : int
        Units at once.
    allowed_mem : int
        What the run may use.
    """

    reserved_mem: int
    unit_mem: int
    network_mem: int
    in_flight: int
    allowed_mem: int

    @property
    def projected_mem(self) -> int:
        """Peak of the process, in bytes."""
        return self.reserved_mem + self.unit_mem * self.in_flight + self.network_mem

    @property
    def network_room(self) -> int:
        """What the network's tensors may take, in bytes."""
        return max(0, self.allowed_mem - self.reserved_mem - self.unit_mem * self.in_flight)

    def require_fit(self, tile: tuple[int, ...] | None) -> None:
        """Refuse a plan that does not fit, naming the worst offender and the knob.

        Raises
        ------
        MemoryLimitError
            The projected memory is above the allowed one.
        """
        if self.projected_mem <= self.allowed_mem:
            return
        tile_text = "x".join(str(size) for size in tile or ())
        offenders = {
            f"the libraries themselves, {format_bytes(self.reserved_mem)}": (self.reserved_mem, ""),
            f"{self.in_flight} units in flight of {format_bytes(self.unit_mem)} each": (
                self.unit_mem * self.in_flight,
                ", or lower --workers"
                if self.in_flight > 1
                else ", or store the input in smaller chunks along t, c or z",
            ),
            f"the network on a tile of {tile_text}, {format_bytes(self.network_mem)}": (
                self.network_mem,
                ", or lower --tile or --batch",
            ),
        }
        name, (_, knob) = max(offenders.items(), key=lambda item: item[1][0])
        raise MemoryLimitError(
            f"the run needs {format_bytes(self.projected_mem)} and may use {format_bytes(self.allowed_mem)}; most"
            f" of it is {name}:"
            f" raise --memory{knob}."
        )


def unit_bytes(
    *,
    frame_pixels: int,
    frames: int,
    itemsize: int,
    output_itemsize: int,
    outputs_per_frame: int,
    chunk_bytes: int,
    network: bool,
    fixed_point: bool,
    output_pixels: int,
    prepared: bool,
) -> int:
    """Bytes that one unit takes while it is in flight.

    Parameters
    ----------
    frame_pixels : int
        Pixels of one frame with all channels that the network takes together.
    frames : int
        Frames of the unit, those between the selected ones included.
    itemsize, output_itemsize : int
        Bytes per pixel of the input and of all outputs together.
    outputs_per_frame : int
        Output pixels per pixel of a frame.
    chunk_bytes : int
        One chunk of the input, decoded.
    network : bool
        Whether padded and predicted copies of a frame are made.
    fixed_point : bool
        Whether frames are measured by counting (8 and 16 bit integers).
    output_pixels : int
        Pixels of one frame where it is written: fewer after downscaling.
    prepared : bool
        Whether frames are averaged or their light is corrected before they are measured.
    """
    raw = _raw_bytes(frame_pixels, frames, itemsize, chunk_bytes)
    restored = output_pixels * frames * outputs_per_frame * output_itemsize * 3  # encoded too, and waiting for the disk
    working = output_pixels * (4 + (8 + 8 * outputs_per_frame if network else 4 * outputs_per_frame))
    preparing = frame_pixels * _PREPARING_BYTES_PER_PIXEL if prepared else 0
    return raw + restored + preparing + max(working, _measuring_bytes(frame_pixels, fixed_point=fixed_point))


def measuring_unit_bytes(
    *, frame_pixels: int, frames: int, itemsize: int, chunk_bytes: int, fixed_point: bool, prepared: bool
) -> int:
    """Bytes that one unit takes that is only measured; parameters as for `unit_bytes`."""
    raw = _raw_bytes(frame_pixels, frames, itemsize, chunk_bytes)
    preparing = frame_pixels * _PREPARING_BYTES_PER_PIXEL if prepared else 0
    return raw + preparing + _measuring_bytes(frame_pixels, fixed_point=fixed_point)


def profile_bytes(shape: Sequence[int]) -> int:
    """Bytes of a profile of uneven light of a ``tczyx`` image, and of the maps of four planes made from it."""
    frame = shape[-2] * shape[-1]
    return int(frame * 4 * (2 * shape[1] * shape[2] + 2 * CORRECTIONS_AT_ONCE))


def reduction_chunks(chunks: Sequence[int]) -> tuple[int, ...]:
    """Pixels along y and x that a task of a large frame reads: whole chunks, since it should be worth its overhead."""
    return tuple(-(-_LARGE_CHUNK // chunk) * chunk for chunk in chunks)


def reduction_bytes(
    shape: Sequence[int], chunks: Sequence[int], itemsize: int, *, fixed_point: bool, workers: int
) -> int:
    """Bytes that the reduction over the chunks of one large frame takes: three rows of chunks, and their states.

    Where blocks are not counted while they are smoothed, every worker has float64 copies of one besides.
    """
    height, width = (min(pair) for pair in zip(reduction_chunks(chunks[-2:]), shape[-2:], strict=True))
    columns = -(-shape[-1] // width)
    blocks = min(workers, columns)
    rows = (min(3 * height, shape[-2]) * shape[-1] + 2 * blocks * height * width) * itemsize  # decoded, with halo
    states = 2 * blocks * _STATE_BYTES + columns * _MERGED_STATE_BYTES
    return rows + states + (0 if fixed_point else blocks * height * width * _SKETCH_BYTES_PER_PIXEL)


def _raw_bytes(frame_pixels: int, frames: int, itemsize: int, chunk_bytes: int) -> int:
    return frame_pixels * frames * itemsize * 2 + chunk_bytes  # twice: an axis order other than tczyx is copied


def _measuring_bytes(frame_pixels: int, *, fixed_point: bool) -> int:
    return _STATE_BYTES if fixed_point else frame_pixels * _FLOAT_STATISTICS_BYTES_PER_PIXEL


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
