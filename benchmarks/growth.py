"""More frames must cost more time and nothing else: time per frame, peak memory, and what a unit costs by itself.

    python benchmarks/growth.py [--count 10 --count 100 ...] [--size 256] [--model none] [--runs 3] [--json FILE]

``phbatch run`` over 10, 100, 1,000 and 10,000 small frames, each in a process of its own that is warmed up on ten
frames. A run costs some fixed time, which is why what counts is the time of each *further* frame, from one count to the
next, of the clock and of the processors, and the peak memory. Then ``phbatch plan`` of an image of 10^8 frames of which
nothing is stored: seconds, and the memory beyond that of a plan of ten. Then the overhead of a unit:
`phbatch.computing.engine.execute` with a task that does nothing, in a plain loop, in threads, and on a Dask cluster in
another process; per unit the time of the clock and of this process's and, on a cluster, its scheduler's processors, and
how much memory the units between the first tenth and the last one took. ``--units 1000000`` shows that it stays flat.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import zarr
from common import alternate, machine, measure, print_head, print_row, write_record

from phbatch.computing.tasks import Job
from phbatch.places.compressor import make_compressor
from phbatch.planning.unit import Unit
from phbatch.simulate import PhaseContrast

RUN = """
import json, os, sys, time
import phbatch
source, output, model, workers = sys.argv[1:]
options = {"axes": "tyx", "model": model, "workers": int(workers)} | ({} if model == "none" else {"network": "plain"})
phbatch.run(source, output + ".few", frames="0:10", **options)
os.sync()
used = time.process_time()
result = phbatch.run(source, output, **options)
print(json.dumps([result.seconds, time.process_time() - used, result.units, result.peak_rss_bytes]))
"""

PLAN = """
import json, resource, sys, time
import phbatch
few, many = sys.argv[1:]
phbatch.plan(few, axes="tyx", model="none")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
started = time.perf_counter()
plan = phbatch.plan(many, axes="tyx", model="none", memory="100GB")
seconds = time.perf_counter() - started
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps([plan.frames, plan.units, seconds, (peak - before) * 1024]))
"""

OVERHEAD = """
import json, sys, time
from pathlib import Path
import psutil
from growth import do_nothing
from phbatch.frames.recipe import Recipe
from phbatch.planning.units import Geometry
from phbatch.computing.engine import execute
from phbatch.computing.machine import peak_rss_bytes
from phbatch.computing.tasks import NOWHERE, Job
from phbatch.words.normalization import Normalization
count, workers, scheduler, scheduler_process = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
units = Geometry((count, 1, 1, 2048, 2048), (1, 1, 1, 2048, 2048), range(count), (0,)).units
job = Job(NOWHERE, None, Recipe(Normalization()))
processes = [psutil.Process(), *([psutil.Process(scheduler_process)] if scheduler else [])]
used = lambda: [sum(process.cpu_times()[:2]) for process in processes]
list(execute(do_nothing, job, units[:100], workers=workers, scheduler=scheduler or None))
started, before, early = time.perf_counter(), used(), 0
for number, outcome in enumerate(execute(do_nothing, job, units, workers=workers, scheduler=scheduler or None)):
    assert outcome.error is None, outcome.error
    if number == count // 10:
        early = peak_rss_bytes()
seconds = time.perf_counter() - started
print(json.dumps([seconds, sum(used()) - sum(before), peak_rss_bytes() - early]))
"""

HERE = {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])}
"""Where other processes find `do_nothing`."""


def write_frames(path: Path, count: int, size: int) -> None:
    """Frames in chunks of one, of which ten differ."""
    movie = PhaseContrast(shape=(size, size), n_frames=10, seed=5)
    made = [movie.frame(t) for t in range(10)]
    array = zarr.create_array(
        path,
        shape=(count, size, size),
        chunks=(1, size, size),
        dtype="uint16",
        compressors=make_compressor("auto", "auto", 3, "uint16"),
    )
    for t in range(count):
        array[t] = made[t % 10]


def grow(counts: list[int], size: int, model: str, workers: int, runs: int) -> list[dict[str, Any]]:
    """Seconds and peak memory for every number of frames."""
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        for count in counts:
            write_frames(scratch / f"{count}.zarr", count, size)

        def run_count(count: int) -> list[float]:
            output = scratch / "out.zarr"
            for path in (output, scratch / "out.zarr.few"):
                shutil.rmtree(path, ignore_errors=True)
            found: list[float] = measure(RUN, str(scratch / f"{count}.zarr"), str(output), model, str(workers))
            return found

        found = alternate(runs, {str(count): partial(run_count, count) for count in counts})
    rows: list[dict[str, Any]] = []
    for count, results in zip(counts, found.values(), strict=True):
        total, used, units, peak = (statistics.median(column) for column in zip(*results, strict=True))
        rows.append(
            {
                "frames": count,
                "units": round(units),
                "seconds": round(total, 3),
                "processor_seconds": round(used, 3),
                "peak_mb": round(peak / 1e6),
            }
        )
    for before, row in pairwise(rows):
        for clock in ("seconds", "processor_seconds"):
            further = (row[clock] - before[clock]) / (row["frames"] - before["frames"])
            row[f"{clock}_per_1000_further"] = round(1e3 * further, 3)
    return rows


def do_nothing(job: Job, unit: Unit) -> None:
    """A unit of no work."""


def measure_plan(sides: list[int]) -> list[dict[str, Any]]:
    """A plan of 10^8 frames, by the pixels of their sides."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        for side in sides:
            for count in (10, 10**8):
                zarr.create_array(
                    f"{name}/{count}-{side}.zarr", shape=(count, side, side), chunks=(1, side, side), dtype="uint16"
                )
            found = measure(PLAN, f"{name}/10-{side}.zarr", f"{name}/{10**8}-{side}.zarr")
            frames, units, taken, grown = found
            rows.append({"side": side, "frames": frames, "units": units, "seconds": taken, "mb": grown / 1e6})
    return rows


def measure_overhead(count: int, runs: int, workers: int) -> list[dict[str, Any]]:
    """Times and memory of a unit of no work, by where it runs."""
    with open_cluster(workers) as (scheduler, process):
        sides = {
            "plain loop": (1, "", 0),
            f"{workers} threads": (workers, "", 0),
            f"Dask cluster of {workers} threads": (workers, scheduler, process),
        }
        found = alternate(
            runs,
            {side: partial(measure, OVERHEAD, str(count), *map(str, where), **HERE) for side, where in sides.items()},
        )
    rows = []
    for side, results in found.items():
        clock, used, grown = (sorted(column) for column in zip(*results, strict=True))
        row = {"where": side, "units": count, "growth_mb": round(statistics.median(grown) / 1e6, 1)}
        for name, times in (("ms_per_unit", clock), ("processor_ms_per_unit", used)):
            row[name] = [round(1e3 * one / count, 4) for one in times]
        rows.append(row)
    return rows


@contextmanager
def open_cluster(workers: int) -> Iterator[tuple[str, int]]:
    """A scheduler and a worker, each in a process of its own on this machine: address, and the scheduler's process."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name) / "scheduler.json"
        shared = ["--scheduler-file", str(place), "--host", "127.0.0.1", "--no-dashboard"]
        own = {"scheduler": ["--port", "0"], "worker": ["--no-nanny", "--nthreads", str(workers)]}
        processes = [
            subprocess.Popen(
                [sys.executable, "-m", f"distributed.cli.dask_{role}", *shared, *options],
                cwd=name,
                env=os.environ | HERE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for role, options in own.items()
        ]
        try:
            while not place.exists():
                time.sleep(0.1)
            yield json.loads(place.read_text())["address"], processes[0].pid
        finally:
            for process in reversed(processes):
                process.terminate()
                process.wait()


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, action="append", help="of frames; may be repeated")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--model", default="none", help="none, bundled name, or folder")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--units", type=int, default=2000, help="of no work")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    counts = sorted(arguments.count or [10, 100, 1000, 10_000])
    print(f"{machine()}; frames of {arguments.size}^2, model {arguments.model}, medians of {arguments.runs} runs")
    rows = grow(counts, arguments.size, arguments.model, arguments.workers, arguments.runs)
    print_head(("frames", "units", "seconds (processor)", "ms per further frame (processor)", "peak MB"))
    for row in rows:
        further = (row.get(f"{clock}_per_1000_further", "-") for clock in ("seconds", "processor_seconds"))
        times = (f"{row['seconds']:.2f} ({row['processor_seconds']:.2f})", "{} ({})".format(*further))
        print_row((row["frames"], row["units"], *times, row["peak_mb"]))
    plans = measure_plan([8, 2048])
    print_head(("plan of 10^8 frames", "units", "seconds", "MB beyond a plan of ten"))
    for plan in plans:
        print_row((f"{plan['side']}^2", plan["units"], f"{plan['seconds']:.2f}", f"{plan['mb']:.1f}"))
    overhead = measure_overhead(arguments.units, arguments.runs, arguments.workers)
    print_head(("where units run", "units", "ms per unit of no work (range)", "of processors", "MB that memory grew"))
    for one in overhead:
        spans = (one["ms_per_unit"], one["processor_ms_per_unit"])
        shown = (f"{statistics.median(span):.3f} ({span[0]:.3f}-{span[-1]:.3f})" for span in spans)
        print_row((one["where"], one["units"], *shown, one["growth_mb"]))
    write_record(arguments.json, growth=rows, plans=plans, overhead=overhead)


if __name__ == "__main__":
    main()
