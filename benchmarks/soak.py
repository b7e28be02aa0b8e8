"""phbatch again and again in one process, for as long as one likes: memory must not grow.

    python benchmarks/soak.py [--minutes 30] [--size 256] [--frames 400] [--model phase-2d] [--limit-mb 8] [--json FILE]

A simulated time-lapse is measured (its statistics are smoothed over time) and restored by a network, run after run,
each into a fresh output. The resident memory of the process is sampled once a second, which gives the curve, and after
every run, when glibc's allocator was told to give back what is free (``malloc_trim``): how much of it the allocator
keeps wanders by tens of megabytes, and says nothing of what phbatch holds. The first half of the time is left to
libraries to fill their caches; over the second half a line is fitted robustly to the samples between runs (Theil-Sen:
the median of the slopes of all pairs), and the soak fails, with exit code 1, where it rises by more than
``--limit-mb``.
"""

from __future__ import annotations

import argparse
import ctypes
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil
from common import machine, print_head, print_row, write_record
from scipy.stats import theilslopes

import phbatch
from phbatch.demo import write_time_lapse

INTERVAL_S = 1.0
CURVE_POINTS = 20

Sample = tuple[float, int]
"""Seconds since the start, and bytes."""


class MemorySampler(threading.Thread):
    """Resident memory of this process, once a second, until it is told to stop."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.samples: list[Sample] = []
        self.stopped = threading.Event()

    def run(self) -> None:
        """Sample."""
        process, start = psutil.Process(), time.perf_counter()
        while not self.stopped.wait(INTERVAL_S):
            self.samples.append((time.perf_counter() - start, int(process.memory_info().rss)))


def give_back() -> None:
    """Have glibc return what is free to the system; elsewhere nothing."""
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)


def soak(minutes: float, size: int, frames: int, model: str) -> tuple[list[Sample], list[Sample]]:
    """Samples of every second, and of the end of every run."""
    with tempfile.TemporaryDirectory() as scratch:
        source, output = f"{scratch}/in.zarr", f"{scratch}/out.zarr"
        write_time_lapse(source, phbatch.PhaseContrast(shape=(size, size), n_frames=frames, seed=17))
        sampler = MemorySampler()
        sampler.start()
        start = time.perf_counter()
        kept: list[Sample] = []
        while time.perf_counter() < start + 60 * minutes:
            result = phbatch.run(source, output, model=model, smooth_time=5)
            if result.failed or result.frames != frames:
                raise RuntimeError(f"run {len(kept)} restored {result.frames} frames, and failed in {result.failed}")
            shutil.rmtree(output)
            give_back()
            kept.append((time.perf_counter() - start, int(psutil.Process().memory_info().rss)))
        sampler.stopped.set()
        sampler.join()
    return sampler.samples, kept


def growth_mb(samples: list[Sample]) -> float:
    """Rise of a robust line through the second half of the samples, over that half, in megabytes."""
    second = np.array(samples[len(samples) // 2 :], dtype=np.float64)
    slope = theilslopes(second[:, 1] / 1e6, second[:, 0]).slope
    return float(slope * (second[-1, 0] - second[0, 0]))


def show_curve(samples: list[Sample], kept: list[Sample]) -> None:
    """Median and largest memory of equal spans of the time, and what was held after the last run of each."""
    print_head(("minutes", "median MB", "largest MB", "MB between runs"))
    for span in np.array_split(np.array(samples), min(CURVE_POINTS, len(samples))):
        megabytes = span[:, 1] / 1e6
        held = [f"{size / 1e6:.0f}" for second, size in kept if span[0, 0] <= second <= span[-1, 0]]
        print_row((f"{span[-1, 0] / 60:.1f}", f"{np.median(megabytes):.0f}", f"{megabytes.max():.0f}", *held[-1:]))


def main() -> None:
    """Soak, print the curve, and fail where memory grew."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--frames", type=int, default=400)
    parser.add_argument("--model", default="phase-2d", help="bundled name, folder, or none")
    parser.add_argument("--limit-mb", type=float, default=8.0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    samples, kept = soak(arguments.minutes, arguments.size, arguments.frames, arguments.model)
    grown = growth_mb(kept)
    print(f"{machine()}; {len(kept)} runs of {arguments.frames} x {arguments.size}^2 frames, model {arguments.model}")
    show_curve(samples, kept)
    print(f"between runs, second half: {grown:+.1f} MB, at most {arguments.limit_mb:g} are allowed")
    write_record(arguments.json, growth_mb=grown, limit_mb=arguments.limit_mb, samples=samples, kept=kept)
    sys.exit(grown > arguments.limit_mb)


if __name__ == "__main__":
    main()
