"""How good a restoration is where its truth is known: scores of every frame, and whether its scale is honest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from math import log
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phbatch.inputs.opening import open_input
from phbatch.places.place import Place
from phbatch.tools.finished_positions import open_finished
from phbatch.tools.finished_run import FinishedRun
from phbatch.tools.judged_planes import ImagePlanes, JudgedPlane, RunPlanes
from phbatch.tools.report_pictures import textured_corner
from phbatch.tools.scores import LEAST, FrameScores, find_cells, score_frame
from phbatch.words.errors import InputError, OutputError, UsageError
from phbatch.words.settings import RunSettings, parse_settings

LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
"""Shares of pixels that intervals about the restored value should hold."""

MEASURES = ("psnr", "ssim", "nrmse")

_CROP = 256
_HONEST = 0.05  # of the pixels: how far an interval may be off

FloatImage = NDArray[np.float32]


@dataclass(frozen=True)
class Calibration:
    """Whether the scale of a probabilistic network tells how far off it is.

    The network's distribution is Laplace's: within ``-scale * log(1 - p)`` of the restored value lie, if it is right,
    a share p of the pixels.

    Attributes
    ----------
    expected, found : tuple of float
        Shares of the pixels that intervals should hold, and that they do hold.
    ratio : float
        Mean absolute error over the mean scale: 1 where the scale is right, above it where it is too small.
    """

    expected: tuple[float, ...]
    found: tuple[float, ...]
    ratio: float

    @property
    def error(self) -> float:
        """Mean difference between what intervals hold and should hold."""
        return float(np.mean(np.abs(np.subtract(self.found, self.expected))))

    @property
    def sentence(self) -> str:
        """What that means, by the interval that should hold 90 %."""
        expected, found = next(pair for pair in zip(self.expected, self.found, strict=True) if pair[0] == 0.9)
        off = found - expected
        verdict = "is right" if abs(off) <= _HONEST else "is too large" if off > 0 else "is too small"
        return (
            f"the scale {verdict}: intervals that should hold {expected:.0%} of the pixels hold {found:.1%}, and errors"
            f" are {self.ratio:.2f} times what it says."
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {"sentence": self.sentence, "error": self.error, **asdict(self)}


@dataclass(frozen=True, eq=False)
class Example:
    """A crop of the frame with the lowest PSNR: images in the same units, and where cells are."""

    frame: str
    corner: tuple[int, int]
    before: FloatImage | None
    restored: FloatImage
    truth: FloatImage
    cells: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """How far a restoration is from its truth.

    Attributes
    ----------
    rows : tuple of FrameScores
        One of each plane.
    calibration : Calibration or None
        Of a probabilistic network's scale, where it was written.
    example : Example
        The worst frame.
    notices : tuple of str
        What was left out.
    """

    rows: tuple[FrameScores, ...]
    example: Example
    calibration: Calibration | None = None
    notices: tuple[str, ...] = field(default=())

    def mean(self, name: str) -> float | None:
        """Mean of a score over the frames that have it; None where none has.

        Parameters
        ----------
        name : str
            Attribute of `FrameScores`.
        """
        values = [value for row in self.rows if (value := getattr(row, name)) is not None]
        return float(np.mean(values)) if values else None

    @property
    def worst(self) -> FrameScores:
        """The frame of the lowest PSNR."""
        return min(self.rows, key=lambda row: row.psnr)

    @property
    def gain(self) -> float | None:
        """Mean of what the PSNR was raised by, in dB; None where the input is not known."""
        gains = [row.psnr - row.input_psnr for row in self.rows if row.input_psnr is not None]
        return float(np.mean(gains)) if gains else None

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        names = [name for name in self.worst.as_dict() if name not in ("t", "c", "z")]
        return {
            "frames": len(self.rows),
            "mean": {name: self.mean(name) for name in names},
            "gain_db": self.gain,
            "worst": self.worst.key,
            "calibration": None if self.calibration is None else self.calibration.as_dict(),
            "notices": list(self.notices),
            "rows": [row.as_dict() for row in self.rows],
        }


def evaluate(
    restored: str | Path,
    truth: str | Path,
    *,
    input: str | Path | None = None,
    cells: str | Path | None = None,
    samples: int | None = None,
    axes: str | None = None,
    storage_options: Any = None,
) -> Evaluation:
    """Score a restored image against its truth, plane by plane.

    Of an output of phbatch the truth is prepared and normalized as its frames were (averaged, light corrected,
    divided), and stands beside the input, so that it is given in counts, at the input's size or the output's. Frames
    that were passed through, or are not finished, are left out. Of frames above 4096 pixels a side the middle is
    scored.

    Parameters
    ----------
    restored : str or Path
        Output of `phbatch.run`, or any image that phbatch reads.
    truth : str or Path
        Image that is aligned with it.
    input : str or Path, optional
        What was restored, to be scored, too. Default: of an output of phbatch the input that it names.
    cells : str or Path, optional
        Labels or mask, above 0 on cells, of the truth's shape. Default: where the truth has structure, see
        `phbatch.tools.scores.find_cells`.
    samples : int, optional
        Frames along t, evenly spread. Default: all.
    axes : str, optional
        Axes of bare arrays, such as ``"tyx"``, where their metadata do not name them.
    storage_options : mapping, str or sequence of str, optional
        Credentials and endpoint of an object store.

    Returns
    -------
    Evaluation
        Scores by frame; see `phbatch.report.save_evaluation`.

    Raises
    ------
    InputError
        An image cannot be read, is not aligned, or no frame can be scored.

    Examples
    --------
    >>> import tempfile, phbatch
    >>> folder, movie = tempfile.mkdtemp(), phbatch.PhaseContrast(shape=(64, 64), n_frames=2)
    >>> for name in ("noisy", "clean"):
    ...     phbatch.write_time_lapse(f"{folder}/{name}.zarr", movie, clean=name == "clean")
    >>> found = phbatch.evaluate(f"{folder}/noisy.zarr", f"{folder}/clean.zarr")
    >>> len(found.rows), found.gain is None
    (2, True)
    """
    if samples is not None and samples < 1:
        raise UsageError(f"--samples {samples} scores no frame; give 1 or more.")
    settings = parse_settings({"axes": axes, "storage_options": storage_options})
    planes = _open(restored, truth, input, cells, settings)
    times = planes.times()
    if samples is not None and len(times):
        times = [times[int(at)] for at in np.unique(np.linspace(0, len(times) - 1, samples).round())]
    rows: list[FrameScores] = []
    example: Example | None = None
    counter = _Counter()
    for t in times:
        for plane in planes.at(t):
            found = _score(plane)
            if found is None:
                planes.left_out.append(f"t{plane.at[0]}/c{plane.at[1]}/z{plane.at[2]}")
                continue
            if example is None or found.psnr < min(row.psnr for row in rows):
                example = _crop(plane, found.key)
            rows.append(found)
            counter.add(plane)
    if example is None:
        raise InputError(
            f"no frame of {restored} can be scored: none is finished and normalized beside a truth that varies; look at"
            " both."
        )
    return Evaluation(tuple(rows), example, counter.result(), _notices(planes.left_out))


def _open(
    restored: str | Path, truth: str | Path, before: str | Path | None, cells: str | Path | None, settings: RunSettings
) -> ImagePlanes | RunPlanes:
    place = Place.at(restored, settings.storage_options)
    wanted = open_input(truth, settings)
    mask = None if cells is None else open_input(cells, settings)
    run = _run_of(place, None if before is None else str(before))
    if run is not None:
        if before is not None and run.source is None:
            raise InputError(run.input_problem)
        return RunPlanes(run, wanted, mask)
    source = None if before is None else open_input(before, settings)
    return ImagePlanes(open_input(restored, settings), wanted, source, mask)


def _run_of(place: Place, before: str | None) -> FinishedRun | None:
    """The run that made an image, alone or as one of many; None of other images."""
    try:
        run = open_finished(place, before)
    except OutputError:
        return None
    return run if isinstance(run, FinishedRun) else None


def _score(plane: JudgedPlane) -> FrameScores | None:
    height, width = plane.restored.shape
    if min(height, width) < LEAST:
        raise InputError(f"frames of {height} x {width} pixels are too small: SSIM needs {LEAST} a side.")
    return score_frame(plane.at, plane.restored, plane.truth, plane.before, plane.cells)


def _crop(plane: JudgedPlane, key: str) -> Example:
    side = min(_CROP, *plane.truth.shape)
    y, x = textured_corner(plane.truth, side)
    window = (slice(y, y + side), slice(x, x + side))
    cells = plane.cells
    if cells is None:
        low, high = np.nanpercentile(plane.truth, (0.1, 99.9))
        cells = find_cells(np.nan_to_num(plane.truth, nan=float(low)), float(high - low))
    before = None if plane.before is None else plane.before[window].copy()
    return Example(key, (y, x), before, plane.restored[window].copy(), plane.truth[window].copy(), cells[window].copy())


class _Counter:
    """Counts, over frames, how many pixels lie within the intervals of a scale."""

    def __init__(self) -> None:
        self._inside = np.zeros(len(LEVELS), np.int64)
        self._pixels = 0
        self._error = self._scale = 0.0

    def add(self, plane: JudgedPlane) -> None:
        if plane.scale is None:
            return
        error = np.abs(plane.restored - plane.truth)
        usable = np.isfinite(error) & np.isfinite(plane.scale)
        error, scale = error[usable], plane.scale[usable]
        self._inside += [int((error <= scale * np.float32(-log(1 - level))).sum()) for level in LEVELS]
        self._pixels += error.size
        self._error += float(error.sum(dtype=np.float64))
        self._scale += float(scale.sum(dtype=np.float64))

    def result(self) -> Calibration | None:
        if not self._pixels:
            return None
        found = tuple(float(count / self._pixels) for count in self._inside)
        ratio = self._error / self._scale if self._scale > 0 else float("inf")
        return Calibration(LEVELS, found, ratio)


def _notices(left_out: Sequence[str]) -> tuple[str, ...]:
    if not left_out:
        return ()
    more = f" and {len(left_out) - 5} more" if len(left_out) > 5 else ""
    return (
        f"frames {', '.join(left_out[:5])}{more} left out: they were not normalized, or have a truth that does not"
        " vary.",
    )
