"""From the start of ``phbatch run`` to the first frame in its place: a small Zarr, the bundled model, no GPU.

    python benchmarks/start.py [--backend tensorflow] [--size 256] [--runs 5] [--imports 20] [--json FILE]

Every start is a process of its own; the one before the first that counts leaves its caches behind. *Seconds* is until a
chunk of the output is there, *of a processor* what the process took by its end. ``--imports N`` prints the N modules
whose import takes longest, each without those that it imports, as ``python -X importtime`` says.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import zarr
from common import machine, print_head, print_row, write_record

_LOOK_S = 0.005


def start(source: Path, output: Path, options: list[str]) -> tuple[float, float]:
    """Seconds until the first frame is there, and seconds of a processor until the end."""
    command = [sys.executable, "-m", "phbatch", "run", str(source), str(output), "--no-report", "--quiet", *options]
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    first = output / "0" / "c"
    while process.poll() is None and not any(path.is_file() for path in first.rglob("*")):
        time.sleep(_LOOK_S)
    seconds = time.perf_counter() - began
    _, status, used = os.wait4(process.pid, 0) if process.returncode is None else (0, process.returncode, None)
    if status or used is None:
        raise RuntimeError(f"{command} failed")
    return seconds, used.ru_utime + used.ru_stime


def slowest_imports(source: Path, output: Path, options: list[str], count: int) -> list[tuple[str, float]]:
    """Modules, and the milliseconds of each."""
    command = [sys.executable, "-X", "importtime", "-m", "phbatch", "run", str(source), str(output), "--no-report"]
    said = subprocess.run([*command, *options], capture_output=True, text=True, check=True).stderr
    lines = [line.removeprefix("import time:").split("|") for line in said.splitlines() if "import time:" in line]
    found = [(parts[2].strip(), int(parts[0]) / 1e3) for parts in lines if parts[0].strip().isdecimal()]
    return sorted(found, key=lambda each: -each[1])[:count]


def measure_starts(backend: str, size: int, runs: int, imports: int | None) -> list[tuple[float, float]]:
    """Of the first start, and of later ones; none where imports are printed instead."""
    with tempfile.TemporaryDirectory(prefix="phbatch-start-") as folder:
        source = Path(folder, "in.zarr")
        shape = (4, size, size)
        frames = np.random.default_rng(0).normal(1000, 30, shape).astype("uint16")
        zarr.create_array(source, data=frames, chunks=(1, *shape[1:]))
        options = ["--model", "phase-2d", "--backend", backend]
        os.environ["XDG_CACHE_HOME"] = folder
        found = [start(source, Path(folder, "first.zarr"), options)]
        if imports:
            for name, milliseconds in slowest_imports(source, Path(folder, "i.zarr"), options, imports):
                print(f"{milliseconds:8.1f} ms  {name}")
            return []
        return found + [start(source, Path(folder, f"{number}.zarr"), options) for number in range(runs)]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", choices=("tensorflow", "jax"), action="append", help="default: both")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--imports", type=int)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    print(f"{machine()}; frames of {arguments.size}^2")
    print_head(["backend", "start", "seconds to the first frame (range)", "s of a processor (range)"])
    record = {}
    for backend in arguments.backend or ["tensorflow", "jax"]:
        record[backend] = found = measure_starts(backend, arguments.size, arguments.runs, arguments.imports)
        for name, some in (("first", found[:1]), ("later", found[1:])):
            columns = [sorted(column) for column in zip(*some, strict=True)]
            shown = [f"{statistics.median(each):.1f} ({each[0]:.1f}-{each[-1]:.1f})" for each in columns]
            print_row([backend, name, *shown])
    write_record(arguments.json, size=arguments.size, starts=record)


if __name__ == "__main__":
    main()
