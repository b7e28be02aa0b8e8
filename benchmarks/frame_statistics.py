"""Speed of the statistics: a frame on one core against SciPy and NumPy, a store against reading it, and memory.

    python benchmarks/frame_statistics.py [--runs 7] [--json FILE]

Each ratio comes from alternating runs in one process (frames, store) or from processes of their own (memory).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from end_to_end import machine
from scipy import ndimage

import phbatch
from phbatch.config import Normalization
from phbatch.engine import Job, execute, read_unit
from phbatch.kernels.stats import measure_frame
from phbatch.planning import Geometry, Unit
from phbatch.simulate import PhaseContrast
from phbatch.stages.restoration import Recipe
from phbatch.storage.source import open_source

MEMORY = """
import json, sys, phbatch
from phbatch.api import peak_rss_bytes
rows = phbatch.statistics(sys.argv[1], memory="2GB")
print(json.dumps([len(rows), peak_rss_bytes()]))
"""


def plain(frame: np.ndarray[Any, Any]) -> None:
    """What one writes with SciPy and NumPy; it finds no mode."""
    smooth = ndimage.gaussian_filter(frame.astype(np.float32), 2.0)
    np.median(smooth)
    np.percentile(frame, (2.0, 99.8))


def alternate(runs: int, first: Callable[[], Any], second: Callable[[], Any]) -> tuple[float, float, list[float]]:
    """Median seconds of two functions run in turn, and their ratios pair by pair."""
    first(), second()
    pairs = []
    for _ in range(runs):
        seconds = []
        for function in (first, second):
            start = time.perf_counter()
            function()
            seconds.append(time.perf_counter() - start)
        pairs.append(seconds)
    ratios = sorted(a / b for a, b in pairs)
    return statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs), ratios


def frame_speed(runs: int) -> dict[str, Any]:
    """Smoothing, median, mode and percentiles of a 2048 x 2048 frame on one core."""
    frame = PhaseContrast(shape=(2048, 2048), seed=5, background_electrons=600.0).frame(0)
    theirs, ours, ratios = alternate(runs, lambda: plain(frame), lambda: measure_frame(frame, 2.0))
    return row("one 2048 x 2048 uint16 frame, one core, against SciPy and NumPy", frame.size, theirs, ours, ratios)


def _read(job: Job, unit: Unit) -> int:
    return int(read_unit(job, unit)[0].size)


def store_speed(runs: int, folder: Path) -> dict[str, Any]:
    """`phbatch.statistics` of a compressed Zarr against reading it with the same threads."""
    movie = PhaseContrast(shape=(2048, 2048), seed=5, background_electrons=600.0)
    array = zarr.create_array(folder / "in.zarr", shape=(16, 2048, 2048), chunks=(1, 2048, 2048), dtype="uint16")
    for t in range(16):
        array[t] = movie.frame(t % 4)
    source = open_source(str(folder / "in.zarr"))
    units = Geometry(source.shape, source.chunks, range(16), (0,)).units
    job = Job(source.path, None, Recipe(Normalization()))

    def read() -> None:
        for outcome in execute(_read, job, units, workers=2):
            if outcome.error is not None:
                raise outcome.error

    theirs, ours, ratios = alternate(max(3, runs // 2), read, lambda: phbatch.statistics(folder / "in.zarr", workers=2))
    return row(
        "16 such frames in a Zarr (zstd), two threads, against reading them", 16 * 2048 * 2048, theirs, ours, ratios
    )


def row(name: str, pixels: int, theirs: float, ours: float, ratios: list[float]) -> dict[str, Any]:
    """One line of the table."""
    return {
        "what": name,
        "reference_mpx_per_s": round(pixels / theirs / 1e6, 1),
        "phbatch_mpx_per_s": round(pixels / ours / 1e6, 1),
        "ratio": round(statistics.median(ratios), 2),
        "ratio_range": [round(ratios[0], 2), round(ratios[-1], 2)],
    }


def memory_growth(folder: Path) -> list[dict[str, Any]]:
    """Peak memory of `phbatch.statistics` over very many small frames, and over one very large one."""
    found = []
    small = PhaseContrast(shape=(64, 64), seed=5).frame(0)
    for count in (1_000, 100_000):
        path = folder / f"small{count}.zarr"
        array = zarr.create_array(path, shape=(count, 64, 64), chunks=(1000, 64, 64), dtype="uint16")
        for start in range(0, count, 1000):
            array[start : start + 1000] = np.broadcast_to(small, (1000, 64, 64))
        found.append(measure_memory(f"{count} frames of 64 x 64", path))
    path = folder / "mosaic.zarr"
    array = zarr.create_array(path, shape=(30_000, 30_000), chunks=(1024, 1024), dtype="uint16")
    tile = PhaseContrast(shape=(1024, 1024), seed=5).frame(0)
    for y in range(0, 30_000, 1024):
        strip = np.tile(tile, (1, 30))[: min(1024, 30_000 - y), :30_000]
        array[y : y + 1024] = strip
    found.append(measure_memory("1 frame of 30,000 x 30,000 in 1024 x 1024 chunks", path))
    return found


def measure_memory(name: str, path: Path) -> dict[str, Any]:
    """Seconds and peak bytes of a process of its own."""
    start = time.perf_counter()
    shown = subprocess.run([sys.executable, "-c", MEMORY, str(path)], check=True, stdout=subprocess.PIPE)
    rows, peak = json.loads(shown.stdout.splitlines()[-1])
    return {"what": name, "rows": rows, "seconds": round(time.perf_counter() - start, 1), "peak_mb": round(peak / 1e6)}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    print(f"{machine()}; medians of alternating runs")
    with tempfile.TemporaryDirectory() as name:
        speeds = [frame_speed(arguments.runs), store_speed(arguments.runs, Path(name))]
        print("| what | reference MPx/s | phbatch MPx/s | phbatch's rate / reference (range) |")
        print("|---|---|---|---|")
        for one in speeds:
            low, high = one["ratio_range"]
            rates = f"{one['reference_mpx_per_s']} | {one['phbatch_mpx_per_s']}"
            print(f"| {one['what']} | {rates} | {one['ratio']} ({low}-{high}) |")
        growth = memory_growth(Path(name))
    print("| what | rows | peak MB |")
    print("|---|---|---|")
    for one in growth:
        print(f"| {one['what']} | {one['rows']} | {one['peak_mb']} |")
    if arguments.json:
        record = {"machine": machine(), "speeds": speeds, "memory": growth}
        arguments.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
