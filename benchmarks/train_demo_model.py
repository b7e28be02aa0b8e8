"""Train and evaluate phase-2d on simulated pairs, with CSBDeep itself and the median rule.

    python benchmarks/train_demo_model.py FOLDER [--quick]
    python benchmarks/train_demo_model.py phase-2d --evaluate

Writes config.json, weights_best.h5 and phbatch.json (rule, training facts, held-out scores) into FOLDER; needs
``pip install phbatch[train]``. The simulator's settings are drawn anew for every training image, so that the network
sees many kinds of cells, exposures, cameras and optics. Seeds of evaluation are disjoint from those of training.
`--evaluate` trains and writes nothing: the scores of a model that is there.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import dask.array as da
import keras
import numpy as np
from csbdeep.data import RawData, create_patches
from csbdeep.models import CARE, Config
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

import phbatch
from phbatch.csbdeep import patch_normalization
from phbatch.kernels.stats import measure_frame
from phbatch.training.simulated import draw_settings

TRAINING_SEED, HELD_OUT_SEED = 1, 900_000
KINDS = ("rods", "round", "adherent", "mixed")
LEAST_DENSITY = 0.02
PIXEL_SIZE_UM = 0.1625
LIMITS = (
    "Trained on simulations alone: it removes shot and read noise, and on real frames also detail finer than the"
    " simulated cells have (seen in the texture of T98G cells). It does not sharpen, does not remove the halo, and was"
    " not made for other modalities. Check it on your own data before you measure with it."
)


def simulate_pairs(count: int, side: int, seed: int) -> tuple[list[np.ndarray[Any, Any]], list[np.ndarray[Any, Any]]]:
    """Noisy frames and their truths, one of each time-lapse."""
    random = np.random.default_rng(seed)
    noisy, clean = [], []
    for index in range(count):
        movie = phbatch.PhaseContrast(
            shape=(side, side), n_frames=60, seed=seed + index, **draw_settings(random, LEAST_DENSITY)
        )
        frame, truth = movie.pair(int(random.integers(60)))
        noisy.append(frame)
        clean.append(truth)
    return noisy, clean


def train(folder: Path, *, images: int, epochs: int, steps: int, patch: int, batch: int) -> dict[str, Any]:
    """Train with CSBDeep and keep its config.json and weights_best.h5; returns what the card says of it."""
    started = time.perf_counter()
    np.random.seed(TRAINING_SEED)  # noqa: NPY002  (CSBDeep draws its patches from the global generator)
    keras.utils.set_random_seed(TRAINING_SEED)
    noisy, clean = simulate_pairs(images, 2 * patch, TRAINING_SEED)
    raw = RawData.from_arrays(noisy, clean, axes="YX")
    x, y, _ = create_patches(
        raw, (patch, patch), 8, patch_filter=None, normalization=patch_normalization("median"), verbose=False
    )
    x, y = np.moveaxis(x, 1, -1), np.moveaxis(y, 1, -1)
    validation = len(x) // 10
    config = Config(
        "YXC",
        unet_kern_size=3,
        unet_n_depth=2,
        unet_n_first=16,
        unet_residual=True,
        train_loss="mae",
        train_epochs=epochs,
        train_steps_per_epoch=steps,
        train_batch_size=batch,
        train_tensorboard=False,
        train_reduce_lr={"factor": 0.5, "patience": 4},
    )
    with tempfile.TemporaryDirectory() as scratch:
        model = CARE(config, "model", basedir=scratch)
        history = model.train(x[validation:], y[validation:], validation_data=(x[:validation], y[:validation]))
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("config.json", "weights_best.h5"):
            shutil.copyfile(Path(scratch) / "model" / name, folder / name)
    return {
        "data": "phbatch.PhaseContrast, settings drawn as in benchmarks/train_demo_model.py",
        "images": images,
        "patches": len(x) - validation,
        "patch": patch,
        "batch": batch,
        "steps": epochs * steps,
        "loss": "mae",
        "validation_loss": round(float(min(history.history["val_loss"])), 6),
        "seeds": [TRAINING_SEED, TRAINING_SEED + images - 1],
        "target": "truth divided by the smoothed median of the noisy frame",
        "minutes": round((time.perf_counter() - started) / 60, 1),
        "versions": {name: version(name) for name in ("csbdeep", "tensorflow", "keras", "numpy")},
    }


def evaluate(folder: str | Path) -> dict[str, Any]:
    """PSNR and SSIM before and after on frames of time-lapses that the training never saw."""
    rows = []
    for index, kind in enumerate(KINDS * 2):
        shape = (512, 512) if index < 4 else (509, 387)
        movie = phbatch.PhaseContrast(shape=shape, n_frames=60, seed=HELD_OUT_SEED + index, kind=kind)  # type: ignore[arg-type]
        noisy, truth = movie.pair(30)
        median = measure_frame(noisy, 2.0).median
        restored = np.asarray(phbatch.restore(da.from_array(noisy), "yx", model=folder))
        scores = [score(truth / median, image) for image in (noisy / median, restored)]
        rows.append([*scores[0], *scores[1]])
        print(
            f"{kind:9} {shape}  PSNR {rows[-1][0]:.2f} -> {rows[-1][2]:.2f} dB, SSIM {rows[-1][1]:.3f} ->"
            f" {rows[-1][3]:.3f}"
        )
    psnr_before, ssim_before, psnr_after, ssim_after = (round(float(value), 3) for value in np.mean(rows, axis=0))
    print(f"mean  PSNR {psnr_before:.3f} -> {psnr_after:.3f} dB, SSIM {ssim_before:.3f} -> {ssim_after:.3f}")
    return {
        "data": "phbatch.PhaseContrast with its default settings, one frame of each time-lapse",
        "frames": len(rows),
        "seeds": [HELD_OUT_SEED, HELD_OUT_SEED + len(rows) - 1],
        "psnr_db": [psnr_before, psnr_after],
        "ssim": [ssim_before, ssim_after],
    }


def score(truth: np.ndarray[Any, Any], image: np.ndarray[Any, Any]) -> tuple[float, float]:
    """PSNR in dB and SSIM over the range of the truth."""
    span = float(truth.max() - truth.min())
    image = image.astype(truth.dtype)
    return (
        float(peak_signal_noise_ratio(truth, image, data_range=span)),
        float(structural_similarity(truth, image, data_range=span)),
    )


def main() -> None:
    """Train, write the card, evaluate with phbatch itself."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of the model; with --evaluate a bundled name, too")
    parser.add_argument("--quick", action="store_true", help="a few steps, to see that everything runs")
    parser.add_argument("--evaluate", action="store_true", help="train nothing")
    arguments = parser.parse_args()
    if arguments.evaluate:
        evaluate(str(arguments.folder))
        return
    sizes = {"images": 12, "epochs": 2, "steps": 3} if arguments.quick else {"images": 400, "epochs": 40, "steps": 100}
    facts = train(arguments.folder, patch=128, batch=16, **sizes)
    card = {
        "format": 1,
        "name": arguments.folder.name,
        "normalization": {"method": "median", "factor": 1.0, "sigma": 2.0},
        "pixel_size_um": PIXEL_SIZE_UM,
        "training": facts,
        "limits": LIMITS,
    }
    card["evaluation"] = evaluate(write_card(arguments.folder, card))
    write_card(arguments.folder, card)


def write_card(folder: Path, card: dict[str, Any]) -> Path:
    """Write phbatch.json beside the weights; returns the folder."""
    (folder / "phbatch.json").write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    return folder


if __name__ == "__main__":
    main()
