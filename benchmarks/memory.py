"""Peak memory of runs against what was planned for them, every case in a process of its own.

    python benchmarks/memory.py [--case NAME ...] [--runs N] [--command] [--json FILE]

A plan must never be below the peak, and not above 1.5 times it. A case is run `--runs` times and the largest peak
counts, since the peaks of several units at once meet in some runs and miss each other in others; its first run compiles
all kernels, as the first run of a new installation does, which takes memory, too. The heap is Python's own, in
which `phbatch.run` finds itself; with `--command` that of the command line (`phbatch.computing.heap`).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from common import measure, print_head, print_row, write_record

_RUN = """
import json, sys, phbatch
from phbatch.computing.heap import keep_heap
source, output, options = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
if sys.argv[4] == "command":
    keep_heap()
plan = phbatch.plan(source, output, **options)
result = phbatch.run(source, output, **options)
assert result.units_done == result.units, result
print(json.dumps([result.peak_rss_bytes, plan.projected_mem, result.workers]))
"""

HIGHEST_RATIO = 1.5


@dataclass(frozen=True)
class Case:
    """An input, and the options of a run.

    Attributes
    ----------
    shape, chunks : tuple of int
        Of a Zarr 3 array.
    dtype : str
        Of its pixels.
    options : mapping
        Of `phbatch.run`.
    axes : str
        In the order of the array.
    """

    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: str = "uint16"
    options: Mapping[str, Any] = field(default_factory=dict)
    axes: str = "tyx"


def plain(shape: tuple[int, ...], chunks: tuple[int, ...] | None = None, dtype: str = "uint16", **options: Any) -> Case:
    """A case that only normalizes; chunks of one frame unless they are given."""
    return Case(shape, chunks or (*(1,) * (len(shape) - 2), *shape[-2:]), dtype, {"model": "none"} | options)


CASES: dict[str, Case] = {
    "uint16 64 x 64, nothing but the libraries": plain((1, 64, 64)),
    "uint16 2048 x 2048, normalized": plain((24, 2048, 2048)),
    "uint16 2048 x 2048, one worker": plain((6, 2048, 2048), workers=1),
    "uint16 2048 x 2048, chunks of 512": plain((24, 2048, 2048), (1, 512, 512)),
    "uint8 2048 x 2048, normalized": plain((24, 2048, 2048), dtype="uint8"),
    "float32 2048 x 2048, normalized": plain((16, 2048, 2048), dtype="float32"),
    "uint16 2048 x 2048, range in uint16": plain((24, 2048, 2048), range="0:4", dtype_out="uint16"),
    "uint16, chunks of 4 frames": plain((64, 1024, 1024), (4, 1024, 1024)),
    "uint16, small frames": plain((2000, 128, 128)),
    "uint16 2048 x 2048, shards of four frames": plain((48, 2048, 2048), shard=64_000_000),
    "uint16 1024 x 1024, light of every frame": plain((32, 1024, 1024), illumination="gaussian"),
    "uint16 1024 x 1024, light over time": plain((32, 1024, 1024), illumination="temporal"),
    "uint16 1024 x 1024, pooled": plain((32, 1024, 1024), scope="series", dtype_out="uint16", rescale=True),
    "uint16 2048 x 2048, downscaled": plain((24, 2048, 2048), downscale=2),
    "uint16 12,000 x 12,000": plain((12_000, 12_000), (1024, 1024)),
    "uint16 20,000 x 20,000": plain((20_000, 20_000), (1024, 1024)),
    "uint16 12,000 x 12,000, one chunk": plain((12_000, 12_000)),
    "float32 6,000 x 6,000": plain((6_000, 6_000), (1000, 1000), dtype="float32"),
    "uint16 12,000 x 12,000, in bands": plain((12_000, 12_000), (1024, 1024), memory="600MB"),
    "float32 6,000 x 6,000, in bands": plain((6_000, 6_000), (1000, 1000), dtype="float32", memory="900MB"),
    "uint16 64 x 64, phase-2d": Case((1, 64, 64), (1, 64, 64)),
    "uint16 2048 x 2048, phase-2d": Case((4, 2048, 2048), (1, 2048, 2048)),
    "uint16 1024 x 1024, phase-2d, four workers": Case((12, 1024, 1024), (1, 1024, 1024), options={"workers": 4}),
    "uint16 1024 x 1024, phase-2d, tiles of 256": Case((6, 1024, 1024), (1, 1024, 1024), options={"tile": 256}),
    "uint16 2048 x 2048, phase-2d, downscaled": Case((6, 2048, 2048), (1, 2048, 2048), options={"downscale": 2}),
    "uint16 12,000 x 12,000, phase-2d": Case((12_000, 12_000), (1024, 1024), axes="yx", options={"tile": 1024}),
    "uint16 12,000 x 12,000, phase-2d, in bands": Case(
        (12_000, 12_000), (1024, 1024), axes="yx", options={"memory": "1.7GB"}
    ),
}


def main() -> None:
    """Print a table, and fail where a plan is below the peak or more than 1.5 times it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", action="append", default=[], help="only cases whose name holds this; may be repeated")
    parser.add_argument("--runs", type=int, default=3, help="of each case; the largest peak counts")
    parser.add_argument("--command", action="store_true", help="in the heap of the command line")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write what was measured")
    chosen = parser.parse_args()
    names = [name for name in CASES if not chosen.case or any(part in name for part in chosen.case)]
    print_head(["run", "workers", "measured MB", "planned MB", "planned / measured"])
    found = {}
    for name in names:
        peak, planned, workers = measure_case(CASES[name], chosen.runs, "command" if chosen.command else "library")
        found[name] = {"measured": peak, "planned": planned, "workers": workers}
        print_row([name, workers, f"{peak / 1e6:.0f}", f"{planned / 1e6:.0f}", f"{planned / peak:.2f}"])
    write_record(chosen.json, cases=found)
    outside = [name for name, row in found.items() if not 1 <= row["planned"] / row["measured"] <= HIGHEST_RATIO]
    if outside:
        sys.exit(f"outside of 1 to {HIGHEST_RATIO}: {'; '.join(outside)}")


def measure_case(case: Case, runs: int, heap: str) -> tuple[int, int, int]:
    """Largest peak of some runs, the plan, both in bytes, and the number of workers."""
    network = (
        {} if case.options.get("model") == "none" else {"model": "phase-2d", "network": "plain", "precision": "float32"}
    )
    options: dict[str, Any] = {"memory": "16GB", **network, **case.options}
    if "dtype_out" in options:
        options["dtype"] = options.pop("dtype_out")
    with tempfile.TemporaryDirectory(prefix="phbatch_memory_") as folder:
        source = write_input(Path(folder) / "in.zarr", case)
        results = [
            measure(
                _RUN,
                str(source),
                f"{folder}/out{number}.zarr",
                json.dumps(options),
                heap,
                NUMBA_CACHE_DIR=f"{folder}/kernels",
            )
            for number in range(runs)
        ]
    return max(row[0] for row in results), results[0][1], results[0][2]


def write_input(path: Path, case: Case) -> Path:
    """Noise about a background, which compresses as badly as real frames do."""
    axes = list(case.axes[-len(case.shape) :])
    array = zarr.create_array(path, shape=case.shape, chunks=case.chunks, dtype=case.dtype, dimension_names=axes)
    level = 120 if case.dtype == "uint8" else 2000
    noise = np.random.default_rng(0).normal(level, level / 20, (1100, 1100))
    noise = noise.astype(case.dtype) if case.dtype == "float32" else noise.round().astype(case.dtype)
    frame = np.tile(noise, [-(-length // 1100) for length in case.shape[-2:]])[: case.shape[-2], : case.shape[-1]]
    for first in range(0, case.shape[0], case.chunks[0]):
        last = min(first + case.chunks[0], case.shape[0])
        array[first:last] = (
            frame[first:last] if array.ndim == 2 else np.broadcast_to(frame, (last - first, *frame.shape))
        )
    return path


if __name__ == "__main__":
    main()
