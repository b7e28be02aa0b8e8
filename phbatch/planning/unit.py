"""One piece of work, by what it reads and what it writes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

from phbatch.kernels.stats import FrameStatistics
from phbatch.words.axes import FrameKey, Region, frame_indices


@dataclass(frozen=True)
class Unit:
    """One piece of work: whole source chunks in, whole output chunks out, one owner.

    Attributes
    ----------
    key : str
        Its name in the ledger, in events and in errors: the output indices along t, c and z, and rows of a band.
    source : tuple of slice
        What is read, along ``tczyx``.
    keep_t, keep_c : range, tuple of int
        Indices along t and c, within what is read, of the frames that were asked for.
    output : tuple of slice
        What is written, along ``tczyx`` of the output.
    measured : mapping of (t, c, z) to FrameStatistics, or None
        What an earlier pass found for its frames, by their indices within the unit.
    """

    key: str
    source: Region
    keep_t: range
    keep_c: tuple[int, ...]
    output: Region
    measured: Mapping[tuple[int, int, int | None], FrameStatistics] | None = None

    def places_of(self, channels: Sequence[int]) -> frozenset[int]:
        """Where some channels of the input are among those that are kept."""
        first = self.source[1].start
        return frozenset(index for index, c in enumerate(self.keep_c) if first + c in channels)

    def first_frame(self, *, volumes: bool) -> Unit:
        """The part of it that is its first frame, whose indices within that are 0."""
        t, c, z, rows, columns = self.source
        t, c = (
            slice(part.start + kept[0], part.start + kept[0] + 1) for part, kept in ((t, self.keep_t), (c, self.keep_c))
        )
        z = z if volumes else slice(z.start, z.start + 1)
        return replace(self, source=(t, c, z, rows, columns), keep_t=range(1), keep_c=(0,), measured=None)

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


def region_size(region: Sequence[slice]) -> int:
    """Pixels of a region."""
    return prod(int(part.stop) - int(part.start) for part in region)
