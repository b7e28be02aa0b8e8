"""Sixteen workers over source chunks and output chunks, and the memory of a run against what was projected."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from itertools import product
from pathlib import Path
from typing import Any

from distributed import LocalCluster

import phbatch
from phbatch.words.events import Event, UnitFinished
from tests.faults.faults import small_frames, small_units
from tests.faults.inputs import LAYOUTS, files, make_input, output_options
from tests.forks import forked_workers

WORKERS = 16

SHAPES: dict[str, tuple[int, ...]] = {
    "small frames": (37, 3, 40, 33),
    "frames of four output chunks": (5, 2, 110, 103),
}

CHUNKS: dict[str, tuple[int, ...]] = {
    "one frame": (1, 1, 2048, 2048),
    "parts of a frame": (1, 1, 17, 50),
    "several frames": (3, 1, 2048, 2048),
    "all channels": (2, 3, 70, 70),
    "everything": (64, 3, 2048, 2048),
}

SELECTIONS: dict[str, dict[str, Any]] = {
    "all": {},
    "every second frame, from the second": {"frames": "1::2"},
    "averaged": {"downscale": 2},
}


def concurrency_cases() -> list[tuple[str, str, str, str]]:
    """Layout, shape, chunks and selection of every case."""
    return list(product(LAYOUTS, SHAPES, CHUNKS, SELECTIONS))


def lose_nothing(folder: Path, case: tuple[str, str, str, str]) -> None:
    """Sixteen workers write what a plain loop writes; raises where a byte differs."""
    layout, shape, chunks, selection = case
    lengths = SHAPES[shape]
    fitting = tuple(min(pair) for pair in zip(CHUNKS[chunks], lengths, strict=True))
    source = make_input(folder / "in.zarr", lengths, fitting, **LAYOUTS[layout])
    options: dict[str, Any] = {"model": "none", "command": "same"}
    options["axes"] = None if layout == "zarr 2" else "tcyx"
    options |= SELECTIONS[selection] | output_options(layout, 2_560)
    with small_frames(unit_pixels=10_000):
        loop = phbatch.run(source, folder / "loop.zarr", workers=1, **options)
        many = phbatch.run(source, folder / "many.zarr", workers=WORKERS, memory="16GB", **options)
        assert files(many.output) == files(loop.output), case
        assert phbatch.verify(many.output).damages == (), case


def lose_a_worker(folder: Path, options: dict[str, Any]) -> None:
    """A cluster of two processes, one of which is killed after the first unit; raises where anything is lost."""
    source = make_input(folder / "in.zarr", (10, 520, 505), (1, 260, 505))
    with small_units():
        whole = phbatch.run(source, folder / "whole.zarr", workers=1, command="same", **options)
    with (
        small_units(),
        forked_workers(),
        LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0") as cluster,
    ):
        killed: list[int] = []

        def kill_one(event: Event) -> None:
            if isinstance(event, UnitFinished) and not killed:
                killed.append(next(iter(cluster.workers.values())).process.pid)
                os.kill(killed[0], signal.SIGKILL)

        scheduler = cluster.scheduler_address
        result = phbatch.run(
            source, folder / "out.zarr", scheduler=scheduler, listener=kill_one, command="same", **options
        )
    assert killed
    assert (result.exit_code, result.units_done) == (0, 10)
    assert files(result.output) == files(whole.output)
    with small_units():
        assert phbatch.verify(result.output).damages == ()


MEMORY_CASES: dict[str, tuple[tuple[int, ...], tuple[int, ...], str, dict[str, Any]]] = {
    "uint16 2048 x 2048, normalized": ((6, 2048, 2048), (1, 2048, 2048), "uint16", {"model": "none"}),
    "uint8 2048 x 2048, normalized": ((6, 2048, 2048), (1, 2048, 2048), "uint8", {"model": "none"}),
    "float32 2048 x 2048, normalized": ((4, 2048, 2048), (1, 2048, 2048), "float32", {"model": "none"}),
    "uint16, chunks of 4 frames": ((8, 1024, 1024), (4, 1024, 1024), "uint16", {"model": "none"}),
    "uint16, small frames": ((400, 128, 128), (1, 128, 128), "uint16", {"model": "none"}),
    "uint16 2048 x 2048, shards of four frames": (
        (16, 2048, 2048),
        (1, 2048, 2048),
        "uint16",
        {"model": "none", "shard": 64_000_000},
    ),
    "uint16 2048 x 2048, phase-2d": ((3, 2048, 2048), (1, 2048, 2048), "uint16", {}),
    "uint16 1024 x 1024, phase-2d, four workers": ((8, 1024, 1024), (1, 1024, 1024), "uint16", {"workers": 4}),
    "uint16 640 x 640, phase-2d, tiles of 256": ((4, 640, 640), (1, 640, 640), "uint16", {"tile": 256}),
    "uint16 2048 x 2048, phase-2d, downscaled": ((3, 2048, 2048), (1, 2048, 2048), "uint16", {"downscale": 2}),
    "uint16 1024 x 1024, light of every frame": (
        (4, 1024, 1024),
        (1, 1024, 1024),
        "uint16",
        {"model": "none", "illumination": "gaussian"},
    ),
    "uint16 1024 x 1024, light over time": (
        (8, 1024, 1024),
        (1, 1024, 1024),
        "uint16",
        {"model": "none", "illumination": "temporal"},
    ),
    "uint16 1024 x 1024, pooled": (
        (6, 1024, 1024),
        (1, 1024, 1024),
        "uint16",
        {"model": "none", "scope": "series", "dtype": "uint16", "rescale": True},
    ),
    "float32 2048 x 2048, light over time, pooled": (
        (16, 2048, 2048),
        (1, 2048, 2048),
        "float32",
        {"model": "none", "scope": "series", "illumination": "temporal"},
    ),
}

_RUN = """
import json, sys, phbatch
for source, output, options in json.loads(sys.argv[1]):
    plan = phbatch.plan(source, output, **options)
    print(json.dumps([phbatch.run(source, output, **options).peak_rss_bytes, plan.projected_mem, plan.allowed_mem]))
"""


def measure_runs(runs: Iterable[tuple[Path, Path, dict[str, Any]]]) -> list[tuple[int, int, int]]:
    """Measured peak, projection and allowance, in bytes, of runs from inputs to outputs, one after the other.

    They are in one process of their own, the peak of which is that of all runs so far.
    """
    given = json.dumps([[str(source), str(output), options] for source, output, options in runs])
    done = subprocess.run([sys.executable, "-c", _RUN, given], check=True, capture_output=True, text=True)
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


def prepare_memory(folder: Path, name: str) -> tuple[Path, Path, dict[str, Any]]:
    """The run of a case: an input is written."""
    shape, chunks, dtype, options = MEMORY_CASES[name]
    folder.mkdir(parents=True, exist_ok=True)
    source = make_input(folder / "in.zarr", shape, chunks, dtype=dtype)
    return source, folder / "out.zarr", {"memory": "8GB", "model": "phase-2d"} | options


def measure_memory(folder: Path, name: str) -> tuple[int, int]:
    """Measured peak and projection of a case, in bytes, in a process of its own."""
    ((peak, projected, _),) = measure_runs([prepare_memory(folder, name)])
    return peak, projected
