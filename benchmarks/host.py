"""What a unit costs beside the network: a whole run, Zarr to Zarr, in which a stand-in hands out pixels at no cost.

    python benchmarks/host.py [--size 32] [--size 2048] [--frames N] [--workers 16] [--runs 3] [--folder DIR]
                              [--profile 25] [--json FILE]

The input is uint16 in whole frames, the output uint16 in intensities of the input, so that a GPU would have all of the
pixels' work but the statistics. A frame is a unit, however small it is, where a run takes small ones together. Once
input and output are in memory (``/dev/shm``), once on the disk of ``--folder``; each run is its own process, warmed up
on some frames. *Processor ms* is what all threads of the process take per unit, between the start of ``phbatch.run``
and its end, in a heap as the command has it. ``--profile N`` prints the N functions in which a unit spends most,
computed again and again in one thread, with nothing else beside it.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from common import machine, measure, print_head, print_row, run_python, write_record

from phbatch.places.compressor import make_compressor

START = """
import json, os, sys, time
import numpy as np
import phbatch
from phbatch.computing import tasks
from phbatch.computing.heap import keep_heap
from phbatch.network.steps import Prediction
from phbatch.planning import units

keep_heap()

class StandIn:
    on_gpu = False
    def __init__(self, tile, batch, steps):
        draw = np.random.default_rng(0)
        self.image = draw.normal(1000, 30, (batch, *tile, 1)).astype(steps.dtype)
        self.clipped = np.zeros(batch, np.int32)
    def restore(self, windows):
        count = len(windows.pixels)
        return Prediction(self.image[:count], None, self.clipped[:count])

stand_ins = {}
def stand_in(folder, sha256, tile, batch, backend, form, precision, steps):
    key = tile, batch, steps
    if key not in stand_ins:
        stand_ins[key] = StandIn(*key)
    return stand_ins[key]

tasks.get_predictor = stand_in
units._UNIT_PIXELS = 1
source, output, size, workers = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
options = dict(
    axes="tyx", dtype="uint16", rescale=True, network="plain", precision="float32", tile=max(size, 96), batch=1,
)
"""

RUN = """
for frames, name in (("0:16", output + ".few"), (None, output)):
    start, used, before = time.perf_counter(), time.process_time(), os.times().system
    result = phbatch.run(source, name, frames=frames, workers=workers, **options)
    spent, used = time.perf_counter() - start, time.process_time() - used
    system = os.times().system - before
count = result.units
found = {"ms": used / count * 1e3, "system_ms": system / count * 1e3, "units_per_s": count / spent}
print(json.dumps(found | {"units": count, "stages": result.stages}))
"""

PROFILE = """
import cProfile, pstats
from dataclasses import replace
from phbatch.running.begin import accept_run
from phbatch.running import opening
from phbatch.words.options import parse_options
jobs = []
real = tasks.restore_unit
phbatch.run(source, output, frames="0:16", workers=1, **options)
accepted = accept_run(source, output, parse_options("run", options | {"frames": "0:16"}))
job, parts = replace(accepted.job, token=None), accepted.resolved.geometry.units
def some(count):
    for index in range(count):
        real(job, parts[index % len(parts)])
some(16)
count = 400 if size < 512 else 60
used = time.process_time()
some(count)
print(f"{(time.process_time() - used) / count * 1e3:.2f} ms of a processor per unit")
profile = cProfile.Profile()
profile.runcall(some, count)
pstats.Stats(profile).sort_stats("tottime").print_stats(int(sys.argv[5]))
pstats.Stats(profile).sort_stats("cumtime").print_stats(int(sys.argv[5]))
"""


def write_frames(path: str, size: int, count: int) -> None:
    """Frames of noise on a background, one in a chunk."""
    draw = np.random.default_rng(0)
    array = zarr.create_array(
        path,
        shape=(count, size, size),
        chunks=(1, size, size),
        dtype="uint16",
        compressors=make_compressor("auto", "auto", 3, "uint16"),
    )
    frames = draw.normal(1000, 30, (4, size, size)).astype("uint16")
    for index in range(count):
        array[index] = frames[index % 4]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, action="append")
    parser.add_argument("--frames", type=int, help="of each image; default: 1000 of up to 512 px, else 100")
    parser.add_argument("--workers", type=int, default=16)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--profile", type=int)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    places = {"memory": Path("/dev/shm"), "disk": arguments.folder}
    print(f"{machine()}; {arguments.workers} threads")
    if arguments.profile is None:
        print_head(["frames", "in", "processor ms per unit (range)", "of it in the kernel", "units/s (range)"])
    found: list[dict[str, Any]] = []
    for size in arguments.size or [32, 2048]:
        count = arguments.frames or (1000 if size <= 512 else 100)
        for where, folder in places.items():
            with tempfile.TemporaryDirectory(prefix="phbatch-host-", dir=folder) as scratch:
                write_frames(f"{scratch}/in.zarr", size, count)
                given = (f"{scratch}/in.zarr", f"{scratch}/out.zarr", str(size), str(arguments.workers))
                if arguments.profile is not None:
                    print(f"{size}^2, {where}: {run_python(START + PROFILE, *given, str(arguments.profile))}")
                    continue
                runs = []
                for number in range(arguments.runs):
                    output = f"{scratch}/out{number}.zarr"
                    runs.append(measure(START + RUN, given[0], output, *given[2:]))
            ms, kernel, rates = ([run[name] for run in runs] for name in ("ms", "system_ms", "units_per_s"))
            found.append({"size": size, "where": where, "runs": runs})
            cells = [f"{statistics.median(ms):.2f} ({min(ms):.2f}-{max(ms):.2f})"]
            cells.append(f"{statistics.median(kernel):.2f}")
            cells.append(f"{statistics.median(rates):.0f} ({min(rates):.0f}-{max(rates):.0f})")
            print_row([f"{size}^2", where, *cells])
    write_record(arguments.json, workers=arguments.workers, found=found)


if __name__ == "__main__":
    main()
