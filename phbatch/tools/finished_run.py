"""A run as its output tells it afterwards: provenance, statistics, times, failures; frames before and after."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phbatch.frames.light import Preparation, Profile, prepare_frame
from phbatch.inputs.image import Source
from phbatch.inputs.light_profile import read_profile
from phbatch.inputs.opening import open_input
from phbatch.kernels.illumination import Correction
from phbatch.kernels.intensity import Affine
from phbatch.kernels.tiling import TilePlan
from phbatch.outputs.accounts import read_accounts
from phbatch.outputs.creation import IMAGE, read_output_attributes
from phbatch.outputs.finished import Finished
from phbatch.outputs.ledger import Ledger
from phbatch.places.place import Place
from phbatch.planning.units import Geometry
from phbatch.running.begin import PROFILE
from phbatch.tools.unit_times import read_units
from phbatch.words.axes import CANONICAL, FrameKey, to_region
from phbatch.words.choices import ESTIMATED_BACKGROUNDS, FRAME_BACKGROUNDS
from phbatch.words.errors import InputError, OutputError, PhbatchError
from phbatch.words.settings import parse_settings

WINDOW = 4096
"""Largest side of what is looked at of a frame, in pixels of the output: the middle of larger ones."""

FloatImage = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class FramePair:
    """A frame before and after, in the same units of intensity.

    Attributes
    ----------
    key : FrameKey
        In the input.
    channel : int
        Of the output.
    corner : (y, x)
        Of what was read, in pixels of the output.
    before, after : (y, x) ndarray of float32
        As the network saw it, normalized; None where the input cannot be read. What was stored.
    flags : tuple of str
        Of the frame.
    unchanged : bool
        Whether it was passed through, or left out, since it is bad or has no scale.
    """

    key: FrameKey
    channel: int
    corner: tuple[int, int]
    before: FloatImage | None
    after: FloatImage
    flags: tuple[str, ...]
    unchanged: bool = False


class FinishedRun:
    """What an output tells of the run that made it.

    Parameters
    ----------
    output : Place
        Of `phbatch.run`, finished or not.
    input : str, optional
        The input, where it was moved.

    Raises
    ------
    OutputError
        There is no output of phbatch.
    """

    def __init__(self, output: Place, input: str | None = None) -> None:
        attributes = read_output_attributes(output)
        if attributes is None or "geometry" not in attributes:
            raise OutputError(f"{output} holds no output of phbatch; give the OUTPUT of a run.")
        self.output, self.provenance = output, attributes
        self.settings: Mapping[str, Any] = attributes["settings"]
        self.geometry = Geometry.from_dict(attributes["geometry"])
        self.finished = Finished(self.geometry)
        self.accounts = read_accounts(output)
        self.input_problem = ""
        self._input = input or attributes["input"]
        self.times = read_units(Ledger(output).current(self.geometry.units), self.finished)

    @cached_property
    def source(self) -> Source | None:
        """The input; None where it cannot be read now, and `input_problem` says why."""
        known = {name: self.settings.get(name) for name in ("axes", "pattern", "position")}
        try:
            found = open_input(self._input, parse_settings(known | {"storage_options": self.output.options}))
            if found.shape != self.geometry.shape:
                raise InputError(f"{self._input} has another shape now.")
        except PhbatchError as error:
            self.input_problem = str(error)
            return None
        return found

    @cached_property
    def profile(self) -> Profile | None:
        """The profile of uneven light that frames were corrected with, where it is one for all frames."""
        method = self.settings["illumination"]
        if method == "none" or method in FRAME_BACKGROUNDS:
            return None
        estimated = method in ESTIMATED_BACKGROUNDS
        place = self.output / PROFILE if estimated else Place.at(method, self.output.options)
        try:
            return Profile(*read_profile(place))
        except PhbatchError:
            return None

    @property
    def dtype(self) -> str:
        """Of the input's pixels."""
        return str(self.provenance["fingerprint"]["input"]["dtype"])

    @property
    def tiles(self) -> TilePlan | None:
        """How frames were cut for the network; None where there was none."""
        tile = self.provenance.get("tile")
        if tile is None:
            return None
        return TilePlan(self.geometry.network_frame_shape, tuple(tile["shape"]), tile["halo"], tile["grid"])

    @property
    def rescaled(self) -> bool:
        """Whether the output is in the input's counts."""
        return bool(self.settings["rescale"])

    def tile_edges(self) -> tuple[list[int], list[int]]:
        """First rows and columns of all tiles but the first, in pixels of the output."""
        if self.tiles is None or self.geometry.upscaled:
            return [], []
        planned = zip(zip(*self.tiles.tiles, strict=True), self.tiles.padding, strict=True)
        spans = [sorted({span.start - before for span in axis if span.start}) for axis, (before, _) in planned]
        return spans[-2], spans[-1]

    def channels(self) -> list[tuple[int, int]]:
        """Channels of the output, each with the channel of the input that it is of."""
        n_output, kept = self.geometry.n_output, self.geometry.channels
        return [
            (index, kept[0] if self.geometry.stacked else kept[index // n_output])
            for index in range(self.geometry.output_shape[1])
        ]

    def restores(self, index: int) -> bool:
        """Whether a channel of the output is what a network made of a channel of the input: no scale, no other one."""
        if self.provenance.get("model") is None:
            return False
        if dict(self.channels())[index] in self.geometry.copied:
            return False
        return index == 0 if self.geometry.stacked else index % self.geometry.n_output == 0

    def frame_key(self, t: int, c: int) -> FrameKey:
        """Key of the frame of a time and channel, of the middle plane."""
        return FrameKey(t, c, None if self.geometry.volumes else self.geometry.shape[2] // 2)

    def pair(self, key: FrameKey, channel: int, z: int | None = None) -> FramePair:
        """Read the middle of a frame before and after; one that is not finished is an error of the caller.

        Parameters
        ----------
        key : FrameKey
            Of the frame.
        channel : int
            Of the output.
        z : int, optional
            Plane of the input. Default: the middle one.
        """
        z = self.geometry.shape[2] // 2 if z is None else z
        affine = self.affine(key)
        flags = tuple(self.finished.table[self.geometry.grid.index(key)]["flags"])
        after = self.stored(key.t, channel, z)
        before = self._before(key, z, affine or Affine())
        return FramePair(key, channel, self.window[0], before, after, flags, unchanged=affine is None)

    def affine(self, key: FrameKey) -> Affine | None:
        """What brings counts of the input to the units of the output; None of a frame that was not normalized."""
        row = self.finished.table[self.geometry.grid.index(key)]
        bad = self.settings["bad_frames"] != "normalize" and bool(row["flags"])
        if bad or row.get("divisor") is None:
            return None
        return Affine() if self.rescaled else Affine(row["offset"], row["divisor"], row["divisor"])

    def stored(self, t: int, channel: int, z: int, node: str = IMAGE) -> FloatImage:
        """The window of a plane as it was stored, where integers stand for numbers in those numbers."""
        start, stop = self.window
        at = self.geometry.times.index(t)
        region = to_region((at, channel, z, *start), (at + 1, channel + 1, z + 1, *stop))
        array: Any = self.output.open(node)
        axes = self.provenance["axes"]
        stored = array[
            tuple(
                region[CANONICAL.index(axis)] if axis in "yx" else region[CANONICAL.index(axis)].start for axis in axes
            )
        ]
        found, packing = np.asarray(stored, np.float32), array.attrs
        if "scale_factor" in packing:
            found = found * np.float32(packing["scale_factor"]) + np.float32(packing["add_offset"])
        return found

    @property
    def window(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """First and last row and column, in pixels of the output, of what is looked at of a frame."""
        lengths = self.geometry.output_shape[3:]
        start = tuple(max(0, (length - WINDOW) // 2) for length in lengths)
        stop = tuple(min(length, first + WINDOW) for length, first in zip(lengths, start, strict=True))
        return (start[0], start[1]), (stop[0], stop[1])

    def _before(self, key: FrameKey, z: int, affine: Affine) -> FloatImage | None:
        if self.source is None:
            return None
        try:
            return self.prepared(self.source, (key.t, key.c, z), key.c, affine)
        except InputError as error:
            self.input_problem = str(error)
            return None

    def prepared(self, source: Source, at: tuple[int, int, int], channel: int, affine: Affine) -> FloatImage:
        """The window of a plane of the input, or of an image of its size, as the run prepared and normalized it.

        Parameters
        ----------
        source : Source
            The input, or another image of its height and width.
        at : (t, c, z)
            Of the plane in it.
        channel : int
            Of the input, whose light is corrected.
        affine : Affine
            Applied last.
        """
        start, stop = self.window
        factor = 1 if self.geometry.upscaled else self.geometry.downscale
        low = [first * factor for first in start]
        high = [min(last * factor, length) for last, length in zip(stop, self.geometry.shape[3:], strict=True)]
        block = source.read_or_refuse(to_region((*at, *low), (*(index + 1 for index in at), *high)))
        preparation, corrections = self._preparation(factor, channel, at[2], low, high)
        return prepare_frame(block, (0, 0, 0), preparation, corrections).normalize(affine)

    def _preparation(self, factor: int, c: int, z: int, low: list[int], high: list[int]) -> tuple[Preparation, Any]:
        method, mode = self.settings["illumination"], self.settings["illumination_mode"]
        if method == "none" or method in FRAME_BACKGROUNDS:
            return Preparation(factor, method, mode), None
        if self.profile is None:
            return Preparation(factor), None
        window = (slice(None), slice(None), slice(low[0], high[0]), slice(low[1], high[1]))
        dark = self.profile.dark
        part = Profile(self.profile.background[window], None if dark is None else dark[window])
        preparation = Preparation(factor, method, mode)

        def corrections(_c: int, _z: int) -> Correction:
            return part.correction(preparation, c, z)

        return preparation, corrections
