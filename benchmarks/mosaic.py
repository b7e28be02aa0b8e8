"""One frame that is larger than memory, restored in bands: peak memory against the plan, and processor time.

    python benchmarks/mosaic.py [--side 20000] [--memory 2GB] [--model phase-2d-real] [--workers N] [--json FILE]

The frame is a simulated one of phase contrast, repeated, and written band by band. What whole frames would take is
planned, and not run.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import zarr
from common import machine, measure, print_head, print_row, write_record

import phbatch

_RUN = """
import json, sys, time, phbatch
source, output, options = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
plan = phbatch.plan(source, output, **options)
began = time.process_time()
result = phbatch.run(source, output, **options)
assert result.units_done == result.units and not result.failed, result
print(json.dumps({
    "bands": plan.units, "chunk": plan.output_chunks[-2:], "tile": plan.tile, "overhead": plan.tile_overhead,
    "workers": result.workers, "planned": plan.projected_mem, "peak": result.peak_rss_bytes,
    "seconds": result.seconds, "processor_s": time.process_time() - began, "stages": result.stages,
}))
"""
_SIMULATED, _CHUNK = 2048, 1024


def write_mosaic(path: Path, side: int) -> Path:
    """A square frame, of which a row of chunks is in memory at once."""
    field = phbatch.PhaseContrast(shape=(_SIMULATED, _SIMULATED), n_frames=1, seed=0).frame(0)
    array = zarr.create_array(
        path, shape=(side, side), chunks=(_CHUNK, _CHUNK), dtype=field.dtype, dimension_names=["y", "x"]
    )
    row = np.tile(field, (1, -(-side // _SIMULATED)))[:, :side]
    for top in range(0, side, _CHUNK):
        rows = min(_CHUNK, side - top)
        array[top : top + rows] = row[top % _SIMULATED : top % _SIMULATED + rows]
    return path


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=20_000, help="of the frame, in pixels")
    parser.add_argument("--memory", default="2GB", help="that the run may take")
    parser.add_argument("--model", default="phase-2d-real")
    parser.add_argument("--workers", type=int)
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write what was measured")
    given = parser.parse_args()
    options = {"model": given.model, "rescale": True, "dtype": "uint16"}
    if given.workers:
        options["workers"] = given.workers
    with tempfile.TemporaryDirectory(prefix="phbatch_mosaic_") as folder:
        source = write_mosaic(Path(folder) / "in.zarr", given.side)
        whole = phbatch.plan(source, Path(folder) / "whole.zarr", **options | {"memory": "1TB"})
        found = measure(_RUN, str(source), f"{folder}/out.zarr", json.dumps(options | {"memory": given.memory}))
    megapixels = given.side**2 / 1e6
    print(f"{machine()}; {given.side} x {given.side} uint16, {given.model}\n")
    print_head(["what", "value"])
    for what, value in (
        ("whole: planned MB", f"{whole.projected_mem / 1e6:,.0f}"),
        ("allowed", given.memory),
        ("planned MB", f"{found['planned'] / 1e6:,.0f}"),
        ("measured peak MB", f"{found['peak'] / 1e6:,.0f}"),
        ("planned / measured", f"{found['planned'] / found['peak']:.2f}"),
        ("bands, and chunks of the output", f"{found['bands']}, {' x '.join(map(str, found['chunk']))}"),
        ("tile", " x ".join(map(str, found["tile"] or []))),
        ("pixels computed / pixels", f"{found['overhead']:.2f}"),
        ("units at once", found["workers"]),
        ("processor s", f"{found['processor_s']:,.0f}"),
        ("wall s", f"{found['seconds']:,.0f}"),
        ("MPx per processor s", f"{megapixels / found['processor_s']:.2f}"),
    ):
        print_row([what, value])
    write_record(
        given.json, side=given.side, memory=given.memory, model=given.model, whole=whole.projected_mem, **found
    )


if __name__ == "__main__":
    main()
