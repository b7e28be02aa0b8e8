"""Planes of a restored image beside those of its truth, in the same units; one is in memory at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from phbatch.inputs.image import Source
from phbatch.kernels.downsample import area_average
from phbatch.kernels.intensity import Affine
from phbatch.outputs.creation import UNCERTAINTY
from phbatch.tools.finished_run import FinishedRun
from phbatch.words.axes import CANONICAL, FrameKey, Shape, to_region
from phbatch.words.errors import InputError

FloatImage = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class JudgedPlane:
    """A plane, its truth and what is known of it.

    Attributes
    ----------
    at : (t, c, z)
        In the restored image.
    restored, truth : (y, x) ndarray of float32
        In the units of the restored image.
    before : (y, x) ndarray of float32, or None
        The input.
    scale : (y, x) ndarray of float32, or None
        That a probabilistic network gave.
    cells : (y, x) ndarray of bool, or None
        Where somebody marked them.
    """

    at: tuple[int, int, int]
    restored: FloatImage
    truth: FloatImage
    before: FloatImage | None = None
    scale: FloatImage | None = None
    cells: NDArray[np.bool_] | None = None


class ImagePlanes:
    """Planes of an image, each at the same place in the truth, the input and the mask.

    Raises
    ------
    InputError
        One of them has another shape.
    """

    def __init__(self, restored: Source, truth: Source, before: Source | None, cells: Source | None) -> None:
        for name, other in (("the truth", truth), ("the input", before), ("the mask", cells)):
            if other is not None and other.shape != restored.shape:
                raise InputError(
                    f"{name} {other.path} is {_by(other.shape)} and the restored image {_by(restored.shape)} (tczyx);"
                    " give images of one shape."
                )
        self._restored, self._truth, self._before, self._cells = restored, truth, before, cells

    def times(self) -> Sequence[int]:
        """Indices along t."""
        return range(self._restored.shape[0])

    def at(self, t: int) -> Iterator[JudgedPlane]:
        """Planes of a time."""
        for c, z in product(*(range(length) for length in self._restored.shape[1:3])):
            place = (t, c, z)
            yield JudgedPlane(
                place,
                _plane(self._restored, place),
                _plane(self._truth, place),
                before=None if self._before is None else _plane(self._before, place),
                cells=None if self._cells is None else _plane(self._cells, place) > 0,
            )


class RunPlanes:
    """Planes of an output of phbatch; truth and input are prepared and normalized as the run did it.

    Raises
    ------
    InputError
        The truth or the mask has neither the shape of the input nor that of the output.
    """

    def __init__(self, run: FinishedRun, truth: Source, cells: Source | None) -> None:
        self._run, self._truth, self._cells = run, truth, cells
        self._scaled = bool(run.settings.get("uncertainty"))
        for name, source in (("truth", truth), ("mask", cells)):
            if source is not None:
                self._require_shape(name, source)

    def _require_shape(self, name: str, source: Source) -> None:
        geometry = self._run.geometry
        for axis, length, here, there in zip(
            CANONICAL, source.shape, geometry.shape, geometry.output_shape, strict=True
        ):
            if length not in ((here, there, 1) if axis == "c" else (here, there)):
                raise InputError(
                    f"the {name} {source.path} has {length} along {axis}, the input of the run {here} and its output"
                    f" {there}; give one that is aligned with either."
                )

    def times(self) -> Sequence[int]:
        """Indices along t of the output, of frames that are finished."""
        table, run = self._run.finished.table, self._run
        if table.known == len(table):
            return range(len(run.geometry.times))
        first = run.geometry.channels[0]
        return [at for at, t in enumerate(run.geometry.times) if table.knows(run.frame_key(t, first))]

    def at(self, index: int) -> Iterator[JudgedPlane | str]:
        """Planes of a time; of one that was not normalized its key."""
        run = self._run
        t = run.geometry.times[index]
        for (channel, of), z in product(run.channels(), range(run.geometry.shape[2])):
            if run.provenance.get("model") is not None and not run.restores(channel):
                continue
            key = FrameKey(t, of, None if run.geometry.volumes else z)
            pair, affine = run.pair(key, channel, z), run.affine(key)
            if affine is None:
                yield str(key)
                continue
            yield JudgedPlane(
                (index, channel, z),
                pair.after,
                self._aligned(self._truth, index, key, channel, z, affine),
                before=pair.before if pair.before is not None and pair.before.shape == pair.after.shape else None,
                scale=run.stored(t, channel, z, UNCERTAINTY) if self._scaled else None,
                cells=None if self._cells is None else self._marked(self._cells, index, key, channel, z),
            )

    def _aligned(self, source: Source, index: int, key: FrameKey, channel: int, z: int, affine: Affine) -> FloatImage:
        """A plane of the truth in the units of the output."""
        at = self._place(source, index, key, channel, z)
        if source.shape[3:] == self._run.geometry.shape[3:]:
            return self._run.prepared(source, at, key.c, affine)
        return affine.apply(_plane(source, at, self._run.window))

    def _marked(self, source: Source, index: int, key: FrameKey, channel: int, z: int) -> NDArray[np.bool_]:
        """A plane of the mask: pixels of which half or more is marked."""
        run, at = self._run, self._place(source, index, key, channel, z)
        if source.shape[3:] == run.geometry.output_shape[3:]:
            return _plane(source, at, run.window) > 0
        factor, (start, stop) = run.geometry.downscale, run.window
        low = (start[0] * factor, start[1] * factor)
        high = (min(stop[0] * factor, source.shape[3]), min(stop[1] * factor, source.shape[4]))
        return area_average((_plane(source, at, (low, high)) > 0).astype(np.uint8), factor) >= 0.5

    def _place(self, source: Source, index: int, key: FrameKey, channel: int, z: int) -> tuple[int, int, int]:
        geometry = self._run.geometry
        t = key.t if source.shape[0] == geometry.shape[0] else index
        c = {1: 0, geometry.shape[1]: key.c}.get(source.shape[1], channel)
        return t, c, z


def _plane(
    source: Source, at: tuple[int, int, int], window: tuple[tuple[int, int], tuple[int, int]] | None = None
) -> FloatImage:
    start, stop = window or ((0, 0), (source.shape[3], source.shape[4]))
    block = source.read_or_refuse(to_region((*at, *start), (*(index + 1 for index in at), *stop)))
    return np.asarray(block[0, 0, 0], np.float32)


def _by(shape: Shape) -> str:
    return " x ".join(map(str, shape))
