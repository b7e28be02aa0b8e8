"""A GPU in one command: the network alone, its lane, whole runs, and what phbatch chooses by itself.

    python benchmarks/gpu.py [--seconds 460] [--parts info,alone,...] [--backend jax] [--size 2048] [--frames 480]
                             [--kernel 5] [--filters 32] [--folder DIR] [--rows FILE] [--json FILE]
    python benchmarks/gpu.py --rehearse

It needs phbatch and JAX or TensorFlow; CSBDeep is measured, too, where it is there. Every part is a process of its own
(`gpu_parts.py`), with a share of the seconds; rows come as they are measured and go to ``--rows`` at once, so that what
a part had when its time ended stays. The tables come last.

*info*: the device, its rate of matrix products, copies up and down. *alone*: every form and precision of the network,
with the frame on the device, and its error (99.9th percentile of the differences to plain float32, over the output's
standard deviation). *lane*: the predictor of a run from 1 to 16 threads, copies included. *run*: ``phbatch run``, Zarr
to Zarr, in the form and precision that were fastest alone. *auto*: ``phbatch run`` with nothing chosen, at the first
start and at the second one, and the seconds of every step. *host*: a stand-in for the network, so what the cores can
do. *care*: ``CARE.predict``. Rates of runs leave out the first fifth of their units.

Where there is no GPU it says so and measures nothing; ``--rehearse`` goes the same ways on a CPU with tiny frames, and
its numbers mean nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from threading import Timer
from typing import Any

from common import machine, measure, print_head, print_row, write_record
from gpu_parts import PARTS

from phbatch.network.backend import installed_backends
from phbatch.network.saving import BEST, care_config, draw_weights, encode_weights
from phbatch.network.unet import NetworkConfig, count_operations

LIMITS = {"info": 45, "alone": 150, "lane": 60, "run": 120, "auto": 100, "host": 60, "care": 40}
"""Seconds of each part, where all together have the time."""

DEVICE = """
import json, sys
from phbatch.network.device import describe_device
print(json.dumps(describe_device(sys.argv[1])))
"""

Row = dict[str, Any]


def make_model(folder: Path, kernel: int, filters: int) -> tuple[Path, NetworkConfig]:
    """A CARE network of random weights as CSBDeep writes it: depth 2, residual."""
    config = NetworkConfig(2, 1, 1, 2, kernel, filters, True, "linear", False)
    path = folder / f"random-k{kernel}-f{filters}"
    path.mkdir()
    facts = care_config(config, loss="mae", epochs=1, steps=1, batch=1, rate=4e-4, reduce_rate={})
    (path / "config.json").write_text(json.dumps(facts), encoding="utf-8")
    (path / BEST).write_bytes(encode_weights(config, draw_weights(config, 0)))
    return path, config


class Record:
    """The rows so far, each printed and kept as soon as it comes."""

    def __init__(self, path: Path | None) -> None:
        self.rows: list[Row] = []
        self._path = path

    def add(self, part: str, row: Row) -> None:
        """Print and keep one."""
        self.rows.append({"part": part} | row)
        shown = " ".join(f"{key}={value}" for key, value in row.items() if key != "name")
        print(f"{part:6} {row['name']:36} {shown}", flush=True)
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(self.rows[-1]) + "\n")

    def of(self, part: str) -> list[Row]:
        """Those of a part that did not fail."""
        return [row for row in self.rows if row["part"] == part and "failed" not in row]


def call_part(part: str, values: dict[str, Any], seconds: float, record: Record, environment: dict[str, str]) -> None:
    """A part in a process of its own, ended with its children where its time is over."""
    command = [sys.executable, str(Path(__file__).with_name("gpu_parts.py")), part, json.dumps(values)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | environment, start_new_session=True
    )
    timer = Timer(seconds, os.killpg, (process.pid, signal.SIGKILL))
    timer.start()
    with process:
        for line in process.stdout or ():
            if line.startswith('{"name"'):
                record.add(part, json.loads(line))
    timer.cancel()
    code = process.returncode
    if code:
        record.add(
            part, {"name": f"part {part}", "failed": f"ended after {seconds:.0f} s" if code < 0 else f"rc {code}"}
        )


def fastest_alone(rows: list[Row]) -> tuple[str, str]:
    """Form and precision of the best rate in 16 bit floats, else of the best there is."""
    half = [row for row in rows if row["precision"] in ("float16", "bfloat16")]
    best = max(half or rows, key=lambda row: row["mpx_per_s"], default={"form": "plain", "precision": "float32"})
    return best["form"], best["precision"]


def measure_parts(parts: list[str], values: dict[str, Any], seconds: float, record: Record, scratch: Path) -> None:
    """All parts, one after the other, within the seconds."""
    deadline = time.monotonic() + seconds
    kept = {"XDG_CACHE_HOME": str(scratch / "cache")}
    for part in parts:
        for turn in ("first start", "second start") if part == "auto" else ("",):
            left = min(LIMITS[part], deadline - time.monotonic())
            if left < 5:
                print(f"{part}: no time left", flush=True)
                continue
            if part in ("lane", "run"):
                form, precision = fastest_alone(record.of("alone"))
                values = values | {"form": form, "precision": precision}
            own = kept | ({"XDG_CACHE_HOME": str(scratch / "cache-of-auto")} if part == "auto" else {})
            known = len(record.rows)
            call_part(part, values, left, record, own)
            for row in record.rows[known:]:
                row["turn"] = turn


def show(record: Record, config: NetworkConfig) -> None:
    """The tables."""
    product = {row["name"]: row["tflops"] for row in record.of("info") if "tflops" in row}
    print_head(("device", "what", "figure"))
    for row in record.of("info"):
        for name, value in row.items():
            if name not in ("part", "name", "turn"):
                print_row((row["name"], name, value))
    alone = record.of("alone")
    plain = {row["precision"]: row["mpx_per_s"] for row in alone if row["form"] == "plain"}
    operations = 2 * count_operations(config)
    rates = {(row["form"], row["precision"]): row["mpx_per_s"] for row in alone}
    best = max(rates.values(), default=0.0)
    print_head(
        (
            "compute alone",
            "precision",
            "MPx/s",
            "over plain",
            "of the matrix product's rate",
            "error: percentile, median",
        )
    )
    for row in alone:
        own = product.get(f"matrix product, {row['precision']}") or product.get("matrix product, float32")
        share = f"{row['mpx_per_s'] * 1e-6 * operations / own:.2f}" if own else "-"
        over = f"{row['mpx_per_s'] / plain[row['precision']]:.2f}" if row["precision"] in plain else "-"
        errors = ", ".join(f"{row[key]:.1e}" for key in ("error_percentile", "error_median") if key in row)
        print_row((row["form"], row["precision"], row["mpx_per_s"], over, share, errors))

    def of_alone(row: Row) -> str:
        own = rates.get((row["network"], row["precision"]), 0.0)
        return ", ".join(f"{row['mpx_per_s'] / rate:.2f}" if rate else "-" for rate in (own, best))

    print_head(("lane", "MPx/s", "of the same alone, of the best alone"))
    for row in record.of("lane"):
        print_row((row["name"], row["mpx_per_s"], of_alone(row)))
    columns = ["network, precision", "MPx/s", "of the same alone, of the best alone"]
    columns += ["first unit s", "processor ms per frame", "peak GB", "threads busy, by stage"]
    print_head(("Zarr to Zarr", *columns))
    for row in [*record.of("run"), *(row for row in record.of("auto") if "busy" in row)]:
        name = f"{row['name']} {row.get('turn', '')}".strip()
        busy = ", ".join(f"{stage} {share}" for stage, share in row["busy"].items())
        facts = (row["first_unit_s"], row["processor_ms_per_frame"], row["peak_gb"], busy)
        chosen = f"{row['network']}, {row['precision']}"
        print_row((name, chosen, row["mpx_per_s"], of_alone(row), *facts))
    print_head(("step of the start", "seconds"))
    for row in record.of("auto"):
        if "seconds" in row:
            print_row((f"{row['turn']}: {row['name']}", row["seconds"]))
    print_head(("beside the network", "figure"))
    for row in [*record.of("host"), *record.of("care")]:
        figures = {key: value for key, value in row.items() if key not in ("part", "name", "turn")}
        print_row((row["name"], ", ".join(f"{key} {value}" for key, value in figures.items())))
    for row in record.rows:
        if "failed" in row:
            print(f"failed: {row['part']} {row['name']}: {row['failed']}")


def main() -> None:
    """Print rows and tables, or that there is nothing to measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", choices=("tensorflow", "jax"), default=installed_backends()[0])
    parser.add_argument("--seconds", type=float, default=460, help="for all parts together")
    parser.add_argument("--parts", default=",".join(PARTS), help="some of them, such as info,alone")
    parser.add_argument("--size", type=int, default=2048)
    parser.add_argument("--frames", type=int, default=480)
    parser.add_argument("--kernel", type=int, default=5)
    parser.add_argument("--filters", type=int, default=32)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="on a disk")
    parser.add_argument("--rows", type=Path, help="file that each row is added to as it comes")
    parser.add_argument("--rehearse", action="store_true", help="tiny, on whatever there is")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    parts = arguments.parts.split(",")
    if unknown := set(parts) - PARTS.keys():
        parser.error(f"--parts {', '.join(sorted(unknown))}: known are {', '.join(PARTS)}")
    device, on_gpu = measure(DEVICE, arguments.backend)
    if not on_gpu and not arguments.rehearse:
        print("skipped: no GPU")
        write_record(arguments.json, skipped="no GPU")
        return
    values: dict[str, Any] = {"backend": arguments.backend}
    if arguments.rehearse:
        arguments.size, arguments.frames, arguments.filters, arguments.kernel = 128, 12, 4, 3
        values["product"] = 256
        print("a rehearsal: these numbers mean nothing")
    print(
        f"{device}, {machine()}; {arguments.backend}, {arguments.size}^2, kernel {arguments.kernel},"
        f" {arguments.filters} filters"
    )
    record = Record(arguments.rows)
    with tempfile.TemporaryDirectory(prefix="phbatch-gpu-", dir=arguments.folder) as scratch:
        model, config = make_model(Path(scratch), arguments.kernel, arguments.filters)
        values |= {"model": str(model), "size": arguments.size, "frames": arguments.frames, "folder": scratch}
        try:
            measure_parts(parts, values, arguments.seconds, record, Path(scratch))
        finally:
            shutil.rmtree("/dev/shm/phbatch-gpu", ignore_errors=True)
    show(record, config)
    write_record(
        arguments.json, device=device, backend=arguments.backend, rehearsal=arguments.rehearse, rows=record.rows
    )


if __name__ == "__main__":
    main()
