"""What the functions that users call return: a plan before, a result after, a report on what is there."""

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
        over time, and to measure frames that are larger than memory, and twice more to pool them.
    passes_reason : str
        Why.
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
    levels : tuple of tuple of int
        Lengths along y and x of every resolution of the output.
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
    passes_reason: str
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
    levels: tuple[tuple[int, ...], ...] = ()
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
        Seconds that all units together spent in each stage, see `phbatch.frames.clock`.
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


@dataclass(frozen=True)
class PartsReport:
    """What `phbatch.begin_parts` prepared.

    Attributes
    ----------
    output : str
        Where the result will lie.
    parts : int
        Tasks that share it.
    units, units_done : int
        Of the whole output, and finished already.
    passes : int
        How often all parts must be run: more than once where statistics must be known first.
    complete : bool
        Whether nothing is left to do.
    notices : tuple of str
        Choices and warnings.
    """

    output: str
    parts: int
    units: int
    units_done: int
    passes: int
    complete: bool = False
    notices: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Damage:
    """One thing that is wrong.

    Attributes
    ----------
    place : str
        Object within the output, or unit.
    problem : str
        What is wrong with it, to be read after the place.
    unit : str or None
        Unit that must be done again; None where it is metadata or a table.
    frames : tuple of str
        Frames that are hurt, by their keys in the input.
    """

    place: str
    problem: str
    unit: str | None = None
    frames: tuple[str, ...] = ()


@dataclass(frozen=True)
class VerifyReport:
    """What `phbatch.verify` found.

    Attributes
    ----------
    output : str
        What was verified.
    units, objects, bytes : int
        Units that a whole output has; objects that were compared with their checksums, and their bytes.
    damages : tuple of Damage
        Empty where what is done is whole.
    finished : int
        Units that are done; those of a run that was not finished are no damage.
    missing : tuple of str
        Units that a run which was not finished did not do.
    complete, running : bool
        Whether the run came to its end, and whether one is writing the output now.
    recomputed : int
        Units that were computed again from the input.
    largest_difference : float
        Between a pixel and what was computed again, in standard deviations of the frame.
    """

    output: str
    units: int
    objects: int
    bytes: int
    damages: tuple[Damage, ...]
    finished: int = 0
    missing: tuple[str, ...] = ()
    complete: bool = True
    running: bool = False
    recomputed: int = 0
    largest_difference: float = 0.0

    @property
    def frames(self) -> list[str]:
        """Frames that are hurt, each once."""
        return list(dict.fromkeys(frame for damage in self.damages for frame in damage.frames))

    @property
    def unfinished(self) -> bool:
        """Whether the run is still to be continued."""
        return not self.complete

    @property
    def exit_code(self) -> int:
        """Of the command line: 0, or 3 where anything is wrong or missing."""
        return 3 if self.damages or self.unfinished else 0

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self) | {"frames": self.frames, "unfinished": self.unfinished, "exit_code": self.exit_code}


@dataclass(frozen=True)
class PartResult:
    """What `phbatch.run_part` did.

    Attributes
    ----------
    output : str
        Where the result lies.
    part, parts : int
        Which part it was, and of how many; 0 where the output was complete before.
    units, units_done, units_skipped : int
        Of the part: all, those restored now, and those finished before.
    measured : int
        Units that were measured now, for statistics that must be known first.
    waiting : tuple of int
        Parts that must be measured before any unit can be restored.
    failed : mapping of str to str
        Error of every unit that failed.
    missing : int
        Units of the whole output that are not finished.
    complete : bool
        Whether the output is.
    verified : VerifyReport or None
        Of the whole output, where this call finished it.
    seconds : float
        Wall time.
    """

    output: str
    part: int
    parts: int
    units: int = 0
    units_done: int = 0
    units_skipped: int = 0
    measured: int = 0
    waiting: tuple[int, ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict)
    missing: int = 0
    complete: bool = False
    verified: VerifyReport | None = None
    seconds: float = 0.0

    @property
    def exit_code(self) -> int:
        """Of the command line: 0; 3 where the output is damaged; 4 where units failed, or nothing could be done yet."""
        if self.verified is not None and self.verified.damages:
            return 3
        return 4 if self.failed or (self.waiting and not self.measured) else 0

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self) | {"exit_code": self.exit_code}
