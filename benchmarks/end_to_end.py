"""phbatch against the bare network and a plain CSBDeep loop: the same frames, the same weights, the same numbers.

    python benchmarks/end_to_end.py [--model NAME|DIR] [--size 1024] [--frames 12] [--runs 3] [--json FILE]
    python benchmarks/end_to_end.py --kernel 3 --kernel 5 --filters 16 --filters 32 --size 1024 --size 2048

Four sides, each in a process of its own. *phbatch*: ``phbatch run`` with all its defaults, Zarr to OME-Zarr, with
``--normalize percentile --rescale``, which is the loop's arithmetic; *float32*: the same with ``--precision float32``.
*bare*: the plain network, compiled for a whole frame, on normalized frames that are in memory already; nothing is read,
measured or written. *loop*: what a CSBDeep user writes: read a frame with zarr-python, ``CARE.predict`` with CSBDeep's
own percentile normalizer, write the frame with zarr-python's defaults.

All are timed from after the imports to the last byte, loading and compiling included; runs alternate, and medians are
printed, of wall time and of processor time, which other load on the machine hardly disturbs.
``--kernel`` and ``--filters`` make CARE models of random weights (depth 2, residual). The input is simulated.
phbatch starts with an empty memory of which form is fastest: its first run measures where that is worth it, and the
median of three is that of a run that remembers. ``--frames`` counts frames of 1024^2; of larger ones fewer are taken.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
from collections.abc import Mapping
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import zarr
from common import (
    alternate,
    machine,
    measure,
    print_head,
    print_row,
    run_python,
    show_spread,
    spread_of_ratios,
    write_record,
)

import phbatch
from phbatch.network.model import open_model
from phbatch.tools.simulated import write_time_lapse

LOOP = """
import json, sys, time
import zarr
from csbdeep.data import PercentileNormalizer
from csbdeep.models import CARE
from phbatch.computing.machine import peak_rss_bytes
source, output, name, folder = sys.argv[1:]
start, used = time.perf_counter(), time.process_time()
model = CARE(None, name=name, basedir=folder)
frames = zarr.open_array(source + "/0", mode="r")
restored = zarr.create_array(output, shape=frames.shape, chunks=(1, *frames.shape[1:]), dtype="float32")
for t in range(frames.shape[0]):
    restored[t] = model.predict(frames[t], "YX", normalizer=PercentileNormalizer())
print(json.dumps([time.perf_counter() - start, time.process_time() - used, peak_rss_bytes(), "plain"]))
"""

BARE = """
import json, sys, time
import keras, numpy as np, zarr
from phbatch.computing.machine import peak_rss_bytes
from phbatch.network.model import open_model
from phbatch.network.predictor import get_predictor
source, output, name, folder = sys.argv[1:]
raw = zarr.open_array(source + "/0", mode="r")[:].astype(np.float32)[..., np.newaxis]
frames = (raw - raw.min()) / np.ptp(raw)
start, used = time.perf_counter(), time.process_time()
model = open_model(f"{folder}/{name}")
predict = get_predictor(model.folder, model.sha256, frames.shape[1:3], 1, "tensorflow")
for t in range(len(frames)):
    predict(frames[t : t + 1])
print(json.dumps([time.perf_counter() - start, time.process_time() - used, peak_rss_bytes(), "plain"]))
"""

PHBATCH = """
import json, sys, time
import keras, phbatch.running.run, zarr
source, output, name, folder = sys.argv[1:]
start, used = time.perf_counter(), time.process_time()
result = phbatch.run(
    source, output, model=f"{folder}/{name}", normalize="percentile", rescale=True, OPTIONS
)
facts = zarr.open_group(output).attrs.asdict()["phbatch"]
network = f"{facts['network']} {facts['precision']['precision']}"
print(json.dumps([time.perf_counter() - start, time.process_time() - used, result.peak_rss_bytes, network]))
"""


OURS = {"float32": "precision='float32'", "phbatch": ""}
SIDES = {"loop": LOOP, "bare": BARE} | {side: PHBATCH.replace("OPTIONS", options) for side, options in OURS.items()}


class Measured(NamedTuple):
    """One side in a process of its own."""

    seconds: float
    processor_seconds: float
    peak_bytes: int
    network: str


def make_model(folder: Path, kernel: int, filters: int) -> Path:
    """A CARE model of random weights in CSBDeep's own format, depth 2 and residual."""
    code = (
        "import sys; from csbdeep.models import CARE, Config; folder, name, kernel, filters = sys.argv[1:];"
        "config = Config('YXC', 1, 1, unet_n_depth=2, unet_kern_size=int(kernel), unet_n_first=int(filters),"
        " unet_residual=True, train_tensorboard=False);"
        "CARE(config, name, folder).keras_model.save_weights(f'{folder}/{name}/weights_best.h5')"
    )
    name = f"random-k{kernel}-f{filters}"
    run_python(code, str(folder), name, str(kernel), str(filters))
    return folder / name


def run_sides(
    sides: Mapping[str, str], folder: Path, source: str, scratch: Path, runs: int
) -> dict[str, list[Measured]]:
    """All runs of every side, which take turns; outputs of the last ones stay in ``scratch``."""

    def run_side(side: str) -> Measured:
        output = scratch / f"{side}.zarr"
        shutil.rmtree(output, ignore_errors=True)
        arguments = (source, str(output), folder.name, str(folder.parent))
        return Measured(*measure(sides[side], *arguments, XDG_CACHE_HOME=f"{scratch}/cache"))

    return alternate(runs, {side: partial(run_side, side) for side in sides})


def compare(folder: Path, size: int, frames: int, runs: int) -> dict[str, Any]:
    """Medians of all sides, phbatch's rate over the others', and the largest difference to the loop."""
    with tempfile.TemporaryDirectory() as scratch:
        source = f"{scratch}/in.zarr"
        write_time_lapse(source, phbatch.PhaseContrast(shape=(size, size), n_frames=frames, seed=11))

        found = run_sides(SIDES, folder, source, Path(scratch), runs)
        loop = np.asarray(zarr.open_array(f"{scratch}/loop.zarr", mode="r")[:])
        ours = {side: np.asarray(zarr.open_array(f"{scratch}/{side}.zarr/0", mode="r")[:]) for side in OURS}
    pixels = frames * size * size / 1e6
    row: dict[str, Any] = {"model": folder.name, "frames": frames, "size": size}
    for side, rows in found.items():
        row[f"{side}_mpx_per_s"] = round(pixels / statistics.median(one.seconds for one in rows), 3)
        row[f"{side}_peak_mb"] = round(max(one.peak_bytes for one in rows) / 1e6)
    for own, side in product(OURS, ("bare", "loop")):
        for clock, name in (("seconds", ""), ("processor_seconds", "_processor")):
            theirs, mine = ([getattr(one, clock) for one in found[which]] for which in (side, own))
            row[f"{own}_over_{side}{name}"] = spread_of_ratios(theirs, mine)
    for own, image in ours.items():
        row[f"{own}_networks"] = [one.network for one in found[own]]
        row[f"{own}_max_difference_over_std"] = float(np.abs(loop - image).max() / loop.std())
    return row


COLUMNS = (
    "model",
    "frames",
    "phbatch's network",
    "MPx/s, loop / bare / phbatch",
    "phbatch / bare (range); by processor time",
    "phbatch / loop (range); by processor time",
    "peak MB, loop / bare / phbatch",
    "max diff / std",
)


def show_rows(row: dict[str, Any]) -> None:
    """Two lines of the table: float32, and the default where it took something else."""
    for own in OURS:
        networks = sorted(set(row[f"{own}_networks"]))
        if own == "phbatch" and networks == sorted(set(row["float32_networks"])):
            continue
        sides = ("loop", "bare", own)
        ratios = [
            f"{show_spread(row[f'{own}_over_{side}'])}; {row[f'{own}_over_{side}_processor'][0]:.2f}"
            for side in ("bare", "loop")
        ]
        print_row(
            (
                row["model"],
                f"{row['frames']} x {row['size']}^2",
                ", ".join(networks),
                " / ".join(str(row[f"{side}_mpx_per_s"]) for side in sides),
                *ratios,
                " / ".join(str(row[f"{side}_peak_mb"]) for side in sides),
                f"{row[f'{own}_max_difference_over_std']:.1e}",
            )
        )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", default=[], help="bundled name or folder; may be repeated")
    parser.add_argument("--kernel", type=int, action="append", default=[], help="of a random model; may be repeated")
    parser.add_argument("--filters", type=int, action="append", default=[], help="of a random model; may be repeated")
    parser.add_argument("--size", type=int, action="append", help="of the frames; may be repeated")
    parser.add_argument("--frames", type=int, default=12, help="of 1024^2")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    print(f"{machine()}; medians of {arguments.runs} alternating runs")
    print_head(COLUMNS)
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        folders = [open_model(model).folder for model in arguments.model]
        shapes = product(arguments.kernel or [5], arguments.filters or [32])
        if arguments.kernel or arguments.filters:
            folders += [make_model(Path(scratch), kernel, filters) for kernel, filters in shapes]
        for folder, size in product(folders or [open_model("phase-2d").folder], arguments.size or [1024]):
            frames = max(1, arguments.frames * 1024**2 // size**2)
            rows.append(compare(folder, size, frames, arguments.runs))
            show_rows(rows[-1])
    write_record(arguments.json, rows=rows)


if __name__ == "__main__":
    main()
