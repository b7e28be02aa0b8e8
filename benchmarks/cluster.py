"""What a Dask scheduler costs a run, and how many workers it can feed: units of no work, and of a second each.

    python benchmarks/cluster.py [--units 1000000] [--threads 8] [--seconds 900]
        [--workers 100 --workers 200 ...] [--per-process 100] [--unit-s 1] [--for 60] [--json FILE]

Scheduler, workers and client are processes of their own, on loopback. First units of no work go through one worker of 8
threads (`phbatch.computing.engine.execute`): processor time of client, scheduler and worker for each, and what memory
the three hold after a tenth of the units, after half, and at the end; where the time is over, it is of the units that
were done. Then ``phbatch plan`` of an image of 10^8 frames of which nothing is stored. Then workers of one thread, many
of which share a process, since a unit of theirs only waits, and do without what Dask's worker does a hundred times a
second for its profile: the scheduler's share of one core while they do nothing, and its and the client's while they are
given units, of which the first half of the time is left out; calls a second, units a call, and the part of the workers'
time that went to units, which is below 1 where this machine is too slow for so many. What a call costs follows, and
with as many calls as `phbatch.computing.workers.CALLS_PER_S` the share of 100 and of 1,000 workers. ``--units 2000
--seconds 20 --workers 4 --for 6 --unit-s 0.1`` is a rehearsal.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from common import machine, measure, print_head, print_row, write_record
from growth import HERE, measure_plan

from phbatch.computing.graph import Graph
from phbatch.computing.tasks import Job
from phbatch.computing.workers import CALLS_PER_S, Workers
from phbatch.planning.unit import Unit

UNITS = """
import json, sys, time
import psutil
from cluster import count_calls
from growth import do_nothing
from phbatch.frames.recipe import Recipe
from phbatch.planning.units import Geometry
from phbatch.computing.engine import execute
from phbatch.computing.tasks import NOWHERE, Job
from phbatch.words.normalization import Normalization
count, threads, seconds, scheduler = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), sys.argv[4]
units = Geometry((count, 1, 1, 2048, 2048), (1, 1, 1, 2048, 2048), range(count), (0,)).units
job = Job(NOWHERE, None, Recipe(Normalization()))
processes = [psutil.Process(), *(psutil.Process(int(number)) for number in sys.argv[5:])]
used = lambda: [sum(process.cpu_times()[:2]) for process in processes]
held = lambda: [process.memory_info().rss for process in processes]
list(execute(do_nothing, job, units[:1000], workers=threads, scheduler=scheduler))
calls, started, before, done, marks = count_calls(), time.perf_counter(), used(), 0, []
enough = lambda: time.perf_counter() > started + seconds
for outcome in execute(do_nothing, job, units, workers=threads, scheduler=scheduler, stop=enough):
    assert outcome.error is None, outcome.error
    done += 1
    if done in (count // 10, count // 2):
        marks.append([done, held()])
spent = time.perf_counter() - started
marks.append([done, held()])
used_up = [b - a for a, b in zip(before, used())]
print(json.dumps({"done": done, "seconds": spent, "used": used_up, "marks": marks, "calls": sum(calls)}))
"""

MANY = """
import json, sys, time
import psutil
from functools import partial
from cluster import count_calls, wait_for
from distributed import Client
from phbatch.frames.recipe import Recipe
from phbatch.planning.units import Geometry
from phbatch.computing.engine import execute
from phbatch.computing.tasks import NOWHERE, Job
from phbatch.words.normalization import Normalization
workers, unit_s, seconds, scheduler = int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]), sys.argv[4]
units = Geometry((10**8, 1, 1, 2048, 2048), (1, 1, 1, 2048, 2048), range(10**8), (0,)).units
job = Job(NOWHERE, None, Recipe(Normalization()))
processes = [psutil.Process(), psutil.Process(int(sys.argv[5]))]
used = lambda: [sum(process.cpu_times()[:2]) for process in processes]
share = lambda before, spent: [(b - a) / spent for a, b in zip(before, used())]
with Client(scheduler) as client:
    client.wait_for_workers(workers, timeout=300)
    began, before = time.perf_counter(), used()
    time.sleep(seconds / 6)
    idle = share(before, time.perf_counter() - began)[1]
calls, started, half, done = count_calls(), None, None, 0
for outcome in execute(partial(wait_for, unit_s), job, units, workers=1, scheduler=scheduler):
    assert outcome.error is None, outcome.error
    now, done = time.perf_counter(), done + 1
    started = started or now
    if half is None and now > started + seconds / 2:
        half = [now, used(), done, sum(calls)]
    if now > started + seconds:
        break
spent = now - half[0]
busy = share(half[1], spent)
calls, held = sum(calls) - half[3], [process.memory_info().rss for process in processes]
print(json.dumps({"units": done - half[2], "seconds": spent, "idle": idle, "used": busy, "calls": calls, "held": held}))
"""

WORKERS = """
import asyncio, sys
import dask
from distributed import Worker
dask.config.set(
    {
        "distributed.worker.profile.enabled": False,
        "distributed.admin.tick.interval": "5s",
        "distributed.admin.system-monitor.interval": "5s",
    }
)
async def work(scheduler, count):
    options = {"nthreads": 1, "host": "127.0.0.1", "memory_limit": 0, "dashboard": False, "local_directory": "."}
    workers = [await Worker(scheduler, **options) for _ in range(count)]
    await asyncio.gather(*(worker.finished() for worker in workers))
asyncio.run(work(sys.argv[1], int(sys.argv[2])))
"""


def wait_for(seconds: float, job: Job, unit: Unit) -> None:
    """A unit that takes so long, and no processor."""
    time.sleep(seconds)


def count_calls() -> list[int]:
    """A list that gets, for each graph that this process starts from now on, how many calls are in it."""
    calls, compute = list[int](), Workers.compute

    def count(self: Workers, graph: Graph, allowed: Sequence[str], *, keep: bool = False) -> None:
        calls.append(len(graph))
        compute(self, graph, allowed, keep=keep)

    setattr(Workers, "compute", count)  # noqa: B010
    return calls


@contextmanager
def open_cluster(processes: int, workers: list[str]) -> Iterator[tuple[str, list[int]]]:
    """A scheduler and processes of workers: its address, and the numbers of the processes, the scheduler's first.

    Parameters
    ----------
    processes : int
        Of workers.
    workers : list of str
        How Python is called for one; the scheduler's address takes the place of ``ADDRESS``.
    """
    with tempfile.TemporaryDirectory() as name:
        place, options = Path(name) / "scheduler.json", ["--host", "127.0.0.1", "--port", "0", "--no-dashboard"]

        def start(*arguments: str) -> subprocess.Popen[bytes]:
            command, quiet = [sys.executable, *arguments], subprocess.DEVNULL
            return subprocess.Popen(command, cwd=name, env=os.environ | HERE, stdout=quiet, stderr=quiet)

        started = [start("-m", "distributed.cli.dask_scheduler", "--scheduler-file", str(place), *options)]
        try:
            while not place.exists():
                time.sleep(0.1)
            address = json.loads(place.read_text())["address"]
            command = [address if argument == "ADDRESS" else argument for argument in workers]
            started += [start(*command) for _ in range(processes)]
            yield address, [process.pid for process in started]
        finally:
            for process in reversed(started):
                process.kill()
                process.wait()


def measure_units(count: int, threads: int, seconds: float) -> dict[str, Any]:
    """Units of no work through one worker."""
    worker = ["-m", "distributed.cli.dask_worker", "ADDRESS", "--host", "127.0.0.1", "--no-nanny", "--no-dashboard"]
    with open_cluster(1, [*worker, "--nthreads", str(threads)]) as (scheduler, numbers):
        found = measure(UNITS, str(count), str(threads), str(seconds), scheduler, *map(str, numbers), **HERE)
    done = found["done"]
    return {
        "units": done,
        "seconds": round(found["seconds"], 1),
        "units_per_call": round(done / max(found["calls"], 1), 1),
        "processor_ms_per_unit": [round(1e3 * used / done, 4) for used in found["used"]],
        "mb": [[units, *(round(held / 1e6) for held in held_by)] for units, held_by in found["marks"]],
    }


def measure_many(workers: int, per_process: int, unit_s: float, seconds: float) -> dict[str, Any]:
    """Units that only take time, through many workers."""
    processes = -(-workers // per_process)
    each = -(-workers // processes)
    with open_cluster(processes, ["-c", WORKERS, "ADDRESS", str(each)]) as (scheduler, numbers):
        found = measure(MANY, *map(str, (processes * each, unit_s, seconds, scheduler, numbers[0])), **HERE)
    spent, calls, (client, of_scheduler) = found["seconds"], found["calls"], found["used"]
    return {
        "workers": processes * each,
        "unit_s": unit_s,
        "calls_per_s": round(calls / spent, 1),
        "units_per_call": round(found["units"] / max(calls, 1), 1),
        "busy": round(found["units"] * unit_s / spent / (processes * each), 3),
        "idle_share": round(found["idle"], 4),
        "share": {"client": round(client, 3), "scheduler": round(of_scheduler, 3)},
        "ms_per_call": {
            "client": round(1e3 * client * spent / max(calls, 1), 2),
            "scheduler": round(1e3 * (of_scheduler - found["idle"]) * spent / max(calls, 1), 2),
        },
        "mb": [round(held / 1e6) for held in found["held"]],
    }


def scheduler_share(workers: int, row: Mapping[str, Any]) -> float:
    """Of one core, for so many workers with a unit of a second each, by what was measured of others.

    Examples
    --------
    >>> row = {"workers": 200, "idle_share": 0.02, "ms_per_call": {"scheduler": 2.0}}
    >>> round(scheduler_share(1000, row), 3)
    0.3
    """
    calls_s: float = row["ms_per_call"]["scheduler"] / 1e3
    idle: float = row["idle_share"] / row["workers"]
    return workers * idle + min(workers, CALLS_PER_S) * calls_s


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", type=int, default=1_000_000, help="of no work")
    parser.add_argument("--threads", type=int, default=8, help="of the worker that takes them")
    parser.add_argument("--seconds", type=float, default=900, help="that they may take together")
    parser.add_argument("--workers", type=int, action="append", help="of one thread; may be repeated")
    parser.add_argument("--per-process", type=int, default=100, help="of these, at most")
    parser.add_argument("--unit-s", type=float, default=1.0, help="that a unit of theirs takes")
    parser.add_argument("--for", type=float, default=60, dest="lasting", help="seconds that each number of them gets")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    print(machine())
    units = None
    if arguments.units:
        units = measure_units(arguments.units, arguments.threads, arguments.seconds)
        print_head(("units of no work", "seconds", "units a call", "processor ms a unit, client + scheduler + worker"))
        shown = " + ".join(f"{used:.3f}" for used in units["processor_ms_per_unit"])
        print_row((units["units"], units["seconds"], units["units_per_call"], shown))
        print_head(("after units", "MB of client", "of scheduler", "of worker"))
        for row in units["mb"]:
            print_row(row)
    plans = measure_plan([2048])
    print_head(("plan of 10^8 frames", "units", "seconds", "MB beyond a plan of ten"))
    for plan in plans:
        print_row((f"{plan['side']}^2", plan["units"], f"{plan['seconds']:.2f}", f"{plan['mb']:.1f}"))
    rows = []
    print_head(
        (
            *(
                "workers",
                "idle: scheduler's share",
                "calls/s",
                "units a call",
                "busy",
                "share of a core: client, scheduler",
            ),
            *("ms a call: client, scheduler", "MB: client, scheduler"),
        )
    )
    for count in arguments.workers or [100, 200, 400]:
        row = measure_many(count, arguments.per_process, arguments.unit_s, arguments.lasting)
        rows.append(row)
        plain = (row[name] for name in ("workers", "idle_share", "calls_per_s", "units_per_call", "busy"))
        shares, calls = (", ".join(map(str, row[name].values())) for name in ("share", "ms_per_call"))
        print_row((*plain, shares, calls, ", ".join(map(str, row["mb"]))))
    estimated = {count: round(scheduler_share(count, rows[-1]), 3) for count in (100, 1000)}
    print_head(("workers with units of 1 s", "calls/s", "scheduler's share of a core, estimated"))
    for count, share in estimated.items():
        print_row((count, min(count, CALLS_PER_S), share))
    write_record(arguments.json, units=units, plans=plans, workers=rows, estimated=estimated)


if __name__ == "__main__":
    main()
