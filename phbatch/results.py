"""What the functions of `phbatch.api` return: a plan before, a result after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class PlanReport:
    """What a run will do, known before a pixel is read.

    Attributes
    ----------
    input, output : str
        Where from and where to.
    axes : str
        Of the output, a subset of ``tczyx``.
    shape, output_shape, output_chunks : tuple of int
        Along ``tczyx``; 1 where an axis is absent.
    dtype : str
        Of the output.
    model : str or None
        Name of the model.
    normalization : str
        The rule, in words.
    preparation : str
        What is done to a frame before it is measured, in words; empty where nothing is.
    units, frames : int
        Pieces of work, and frames measured.
    passes : int
        How often the input is read: once; once more to search a float input for NaN, to judge or smooth statistics
        over time, and twice more to pool them.
    bytes_read, bytes_written : int
        Uncompressed.
    tile : tuple of int or None
        Spatial shape of the tiles.
    tiles_per_frame : int
        Tiles of one frame.
    halo : int
        Pixels per side.
    tile_overhead : float
        Pixels computed per pixel of the frame.
    batch, workers : int
        Tiles per call, units at once.
    projected_mem, allowed_mem : int
        Bytes.
    network : str or None
        Form of the network; "auto" where the fastest is chosen at the start of the run.
    notices : tuple of str
        Choices and warnings.
    """

    input: str
    output: str
    axes: str
    shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    output_chunks: tuple[int, ...]
    dtype: str
    model: str | None
    normalization: str
    preparation: str
    units: int
    frames: int
    passes: int
    bytes_read: int
    bytes_written: int
    tile: tuple[int, ...] | None
    tiles_per_frame: int
    halo: int
    tile_overhead: float
    batch: int
    workers: int
    projected_mem: int
    allowed_mem: int
    network: str | None = None
    notices: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class RunResult:
    """What a run did.

    Attributes
    ----------
    output : str
        Where the result lies.
    frames, units : int
        Of the whole output.
    units_done, units_skipped : int
        Done now, and finished by an earlier run.
    failed : mapping of str to str
        Error of every unit that failed.
    flagged : mapping of str to list of str
        Frames that are not good, and why.
    clipped : int
        Pixels that the output's dtype could not hold.
    seconds : float
        Wall time.
    pixels : int
        Pixels processed now.
    peak_rss_bytes : int
        Peak memory of this process.
    workers : int
        Units that were worked on at once.
    restoring_seconds : float
        Wall time from the first unit to the last.
    stages : mapping of str to float
        Seconds that all units together spent in each stage, see `phbatch.stages.timing`.
    notices : tuple of str
        Choices and warnings.
    """

    output: str
    frames: int
    units: int
    units_done: int
    units_skipped: int
    seconds: float
    pixels: int
    peak_rss_bytes: int
    clipped: int = 0
    failed: Mapping[str, str] = field(default_factory=dict)
    flagged: Mapping[str, Sequence[str]] = field(default_factory=dict)
    workers: int = 1
    restoring_seconds: float = 0.0
    stages: Mapping[str, float] = field(default_factory=dict)
    notices: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """Of the command line: 0, or 4 where units failed."""
        return 4 if self.failed else 0

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self) | {"exit_code": self.exit_code}
