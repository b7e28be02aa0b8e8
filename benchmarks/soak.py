"""phbatch again and again in one process, for as long as one likes: memory must not grow.

    python benchmarks/soak.py [--minutes 30] [--size 256] [--frames 400] [--model phase-2d] [--limit-mb 8] [--json FILE]

A simulated time-lapse is measured (its statistics are smoothed over time) and restored by a network, run after run,
each into a fresh output. The resident memory of the process is sampled once a second, which gives the curve. After
every run glibc's allocator is told to give back what is free (``malloc_trim``), and two numbers are taken: what is
resident, and what of it the program holds (``mallinfo2``); between them lie the allocator's gaps, which wander by tens
of megabytes. The first half of the time is left to libraries to fill their caches; over the second half a line is
fitted robustly (Theil-Sen: the median of the slopes of all pairs), and the soak fails, with exit code 1, where either
rises by more than ``--limit-mb``.
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
from phbatch.tools.simulated import write_time_lapse

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


class _Allocated(ctypes.Structure):
    """glibc's ``struct mallinfo2``."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


def give_back() -> tuple[int, int]:
    """Bytes that are resident and that the program holds, when glibc has returned what is free to the system."""
    glibc = ctypes.CDLL(None)
    glibc.malloc_trim(0)
    glibc.mallinfo2.restype = _Allocated
    allocated = glibc.mallinfo2()
    return int(psutil.Process().memory_info().rss), int(allocated.uordblks + allocated.hblkhd)


def soak(minutes: float, size: int, frames: int, model: str) -> tuple[list[Sample], list[Sample], list[Sample]]:
    """Samples of every second, and of the end of every run: what is resident, and what is held."""
    with tempfile.TemporaryDirectory() as scratch:
        source, output = f"{scratch}/in.zarr", f"{scratch}/out.zarr"
        write_time_lapse(source, phbatch.PhaseContrast(shape=(size, size), n_frames=frames, seed=17))
        sampler = MemorySampler()
        sampler.start()
        start = time.perf_counter()
        kept: list[Sample] = []
        held: list[Sample] = []
        while time.perf_counter() < start + 60 * minutes:
            result = phbatch.run(source, output, model=model, smooth_time=5)
            if result.failed or result.frames != frames:
                raise RuntimeError(f"run {len(kept)} restored {result.frames} frames, and failed in {result.failed}")
            shutil.rmtree(output)
            resident, in_use = give_back()
            kept.append((time.perf_counter() - start, resident))
            held.append((time.perf_counter() - start, in_use))
        sampler.stopped.set()
        sampler.join()
    return sampler.samples, kept, held


def growth_mb(samples: list[Sample]) -> float:
    """Rise of a robust line through the second half of the samples, over that half, in megabytes."""
    second = np.array(samples[len(samples) // 2 :], dtype=np.float64)
    slope = theilslopes(second[:, 1] / 1e6, second[:, 0]).slope
    return float(slope * (second[-1, 0] - second[0, 0]))


def show_curve(samples: list[Sample], kept: list[Sample], held: list[Sample]) -> None:
    """Median and largest memory of equal spans of the time, and what was left after the last run of each."""
    print_head(("minutes", "median MB", "largest MB", "MB between runs", "held MB"))
    for span in np.array_split(np.array(samples), min(CURVE_POINTS, len(samples))):
        megabytes = span[:, 1] / 1e6
        kept_here, held_here = (
            [size / 1e6 for second, size in points if span[0, 0] <= second <= span[-1, 0]] for points in (kept, held)
        )
        last = [f"{here[-1]:.1f}" if here else "-" for here in (kept_here, held_here)]
        print_row((f"{span[-1, 0] / 60:.1f}", f"{np.median(megabytes):.0f}", f"{megabytes.max():.0f}", *last))


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
    samples, kept, held = soak(arguments.minutes, arguments.size, arguments.frames, arguments.model)
    grown = {"resident": growth_mb(kept), "held": growth_mb(held)}
    print(f"{machine()}; {len(kept)} runs of {arguments.frames} x {arguments.size}^2 frames, model {arguments.model}")
    show_curve(samples, kept, held)
    for name, megabytes in grown.items():
        print(f"{name} between runs, second half: {megabytes:+.2f} MB, at most {arguments.limit_mb:g} are allowed")
    write_record(arguments.json, growth_mb=grown, limit_mb=arguments.limit_mb, samples=samples, kept=kept, held=held)
    sys.exit(max(grown.values()) > arguments.limit_mb)


if __name__ == "__main__":
    main()
