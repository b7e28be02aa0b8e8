"""Preparing frames: area averages and the correction of uneven light, before anything is measured or normalized.

The correction and the normalization that follows are one pass over the pixels. The statistics of a prepared frame are
those of what the normalization sees: where an 8 or 16 bit integer frame was prepared, its values are rounded to a 1/256
(8 bit) or a whole count (16 bit) first, so that they are counted as exactly, and as fast, as raw frames are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phbatch.kernels.background import gaussian_background, polynomial_background
from phbatch.kernels.counting import halo_of_counting
from phbatch.kernels.downsample import area_average
from phbatch.kernels.flatfield import mend_dead_pixels
from phbatch.kernels.illumination import Correction, apply_normalized
from phbatch.kernels.intensity import Affine
from phbatch.kernels.padding import Extent, Padding, find_extent, image_pixels, padding_of
from phbatch.kernels.pyramid import make_levels
from phbatch.kernels.saturation import saturated_fraction
from phbatch.kernels.smoothing import is_fixed_point
from phbatch.kernels.stats import FrameStatistics, State, frame_state, measure_frame
from phbatch.words.choices import IlluminationMode
from phbatch.words.errors import InputError


@dataclass(frozen=True)
class Preparation:
    """What is done to a frame before it is measured.

    Attributes
    ----------
    downscale : int
        Pixels along y and x that are averaged into one.
    illumination : str
        ``none``, ``gaussian`` or ``polynomial`` (of every frame by itself), or anything else for a given profile.
    mode : {"divide", "subtract"}
        What is done with the background.
    """

    downscale: int = 1
    illumination: str = "none"
    mode: IlluminationMode = "divide"

    @property
    def changes_pixels(self) -> bool:
        """Whether anything is done."""
        return self.downscale > 1 or self.illumination != "none"

    def describe(self, *, upscaled: bool = False) -> str:
        """What is done, in a few words; empty where nothing is.

        Examples
        --------
        >>> Preparation(2, "gaussian").describe()
        'area average of 2 x 2 pixels, gaussian background divided out'
        """
        words = []
        if self.downscale > 1:
            back = " (output interpolated back)" if upscaled else ""
            words.append(f"area average of {self.downscale} x {self.downscale} pixels{back}")
        if self.illumination != "none":
            action = "divided out" if self.mode == "divide" else "subtracted"
            words.append(f"{self.illumination} background {action}")
        return ", ".join(words)


@dataclass(frozen=True, eq=False)
class Profile:
    """Uneven light of an image, on the grid of its frames.

    Attributes
    ----------
    background : (c, z, y, x) ndarray of float32
        What an empty field of view looks like; one channel or plane stands for all.
    dark : (c, z, y, x) ndarray of float32, or None
        Counts without light.
    """

    background: NDArray[np.float32]
    dark: NDArray[np.float32] | None = None

    def correction(self, preparation: Preparation, c: int, z: int) -> Correction:
        """The map of one channel and plane, mended where it is dead; area averaged as its frames are."""
        place, divides = self.place(c, z), preparation.mode == "divide"
        full, full_dark = self.background[place], None if self.dark is None else self.dark[place]
        full, full_dark, _ = mend_dead_pixels(full, full_dark, divides=divides)
        background = area_average(full, preparation.downscale)
        dark = None if full_dark is None else area_average(full_dark, preparation.downscale)
        if not divides:
            with np.errstate(over="ignore", invalid="ignore"):  # it is refused where it is not finite
                background = background if dark is None else background - dark
            return Correction.subtract(background)
        return Correction.divide(background, 0.0 if dark is None else dark)

    def place(self, c: int, z: int) -> tuple[int, int]:
        """Channel and plane of the profile that a channel and plane of the image are corrected with."""
        return c if len(self.background) > 1 else 0, z if self.background.shape[1] > 1 else 0


@dataclass(frozen=True, eq=False)
class PreparedFrame:
    """A frame as the normalization sees it.

    Attributes
    ----------
    pixels : (y, x) or (z, y, x) ndarray
        As read, or area averages in float32.
    corrections : tuple of Correction
        Of every plane; empty where the light is left as it is.
    source : ndarray
        As read.
    uncorrected : bool
        Whether the light was to be corrected and could not be, since the background is not above zero.
    downscale : int
        Pixels along y and x that were averaged into one.
    """

    pixels: NDArray[Any]
    corrections: tuple[Correction, ...]
    source: NDArray[Any]
    uncorrected: bool = False
    downscale: int = 1

    def normalize(
        self, affine: Affine, out: NDArray[np.float32] | None = None, levels: Sequence[NDArray[np.float32]] = ()
    ) -> NDArray[np.float32]:
        """Correct and normalize, in float32, as `Affine.apply` does."""
        if not self.corrections:
            return affine.apply(self.pixels, out, levels)
        result = np.empty(self.pixels.shape, np.float32) if out is None else out
        planes = (array.reshape(-1, *self.pixels.shape[-2:]) for array in (self.pixels, result))
        for plane, target, correction in zip(*planes, self.corrections, strict=True):
            target[:] = apply_normalized(plane, correction, affine.offset, affine.divisor)
        make_levels(result, len(levels), out=levels)
        return result

    def of_rows(self, rows: slice) -> PreparedFrame:
        """Some rows of it."""
        corrections = tuple(correction.window(rows) for correction in self.corrections)
        return replace(self, pixels=self.pixels[..., rows, :], corrections=corrections)

    def measure(self, sigma: float, percentiles: tuple[float, ...]) -> FrameStatistics:
        """Statistics of what the normalization sees; `saturated`, `zero` and the flags are those of the frame as read.

        Parameters
        ----------
        sigma : float
            Of the Gaussian, in pixels of `pixels`.
        percentiles : tuple of float
            0 to 100.
        """
        if self.pixels is self.source and not self.corrections:
            return self._flagged(measure_frame(self.source, sigma, percentiles))
        values, fractions = self.countable()
        extents, paddings = self._paddings(sigma)
        found = in_counts(measure_frame(values, sigma, percentiles, paddings), fractions)
        pixels = image_pixels(self.source, extents)
        low, high = pixels.min(), pixels.max()
        flags = found.flags
        if low == high:
            flags = ("zero", "constant") if low == 0 else ("constant",)
        return self._flagged(
            replace(found, saturated=saturated_fraction(pixels), zero=float((pixels == 0).mean()), flags=flags)
        )

    def state(self, sigma: float) -> State:
        """Mergeable summary of what the normalization sees."""
        return frame_state(self.countable()[0], sigma, self._paddings(sigma)[1])

    def paddings(self, sigma: float) -> list[Padding | None]:
        """Padding of every plane, and how far smoothing by `sigma` pixels carries it."""
        return self._paddings(sigma)[1]

    def _paddings(self, sigma: float) -> tuple[list[Extent | None], list[Padding | None]]:
        """Of every plane: its image as read, and its padding on the grid of averages, where light may have moved it."""
        found = [find_extent(plane) for plane in self.source.reshape(-1, *self.source.shape[-2:])]
        radius = halo_of_counting(sigma)
        paddings = [padding_of(extent and extent.averaged(self.downscale), radius) for extent in found]
        return [extent if padding else None for extent, padding in zip(found, paddings, strict=True)], paddings

    def _flagged(self, found: FrameStatistics) -> FrameStatistics:
        """A frame without contrast or with NaN says enough."""
        return replace(found, flags=("uncorrected",)) if self.uncorrected and not found.flags else found

    def countable(self) -> tuple[NDArray[Any], int]:
        """What is summarized, and how many steps of it are a count."""
        if self.pixels is self.source and not self.corrections:
            return self.source, 1
        image = self.normalize(Affine())
        if not is_fixed_point(self.source.dtype):
            return image, 1
        fractions = count_fractions(self.source.dtype)
        dtype = np.dtype(np.int16 if self.source.dtype.kind == "i" else np.uint16)
        limits = np.iinfo(dtype)
        np.rint(image * np.float32(fractions), out=image)
        return np.clip(image, limits.min, limits.max, out=image).astype(dtype), fractions


def count_fractions(dtype: np.dtype[Any]) -> int:
    """Steps per count in which prepared frames of a dtype are summarized.

    Examples
    --------
    >>> count_fractions(np.dtype("uint8")), count_fractions(np.dtype("uint16"))
    (256, 1)
    """
    return 256 if dtype.itemsize == 1 else 1


Corrections = Callable[[int, int], Correction]
"""The map of a given profile, by the channel and the plane within the block."""


def prepare_frame(
    block: NDArray[Any], index: tuple[int, int, int | None], preparation: Preparation, corrections: Corrections | None
) -> PreparedFrame:
    """Prepare one frame.

    Parameters
    ----------
    block : (t, c, z, y, x) ndarray
        As read.
    index : (t, c, z)
        Of the frame within the block; z is None for the whole volume.
    preparation : Preparation
        What to do.
    corrections : callable, or None
        Of a given profile.
    """
    t, c, z = index
    frame = block[t, c] if z is None else block[t, c, z]
    if not preparation.changes_pixels:
        return PreparedFrame(frame, (), frame)
    pixels = frame if preparation.downscale == 1 else area_average(frame, preparation.downscale)
    prepared = PreparedFrame(pixels, (), frame, downscale=preparation.downscale)
    if preparation.illumination == "none":
        return prepared
    planes = pixels.reshape(-1, *pixels.shape[-2:])
    if corrections is not None:
        return replace(prepared, corrections=tuple(corrections(c, (z or 0) + plane) for plane in range(len(planes))))
    try:
        return replace(prepared, corrections=tuple(_correct_by_itself(plane, preparation) for plane in planes))
    except InputError:
        return replace(prepared, uncorrected=True)


def background_of(image: NDArray[Any], method: str, *, light: bool) -> NDArray[np.float32]:
    """Smooth background of one image ``(y, x)``, in its counts: ``gaussian`` or ``polynomial``."""
    estimate = gaussian_background if method == "gaussian" else polynomial_background
    return estimate(image, light=light)


def _correct_by_itself(plane: NDArray[Any], preparation: Preparation) -> Correction:
    light = preparation.mode == "divide"
    background = background_of(plane, preparation.illumination, light=light)
    return Correction.divide(background) if light else Correction.subtract(background)


def as_read(found: FrameStatistics, raw: State) -> FrameStatistics:
    """Statistics of a prepared frame with what is said of it as it was read."""
    low, high = raw.extremes
    flags = found.flags
    if low == high:
        flags = ("zero", "constant") if low == 0 else ("constant",)
    return replace(found, saturated=raw.saturated, zero=raw.zero, flags=flags)


def in_counts(statistics: FrameStatistics, fractions: int) -> FrameStatistics:
    """Statistics of an image from those of `fractions` times the image."""
    if fractions == 1:
        return statistics
    names = ("median", "mode", "mad", "mean", "std", "min", "max")
    scaled: dict[str, Any] = {name: getattr(statistics, name) / fractions for name in names}
    percentiles = {p: value / fractions for p, value in statistics.percentiles.items()}
    return replace(statistics, **scaled, percentiles=percentiles, focus=statistics.focus / fractions**2)
