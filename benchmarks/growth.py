"""More frames must cost more time and nothing else: time per frame, peak memory, and what a unit costs by itself.

    python benchmarks/growth.py [--count 10 --count 100 ...] [--size 256] [--model none] [--runs 3] [--json FILE]

``phbatch run`` over 10, 100, 1,000 and 10,000 small frames, each in a process of its own that is warmed up on ten
frames. A run costs some fixed time, which is why what counts is the time of each *further* frame, from one count to the
next, of the clock and of the processors, and the peak memory. Then the overhead of a unit: the wall time of
`phbatch.running.engine.execute` with a task that does nothing, over the number of units, in a plain loop, in threads,
and on a Dask cluster in this process that the engine reaches through a socket.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import zarr
from common import alternate, machine, measure, print_head, print_row, seconds, write_record
from distributed import LocalCluster

from phbatch.frames.recipe import Recipe
from phbatch.places.codecs import make_compressor
from phbatch.planning.units import Geometry, Unit
from phbatch.running.engine import execute
from phbatch.running.tasks import NOWHERE, Job
from phbatch.simulate import PhaseContrast
from phbatch.words.normalization import Normalization

RUN = """
import json, os, sys, time
import phbatch
source, output, model, workers = sys.argv[1:]
options = {"axes": "tyx", "model": model, "workers": int(workers), "network": "plain"}
phbatch.run(source, output + ".few", frames="0:10", **options)
os.sync()
used = time.process_time()
result = phbatch.run(source, output, **options)
print(json.dumps([result.seconds, time.process_time() - used, result.units, result.peak_rss_bytes]))
"""


def write_frames(path: Path, count: int, size: int) -> None:
    """Frames in chunks of one, of which ten differ."""
    movie = PhaseContrast(shape=(size, size), n_frames=10, seed=5)
    made = [movie.frame(t) for t in range(10)]
    array = zarr.create_array(
        path,
        shape=(count, size, size),
        chunks=(1, size, size),
        dtype="uint16",
        compressors=make_compressor("auto", "auto", 3),
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


def measure_overhead(count: int, runs: int, workers: int) -> list[dict[str, Any]]:
    """Wall time per unit of no work, by where it runs."""
    shape = (16 * count, 1, 1, 256, 256)
    units = Geometry(shape, (1, 1, 1, 256, 256), range(shape[0]), (0,)).units
    job = Job(NOWHERE, None, Recipe(Normalization()))

    def run_units(workers: int, scheduler: str | None) -> None:
        for outcome in execute(do_nothing, job, units, workers=workers, scheduler=scheduler):
            if outcome.error is not None:
                raise outcome.error

    with LocalCluster(
        n_workers=1,
        threads_per_worker=workers,
        processes=False,
        dashboard_address="127.0.0.1:0",
        protocol="tcp",
        host="127.0.0.1",
    ) as cluster:
        sides = {
            "plain loop": partial(run_units, 1, None),
            f"{workers} threads": partial(run_units, workers, None),
            f"Dask cluster of {workers} threads": partial(run_units, workers, cluster.scheduler_address),
        }
        found = alternate(runs, {side: partial(seconds, function) for side, function in sides.items()})
    return [
        {"where": side, "units": len(units), "ms_per_unit": [round(1e3 * one / len(units), 4) for one in sorted(times)]}
        for side, times in found.items()
    ]


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
    overhead = measure_overhead(arguments.units, arguments.runs, arguments.workers)
    print_head(("where units run", "units", "ms per unit of no work (range)"))
    for one in overhead:
        low, middle, high = one["ms_per_unit"][0], statistics.median(one["ms_per_unit"]), one["ms_per_unit"][-1]
        print_row((one["where"], one["units"], f"{middle:.3f} ({low:.3f}-{high:.3f})"))
    write_record(arguments.json, growth=rows, overhead=overhead)


if __name__ == "__main__":
    main()
