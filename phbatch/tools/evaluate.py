"""How good a restoration is where its truth is known: scores of every frame, and whether its scale is honest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from math import inf, log
from pathlib import Path
from typing import Unpack

import numpy as np

from phbatch.inputs.opening import open_input
from phbatch.inputs.positions import list_images
from phbatch.places.place import Place
from phbatch.tools.evaluation import LEVELS, Calibration, Evaluation, Example
from phbatch.tools.finished_positions import PositionsRun, open_finished
from phbatch.tools.finished_run import FinishedRun
from phbatch.tools.judged_planes import ImagePlanes, JudgedPlane, RunPlanes
from phbatch.tools.report_pictures import textured_corner
from phbatch.tools.scores import LEAST, FrameScores, find_cells, score_frame
from phbatch.words.errors import InputError, OutputError, UsageError
from phbatch.words.option_types import EvaluateOptions
from phbatch.words.options import parse_options
from phbatch.words.settings import RunSettings

_CROP = 256


def evaluate(
    restored: str | Path,
    truth: str | Path,
    *,
    input: str | Path | None = None,
    cells: str | Path | None = None,
    samples: int | None = None,
    **options: Unpack[EvaluateOptions],
) -> Evaluation:
    """Score restored images against their truth, plane by plane.

    Of an output of phbatch the truth is prepared and normalized as its frames were (averaged, light corrected,
    divided), and stands beside the input, so that it is given in counts, at the input's size or the output's. Frames
    that were passed through, or are not finished, are left out. Of frames above 4096 pixels a side the middle is
    scored.

    Parameters
    ----------
    restored : str or Path
        Output of `phbatch.run`, or any image that phbatch reads; a plate, a collection or a pattern is scored image by
        image.
    truth : str or Path
        Image that is aligned with it; of many, images of the same paths, and there may be more.
    input : str or Path, optional
        What was restored, to be scored, too. Default: of an output of phbatch the input that it names.
    cells : str or Path, optional
        Labels or mask, above 0 on cells, of the truth's shape. Default: where the truth has structure, see
        `phbatch.tools.scores.find_cells`.
    samples : int, optional
        Frames along t of every image, evenly spread. Default: all.
    **options
        `axes`, `wells`, `fields`, `storage_options`: as for `phbatch.run`.

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
    settings = parse_options("evaluate", options)
    if samples is not None and samples < 1:
        raise UsageError(f"--samples {samples} scores no frame; give 1 or more.")
    rows: list[FrameScores] = []
    example, worst = None, inf
    left_out: list[str] = []
    counter = _Counter()
    for position, planes in _open(restored, truth, input, cells, settings):
        if position and not len(planes.times()):
            left_out.append(position)
        for plane in _sampled(planes, samples):
            found = None if isinstance(plane, str) else _score(plane, position)
            if isinstance(plane, str) or found is None:
                at = plane if isinstance(plane, str) else "t{}/c{}/z{}".format(*plane.at)
                left_out.append(f"{position}/{at}".lstrip("/"))
                continue
            if example is None or found.psnr < worst:
                example, worst = _crop(plane, found.key), found.psnr
            rows.append(found)
            counter.add(plane)
    if example is None:
        raise InputError(
            f"no frame of {restored} can be scored: none is finished and normalized beside a truth that varies; look at"
            " both."
        )
    return Evaluation(tuple(rows), example, counter.result(), _notices(left_out))


def _sampled(planes: ImagePlanes | RunPlanes, samples: int | None) -> Iterator[JudgedPlane | str]:
    times = planes.times()
    if samples is not None and len(times):
        times = [times[int(at)] for at in np.unique(np.linspace(0, len(times) - 1, samples).round())]
    for t in times:
        yield from planes.at(t)


def _open(
    restored: str | Path, truth: str | Path, before: str | Path | None, cells: str | Path | None, settings: RunSettings
) -> Iterator[tuple[str, ImagePlanes | RunPlanes]]:
    """Planes of each image, by its path among many; one is open at once."""
    images, place = list_images(restored, settings), Place.at(restored, settings.storage_options)
    run = _run_of(place, None if before is None else str(before))
    if isinstance(run, PositionsRun):
        images = {path: where for path, where in images.items() if path in run.geometries}
    named = {"truth": truth, "mask": cells} | ({} if run is not None else {"input": before})
    beside = {name: _beside(images, restored, path, name, settings) for name, path in named.items() if path is not None}
    for path, where in images.items():
        others = {name: open_input(places[path], settings) for name, places in beside.items()}
        wanted, mask = others["truth"], others.get("mask")
        if run is None:
            yield path, ImagePlanes(open_input(where, settings), wanted, others.get("input"), mask)
            continue
        one = run.image(path) if isinstance(run, PositionsRun) else run
        if before is not None and one.source is None:
            raise InputError(one.input_problem)
        yield path, RunPlanes(one, wanted, mask)


def _beside(
    images: Mapping[str, str], restored: str | Path, other: str | Path, name: str, settings: RunSettings
) -> dict[str, str]:
    """Where the truth of each image lies, or what else stands beside it."""
    found = list_images(other, settings)
    lacking = [path for path in images if path not in found]
    if "" in lacking or ("" in found and lacking):
        counts = " and ".join(f"{path} {_count(many)}" for path, many in ((restored, images), (other, found)))
        raise InputError(f"{counts}; give the {name} of one image, or of all by the same paths.")
    if lacking:
        raise InputError(
            f"the {name} {other} has no {lacking[0]}, which {restored} has; add it, or choose others with --wells and"
            " --fields."
        )
    return found


def _count(images: Mapping[str, str]) -> str:
    if "" in images:
        return "is one image"
    return f"holds {len(images)} ({', '.join([*images][:1])}{', ...' * (len(images) > 1)})"


def _run_of(place: Place, before: str | None) -> FinishedRun | PositionsRun | None:
    """The run that made images, one alone, many, or one among them; None of other images."""
    try:
        return open_finished(place, before)
    except OutputError:
        return None


def _score(plane: JudgedPlane, position: str) -> FrameScores | None:
    height, width = plane.restored.shape
    if min(height, width) < LEAST:
        raise InputError(f"frames of {height} x {width} pixels are too small: SSIM needs {LEAST} a side.")
    found = score_frame(plane.at, plane.restored, plane.truth, plane.before, plane.cells)
    return found and replace(found, position=position)


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
        f"frames {', '.join(left_out[:5])}{more} left out: they are not finished, were not normalized, or have a"
        " truth that does not vary.",
    )
