"""phbatch against the bare network and a plain CSBDeep loop: the same frames, the same weights, the same numbers.

    python benchmarks/end_to_end.py [--model NAME|DIR] [--size 1024] [--frames 6] [--runs 3] [--json FILE]
    python benchmarks/end_to_end.py --kernel 3 --kernel 5 --filters 16 --filters 32 --size 1024 --size 2048

Three sides, each in a process of its own. *phbatch*: ``phbatch run`` with ``--network auto``, Zarr to OME-Zarr, with
``--normalize percentile --rescale``, which is the loop's arithmetic. *bare*: the plain network, compiled for a whole
frame, on normalized frames that are in memory already; nothing is read, measured or written. *loop*: what a CSBDeep
user writes: read a frame with zarr-python, ``CARE.predict`` with CSBDeep's own percentile normalizer, write the frame
with zarr-python's defaults.

All are timed from after the imports to the last byte, loading and compiling included; runs alternate, and medians are
printed, of wall time and of processor time, which other load on the machine hardly disturbs.
``--kernel`` and ``--filters`` make CARE models of random weights (depth 2, residual). The input is simulated.
phbatch starts with an empty memory of which form is fastest: its first run measures where that is worth it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import zarr

import phbatch
from phbatch.care.model import open_model
from phbatch.demo import write_time_lapse

LOOP = """
import json, sys, time
import zarr
from csbdeep.data import PercentileNormalizer
from csbdeep.models import CARE
from phbatch.api import peak_rss_bytes
source, output, name, folder = sys.argv[1:]
start, used = time.perf_counter(), time.process_time()
model = CARE(None, name=name, basedir=folder)
frames = zarr.open_array(source + "/0", mode="r")
restored = zarr.create_array(output, shape=frames.shape, chunks=(1, *frames.shape[1:]), dtype="float32")
for t in range(frames.shape[0]):
    restored[t] = model.predict(frames[t], "YX", normalizer=PercentileNormalizer())
print(json.dumps([time.perf_counter() - start, time.process_time() - used, peak_rss_bytes(), "plain"]))
"""

BARE = """
import json, sys, time
import keras, numpy as np, zarr
from phbatch.api import peak_rss_bytes
from phbatch.care.model import open_model
from phbatch.care.predictor import get_predictor
source, output, name, folder = sys.argv[1:]
raw = zarr.open_array(source + "/0", mode="r")[:].astype(np.float32)[..., np.newaxis]
frames = (raw - raw.min()) / np.ptp(raw)
start, used = time.perf_counter(), time.process_time()
model = open_model(f"{folder}/{name}")
predict = get_predictor(model.folder, model.sha256, frames.shape[1:3], 1, "tensorflow")
for t in range(len(frames)):
    predict(frames[t : t + 1])
print(json.dumps([time.perf_counter() - start, time.process_time() - used, peak_rss_bytes(), "plain"]))
"""

PHBATCH = """
import json, sys, time
import keras, phbatch.api, zarr
source, output, name, folder = sys.argv[1:]
start, used = time.perf_counter(), time.process_time()
result = phbatch.run(source, output, model=f"{folder}/{name}", normalize="percentile", rescale=True)
network = zarr.open_group(output).attrs.asdict()["phbatch"]["network"]
print(json.dumps([time.perf_counter() - start, time.process_time() - used, result.peak_rss_bytes, network]))
"""


SIDES = {"loop": LOOP, "bare": BARE, "phbatch": PHBATCH}


class Measured(NamedTuple):
    """One side in a process of its own."""

    seconds: float
    processor_seconds: float
    peak_bytes: int
    network: str


def make_model(folder: Path, kernel: int, filters: int) -> Path:
    """A CARE model of random weights in CSBDeep's own format, depth 2 and residual."""
    code = (
        "import sys; from csbdeep.models import CARE, Config; folder, name, kernel, filters = sys.argv[1:];"
        "config = Config('YXC', 1, 1, unet_n_depth=2, unet_kern_size=int(kernel), unet_n_first=int(filters),"
        " unet_residual=True, train_tensorboard=False);"
        "CARE(config, name, folder).keras_model.save_weights(f'{folder}/{name}/weights_best.h5')"
    )
    name = f"random-k{kernel}-f{filters}"
    run_python(code, str(folder), name, str(kernel), str(filters))
    return folder / name


def run_python(code: str, *arguments: str, **environment: str) -> str:
    """Standard output of a program in a process of its own."""
    shown = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"} | environment,
        text=True,
    )
    return shown.stdout


def compare(folder: Path, size: int, frames: int, runs: int) -> dict[str, Any]:
    """Medians of all sides, phbatch's rate over the others', and the largest difference to the loop."""
    found: dict[str, list[Measured]] = {side: [] for side in SIDES}
    with tempfile.TemporaryDirectory() as scratch:
        source = f"{scratch}/in.zarr"
        write_time_lapse(source, phbatch.PhaseContrast(shape=(size, size), n_frames=frames, seed=11))
        for run in range(runs):
            for side, code in SIDES.items():
                arguments = (source, f"{scratch}/{side}-{run}.zarr", folder.name, str(folder.parent))
                shown = run_python(code, *arguments, XDG_CACHE_HOME=f"{scratch}/cache")
                found[side].append(Measured(*json.loads(shown.splitlines()[-1])))
        loop = np.asarray(zarr.open_array(f"{scratch}/loop-0.zarr", mode="r")[:])
        ours = np.asarray(zarr.open_array(f"{scratch}/phbatch-0.zarr/0", mode="r")[:])
    pixels = frames * size * size / 1e6
    row: dict[str, Any] = {"model": folder.name, "frames": frames, "size": size}
    for side, rows in found.items():
        row[f"{side}_mpx_per_s"] = round(pixels / statistics.median(one.seconds for one in rows), 3)
        row[f"{side}_peak_mb"] = round(max(one.peak_bytes for one in rows) / 1e6)
    for side in ("bare", "loop"):
        for clock, name in (("seconds", ""), ("processor_seconds", "_processor")):
            ratios = sorted(
                getattr(other, clock) / getattr(own, clock)
                for other, own in zip(found[side], found["phbatch"], strict=True)
            )
            row[f"over_{side}{name}"] = [
                round(ratio, 2) for ratio in (statistics.median(ratios), ratios[0], ratios[-1])
            ]
    row["networks"] = [one.network for one in found["phbatch"]]
    row["max_difference_over_std"] = float(np.abs(loop - ours).max() / loop.std())
    return row


def machine() -> str:
    """Processor and cores."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = {line.split(":")[1].strip() for line in lines if line.startswith("model name")}
    return f"{', '.join(sorted(names)) or platform.processor()}, {os.cpu_count()} cores"


COLUMNS = (
    "model",
    "frames",
    "network",
    "loop MPx/s",
    "bare MPx/s",
    "phbatch MPx/s",
    "phbatch / bare (range); by processor time",
    "phbatch / loop (range); by processor time",
    "peak MB, loop / bare / phbatch",
    "max diff / std",
)


def print_row(row: dict[str, Any]) -> None:
    """One line of the table."""
    ratios = []
    for side in ("bare", "loop"):
        middle, low, high = row[f"over_{side}"]
        ratios.append(f"{middle} ({low}-{high}); {row[f'over_{side}_processor'][0]}")
    cells = (
        row["model"],
        f"{row['frames']} x {row['size']}^2",
        ", ".join(sorted(set(row["networks"]))),
        *(row[f"{side}_mpx_per_s"] for side in SIDES),
        *ratios,
        " / ".join(str(row[f"{side}_peak_mb"]) for side in SIDES),
        f"{row['max_difference_over_std']:.1e}",
    )
    print(f"| {' | '.join(str(cell) for cell in cells)} |", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", default=[], help="bundled name or folder; may be repeated")
    parser.add_argument("--kernel", type=int, action="append", default=[], help="of a random model; may be repeated")
    parser.add_argument("--filters", type=int, action="append", default=[], help="of a random model; may be repeated")
    parser.add_argument("--size", type=int, action="append", help="of the frames; may be repeated")
    parser.add_argument("--frames", type=int, default=6)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    print(f"{machine()}; medians of {arguments.runs} alternating runs")
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}", flush=True)
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        folders = [open_model(model).folder for model in arguments.model]
        shapes = product(arguments.kernel or [5], arguments.filters or [32])
        if arguments.kernel or arguments.filters:
            folders += [make_model(Path(scratch), kernel, filters) for kernel, filters in shapes]
        for folder, size in product(folders or [open_model("phase-2d").folder], arguments.size or [1024]):
            rows.append(compare(folder, size, arguments.frames, arguments.runs))
            print_row(rows[-1])
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
