"""Speed and peak memory of `phbatch train` against CSBDeep's ``CARE.train``, on the same patches in one run.

    python benchmarks/train.py [--frames 16 256] [--side 512] [--epochs 4] [--steps 25] [--json FILE]

Each is a process of its own. The network is CSBDeep's of kernel 3 with 16 filters, the batch 16 patches of 128 pixels.
phbatch streams patches from Zarr, and keeps frames in memory where all have room, which 256 have not; CSBDeep is given
the patches of the same stream in memory, as its own data format has them, as many as the frames give in one turn. Rate
and processor time are medians over all epochs but the first, in which TensorFlow traces, with validation on the same
number of patches. On a machine that does other work, too, the processor time is what can be compared.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from itertools import islice
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from common import machine, write_record

import phbatch
from phbatch.frames.light import Preparation
from phbatch.training.opening import open_pairs
from phbatch.training.pairs import Pairs, Rule, split
from phbatch.training.patches import PatchPlan, PatchStream
from phbatch.words.events import EpochFinished, Event, TrainingStarted, ignore
from phbatch.words.settings import parse_settings
from phbatch.words.training import parse_training

NETWORK: dict[str, Any] = {"kernel": 3, "filters": 16, "batch": 16, "patch": 128}
Clock = tuple[float, float]


def now() -> Clock:
    """Seconds of the wall clock, and of all processors for this process."""
    return time.perf_counter(), time.process_time()


def write_frames(folder: Path, count: int, side: int) -> None:
    """A pair of time-lapses of which few frames are simulated and shown again and again."""
    movie = phbatch.PhaseContrast(shape=(side, side), n_frames=8, seed=1)
    shown = [movie.pair(t) for t in range(8)]
    for name, at in (("low", 0), ("high", 1)):
        array = zarr.create_array(
            folder / f"{name}.zarr",
            shape=(count, side, side),
            chunks=(1, side, side),
            dtype="uint16",
            dimension_names=["t", "y", "x"],
        )
        for t in range(count):
            array[t] = np.rint(shown[t % 8][at]).astype("uint16")


def train_here(folder: Path, epochs: int, steps: int) -> list[Clock]:
    """Clocks at the end of each epoch of `phbatch.train`."""
    ends = list[Clock]()

    def listen(event: Event) -> None:
        if isinstance(event, TrainingStarted | EpochFinished):
            ends.append(now())

    phbatch.train(
        folder / "low.zarr", folder / "high.zarr", folder / "model", listener=listen, epochs=epochs, steps=steps,
        overwrite=True, **NETWORK,
    )  # fmt: skip
    return ends


def train_care(folder: Path, epochs: int, steps: int) -> list[Clock]:
    """Clocks at the end of each epoch of CSBDeep's, on the patches of the same stream."""
    import keras
    from csbdeep.models import CARE, Config

    training = parse_training(NETWORK)
    with open_pairs([(folder / "low.zarr", folder / "high.zarr")], parse_settings({}), training, ignore) as scenes:
        pairs = Pairs(scenes, Rule(phbatch.Normalization(), Preparation(), "low"))
        train, held = split(pairs.frames, training.validation)
        plan = PatchPlan((training.patch,) * 2, training.background, training.batch, 0, 16)
        turn = sum(plan.of_frame(pairs.lengths(frame)) for frame in train) // training.batch
        low, high = _in_memory(PatchStream(pairs, train, plan, keeps=False), turn)
        count = min(16, ceil(sum(plan.of_frame(pairs.lengths(frame)) for frame in held) / training.batch))
        judged = _in_memory(PatchStream(pairs, held, plan, keeps=False), count)
    ends = [now()]

    class Listener(keras.callbacks.Callback):  # type: ignore[misc]
        def on_train_begin(self, logs: Any = None) -> None:
            ends[0] = now()

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            ends.append(now())

    config = Config(
        "YXC", unet_kern_size=3, unet_n_depth=2, unet_n_first=16, train_epochs=epochs, train_steps_per_epoch=steps,
        train_batch_size=training.batch, train_tensorboard=False,
    )  # fmt: skip
    model = CARE(config, "care", basedir=str(folder))
    model.prepare_for_training()
    model.callbacks.append(Listener())
    model.train(low, high, validation_data=judged)
    return ends


def _in_memory(stream: PatchStream, batches: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    found = [batch for batch, _ in islice(stream.batches(), max(1, batches))]
    return np.concatenate([low for low, _ in found]), np.concatenate([high for _, high in found])


def measure(name: str, folder: Path, arguments: argparse.Namespace) -> dict[str, float]:
    """One of the two in a process of its own: steps per second, and peak memory."""
    command = [sys.executable, __file__, "--only", name, "--folder", str(folder)]
    command += ["--epochs", str(arguments.epochs), "--steps", str(arguments.steps)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Measure both, one after the other, for each number of frames."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, nargs="+", default=[16, 256])
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", choices=["phbatch", "care"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        train = train_here if arguments.only == "phbatch" else train_care
        wall, cpu = np.median(np.diff(train(arguments.folder, arguments.epochs, arguments.steps), axis=0)[1:], axis=0)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        found = {"steps_per_s": arguments.steps / wall, "cpu_s": cpu / arguments.steps, "peak_bytes": peak}
        print(json.dumps(found))
        return
    print(machine())
    print("| frames | | steps/s | processor s per step | peak memory |")
    print("|---|---|---|---|---|")
    rows = []
    for count in arguments.frames:
        with tempfile.TemporaryDirectory(prefix="phbatch-train-") as folder:
            write_frames(Path(folder), count, arguments.side)
            for name, words in (("phbatch", "phbatch train"), ("care", "CARE.train")):
                found = measure(name, Path(folder), arguments)
                cells = f"{found['steps_per_s']:.2f} | {found['cpu_s']:.2f} | {found['peak_bytes'] / 1e9:.2f} GB"
                print(f"| {count} | {words} | {cells} |", flush=True)
                rows.append({"frames": count, "by": name} | found)
    write_record(arguments.json, side=arguments.side, epochs=arguments.epochs, steps=arguments.steps, rows=rows)


if __name__ == "__main__":
    main()
