"""What a field of a plate of small images costs, all included, against a run of one field alone.

    python benchmarks/plate.py [--wells 384] [--fields 4] [--size 64] [--workers 2] [--json FILE]

Runs with ``--model none`` in one process, after a small one that loads what is compiled: the plate, one of its fields
alone, and the plate again, where nothing is left to do. All of the time counts, the pixels included, and all that is
written is synchronized, which on a busy or slow disk is most of it.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from common import machine, print_head, print_row, write_record

import phbatch

ROWS = "ABCDEFGHIJKLMNOP"
COLUMNS = 24


def make_plate(place: Path, wells: int, fields: int, size: int) -> None:
    """A plate of single frames of noise, row by row."""
    names = [(index // COLUMNS, index % COLUMNS) for index in range(wells)]
    plate = {
        "rows": [{"name": row} for row in ROWS],
        "columns": [{"name": str(column + 1)} for column in range(COLUMNS)],
        "wells": [{"path": f"{ROWS[r]}/{c + 1}", "rowIndex": r, "columnIndex": c} for r, c in names],
    }
    axes = [{"name": axis, "type": "space"} for axis in "yx"]
    pixels = [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [1.0, 1.0]}]}]
    image = {"ome": {"version": "0.5", "multiscales": [{"axes": axes, "datasets": pixels}]}}
    well = {"ome": {"version": "0.5", "well": {"images": [{"path": str(field)} for field in range(fields)]}}}
    root = zarr.create_group(place, attributes={"ome": {"version": "0.5", "plate": plate}})
    frame = np.random.default_rng(0).normal(1000, 30, (size, size)).astype("uint16")
    for r, c in names:
        root.create_group(f"{ROWS[r]}/{c + 1}", attributes=well)
        for field in range(fields):
            group = root.create_group(f"{ROWS[r]}/{c + 1}/{field}", attributes=image)
            group.create_array("0", data=frame, chunks=frame.shape)


def seconds(input: Path, output: Path, workers: int) -> tuple[float, float, int]:
    """Wall time of a run, the time of its processor, and its units."""
    started, busy = time.perf_counter(), time.process_time()
    result = phbatch.run(input, output, model="none", workers=workers)
    if result.failed:
        raise SystemExit(f"failed: {dict(result.failed)}")
    return time.perf_counter() - started, time.process_time() - busy, result.units


def main() -> None:
    """Measure, print a row each, and write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("wells", 384), ("fields", 4), ("size", 64), ("workers", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    count = asked.wells * asked.fields
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_plate(folder / "small.zarr", 1, 1, asked.size)
        seconds(folder / "small.zarr", folder / "none.zarr", asked.workers)
        make_plate(folder / "plate.zarr", asked.wells, asked.fields, asked.size)
        plate, busy, units = seconds(folder / "plate.zarr", folder / "restored.zarr", asked.workers)
        one, *_ = seconds(folder / "plate.zarr/A/1/0", folder / "one.zarr", asked.workers)
        again, *_ = seconds(folder / "plate.zarr", folder / "restored.zarr", asked.workers)
    found: dict[str, Any] = {
        "fields": count,
        "units": units,
        "plate_s": plate,
        "plate_ms_per_field": 1000 * plate / count,
        "plate_processor_ms_per_field": 1000 * busy / count,
        "again_ms_per_field": 1000 * again / count,
        "one_field_alone_ms": 1000 * one,
    }
    print(machine())
    print_head(("what", "value"))
    for key, value in found.items():
        print_row((key, f"{value:.2f}" if isinstance(value, float) else str(value)))
    write_record(asked.json, **found)


if __name__ == "__main__":
    main()
