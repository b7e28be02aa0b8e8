"""TIFFs to OME-Zarr: `phbatch convert` against a loop of tifffile and zarr and against ngff-zarr, in one run.

    python benchmarks/convert.py [--frames 64] [--size 2048] [--runs 5] [--folder FOLDER] [--json FILE]

*loop* is what one writes by hand, ``array[t] = tifffile.imread(path)``, with the codec that zarr takes by itself, a
chunk for each frame and no coarser level. *alike* is the loop that writes what phbatch does: its codec, its chunks, its
levels, whose means are four strided sums in NumPy, the fastest way there. *ngff-zarr* is its command line, which takes
a single file alone, with the chunks, levels and codec of phbatch and the fastest of its methods. None of them records
checksums or statistics, waits until its chunks are on the disk, or can be continued; phbatch does all of that.

Each side is a process of its own, timed after its imports, phbatch in a heap as its command has it; sides take turns,
and the disk is synchronized before each. The second table is what a frame costs at least, whoever writes it: the
processor time of single calls of the libraries. `--runs 0` prints it alone.
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
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import tifffile
from common import alternate, machine, measure, print_head, print_row, show_spread, spread_of_ratios, write_record
from numcodecs import Blosc, Zstd

import phbatch
from phbatch.kernels.glance import glance_at
from phbatch.kernels.pyramid import make_levels
from phbatch.places.durable import mark_of, replace_files

_TIMED = """
import json, resource, sys, time
wall, cpu = time.perf_counter(), time.process_time()
work()
print(json.dumps({
    "wall": time.perf_counter() - wall,
    "processor": time.process_time() - cpu,
    "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
}))
"""

_PHBATCH = """
import sys, phbatch
from phbatch.computing.heap import keep_heap
from phbatch.kernels.glance import glance_at
phbatch.convert
keep_heap()
def work():
    assert not phbatch.convert(sys.argv[1], sys.argv[2]).failed
"""

_LOOP = """
import sys, tifffile, zarr
from pathlib import Path
from zarr.codecs import BloscCodec
alike = sys.argv[3] == "alike"
def create(name, count, shape, dtype):
    options = {"compressors": BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle")} if alike else {}
    chunks = [min(size, 1024) if alike else size for size in shape]
    return zarr.create_array(sys.argv[2] + name, shape=(count, *shape), chunks=(1, *chunks), dtype=dtype, **options)
def halve(frame):
    rows, columns = (size // 2 * 2 for size in frame.shape)
    frame = frame[:rows, :columns].astype("uint32")
    return (frame[::2, ::2] + frame[1::2, ::2] + frame[::2, 1::2] + frame[1::2, 1::2] + 2) // 4
def work():
    path = Path(sys.argv[1])
    if path.is_dir():
        files = sorted(path.iterdir())
        first = tifffile.imread(files[0])
        read, count = lambda t: tifffile.imread(files[t]), len(files)
    else:
        stack = tifffile.TiffFile(path)
        first, count = stack.pages[0].asarray(), len(stack.pages)
        read = lambda t: stack.pages[t].asarray()
    shapes = [tuple(size // 2**level for size in first.shape) for level in range(int(sys.argv[4]) if alike else 1)]
    arrays = [create(f"/{level}", count, shape, first.dtype) for level, shape in enumerate(shapes)]
    for t in range(count):
        frame = read(t)
        arrays[0][t] = frame
        for array in arrays[1:]:
            frame = halve(frame)
            array[t] = frame
"""

_NGFF_ZARR = """
import sys
import tifffile, zarr
from ngff_zarr.cli import main
sys.argv[1:] = ["--input", sys.argv[1], "--output", sys.argv[2], "--input-backend", "tifffile", "--dims", *"tyx",
                "--chunks", "1", "1024", "1024", "--codec", "blosc:lz4", "--method", "dask_bin_shrink", "--quiet"]
def work():
    main()
"""

SIDES = {"phbatch": _PHBATCH, "loop": _LOOP, "alike": _LOOP, "ngff-zarr": _NGFF_ZARR}


def main() -> None:
    """Print a row for each form of the same frames."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=64)
    parser.add_argument("--size", type=int, default=2048)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="Where TIFFs and outputs lie meanwhile.")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    print(f"{machine()}; {asked.frames} frames of {asked.size} x {asked.size} uint16, {asked.runs} runs\n")
    others = [side for side in SIDES if side != "phbatch"]
    columns = [f"{side} / phbatch, {unit}" for side in others for unit in ("wall", "processor")]
    if asked.runs:
        print_head(["form", *columns, "phbatch: s wall", "s processor", "MB peak"])
    rows = []
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        forms = _write(Path(folder), asked.frames, asked.size)
        for form, path in forms.items() if asked.runs else ():
            with tempfile.TemporaryDirectory(dir=folder) as outputs:
                row = _compare(path, Path(outputs), asked.runs)
            rows.append({"form": form} | row)
            ratios = [show_spread(row[column]) if column in row else "-" for column in columns]
            print_row([form, *ratios, row["wall"], row["processor"], row["peak_mb"]])
        print()
        steps = time_steps(Path(folder))
    print_head(["step of a frame", "processor ms"])
    for step, milliseconds in steps.items():
        print_row([step, f"{milliseconds:.2f}"])
    write_record(asked.json, frames=asked.frames, size=asked.size, rows=rows, steps=steps)


def _write(folder: Path, count: int, size: int) -> dict[str, Path]:
    """The same frames, 12 bits with the noise of a camera, as files, as one stack, and deflated."""
    random = np.random.default_rng(0)
    forms = {"folder": folder / "files", "stack": folder / "stack.ome.tif", "deflated": folder / "deflated"}
    for name in ("folder", "deflated"):
        forms[name].mkdir()
    for t in range(count):
        frame = random.normal(1800, 30, (size, size)).clip(0, 4095).astype(np.uint16)
        tifffile.imwrite(forms["folder"] / f"t{t:04}.tif", frame)
        tifffile.imwrite(forms["deflated"] / f"t{t:04}.tif", frame, compression="zlib")
    frames = (tifffile.imread(path) for path in sorted(forms["folder"].iterdir()))
    with tifffile.TiffWriter(forms["stack"], bigtiff=True) as stack:
        stack.write(frames, shape=(count, size, size), dtype="uint16", metadata={"axes": "TYX"})
    return forms


def _compare(path: Path, outputs: Path, runs: int) -> dict[str, Any]:
    """Ratios of the sides to phbatch, run by run, and what phbatch took; outputs are left for whoever called."""
    levels = str(len(phbatch.plan(path, model="none").levels))
    numbers = count()

    def run_side(side: str) -> dict[str, float]:
        os.sync()
        output = outputs / f"{next(numbers)}.ome.zarr"
        return dict(measure(SIDES[side] + _TIMED, str(path), str(output), side, levels))

    sides = [side for side in SIDES if side != "ngff-zarr" or path.is_file()]
    found = alternate(runs, {side: partial(run_side, side) for side in sides})
    row: dict[str, Any] = {
        f"{side} / phbatch, {unit}": spread_of_ratios(
            [each[unit] for each in found[side]], [each[unit] for each in found["phbatch"]]
        )
        for side in sides
        if side != "phbatch"
        for unit in ("wall", "processor")
    }
    own = found["phbatch"]
    row |= {unit: round(statistics.median(each[unit] for each in own), 2) for unit in ("wall", "processor")}
    return row | {"peak_mb": round(max(each["peak"] for each in own) / 1e6)}


def time_steps(folder: Path) -> dict[str, float]:
    """Median milliseconds of a processor that each step of a frame takes."""
    plain, deflated = (sorted((folder / form).iterdir())[0] for form in ("files", "deflated"))
    frame = tifffile.imread(plain)
    coarser = make_levels(frame, 1)[0]
    parts = [
        np.ascontiguousarray(pixels[y : y + 1024, x : x + 1024])
        for pixels in (frame, coarser)
        for y in range(0, pixels.shape[0], 1024)
        for x in range(0, pixels.shape[1], 1024)
    ]
    blosc, zstd = Blosc("lz4", 5, Blosc.BITSHUFFLE), Zstd(level=0)
    numcodecs.blosc.use_threads = False
    stored = [memoryview(blosc.encode(part)) for part in parts]
    steps: dict[str, Callable[[], Any]] = {
        "tifffile.imread": lambda: tifffile.imread(plain),
        "tifffile.imread, deflated": lambda: tifffile.imread(deflated),
        "statistics, phbatch": lambda: glance_at(frame),
        "coarser level, phbatch": lambda: make_levels(frame, 1),
        "encode level 0 and 1, Blosc with LZ4": lambda: [blosc.encode(part) for part in parts],
        "encode level 0, Zstandard as zarr does": lambda: zstd.encode(frame),
        "checksums, from the cache": lambda: list(map(mark_of, stored)),
        "checksums, write and synchronize": lambda: replace_files(
            folder, {"written": {str(at): data for at, data in enumerate(stored)}}, folder / "scratch", lambda: None
        ),
    }
    found = {step: round(_processor_ms(call), 2) for step, call in steps.items()}
    alone = [measure(_PHBATCH + _TIMED, str(plain), str(folder / f"one{at}.zarr"))["processor"] for at in range(3)]
    return found | {"phbatch convert of this frame alone, in a new process": round(1e3 * statistics.median(alone), 2)}


def _processor_ms(call: Callable[[], Any], times: int = 15) -> float:
    call()
    spent = []
    for _ in range(times):
        started = time.process_time()
        call()
        spent.append(time.process_time() - started)
    return 1e3 * statistics.median(spent)


if __name__ == "__main__":
    main()
