"""Speed of the statistics: a frame on one core against SciPy and NumPy, a store against reading it, and memory.

    python benchmarks/frame_statistics.py [--runs 7] [--no-memory] [--profile] [--json FILE]

Each ratio comes from alternating runs in one process (frames, store) or from processes of their own (memory).
``--profile`` prints what the parts of a measurement cost by themselves, each over all rows of a frame.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numba
import numcodecs
import numpy as np
import zarr
from common import (
    alternate,
    machine,
    measure,
    print_head,
    print_row,
    show_spread,
    spread_of_ratios,
    write_record,
)
from scipy import ndimage

import phbatch
from phbatch.computing.engine import execute
from phbatch.computing.tasks import Job, read_unit
from phbatch.frames.recipe import Recipe
from phbatch.inputs.image import open_source
from phbatch.kernels.smoothing import half_weights, smooth_fixed_point
from phbatch.kernels.stats import finalize, frame_state, measure_frame
from phbatch.places.place import Place
from phbatch.planning.unit import Unit
from phbatch.planning.units import Geometry
from phbatch.simulate import PhaseContrast
from phbatch.words.normalization import Normalization

MEMORY = """
import json, sys, phbatch
from phbatch.computing.machine import peak_rss_bytes
rows = phbatch.statistics(sys.argv[1], memory="2GB")
print(json.dumps([len(rows), peak_rss_bytes()]))
"""


def plain(frame: np.ndarray[Any, Any]) -> None:
    """What one writes with SciPy and NumPy; it finds no mode."""
    smooth = ndimage.gaussian_filter(frame.astype(np.float32), 2.0)
    np.median(smooth)
    np.percentile(frame, (2.0, 99.8))


def compare(runs: int, first: Callable[[], Any], second: Callable[[], Any]) -> tuple[float, float, list[list[float]]]:
    """Median seconds of two functions in turn, and the spreads of their ratio: by the clock, and by processor time."""
    first(), second()
    found = alternate(runs, {"first": partial(both_clocks, first), "second": partial(both_clocks, second)})
    walls, processor = zip(*(zip(*found[side], strict=True) for side in ("first", "second")), strict=True)
    return *map(statistics.median, walls), [spread_of_ratios(*walls), spread_of_ratios(*processor)]


def both_clocks(function: Callable[[], Any]) -> tuple[float, float]:
    """Seconds of a call, and seconds of a processor that it took."""
    start, used = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - start, time.process_time() - used


def frame_speed(runs: int) -> dict[str, Any]:
    """Smoothing, median, mode and percentiles of a 2048 x 2048 frame on one core."""
    frame = PhaseContrast(shape=(2048, 2048), seed=5, background_electrons=600.0).frame(0)
    theirs, ours, spreads = compare(runs, lambda: plain(frame), lambda: measure_frame(frame, 2.0))
    return row("one 2048 x 2048 uint16 frame, one core, against SciPy and NumPy", frame.size, theirs, ours, spreads)


def _read(job: Job, unit: Unit) -> int:
    return int(read_unit(job, unit)[0].size)


def store_speed(runs: int, folder: Path) -> dict[str, Any]:
    """`phbatch.statistics` of a compressed Zarr against reading it with the same threads."""
    movie = PhaseContrast(shape=(2048, 2048), seed=5, background_electrons=600.0)
    array = zarr.create_array(folder / "in.zarr", shape=(16, 2048, 2048), chunks=(1, 2048, 2048), dtype="uint16")
    for t in range(16):
        array[t] = movie.frame(t % 4)
    source = open_source(Place.at(folder / "in.zarr"))
    units = Geometry(source.shape, source.chunks, range(16), (0,)).units
    job = Job(source.place, None, Recipe(Normalization()))

    def read() -> None:
        for outcome in execute(_read, job, units, workers=2):
            if outcome.error is not None:
                raise outcome.error

    theirs, ours, spreads = compare(max(3, runs // 2), read, lambda: phbatch.statistics(folder / "in.zarr", workers=2))
    return row(
        "16 such frames in a Zarr (zstd), two threads, against reading them", 16 * 2048 * 2048, theirs, ours, spreads
    )


def compile_parts() -> dict[str, Callable[..., None]]:
    """Loops over the rows of a frame that do one part of the sweep each."""
    from phbatch.kernels import counting

    rows, columns, laplacian, count = (
        getattr(counting, name) for name in ("_add_rows", "_weigh_columns", "_sum_laplacian", "_count_values")
    )

    def along_y(frame: Any, weights: Any, total: Any, lane: Any) -> None:
        for y in range(frame.shape[0]):
            rows(frame, y, weights, 5, total, lane, True)
            rows(frame, y, weights, 1, total, lane, True)

    def along_x(frame: Any, weights: Any, padded: Any, bins: Any) -> None:
        for y in range(frame.shape[0]):
            columns(padded[y % 2], weights, np.float32(3), bins[y % 2])

    def count_all(values: Any, counts: Any) -> None:
        for y in range(values.shape[0]):
            count(values[y], 0, counts)

    def focus(frame: Any, bins: Any, sums: Any) -> None:
        for y in range(frame.shape[0]):
            laplacian(bins[y % 3], bins[(y + 1) % 3], bins[(y + 2) % 3], 0, frame.shape[1], sums)

    loops = {"along y": along_y, "along x": along_x, "count": count_all, "focus": focus}
    return {name: numba.njit(nogil=True)(loop) for name, loop in loops.items()}


def profile(runs: int) -> None:
    """Print nanoseconds of a processor per pixel of every part of a measurement, and of reading, in turns."""
    frame = PhaseContrast(shape=(2048, 2048), seed=5, background_electrons=600.0).frame(0)
    measure_frame(frame, 2.0)
    state, part, weights = frame_state(frame, 2.0), compile_parts(), half_weights(2.0)
    size = frame.shape[1]
    smooth = smooth_fixed_point(frame, 2.0, 3)
    bins = np.pad(smooth[:3], ((0, 0), (1, 1)), mode="edge")
    counts, total = np.zeros(1 << 18, np.uint32), np.zeros(size, np.float32)
    padded, inner = np.ones((2, size + 16), np.float32), np.zeros((2, size), np.int32)
    different = np.broadcast_to(np.arange(size, dtype=np.int32), frame.shape).copy()
    codec = numcodecs.Zstd(level=0)
    stored, decoded = codec.encode(frame), np.empty_like(frame)
    lane, sums = np.empty(0, np.uint16), np.zeros(3, np.int64)
    parts: dict[str, Callable[[], Any]] = {
        "reading: Zstandard alone": lambda: codec.decode(stored, decoded),
        "measuring": lambda: measure_frame(frame, 2.0),
        "- smoothing along y": lambda: part["along y"](frame, weights, total, lane),
        "- smoothing along x, and rounding": lambda: part["along x"](frame, weights, padded, inner),
        "- counting raw pixels": lambda: part["count"](frame, counts),
        "- counting smoothed pixels": lambda: part["count"](smooth, counts),
        "- focus": lambda: part["focus"](frame, bins, sums),
        "- statistics from the counts": lambda: finalize(fresh(state)),
        "counting pixels that all differ from those before": lambda: part["count"](different, counts),
    }
    for function in parts.values():
        function()
    found = alternate(runs, {name: partial(both_clocks, function) for name, function in parts.items()})
    print_head(("part", "ns of a processor per pixel (range)"))
    for name, times in found.items():
        each = [used / frame.size * 1e9 for _, used in times]
        print_row((name, f"{statistics.median(each):.2f} ({min(each):.2f}-{max(each):.2f})"))


def fresh(state: Any) -> Any:
    """The state as if nothing had been found from it yet."""
    return replace(state, raw=replace(state.raw), smooth=replace(state.smooth))


def row(name: str, pixels: int, theirs: float, ours: float, spreads: list[list[float]]) -> dict[str, Any]:
    """One line of the table."""
    return {
        "what": name,
        "reference_mpx_per_s": round(pixels / theirs / 1e6, 1),
        "phbatch_mpx_per_s": round(pixels / ours / 1e6, 1),
        "ratio": spreads[0],
        "ratio_processor": spreads[1],
    }


def memory_growth(folder: Path) -> list[dict[str, Any]]:
    """Peak memory of `phbatch.statistics` over very many small frames, and over one very large one."""
    found = []
    small = PhaseContrast(shape=(64, 64), seed=5).frame(0)
    for count in (1_000, 100_000):
        path = folder / f"small{count}.zarr"
        array = zarr.create_array(path, shape=(count, 64, 64), chunks=(1000, 64, 64), dtype="uint16")
        for start in range(0, count, 1000):
            array[start : start + 1000] = np.broadcast_to(small, (1000, 64, 64))
        found.append(measure_memory(f"{count} frames of 64 x 64", path))
    path = folder / "mosaic.zarr"
    array = zarr.create_array(path, shape=(30_000, 30_000), chunks=(1024, 1024), dtype="uint16")
    tile = PhaseContrast(shape=(1024, 1024), seed=5).frame(0)
    for y in range(0, 30_000, 1024):
        strip = np.tile(tile, (1, 30))[: min(1024, 30_000 - y), :30_000]
        array[y : y + 1024] = strip
    found.append(measure_memory("1 frame of 30,000 x 30,000 in 1024 x 1024 chunks", path))
    return found


def measure_memory(name: str, path: Path) -> dict[str, Any]:
    """Seconds and peak bytes of a process of its own."""
    start = time.perf_counter()
    rows, peak = measure(MEMORY, str(path))
    return {"what": name, "rows": rows, "seconds": round(time.perf_counter() - start, 1), "peak_mb": round(peak / 1e6)}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--no-memory", action="store_true", help="leave out the peak memory, which takes minutes")
    parser.add_argument("--profile", action="store_true", help="print what the parts cost, too")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    print(f"{machine()}; medians of alternating runs")
    with tempfile.TemporaryDirectory() as name:
        speeds = [frame_speed(arguments.runs), store_speed(arguments.runs, Path(name))]
        print_head(
            ("what", "reference MPx/s", "phbatch MPx/s", "phbatch's rate / reference (range)", "by processor time")
        )
        for one in speeds:
            rates = (one["reference_mpx_per_s"], one["phbatch_mpx_per_s"])
            print_row((one["what"], *rates, show_spread(one["ratio"]), show_spread(one["ratio_processor"])))
        growth = [] if arguments.no_memory else memory_growth(Path(name))
    if growth:
        print_head(("what", "rows", "peak MB"))
    for one in growth:
        print_row((one["what"], one["rows"], one["peak_mb"]))
    if arguments.profile:
        profile(arguments.runs)
    write_record(arguments.json, speeds=speeds, memory=growth)


if __name__ == "__main__":
    main()
