"""Train phase-2d-real on real frames and simulated ones, degraded anew for every patch, with the median rule.

    python benchmarks/train_default_model.py FOLDER [--steps N] [--start MODEL]

Reads the TIFF folders below ``PHBATCH_DATA`` (see `held_out.py`, which says what is kept out) and writes CSBDeep's
folder: config.json, weights_best.h5 and phbatch.json, with scores on simulated frames. ``benchmarks/default_model.py``
judges it on real ones.

A clean frame is a real one, area averaged by 1 to 3 in two of three cases, which makes it cleaner and sharper, or a
simulated truth to which texture, granules and dust are added. Noise of 0.4 to 14 % of the frame's median is added, its
variance partly proportional to the light, as a camera's. Every eighth patch has next to none, so that the network
learns to leave clean frames alone. Noisy and clean are divided by the median of the smoothed frame.
"""

from __future__ import annotations

import argparse
import os
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from csbdeep.models import CARE, Config
from held_out import DATA, SOURCES, training_frames
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from train_demo_model import LEAST_DENSITY, evaluate, write_card

import phbatch
from phbatch.kernels.downsample import area_average
from phbatch.kernels.stats import measure_frame
from phbatch.network.model import open_model
from phbatch.training.simulated import draw_settings

SEED = 14
SIMULATED_SEED, SIMULATED = 500_000, 60
PIXEL_SIZE_UM = 0.1625
LIMITS = (
    "Trained on four public phase-contrast data sets and on simulations, it removes shot and read noise, and with it"
    " detail that is as faint as the noise. It does not sharpen, does not remove the halo, and was not made for other"
    " modalities. Check it on your own data before you measure with it."
)

FloatImage = NDArray[np.float32]


def real_images(random: np.random.Generator, per_set: int, side: int) -> list[FloatImage]:
    """Frames over their median: as many of each data set, whole or area averaged."""
    by_name: dict[str, list[FloatImage]] = {}
    for name, frame in training_frames():
        by_name.setdefault(name, []).append(frame.astype(np.float32))
    found = []
    for frames in by_name.values():
        for index in range(per_set):
            frame = frames[int(random.integers(len(frames)))]
            factor = (1, 2, 3)[index % 3]
            if min(frame.shape) // factor < side:
                factor = 1
            image = area_average(frame, factor)
            found.append(np.asarray(image / np.float32(measure_frame(image, 2.0).median), np.float32))
    return found


def simulated_images(random: np.random.Generator, count: int, side: int) -> list[FloatImage]:
    """Truths of simulated frames over their median, with texture and granules in the cells, and dust."""
    found = []
    for index in range(count):
        settings = draw_settings(random, LEAST_DENSITY)
        movie = phbatch.PhaseContrast(shape=(side, side), n_frames=60, seed=SIMULATED_SEED + index, **settings)
        clean = movie.clean(int(random.integers(60)))
        image = np.asarray(clean / np.float32(measure_frame(clean, 2.0).median), np.float32)
        found.append(enrich(image, random))
    return found


def enrich(image: FloatImage, random: np.random.Generator) -> FloatImage:
    """Add fine texture and granules where there are cells, and rings of dust out of focus."""
    local = np.sqrt(gaussian_filter((image - gaussian_filter(image, 8.0)) ** 2, 4.0))
    cells = np.clip(local / max(float(np.percentile(local, 95)), 1e-6), 0, 1)
    texture = np.zeros_like(image)
    for sigma in random.uniform(0.6, 3.0, 2):
        layer = gaussian_filter(random.standard_normal(image.shape, np.float32), float(sigma))
        texture += layer / max(float(layer.std()), 1e-9)
    granules = np.zeros_like(image)
    count = int(image.size * random.uniform(0.0005, 0.004))
    granules[random.integers(0, image.shape[0], count), random.integers(0, image.shape[1], count)] = random.choice(
        [-1.0, 1.0], count
    )
    size = random.uniform(0.7, 1.6)
    dots = gaussian_filter(granules, size) - 0.6 * gaussian_filter(granules, 1.6 * size)
    dots /= max(float(np.abs(dots).max()), 1e-9)
    richer: NDArray[Any] = image + cells * (random.uniform(0, 0.03) * texture + random.uniform(0, 0.25) * dots)
    y, x = np.ogrid[: image.shape[0], : image.shape[1]]
    for _ in range(int(random.poisson(1.0))):
        at = random.uniform((0, 0), image.shape)
        distance = np.hypot(y - at[0], x - at[1]) - random.uniform(5, 25)
        richer = richer + random.uniform(-0.06, 0.06) * np.exp(-(distance**2) / random.uniform(4, 30))
    return np.asarray(richer, np.float32)


class Patches(keras.utils.PyDataset):  # type: ignore[misc]
    """Batches of noisy and clean patches; batch n is the same in every run."""

    def __init__(
        self, pools: list[list[FloatImage]], shares: list[float], steps: int, batch: int, patch: int, seed: int
    ):
        super().__init__()
        self.pools, self.shares, self.steps, self.batch, self.patch, self.seed = (
            pools,
            shares,
            steps,
            batch,
            patch,
            seed,
        )
        self.epoch = 0

    def __len__(self) -> int:
        return self.steps

    def on_epoch_end(self) -> None:
        """Draw others in the next epoch."""
        self.epoch += 1

    def __getitem__(self, index: int) -> tuple[FloatImage, FloatImage]:
        random = np.random.default_rng([self.seed, self.epoch, index])
        pairs = [self._pair(random) for _ in range(self.batch)]
        noisy, clean = (np.stack(side)[..., np.newaxis] for side in zip(*pairs, strict=True))
        return noisy, clean

    def _pair(self, random: np.random.Generator) -> tuple[FloatImage, FloatImage]:
        pool = self.pools[int(random.choice(len(self.pools), p=self.shares))]
        image = pool[int(random.integers(len(pool)))]
        y, x = (int(random.integers(length - self.patch + 1)) for length in image.shape)
        clean = np.rot90(image[y : y + self.patch, x : x + self.patch], int(random.integers(4)))
        clean = clean[:, ::-1] if random.random() < 0.5 else clean
        noise = 10 ** random.uniform(np.log10(0.004), np.log10(0.14)) if random.random() > 0.125 else 0.001
        shot = random.uniform(0.3, 1.0)
        std = noise * np.sqrt(shot * np.maximum(clean, 0) + 1 - shot)
        return np.asarray(clean + std * random.standard_normal(clean.shape), np.float32), np.asarray(clean, np.float32)


def train(folder: Path, *, steps: int, start: str | None, batch: int = 12, patch: int = 128) -> dict[str, Any]:
    """Train, keeping the weights of the best epoch; returns what the card says of it."""
    started, cpu = time.perf_counter(), time.process_time()
    keras.utils.set_random_seed(SEED)
    random = np.random.default_rng(SEED)
    pools = [real_images(random, 60, patch), simulated_images(random, SIMULATED, 2 * patch)]
    print(f"{len(pools[0])} real and {len(pools[1])} simulated images after {time.perf_counter() - started:.0f} s")
    epochs, per_epoch = max(1, steps // 100), min(steps, 100)
    config = Config(
        "YXC",
        unet_kern_size=3,
        unet_n_depth=2,
        unet_n_first=16,
        unet_residual=True,
        train_loss="mae",
        train_epochs=epochs,
        train_steps_per_epoch=per_epoch,
        train_batch_size=batch,
        train_learning_rate=6e-4,
        train_tensorboard=False,
        train_reduce_lr=None,
    )
    model = CARE(config, folder.name, basedir=str(folder.parent))
    rate = keras.optimizers.schedules.CosineDecay(config.train_learning_rate, epochs * per_epoch, 0.02)
    model.prepare_for_training(keras.optimizers.Adam(rate))
    if start is not None:
        model.keras_model.load_weights(str(open_model(start).weights_path))
    shares = [0.65, 0.35]
    data = Patches(pools, shares, per_epoch, batch, patch, SEED)
    held = Patches(pools, shares, 10, batch, patch, SEED + 1)
    held.on_epoch_end = lambda: None  # type: ignore[method-assign]  # the same patches after every epoch
    history = model.keras_model.fit(
        data, validation_data=held, epochs=epochs, callbacks=model.callbacks, verbose=2, shuffle=False
    )
    for scratch in ("weights_now.h5", "weights_last.h5"):
        (folder / scratch).unlink(missing_ok=True)
    return {
        "data": "real and simulated frames, degraded anew for every patch, as in benchmarks/train_default_model.py",
        "real_frames": SOURCES,
        "share_of_real_patches": shares[0],
        "initial_weights": start,
        "patch": patch,
        "batch": batch,
        "steps": epochs * per_epoch,
        "loss": "mae",
        "validation_loss": round(float(min(history.history["val_loss"])), 6),
        "seed": SEED,
        "seeds": [SIMULATED_SEED, SIMULATED_SEED + SIMULATED - 1],
        "target": "clean frame; noisy and clean divided by the median of the smoothed frame",
        "minutes": round((time.perf_counter() - started) / 60, 1),
        "processor_minutes": round((time.process_time() - cpu) / 60, 1),
        "versions": {name: version(name) for name in ("csbdeep", "tensorflow", "keras", "numpy")},
    }


def main() -> None:
    """Train and write the card."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--start", metavar="MODEL", help="bundled model or folder whose weights training starts from")
    arguments = parser.parse_args()
    if not DATA.is_dir():
        parser.error(f"no data: {DATA} does not exist; set PHBATCH_DATA")
    facts = train(arguments.folder, steps=arguments.steps, start=arguments.start)
    card = {
        "format": 1,
        "name": arguments.folder.name,
        "normalization": {"method": "median", "factor": 1.0, "sigma": 2.0},
        "pixel_size_um": PIXEL_SIZE_UM,
        "licence": "BSD-3-Clause, as phbatch; trained on images under the MIT licence",
        "training": facts,
        "limits": LIMITS,
    }
    card["evaluation"] = evaluate(write_card(arguments.folder, card))
    write_card(arguments.folder, card)


if __name__ == "__main__":
    main()
