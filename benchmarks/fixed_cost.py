"""What a call costs besides pixels: run, plan, verify, and a run that finds all finished, of an image of two frames.

    python benchmarks/fixed_cost.py [--size 64] [--calls 100] [--runs 3] [--folder DIR] [--json FILE]

One process makes all calls, as a host does with thousands of fields, after some that do not count. *Processor* is that
of all its threads; what is written lies in memory, and on the disk of ``--folder``. The calls take turns; of each run
the median counts.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from common import alternate, machine, print_head, print_row, write_record

import phbatch

MEMORY = Path("/dev/shm")


def cost(call: Callable[[], Any], calls: int) -> list[float]:
    """Milliseconds of a processor, of it in the kernel, and by the clock: the medians of some calls."""
    found = []
    for _ in range(calls):
        before, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        call()
        seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF)
        kernel = after.ru_stime - before.ru_stime
        found.append((after.ru_utime - before.ru_utime + kernel, kernel, seconds))
    return [1e3 * statistics.median(column) for column in zip(*found, strict=True)]


def calls_in(folder: Path, source: Path) -> dict[str, Callable[[], Any]]:
    """What is measured, by its name; one run is made before."""
    options: dict[str, Any] = {"axes": "tyx", "model": "none", "workers": 2}
    numbers, finished = count(), folder / "finished"
    phbatch.run(source, finished, levels=1, **options)

    def run(levels: int) -> None:
        phbatch.run(source, folder / str(next(numbers)), levels=levels, **options)

    return {
        "run": partial(run, 1),
        "run, 2 levels": partial(run, 2),
        "run, all finished": lambda: phbatch.run(source, finished, levels=1, **options),
        "plan": lambda: phbatch.plan(source, folder / "none", levels=1, **options),
        "verify": lambda: phbatch.verify(finished),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--calls", type=int, default=100, help="of each kind in every run")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="on the disk to measure (default: the one for temporary files)")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    print(f"{machine()}; 2 frames of {arguments.size}^2, {arguments.calls} calls of each kind in every run")
    print_head(["call", "in", "processor ms (range)", "of it in the kernel", "ms by the clock"])
    record = {}
    places = {"memory": MEMORY, "disk": arguments.folder} if MEMORY.is_dir() else {"disk": arguments.folder}
    for where, parent in places.items():
        with tempfile.TemporaryDirectory(prefix="phbatch-cost-", dir=parent) as name:
            source = Path(name, "in.zarr")
            frames = np.random.default_rng(0).normal(1000, 30, (2, arguments.size, arguments.size)).astype("uint16")
            zarr.create_array(source, data=frames, chunks=(1, *frames.shape[1:]))
            calls = calls_in(Path(name), source)
            for call in calls.values():
                cost(call, 5)
            sides = {kind: partial(cost, call, arguments.calls) for kind, call in calls.items()}
            for kind, found in alternate(arguments.runs, sides).items():
                processor, kernel, clock = (sorted(column) for column in zip(*found, strict=True))
                middle, *ends = (
                    f"{value:.1f}" for value in (statistics.median(processor), processor[0], processor[-1])
                )
                shown = [f"{middle} ({'-'.join(ends)})", f"{statistics.median(kernel):.1f}"]
                print_row([kind, where, *shown, f"{statistics.median(clock):.0f}"])
                record[f"{kind} in {where}"] = found
    write_record(arguments.json, size=arguments.size, calls=arguments.calls, milliseconds=record)


if __name__ == "__main__":
    main()
