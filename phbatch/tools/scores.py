"""How far a frame is from its truth: PSNR, SSIM and NRMSE, also up to scale and offset, and on cells and background.

The range that errors are held against is that of the truth from its 0.1 to its 99.9 percentile, and the form that is
free of scale and offset fits both by least squares first, as CSBDeep does (Weigert et al. 2018, Nature Methods 15,
1090-1097, 10.1038/s41592-018-0216-7). SSIM is scikit-image's, with its defaults.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from math import inf, log10, nan, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import convolve, gaussian_filter
from skimage.metrics import structural_similarity

LEAST = 7
"""Pixels a side that SSIM needs."""

_RANGE = (0.1, 99.9)  # percentiles of the truth
_EDGE = LEAST // 2
_SIGMA = 3.0  # of the window in which structure is looked for
_CONTRAST, _NOISE = 0.05, 2.0  # of the range, and of the noise: local deviation from which on there is a cell
_LAPLACIANS = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float64) / 6
_MEDIAN_OF_ABSOLUTE = 0.6745  # of a normal distribution, over its standard deviation

Image = NDArray[np.floating]
Mask = NDArray[np.bool_]
Values = NDArray[np.float64]


@dataclass(frozen=True)
class FrameScores:
    """How far one frame is from its truth; None where there is nothing to measure on.

    Attributes
    ----------
    t, c, z : int
        Of the plane, in the output.
    psnr : float
        Peak signal-to-noise ratio in dB, of the truth's range.
    ssim : float
        Structural similarity, mean over the frame.
    nrmse : float
        Root mean squared error over the truth's range.
    si_psnr, si_ssim, si_nrmse : float
        The same once scale and offset are fitted to the truth.
    cells : float
        Share of the frame that is cells.
    psnr_cells, ssim_cells, nrmse_cells, psnr_background, ssim_background, nrmse_background : float or None
        On cells and on background alone, of the same range.
    input_psnr, input_ssim, input_nrmse : float or None
        Of the input, before it was restored.
    position : str
        Path of its image among many; empty of an image alone.
    """

    t: int
    c: int
    z: int
    psnr: float
    ssim: float
    nrmse: float
    si_psnr: float
    si_ssim: float
    si_nrmse: float
    cells: float
    psnr_cells: float | None
    ssim_cells: float | None
    nrmse_cells: float | None
    psnr_background: float | None
    ssim_background: float | None
    nrmse_background: float | None
    input_psnr: float | None = None
    input_ssim: float | None = None
    input_nrmse: float | None = None
    position: str = ""

    @property
    def key(self) -> str:
        """Such as ``"t0/c0/z0"``, after the path of one of many images."""
        return f"{self.position}/t{self.t}/c{self.c}/z{self.z}".lstrip("/")

    def as_dict(self) -> dict[str, Any]:
        """A row of a table, which begins with the position where there is one."""
        row = asdict(self)
        position = row.pop("position")
        return {"position": position, **row} if position else row


COLUMNS = tuple(field.name for field in fields(FrameScores) if field.name != "position")
"""Of a table of one image; of many, the position comes first."""


def score_frame(
    at: tuple[int, int, int], restored: Image, truth: Image, before: Image | None = None, cells: Mask | None = None
) -> FrameScores | None:
    """Score a frame; pixels that are not finite in one of the images are left out.

    Parameters
    ----------
    at : (t, c, z)
        Of the plane.
    restored, truth, before : (y, x) ndarray
        In the same units; `before` is the input.
    cells : (y, x) ndarray of bool, optional
        Where the cells are. Default: see `find_cells`.

    Returns
    -------
    FrameScores or None
        None of a truth without a range, or without a finite pixel.

    Examples
    --------
    >>> truth = np.random.default_rng(0).normal(100, 20, (64, 64))
    >>> found = score_frame((0, 0, 0), 2 * truth + 5, truth)
    >>> found.psnr < 5, found.si_psnr > 60
    (True, True)
    """
    images = [np.asarray(image, np.float64) for image in (restored, truth, before) if image is not None]
    usable = np.logical_and.reduce([np.isfinite(image) for image in images])
    if not usable.any():
        return None
    low, high = np.percentile(images[1][usable], _RANGE)
    if not high > low:
        return None
    against = _Truth(usable, float(high - low), np.where(usable, images[1], low))
    first, *rest = (np.where(usable, image, low) for image in (images[0], *images[2:]))
    found = find_cells(against.image, against.range) if cells is None else cells
    on_cells, on_background = found & usable, ~found & usable
    errors, similarity = against.errors(first), against.similarity(first)
    return FrameScores(
        *at,
        *against.whole(errors, similarity),
        *against.scores(_fit(first, against.image, usable)),
        float(on_cells.sum() / usable.sum()),
        *against.part(errors, similarity, on_cells),
        *against.part(errors, similarity, on_background),
        *(against.scores(rest[0]) if rest else (None, None, None)),
    )


@dataclass(frozen=True, eq=False)
class _Truth:
    """What images are held against: the truth, its range, and the pixels that count."""

    usable: Mask
    range: float
    image: Values

    def scores(self, image: Values) -> tuple[float, float, float]:
        return self.whole(self.errors(image), self.similarity(image))

    def errors(self, image: Values) -> Values:
        return np.asarray((image - self.image) ** 2, np.float64)

    def similarity(self, image: Values) -> Values:
        _, found = structural_similarity(self.image, image, data_range=self.range, full=True)
        return np.asarray(found, np.float64)

    def whole(self, errors: Values, similarity: Values) -> tuple[float, float, float]:
        psnr, ssim, nrmse = self.part(errors, similarity, self.usable)
        return psnr or 0.0, ssim if ssim is not None else nan, nrmse or 0.0

    def part(self, errors: Values, similarity: Values, mask: Mask) -> tuple[float | None, float | None, float | None]:
        """PSNR, SSIM and NRMSE of the pixels of a mask; SSIM of those whose window lies in the frame."""
        if not mask.any():
            return None, None, None
        inner = mask[_EDGE:-_EDGE, _EDGE:-_EDGE]
        ssim = float(similarity[_EDGE:-_EDGE, _EDGE:-_EDGE][inner].mean()) if inner.any() else None
        nrmse = sqrt(float(errors[mask].mean())) / self.range
        return -20 * log10(nrmse) if nrmse > 0 else inf, ssim, nrmse


def _fit(image: Values, truth: Values, usable: Mask) -> Values:
    """Scale and offset of the least squared error, where it counts."""
    seen, wanted = image[usable], truth[usable]
    centered = seen - seen.mean()
    power = float(centered @ centered)
    slope = float(centered @ wanted) / power if power > 0 else 0.0
    return np.where(usable, slope * (image - seen.mean()) + wanted.mean(), truth)


def find_cells(truth: Image, span: float) -> Mask:
    """Where a truth holds cells, their halos and other structure: the rest is background.

    There the standard deviation in a Gaussian window (sigma 3 px) is above 5 % of the truth's range, and above twice
    its noise, which is the median of what Immerkaer's mask leaves.

    Examples
    --------
    >>> truth = np.full((80, 80), 100.0)
    >>> truth[30:50, 30:50:4] = 150
    >>> found = find_cells(truth, 50.0)
    >>> bool(found[40, 40]), bool(found[5, 5])
    (True, False)
    """
    image = np.asarray(truth, np.float64)
    image = image - image.mean()
    noise = float(np.median(np.abs(convolve(image, _LAPLACIANS, mode="nearest")))) / _MEDIAN_OF_ABSOLUTE
    variance = gaussian_filter(image**2, _SIGMA) - gaussian_filter(image, _SIGMA) ** 2
    return np.asarray(variance > max(_CONTRAST * span, _NOISE * noise) ** 2)
