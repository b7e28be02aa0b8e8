"""Whether a model earns to be `run`'s default: real frames that no training saw, against what users would else take.

    python benchmarks/default_model.py [MODEL ...] [--per-set N]

scikit-image needs PyWavelets for it: ``pip install PyWavelets``. Reads the TIFF folders below ``PHBATCH_DATA``, of
which `held_out.py` says the frames. Gaussian noise with a standard deviation of 2, 5 and 10 % of the frame's median is
added, and the frame itself is taken for the truth: its own noise punishes whatever removes it. The others are
scikit-image's, with its own estimate of the noise (``estimate_sigma``), and a Gaussian whose width is chosen by the
truth, which no user could.

The rule: averaged over the data sets, PSNR and SSIM above every other one's, the untouched frame's included, at two
of the three levels; and where no noise was added, no more removed than the frame's own noise, on every data set.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable, Iterable

import numpy as np
from held_out import DATA, held_out_frames
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, median_filter
from skimage.restoration import denoise_nl_means, denoise_wavelet, estimate_sigma

import phbatch
from phbatch.network.model import bundled_models
from phbatch.tools.residual import ResidualChecker
from phbatch.tools.scores import score_frame

LEVELS = (0.02, 0.05, 0.10)
SIGMAS = (0.4, 0.6, 0.8, 1.0, 1.3, 1.7, 2.2)
SEED = 14

Image = NDArray[np.float32]
Scores = dict[tuple[str, float, str], list[tuple[float, float]]]
"""PSNR and SSIM by data set, level and method, one pair of each frame."""


def nonlocal_means(image: Image) -> Image:
    """scikit-image's example of it: patches of 5, searched within 6, h of 0.8 sigma, which is estimated."""
    sigma = float(estimate_sigma(image))
    found = denoise_nl_means(image, patch_size=5, patch_distance=6, h=0.8 * sigma, sigma=sigma, fast_mode=True)
    return np.asarray(found, np.float32)


def wavelet(image: Image) -> Image:
    """scikit-image's defaults (BayesShrink), the noise estimated; its values are in [0, 1]."""
    low, span = image.min(), np.ptp(image) or np.float32(1)
    return np.asarray(denoise_wavelet((image - low) / span, rescale_sigma=True) * span + low, np.float32)


def best_gaussian(image: Image, truth: Image) -> Image:
    """Of several widths the one that is closest to the truth."""
    blurred = [gaussian_filter(image, sigma) for sigma in SIGMAS]
    return min(blurred, key=lambda found: float(np.square(found - truth).mean()))


def restoring(model: str) -> Callable[[Image, Image], Image]:
    """What a model makes of an image, in counts."""
    return lambda image, _: np.asarray(phbatch.restore(image, "yx", model=model, rescale=True), np.float32)


def measure(models: list[str], per_set: int) -> tuple[Scores, dict[tuple[str, str], ResidualChecker]]:
    """Scores by data set, level and method, and what models remove where nothing was added."""
    methods: dict[str, Callable[[Image, Image], Image]] = {
        "input": lambda image, _: image,
        **{model: restoring(model) for model in models},
        "Gaussian": best_gaussian,
        "median 3 x 3": lambda image, _: median_filter(image, 3),
        "non-local means": lambda image, _: nonlocal_means(image),
        "wavelet": lambda image, _: wavelet(image),
    }
    scores: Scores = defaultdict(list)
    removed: dict[tuple[str, str], ResidualChecker] = defaultdict(ResidualChecker)
    random = np.random.default_rng(SEED)
    for index, (name, frame) in enumerate(held_out_frames(per_set)):
        truth = frame.astype(np.float32)
        for level in LEVELS:
            noise = level * float(np.median(truth)) * random.standard_normal(truth.shape, np.float32)
            for method, apply in methods.items():
                found = score_frame((index, 0, 0), apply(truth + noise, truth), truth)
                if found is not None:
                    scores[name, level, method].append((found.psnr, found.ssim))
        for model in models:
            removed[name, model].add(f"{name} {index}", truth, methods[model](truth, truth))
    return scores, removed


def print_level(scores: Scores, level: float) -> dict[str, tuple[float, float]]:
    """Print the PSNR of every data set; returns means over the data sets, by method."""
    names = list(dict.fromkeys(name for name, _, _ in scores))
    methods = list(dict.fromkeys(method for _, _, method in scores))
    print(f"\nPSNR in dB, noise of {level:.0%} of the median added:\n")
    print_row(["data set", *methods])
    print_row(["---"] * (1 + len(methods)))
    means = {
        (name, method): np.mean(scores[name, level, method], axis=0).tolist() for name in names for method in methods
    }
    for name in names:
        print_row([name, *(f"{means[name, method][0]:.1f}" for method in methods)])
    found = {method: tuple(np.mean([means[name, method] for name in names], axis=0)) for method in methods}
    print_row(["mean", *(f"{found[method][0]:.2f}" for method in methods)])
    print_row(["mean SSIM", *(f"{found[method][1]:.4f}" for method in methods)])
    return {method: (float(psnr), float(ssim)) for method, (psnr, ssim) in found.items()}


def print_row(cells: Iterable[str]) -> None:
    """A row of a table in Markdown."""
    print(f"| {' | '.join(cells)} |")


def judge(
    models: list[str],
    means: dict[float, dict[str, tuple[float, float]]],
    removed: dict[tuple[str, str], ResidualChecker],
) -> None:
    """Print what is removed without added noise, and the verdict by the rule."""
    print("\nNo noise added: what is removed over the frame's own noise; autocorrelation of it at one pixel:\n")
    names = list(dict.fromkeys(name for name, _ in removed))
    found = {key: checker.result() for key, checker in removed.items()}
    print_row(["data set", *models])
    print_row(["---"] * (1 + len(models)))
    for name in names:
        checks = [found[name, model] for model in models]
        print_row([name, *("-" if check is None else f"{check.removed:.2f}; {check.lag_1:.2f}" for check in checks)])
    print()
    for model in models:
        won = [
            level
            for level, by_method in means.items()
            if all(
                by_method[model][0] > psnr and by_method[model][1] > ssim
                for method, (psnr, ssim) in by_method.items()
                if method not in models
            )
        ]
        within = all(check.removed <= 1 for (_, of), check in found.items() if of == model and check is not None)
        at = ", ".join(f"{level:.0%}" for level in won) or "none"
        earned = "earns" if len(won) >= 2 and within else "does not earn"
        noise = "within" if within else "more than"
        print(f"{model} wins at these levels: {at}; without added noise it removes {noise} the frames' own noise.")
        print(f"{model} {earned} the default.")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=bundled_models(), metavar="MODEL", help="name or folder")
    parser.add_argument("--per-set", type=int, default=2, metavar="N", help="frames of each data set")
    arguments = parser.parse_args()
    if not DATA.is_dir():
        parser.error(f"no data: {DATA} does not exist; set PHBATCH_DATA")
    started = time.perf_counter()
    scores, removed = measure(arguments.models, arguments.per_set)
    means = {level: print_level(scores, level) for level in LEVELS}
    judge(arguments.models, means, removed)
    frames = sum(
        len(values) for (_, level, method), values in scores.items() if (level, method) == (LEVELS[0], "input")
    )
    print(f"{frames} frames, {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
