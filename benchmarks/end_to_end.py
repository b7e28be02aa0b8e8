"""phbatch against a plain CSBDeep loop: the same Zarr, the same weights, the same numbers, one process each.

    python benchmarks/end_to_end.py [--model NAME|DIR] [--size 1024] [--frames 6] [--runs 3] [--json FILE]

The loop is what a CSBDeep user writes: read a frame with zarr-python, ``CARE.predict`` with CSBDeep's own percentile
normalizer, write the frame with zarr-python's defaults. phbatch runs with ``--normalize percentile --rescale``, which
is the same arithmetic. Both are timed from after the imports to the last byte written, loading and compiling included;
runs alternate, and medians are printed. The input is simulated.
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
from pathlib import Path
from typing import Any

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
start = time.perf_counter()
model = CARE(None, name=name, basedir=folder)
frames = zarr.open_array(source + "/0", mode="r")
restored = zarr.create_array(output, shape=frames.shape, chunks=(1, *frames.shape[1:]), dtype="float32")
for t in range(frames.shape[0]):
    restored[t] = model.predict(frames[t], "YX", normalizer=PercentileNormalizer())
print(json.dumps([time.perf_counter() - start, peak_rss_bytes()]))
"""

PHBATCH = """
import json, sys, time
import keras, phbatch.api
source, output, name, folder = sys.argv[1:]
start = time.perf_counter()
result = phbatch.run(source, output, model=f"{folder}/{name}", normalize="percentile", rescale=True)
print(json.dumps([time.perf_counter() - start, result.peak_rss_bytes]))
"""


def measure(code: str, *arguments: str) -> tuple[float, int]:
    """Seconds and peak bytes of one side, in a process of its own."""
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    shown = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
    )
    seconds, peak = json.loads(shown.stdout.splitlines()[-1])
    return seconds, peak


def compare(model: str, size: int, frames: int, runs: int) -> dict[str, Any]:
    """Medians of both sides, their ratio, and the largest difference of their results."""
    folder = open_model(model).folder
    sides: dict[str, list[tuple[float, int]]] = {"loop": [], "phbatch": []}
    with tempfile.TemporaryDirectory() as scratch:
        source = f"{scratch}/in.zarr"
        write_time_lapse(source, phbatch.PhaseContrast(shape=(size, size), n_frames=frames, seed=11))
        for run in range(runs):
            for side, code in (("loop", LOOP), ("phbatch", PHBATCH)):
                output = f"{scratch}/{side}-{run}.zarr"
                sides[side].append(measure(code, source, output, folder.name, str(folder.parent)))
        loop = zarr.open_array(f"{scratch}/loop-0.zarr", mode="r")[:]
        ours = zarr.open_array(f"{scratch}/phbatch-0.zarr/0", mode="r")[:]
    difference = float(np.abs(np.asarray(loop) - np.asarray(ours)).max() / np.std(np.asarray(loop)))
    pixels = frames * size * size / 1e6
    seconds = {side: statistics.median(one for one, _ in rows) for side, rows in sides.items()}
    ratios = sorted(a[0] / b[0] for a, b in zip(sides["loop"], sides["phbatch"], strict=True))
    return {
        "model": folder.name,
        "frames": frames,
        "size": size,
        "loop_mpx_per_s": round(pixels / seconds["loop"], 3),
        "phbatch_mpx_per_s": round(pixels / seconds["phbatch"], 3),
        "ratio": round(statistics.median(ratios), 2),
        "ratio_range": [round(ratios[0], 2), round(ratios[-1], 2)],
        "loop_peak_mb": round(max(peak for _, peak in sides["loop"]) / 1e6),
        "phbatch_peak_mb": round(max(peak for _, peak in sides["phbatch"]) / 1e6),
        "max_difference_over_std": difference,
    }


def machine() -> str:
    """Processor and cores."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = {line.split(":")[1].strip() for line in lines if line.startswith("model name")}
    return f"{', '.join(sorted(names)) or platform.processor()}, {os.cpu_count()} cores"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", help="bundled name or folder; may be given several times")
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--frames", type=int, default=6)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    print(f"{machine()}; medians of {arguments.runs} alternating runs")
    columns = (
        "model",
        "frames",
        "loop MPx/s",
        "phbatch MPx/s",
        "ratio (range)",
        "peak MB, loop / phbatch",
        "max diff / std",
    )
    print(f"| {' | '.join(columns)} |")
    print("|---|---|---|---|---|---|---|")
    rows = []
    for model in arguments.model or ["phase-2d"]:
        row = compare(model, arguments.size, arguments.frames, arguments.runs)
        rows.append(row)
        low, high = row["ratio_range"]
        print(
            f"| {row['model']} | {row['frames']} x {row['size']}^2 | {row['loop_mpx_per_s']}"
            f" | {row['phbatch_mpx_per_s']} | {row['ratio']} ({low}-{high})"
            f" | {row['loop_peak_mb']} / {row['phbatch_peak_mb']} | {row['max_difference_over_std']:.1e} |"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
