"""phbatch without a network against plain copies and the obvious Dask script: what statistics and durability cost.

    python benchmarks/normalize_only.py [--size 2048] [--frames 96] [--chunk 1024] [--chunk 0] [--runs 5] [--json FILE]

Four sides, each in a process of its own, uint16 to float32, Zarr to Zarr, with the same number of threads. *phbatch*:
``--model none --normalize median``, which measures every frame, divides by its smoothed median, synchronizes every
chunk with the disk and checks it, in a heap as the command has it. *copy*: reads the same chunks and writes them as
float32 with phbatch's codec through the same zarrs pipeline; nothing is measured or synchronized. Whole numbers
compress better than normalized ones, so that it writes fewer bytes; *scaled copy* divides by a constant first, and
writes about as many as phbatch. *dask*: what one writes with ``map_overlap``, ``da.median`` and ``to_zarr``, with the
defaults of Dask and Zarr.

Each process is warmed up on two frames, and the disk is synchronized before the clock starts. The input is simulated
and stored with phbatch's own codec, in chunks of ``--chunk`` squared; 0 means whole frames.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from common import alternate, machine, measure, print_head, print_row, show_spread, spread_of_ratios, write_record

from phbatch.places.compressor import make_compressor
from phbatch.simulate import PhaseContrast

FRAME = """
import json, os, sys, time
from phbatch.computing.machine import peak_rss_bytes
source, few, output, workers = sys.argv[1:]
{work}
normalize(few, output + ".few")
os.sync()
start, used = time.perf_counter(), time.process_time()
found = normalize(source, output)
print(json.dumps([time.perf_counter() - start, time.process_time() - used, peak_rss_bytes(), found]))
"""

PHBATCH = """
import phbatch
from phbatch.computing.heap import keep_heap
keep_heap()
def normalize(source, output):
    result = phbatch.run(
        source, output, axes="tyx", model="none", normalize="median", factor=1, sigma=2, workers=int(workers)
    )
    return {stage: round(spent / result.workers, 3) for stage, spent in result.stages.items()}
"""

COPY = """
from concurrent.futures import ThreadPoolExecutor
from itertools import product
import numpy as np, zarr
from phbatch.places.compressor import make_compressor
from phbatch.places.zarr_nodes import codec_pipeline
def normalize(source, output):
    with codec_pipeline(fast=True):
        frames = zarr.open_array(source, mode="r")
        chunks = tuple(min(length, 1024) for length in frames.chunks)
        copied = zarr.create_array(
            output, shape=frames.shape, chunks=chunks, dtype="float32",
            compressors=make_compressor("auto", "auto", 3, "float32")
        )
    def copy(region):
        copied[region] = {expression}
    starts = (range(0, size, step) for size, step in zip(frames.shape, frames.chunks))
    regions = [tuple(slice(a, a + step) for a, step in zip(start, frames.chunks)) for start in product(*starts)]
    with ThreadPoolExecutor(int(workers)) as pool:
        list(pool.map(copy, regions))
"""

DASK = """
import dask, dask.array as da
from scipy.ndimage import gaussian_filter
def normalize(source, output):
    with dask.config.set(num_workers=int(workers)):
        frames = da.from_zarr(source).astype("float32")
        smooth = frames.map_overlap(gaussian_filter, depth=(0, 8, 8), boundary="reflect", sigma=(0, 2, 2))
        (frames / da.median(smooth, axis=(1, 2), keepdims=True)).to_zarr(output)
"""

SIDES = {
    "copy": COPY.replace("{expression}", 'frames[region].astype("float32")'),
    "scaled": COPY.replace("{expression}", "frames[region] * np.float32(1e-3)"),
    "dask": DASK,
    "phbatch": PHBATCH,
}


OTHERS = ("copy", "scaled", "dask")


def write_frames(path: Path, size: int, frames: int, chunk: int) -> None:
    """Simulated frames, of which eight differ, since simulating takes longer than all that is measured."""
    movie = PhaseContrast(shape=(size, size), n_frames=8, seed=5, background_electrons=600.0)
    array = zarr.create_array(
        path,
        shape=(frames, size, size),
        chunks=(1, chunk or size, chunk or size),
        dtype="uint16",
        compressors=make_compressor("auto", "auto", 3, "uint16"),
    )
    made = [movie.frame(t) for t in range(min(8, frames))]
    for t in range(frames):
        array[t] = made[t % len(made)]


def compare(size: int, frames: int, chunk: int, runs: int) -> dict[str, Any]:
    """Rates of all sides, phbatch's rate over the others', and what the outputs differ by."""
    workers = os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        write_frames(scratch / "in.zarr", size, frames, chunk)
        write_frames(scratch / "few.zarr", size, 2, chunk)

        def run_side(side: str) -> list[Any]:
            output = scratch / f"{side}.zarr"
            for path in (output, output.with_name(f"{output.name}.few")):
                shutil.rmtree(path, ignore_errors=True)
            paths = (scratch / "in.zarr", scratch / "few.zarr", output)
            found: list[Any] = measure(FRAME.format(work=SIDES[side]), *map(str, paths), str(workers))
            return found

        found = alternate(runs, {side: partial(run_side, side) for side in SIDES})
        differences = compare_outputs(scratch)
    pixels = frames * size * size / 1e6
    row: dict[str, Any] = {"frames": frames, "size": size, "chunk": chunk or size, "threads": workers} | differences
    for side, results in found.items():
        row[f"{side}_mpx_per_s"] = round(pixels / statistics.median(result[0] for result in results), 1)
        row[f"{side}_peak_mb"] = round(max(result[2] for result in results) / 1e6)
    for side in OTHERS:
        for clock, suffix in enumerate(("", "_processor")):
            times, own = ([result[clock] for result in found[which]] for which in (side, "phbatch"))
            row[f"over_{side}{suffix}"] = spread_of_ratios(times, own)
    row["phbatch_stages_s"] = found["phbatch"][-1][3]
    return row


def compare_outputs(scratch: Path) -> dict[str, float]:
    """Largest difference of the copy to the input (0 where it is one), and of phbatch to the Dask script."""
    source, copy, theirs, ours = (
        np.asarray(zarr.open_array(scratch / path, mode="r")[0])
        for path in ("in.zarr", "copy.zarr", "dask.zarr", "phbatch.zarr/0")
    )
    return {
        "copy_difference": float(np.abs(copy - source).max()),
        "dask_difference": float(np.abs(theirs - ours).max() / theirs.std()),
    }


COLUMNS = (
    "frames, chunks",
    "copy MPx/s",
    "scaled copy MPx/s",
    "Dask MPx/s",
    "phbatch MPx/s",
    "phbatch / copy (range); by processor time",
    "phbatch / scaled copy (range); by processor time",
    "phbatch / Dask (range); by processor time",
    "peak MB, copy / scaled copy / Dask / phbatch",
    "max difference to Dask / std",
)


def show_row(row: dict[str, Any]) -> None:
    """One line of the table."""
    print_row(
        (
            f"{row['frames']} x {row['size']}^2, {row['chunk']}^2",
            *(row[f"{side}_mpx_per_s"] for side in SIDES),
            *(f"{show_spread(row[f'over_{side}'])}; {row[f'over_{side}_processor'][0]:.2f}" for side in OTHERS),
            " / ".join(str(row[f"{side}_peak_mb"]) for side in SIDES),
            f"{row['dask_difference']:.1e}",
        )
    )


def print_stages(rows: list[dict[str, Any]]) -> None:
    """Where the threads of phbatch are in the last run: a thread that waits for the disk lets another compute."""
    stages = list(dict.fromkeys(stage for row in rows for stage in row["phbatch_stages_s"]))
    print_head(("phbatch, seconds per thread", *stages))
    for row in rows:
        print_row((f"in chunks of {row['chunk']}^2", *(row["phbatch_stages_s"].get(stage, 0) for stage in stages)))


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, action="append", help="of the frames; may be repeated")
    parser.add_argument("--frames", type=int, default=96)
    parser.add_argument("--chunk", type=int, action="append", help="0 for whole frames; may be repeated")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    print(f"{machine()}; uint16 to float32, medians of {arguments.runs} alternating runs")
    print_head(COLUMNS)
    rows = []
    for size, chunk in product(arguments.size or [2048], arguments.chunk or [1024, 0]):
        rows.append(compare(size, arguments.frames, chunk, arguments.runs))
        show_row(rows[-1])
    print_stages(rows)
    write_record(arguments.json, rows=rows)


if __name__ == "__main__":
    main()
