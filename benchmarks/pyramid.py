"""What a pyramid costs as part of a run, against making it afterwards; and how many objects an output is.

    python benchmarks/pyramid.py [--size 2048] [--frames 16] [--pairs 20] [--runs 3] [--json FILE]

*without* and *with* are ``phbatch run --model none --normalize median`` with ``--levels 1`` and with as many as the
size gets by itself, in a heap as the command has it: short runs in pairs, in an order that is drawn, in one process
that is warm. Their ratio is the geometric mean of all pairs, with its standard error: single runs differ by more than
levels cost. The others are processes of their own, which take turns, each warmed up on two frames. *copy* is what is
least: area means of float32 frames by NumPy, read and written by zarr. *ngff-zarr* and *ome-zarr* make and write the
same number of levels of the finished output, as far as they are installed; both write level 0 again, since they have no
other way: its time is measured alone and taken off.

The disk is synchronized before each, and what they wrote stays until the end (0.5 GB a pair), since a removal slows
what follows it. Where ext4 has no journal, it looks for a minute at each inode that was removed whenever a file is
created: after some thousands that is 0.3 ms a file, and levels, which bring files, seem to cost a fifth more than they
do.

The table of objects is arithmetic, of uint16 frames of 2048 x 2048: objects per TB of pixels, and the bytes that a
viewer decodes for a tile of 256 x 256 pixels at a random place. The latency of such a tile is measured on this disk.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import count
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from common import (
    alternate,
    machine,
    mean_of_ratios,
    measure,
    print_head,
    print_row,
    show_spread,
    spread_of_ratios,
    write_record,
)
from normalize_only import write_frames

import phbatch
from phbatch.planning.units import Geometry

PROGRAM = """
import json, sys, time, warnings
warnings.simplefilter("ignore")
source, few, output, levels = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
{work}
make(few, output + ".few")
started, busy = time.perf_counter(), time.process_time()
make(source, output)
print(json.dumps({"processor": time.process_time() - busy, "wall": time.perf_counter() - started}))
"""

PAIRS = """
import json, os, random, sys, time, warnings
from itertools import count
import phbatch
from phbatch.computing.heap import keep_heap
warnings.simplefilter("ignore")
keep_heap()
source, folder, levels, pairs = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
numbers, order = count(), random.Random(0)
def run(levels):
    os.sync()
    output = f"{folder}/run{next(numbers)}"
    started, busy = time.perf_counter(), time.process_time()
    phbatch.run(source, output, axes="tyx", model="none", normalize="median", levels=levels, workers=2)
    return {"processor": time.process_time() - busy, "wall": time.perf_counter() - started}
sides = {"without": 1, "with": levels}
found = {side: [] for side in sides}
for _ in range(pairs + 1):
    for side in order.sample(list(sides), 2):
        found[side].append(run(sides[side]))
print(json.dumps({side: runs[1:] for side, runs in found.items()}))  # the first pair warms up
"""

COPY = """
import numpy as np, zarr
def make(source, output):
    frames, group = zarr.open_array(source + "/0", mode="r"), zarr.create_group(output)
    lengths = [tuple(-(-size // 2**level) for size in frames.shape[1:]) for level in range(levels)]
    made = [group.create_array(str(level), shape=(frames.shape[0], *lengths[level]), dtype="float32",
                               chunks=(1, *(min(size, 1024) for size in lengths[level]))) for level in range(1, levels)]
    for t in range(frames.shape[0]):
        frame = frames[t]
        for level, array in enumerate(made, 1):
            sums, areas = frame.astype(np.float64), np.ones(frame.shape)
            for axis in (0, 1):
                starts = np.arange(0, frame.shape[axis], 2**level)
                sums, areas = (np.add.reduceat(values, starts, axis) for values in (sums, areas))
            array[t] = sums / areas
"""

NGFF_ZARR = """
import ngff_zarr, zarr
def make(source, output):
    frames = zarr.open_array(source + "/0", mode="r")
    image = ngff_zarr.to_ngff_image(frames, dims=["t", "y", "x"])
    scales = [{"y": 2**level, "x": 2**level} for level in range(1, levels)]
    made = ngff_zarr.to_multiscales(image, scale_factors=scales, method=ngff_zarr.Methods.DASK_BIN_SHRINK)
    ngff_zarr.to_ngff_zarr(output, made, version="0.5")
"""

OME_ZARR = """
import dask.array as da, zarr
from ome_zarr.scale import Methods
from ome_zarr.writer import write_image
def make(source, output):
    frames, factors = da.from_zarr(source + "/0"), [2**level for level in range(1, levels)]
    write_image(frames, zarr.open_group(output, mode="w"), factors, method=Methods.LOCAL_MEAN, axes="tyx")
"""

AFTERWARDS = {"copy": COPY, "ngff-zarr": NGFF_ZARR, "ome-zarr": OME_ZARR}


def compare(size: int, frames: int, pairs: int, runs: int) -> dict[str, Any]:
    """Ratios of times, pair by pair and run by run."""
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        for stem, many in (("in", frames), ("few", 2)):
            write_frames(scratch / f"{stem}.zarr", size, many, 0)
            phbatch.run(scratch / f"{stem}.zarr", scratch / f"{stem}.out", axes="tyx", model="none", levels=1)
        levels = len(phbatch.plan(scratch / "in.zarr", axes="tyx", model="none").levels)
        numbers = count()

        def run_side(work: str, suffix: str, levels: int) -> dict[str, float]:
            os.sync()
            paths = (f"{scratch}/in.{suffix}", f"{scratch}/few.{suffix}", f"{scratch}/made{next(numbers)}")
            return dict(measure(PROGRAM.replace("{work}", work), *paths, str(levels)))

        paired = dict(measure(PAIRS, f"{scratch}/in.zarr", name, str(levels), str(pairs)))
        sides: dict[str, Callable[[], dict[str, float]]] = {}
        for side, work in AFTERWARDS.items():
            try:
                run_side(work, "out", levels)
            except RuntimeError as error:
                print(f"{side} cannot be measured here: {str(error).splitlines()[-1]}")
                continue
            sides[side] = partial(run_side, work, "out", levels)
            if side != "copy":
                sides[f"{side} level 0"] = partial(run_side, work, "out", 1)
        found = paired | alternate(runs, sides)
    row: dict[str, Any] = {"size": size, "frames": frames, "levels": levels, "pairs": pairs}
    for unit in ("processor", "wall"):
        times = {side: [each[unit] for each in runs_of] for side, runs_of in found.items()}
        own = statistics.median(times["with"]) - statistics.median(times["without"])
        row[unit] = {
            "over_without": mean_of_ratios(times["with"], times["without"]),
            "seconds": {side: round(statistics.median(values), 2) for side, values in times.items()},
        }
        for side in AFTERWARDS:
            if side in times:
                alone = times.get(f"{side} level 0", [0.0] * runs)
                spent = [a - b for a, b in zip(times[side], alone, strict=True)]
                row[unit][f"{side}_over_own"] = spread_of_ratios(spent, [max(own, 1e-3)] * runs)
    return row


def count_objects(shard_bytes: int, frames: int = 100_000) -> tuple[float, float]:
    """Objects per TB of pixels (uint16, 2048 x 2048, levels and all), and MB of one of level 0 at most."""
    shape = (frames, 1, 1, 2048, 2048)
    geometry = Geometry(shape, (1, *shape[1:]), range(frames), (0,), shard_pixels=shard_bytes // 2, levels=2)
    objects = 0
    for level in geometry.output_levels:
        stored = level.shards or level.chunks
        objects += prod(-(-size // length) for size, length in zip(level.shape, stored, strict=True))
    stored = geometry.output_shards or geometry.output_chunks
    return objects / (prod(shape) * 2 / 1e12), prod(stored) * 2 / 1e6


def time_tiles(shard: str | None, frames: int, tiles: int = 200) -> float:
    """Median milliseconds of a tile of 256 x 256 pixels at a random place of an output of uint16."""
    with tempfile.TemporaryDirectory() as name:
        scratch, draw = Path(name), np.random.default_rng(0)
        write_frames(scratch / "in.zarr", 2048, frames, 0)
        options: dict[str, Any] = {"dtype": "uint16", "scale": 10_000.0, "model": "none", "shard": shard}
        output = phbatch.run(scratch / "in.zarr", scratch / "out.zarr", axes="tyx", **options).output
        array, times = zarr.open_array(output, path="0", mode="r"), []
        for t, y, x in draw.integers(0, (frames, 2048 - 256, 2048 - 256), (tiles, 3)):
            started = time.perf_counter()
            array[t, y : y + 256, x : x + 256]
            times.append(time.perf_counter() - started)
    return 1e3 * statistics.median(times)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=2048)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", type=Path, default=None)
    given = parser.parse_args()
    print(f"{machine()}\n")
    row = compare(given.size, given.frames, given.pairs, given.runs)
    print(f"{given.frames} frames of {given.size} x {given.size}, {row['levels']} levels")
    print(f"{given.pairs} pairs, {given.runs} runs of the others\n")
    print_head(["ratio", "processor", "wall"])
    ratios = (row[unit]["over_without"] for unit in ("processor", "wall"))
    print_row(["run with levels / without", *(f"{mean:.3f} ± {error:.3f}" for mean, error in ratios)])
    for side in AFTERWARDS:  # by the wall, levels in the run are less than what it varies by
        if f"{side}_over_own" in row["processor"]:
            ratio = show_spread(row["processor"][f"{side}_over_own"])
            print_row([f"{side} afterwards / levels in the run", ratio, "-"])
    print()
    print_head(["seconds, median", "processor", "wall"])
    for side, seconds in row["processor"]["seconds"].items():
        print_row([side, seconds, row["wall"]["seconds"][side]])
    print()
    print_head(["shards", "objects per TB", "MB of one, uncompressed", "ms for a tile"])
    stored = []
    for words, shard, size in (("none", None, 0), ("auto", "auto", 64_000_000), ("256MB", "256MB", 256_000_000)):
        objects, megabytes = count_objects(size)
        latency = time_tiles(shard, given.frames)
        stored.append({"shard": words, "objects_per_tb": round(objects), "mb": megabytes, "tile_ms": round(latency, 2)})
        print_row([words, f"{objects:,.0f}", f"{megabytes:.1f}", f"{latency:.1f}"])
    write_record(given.json, pyramid=row, objects=stored)


if __name__ == "__main__":
    main()
