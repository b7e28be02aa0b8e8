"""What limits a run on 10, 100 and 1,000 GPUs: arithmetic on rates, of which some are measured here and some are given.

    python benchmarks/limits.py [--gpu-mpx 520] [--scheduler-ms 3.2] [--client-ms 0.1] [--fsync FOLDER] [--json FILE]

Frames of 2048^2, uint16 in and out, in units of one frame and of one shard. Given are what a GPU restores from Zarr to
Zarr, what scheduler and client cost for a call and for a unit (``benchmarks/cluster.py`` measures both), and how far
pixels compress; measured is what the ledger takes to commit a unit in FOLDER, alone and together with others, as a run
does once it cannot keep up. A share above 1 cannot be met: the run is as much slower. ``--records 20`` is a rehearsal.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import machine, print_head, print_row, write_record

from phbatch.computing.workers import CALLS_PER_S, SHARE_S, Workers
from phbatch.outputs.ledger import Ledger
from phbatch.places.place import Place

SIDE, CHUNK = 2048, 1024
FRAME_MPX = SIDE**2 / 1e6


@dataclass(frozen=True)
class Rates:
    """What one machine does.

    Attributes
    ----------
    gpu_mpx : float
        Megapixels a second that a GPU restores, from Zarr to Zarr.
    compression : float
        Of uint16 pixels.
    scheduler_call_ms, client_call_ms : float
        Of a processor, for a call.
    client_unit_ms : float
        Of a processor, for a unit of a call.
    commit_ms : dict of int to float
        Of the clock, for a unit of so many frames.
    """

    gpu_mpx: float
    compression: float
    scheduler_call_ms: float
    client_call_ms: float
    client_unit_ms: float
    commit_ms: dict[int, float]


def limits(gpus: int, frames: int, rates: Rates) -> dict[str, float]:
    """What so many GPUs ask of everything else, in units of some frames.

    Examples
    --------
    >>> rates = Rates(420, 1.5, 2.0, 2.0, 0.1, {1: 1.0, 32: 2.0})
    >>> {name: round(value, 2) for name, value in limits(100, 1, rates).items()}  # doctest: +NORMALIZE_WHITESPACE
    {'units/s': 10013.58, 'GB/s each way': 56.0, 'objects/s': 40054.32, 'calls/s': 100.0, 'scheduler': 0.2,
     'client': 1.2, 'ledger': 10.01}
    """
    units = gpus * rates.gpu_mpx / (frames * FRAME_MPX)
    fitting = max(SHARE_S, gpus / CALLS_PER_S) * units / gpus
    calls = units / max(1, min(fitting, Workers.largest))
    return {
        "units/s": units,
        "GB/s each way": gpus * rates.gpu_mpx * 2 / rates.compression / 1e3,
        "objects/s": units * (1 if frames > 1 else (SIDE // CHUNK) ** 2),
        "calls/s": calls,
        "scheduler": calls * rates.scheduler_call_ms / 1e3,
        "client": (calls * rates.client_call_ms + units * rates.client_unit_ms) / 1e3,
        "ledger": units * rates.commit_ms[frames] / 1e3,
    }


def measure_commits(frames: int, count: int, folder: Path | None, together: int = 1) -> float:
    """Milliseconds to commit a unit durably, with others of one commit; the median."""
    row = dict.fromkeys(("median", "mode", "mad", "mean", "std", "min", "max", "p2", "p99.8", "offset"), 1234.5678)
    objects = {f"0/c/0/0/{index}": [2_000_000, "0123456789abcdef"] for index in range(1 if frames > 1 else 4)}
    record: dict[str, Any] = {
        "input": "0" * 32,
        "objects": objects,
        "statistics": [{"t": t, "c": 0, "z": 0} | row for t in range(frames)],
        "stages": dict.fromkeys(("read", "measure", "normalize", "predict", "cast", "encode", "write"), 0.0123),
    }
    times = []
    with tempfile.TemporaryDirectory(dir=folder) as name:
        ledger = Ledger(Place.at(f"{name}/out.zarr"))
        for index in range(count):
            started = time.perf_counter()
            ledger.commit(*(record | {"unit": f"t{index}/c{each}"} for each in range(together)))
            times.append((time.perf_counter() - started) / together)
    return 1e3 * sorted(times)[count // 2]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpu-mpx", type=float, default=520.0, help="of an H100 with 16 cores, in an early prototype")
    parser.add_argument("--compression", type=float, default=1.34, help="of uint16 by Blosc lz4")
    parser.add_argument("--scheduler-call-ms", type=float, default=3.0)
    parser.add_argument("--client-call-ms", type=float, default=2.0)
    parser.add_argument("--client-unit-ms", type=float, default=0.1)
    parser.add_argument("--frames", type=int, default=32, help="of a shard")
    parser.add_argument("--records", type=int, default=300, help="that are committed")
    parser.add_argument("--together", type=int, default=64, help="records of a commit of a run that is busy")
    parser.add_argument("--fsync", type=Path, metavar="FOLDER", help="where; the disk of temporary files")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    sizes = (1, given.frames)
    alone = {frames: measure_commits(frames, given.records, given.fsync) for frames in sizes}
    commits = {frames: measure_commits(frames, given.records, given.fsync, given.together) for frames in sizes}
    calls = (given.scheduler_call_ms, given.client_call_ms, given.client_unit_ms)
    rates = Rates(given.gpu_mpx, given.compression, *calls, commits)
    shown = ", ".join(
        f"{alone[frames]:.2f} ms for a unit of {frames}, {took:.2f} ms with {given.together - 1} others"
        for frames, took in commits.items()
    )
    print(f"{machine()}; a commit takes {shown}")
    rows = [
        {"GPUs": gpus, "frames a unit": frames} | limits(gpus, frames, rates)
        for frames in (1, given.frames)
        for gpus in (10, 100, 1000)
    ]
    print_head(list(rows[0]))
    for row in rows:
        print_row(f"{value:,.2f}" if 0 < value < 10 else f"{value:,.0f}" for value in row.values())
    write_record(given.json, rates=vars(rates), commit_alone_ms=alone, limits=rows)


if __name__ == "__main__":
    main()
