"""The demonstration: a simulated time-lapse that the training never saw, restored by the default model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from phbatch.inputs.image import open_source
from phbatch.outputs.creation import remove_output
from phbatch.places.own import ROOT_DOCUMENTS
from phbatch.places.place import Place
from phbatch.places.table_file import read_rows
from phbatch.running.run import run
from phbatch.simulate import PhaseContrast
from phbatch.tools.pictures import save_before_after
from phbatch.tools.simulated import write_time_lapse
from phbatch.words.axes import to_region
from phbatch.words.errors import OutputError
from phbatch.words.events import Listener, Stop, ignore, never

DEMO_SEED = 20_261_124
"""Far from the seeds of the training and of its evaluation."""


@dataclass(frozen=True)
class DemoResult:
    """What the demonstration made and measured.

    Attributes
    ----------
    noisy, clean, restored : str
        Paths of the three OME-Zarr images.
    picture : Path
        The before/after picture.
    psnr_before, psnr_after : float
        Peak signal-to-noise ratio in dB, mean over frames, of intensities divided by the frame's smoothed median.
    ssim_before, ssim_after : float
        Structural similarity, mean over frames.
    """

    noisy: str
    clean: str
    restored: str
    picture: Path
    psnr_before: float
    psnr_after: float
    ssim_before: float
    ssim_after: float


def run_demo(
    folder: Path,
    *,
    listener: Listener = ignore,
    stop: Stop = never,
    n_frames: int = 4,
    shape: tuple[int, int] = (512, 511),
) -> DemoResult:
    """Simulate, restore, measure, and draw the picture.

    Parameters
    ----------
    folder : Path
        Where everything is put; images of an earlier demonstration there are replaced.
    listener : callable
        Called with every event of the run.
    stop : callable
        As for `phbatch.run`.
    n_frames : int
        Length of the time-lapse.
    shape : (int, int)
        Height and width in pixels.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} cannot be made a folder ({error.strerror}); choose another place.") from error
    if any((folder / name).exists() for name in ROOT_DOCUMENTS):
        raise OutputError(f"{folder} is a Zarr group; choose another folder for the demonstration.")
    simulation = PhaseContrast(shape=shape, n_frames=n_frames, seed=DEMO_SEED)
    noisy, clean, restored = (Place.at(folder / f"{name}.zarr") for name in ("noisy", "clean", "restored"))
    for place, is_clean in ((noisy, False), (clean, True)):
        remove_output(place)
        write_time_lapse(place.path, simulation, clean=is_clean)
    result = run(noisy.path, restored.path, overwrite=True, listener=listener, stop=stop)
    divisors = [row["divisor"] for row in read_rows(restored)]
    scores = []
    frames: tuple[NDArray[Any], ...] = ()
    for t in range(n_frames):
        region = to_region((t, 0, 0, 0, 0), (t + 1, 1, 1, *shape))
        before, truth, after = (
            open_source(place).read(region)[0, 0, 0].astype(np.float64) for place in (noisy, clean, restored)
        )
        divisor = divisors[t]
        frames = (before / divisor, after, truth / divisor)
        scores.append([*_score(frames[2], frames[0]), *_score(frames[2], frames[1])])
    psnr_before, ssim_before, psnr_after, ssim_after = np.mean(scores, axis=0).tolist()
    picture = folder / "before-after.png"
    titles = (f"noisy, {psnr_before:.1f} dB", f"restored, {psnr_after:.1f} dB", "truth")
    save_before_after(picture, list(zip(titles, frames, strict=True)))
    return DemoResult(noisy.path, clean.path, result.output, picture, psnr_before, psnr_after, ssim_before, ssim_after)


def _score(truth: NDArray[np.float64], image: NDArray[np.float64]) -> tuple[float, float]:
    span = float(truth.max() - truth.min())
    return (
        float(peak_signal_noise_ratio(truth, image, data_range=span)),
        float(structural_similarity(truth, image, data_range=span)),
    )
