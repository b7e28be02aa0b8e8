"""A model of one's own from TIFFs of real cells, against the same network trained by CSBDeep.

    PHBATCH_DATA=FOLDER python benchmarks/own_model.py [--epochs 6] [--steps 30] [--seeds 0 1 2]

The frames of ``t98g`` (T98G cells, oist/Usiigaci, MIT) are degraded as by `phbatch train --degrade noise` and written
as TIFFs. Nine are trained on, the last of them held back to validate; three more are seen by nobody. Both trainings
begin with the same weights and take as many steps and batches of the same frames; CSBDeep is given the patches of one
turn through the frames in memory. Both models restore by `phbatch run`, and `phbatch evaluate` judges the three frames.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from common import machine
from csbdeep.models import CARE, Config

import phbatch
from phbatch.frames.light import Preparation
from phbatch.network.saving import draw_weights, encode_weights
from phbatch.network.unet import NetworkConfig
from phbatch.training.degrade import make_worse, measure_camera
from phbatch.training.opening import open_clean, open_pairs
from phbatch.training.pairs import Pairs, Rule, split
from phbatch.training.patches import PatchPlan, PatchStream
from phbatch.words.events import ignore
from phbatch.words.settings import parse_settings
from phbatch.words.training import TrainingSettings, parse_training

LEARNT = 9
NETWORK: dict[str, Any] = {"kernel": 3, "filters": 16, "batch": 8, "patch": 128}


def write_tiffs(data: Path, folder: Path) -> None:
    """Folders ``low`` and ``high`` to learn from, and ``low-test`` and ``high-test``."""
    with open_clean(data / "t98g", parse_settings({}), parse_training({}), ignore) as scenes:
        scene = scenes[0]
        camera = measure_camera(scenes)
        print(f"camera: gain {camera.gain:.3g}, read noise {camera.read_noise:.3g} counts")
        for key in scene.keys:
            random = np.random.default_rng([7, key.t])
            low, high = make_worse(scene.read(key, random)[1], ("noise",), camera, random)
            for name, image in (("low", low), ("high", high)):
                place = folder / (name if key.t < LEARNT else f"{name}-test")
                place.mkdir(exist_ok=True)
                tifffile.imwrite(place / f"t{key.t:02}.tif", image[0, 0, 0])


def train_care(folder: Path, training: TrainingSettings) -> Path:
    """CSBDeep's training with the weights that phbatch begins with, on the patches of its stream."""
    with open_pairs([(folder / "low", folder / "high")], parse_settings({}), training, ignore) as scenes:
        pairs = Pairs(scenes, Rule(phbatch.Normalization(), Preparation(), "low"), training.seed)
        train, held = split(pairs.frames, training.validation)
        plan = PatchPlan((training.patch,) * 2, training.background, training.batch, training.seed, 16)
        arrays = [_in_memory(pairs, frames, plan) for frames in (train, held)]
    network = NetworkConfig(2, 1, 1, training.depth, training.kernel, training.filters, True, "linear", False)
    config = Config(
        "YXC", unet_kern_size=training.kernel, unet_n_depth=training.depth, unet_n_first=training.filters,
        train_epochs=training.epochs, train_steps_per_epoch=training.steps, train_batch_size=training.batch,
        train_learning_rate=training.rate, train_tensorboard=False,
    )  # fmt: skip
    model = CARE(config, f"care-{training.seed}", basedir=str(folder))
    (folder / "first.h5").write_bytes(encode_weights(network, draw_weights(network, training.seed)))
    model.keras_model.load_weights(folder / "first.h5")
    np.random.seed(training.seed)  # noqa: NPY002  (CSBDeep draws its batches from the global generator)
    model.train(*arrays[0], validation_data=arrays[1])
    card = {"normalization": {"method": "median", "factor": 1.0, "sigma": 2.0}}
    (folder / model.name / "phbatch.json").write_text(json.dumps(card), encoding="utf-8")
    return folder / str(model.name)


def _in_memory(pairs: Pairs, frames: list[Any], plan: PatchPlan) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    turn = sum(plan.of_frame(pairs.lengths(frame)) for frame in frames) // plan.batch
    found = [batch for batch, _ in islice(PatchStream(pairs, frames, plan, keeps=True).batches(), turn)]
    return np.concatenate([low for low, _ in found]), np.concatenate([high for _, high in found])


def judge(folder: Path, model: Path) -> tuple[float, float]:
    """Mean PSNR, of the low frames that nobody saw and restored."""
    result = phbatch.run(folder / "low-test", folder / f"{model.name}.zarr", model=model)
    found = phbatch.evaluate(result.output, folder / "high-test")
    before, after = found.mean("input_psnr"), found.mean("psnr")
    assert before is not None
    assert after is not None
    return before, after


def main() -> None:
    """Train both, restore, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    print(machine(), f"{arguments.epochs} epochs of {arguments.steps} steps, {NETWORK}", sep="\n", flush=True)
    with tempfile.TemporaryDirectory(prefix="phbatch-own-model-") as scratch:
        folder = Path(scratch)
        write_tiffs(Path(os.environ["PHBATCH_DATA"]), folder)
        for seed in arguments.seeds:
            options: Any = NETWORK | {"epochs": arguments.epochs, "steps": arguments.steps, "seed": seed}
            phbatch.train(folder / "low", folder / "high", folder / f"own-{seed}", **options)
            before, own = judge(folder, folder / f"own-{seed}")
            _, care = judge(folder, train_care(folder, parse_training(options)))
            print(
                f"seed {seed}: PSNR {before:.2f} dB, phbatch train {own:.2f} dB, CARE.train {care:.2f} dB", flush=True
            )


if __name__ == "__main__":
    main()
