"""Peers from the package index on the same image: MONAI's sliding window, dask-image's Gaussian.

    python benchmarks/peers.py [--size 1024] [--kernel 3] [--kernel 5] [--runs 5] [--json FILE]

*Network*: one float32 frame in memory, on all cores. MONAI's ``sliding_window_inference`` (windows of 512, its default
overlap of 0.25) and the bare call on the whole frame, both with MONAI's own ``DynUNet`` of the same size in PyTorch:
depth 2, 32 filters, two convolutions per level, random weights. phbatch cuts the frame into exact tiles and runs a CARE
network of random weights, in the form that is fastest here. The networks are not the same function; their numbers of
multiply-adds per pixel say how alike they are (phbatch's are those of the plain form).

*Smoothing*: ``dask_image.ndfilters.gaussian_filter`` of four uint16 frames, one chunk each, in as many threads as there
are cores, against phbatch's own, which besides counts histograms; sigma 2.

Peers are installed into an environment of their own in a temporary folder; where PYTHONPATH already holds PyTorch it is
not downloaded again. One that cannot be installed is named as absent, and the others go on.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from common import alternate, machine, measure, print_head, print_row, show_spread, spread_of_ratios, write_record
from end_to_end import make_model

from phbatch.network.model import open_model
from phbatch.network.unet import count_operations
from phbatch.simulate import PhaseContrast

TIME = """
import json, sys, time
def report(function, facts):
    function()
    found = []
    for _ in range(2):
        start = time.perf_counter()
        function()
        found.append(time.perf_counter() - start)
    print(json.dumps([min(found), facts]))
"""

MONAI = """
import numpy as np, torch
from monai.inferers import sliding_window_inference
from monai.networks.nets import DynUNet
from torch.utils.flop_counter import FlopCounterMode
place, kernel, whole = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "whole"
network = DynUNet(2, 1, 1, [kernel] * 3, [1, 2, 2], [2, 2], filters=[32, 64, 128], norm_name="batch").eval()
network = network.to(memory_format=torch.channels_last)
frame = torch.from_numpy(np.load(place)[np.newaxis, np.newaxis])
def predict():
    with torch.inference_mode():
        return (network(frame) if whole else sliding_window_inference(frame, 512, 1, network)).numpy()
counted = FlopCounterMode(display=False)
with counted:
    network(frame[..., :64, :64])
macs = counted.get_total_flops() / 2 / 64**2
report(predict, {"weights": sum(each.numel() for each in network.parameters()), "macs_per_pixel": round(macs)})
"""

PHBATCH = """
import math, numpy as np
from phbatch.network.tuning.form import choose_form
from phbatch.network.model import open_model
from phbatch.network.predictor import get_predictor
from phbatch.kernels.tiling import TilePlan, choose_tile
from phbatch.frames.tiles import Batches, NetworkFrame
place, folder = sys.argv[1:]
frame = np.load(place)[..., np.newaxis]
model = open_model(folder)
shape, config = frame.shape[:2], model.config
tile = choose_tile(shape, config.halo, config.grid, 1 << 20)
form = choose_form(model, tile, 1, "tensorflow", 1 << 40).form
predict = get_predictor(model.folder, model.sha256, tile, 1, "tensorflow", form)
tiles = TilePlan(shape, tile, config.halo, config.grid)
unscaled = np.array([[0], [1], [1], [0]], np.float32)
def restore():
    batches = Batches(tiles, 1, predict.restore)
    return batches.add(NetworkFrame(0, frame, unscaled, np.empty_like(frame)))
report(restore, {"form": form})
"""

DASK_IMAGE = """
import dask, numpy as np, dask.array as da, os
from dask_image.ndfilters import gaussian_filter
frames = np.load(sys.argv[1])
def smooth():
    array = da.from_array(frames, chunks=(1, *frames.shape[1:])).astype("float32")
    with dask.config.set(scheduler="threads", num_workers=os.cpu_count()):
        return gaussian_filter(array, (0, 2, 2)).compute()
report(smooth, {})
"""

KERNEL = """
import os, numpy as np
from concurrent.futures import ThreadPoolExecutor
from phbatch.kernels.stats import frame_state
frames = np.load(sys.argv[1])
with ThreadPoolExecutor(os.cpu_count()) as pool:
    report(lambda: list(pool.map(lambda frame: frame_state(frame, 2.0), frames)), {})
"""


def install(folder: Path, package: str) -> str | None:
    """Python of an environment that holds a peer; None where it cannot be installed."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = str(folder / "bin" / "python")
    command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", package]
    installed = subprocess.run(command, check=False, capture_output=True)
    return python if installed.returncode == 0 else None


def run_sides(runs: int, sides: Mapping[str, tuple[str, str, tuple[str, ...]]], pixels: float) -> dict[str, Any]:
    """Rates of sides that are given as Python, code and arguments, and phbatch's rate over the others'."""
    found = alternate(
        runs,
        {side: partial(measure, TIME + code, *given, python=python) for side, (python, code, given) in sides.items()},
    )
    own = [result[0] for result in found["phbatch"]]
    return {
        side: {"mpx_per_s": round(pixels / statistics.median(result[0] for result in results) / 1e6, 2)}
        | {"phbatch_over": spread_of_ratios([result[0] for result in results], own)}
        | results[0][1]
        for side, results in found.items()
    }


def compare_networks(python: str, scratch: Path, size: int, kernel: int, runs: int) -> dict[str, Any]:
    """MONAI's sliding window and bare network, and phbatch's tiles, on a normalized frame in memory."""
    frame = PhaseContrast(shape=(size, size), seed=5).frame(0).astype(np.float32)
    place = str(scratch / f"frame-{size}.npy")
    np.save(place, frame / np.median(frame))
    folder = make_model(scratch, kernel, 32)
    config = open_model(str(folder)).config
    sides = {
        "MONAI sliding window": (python, MONAI, (place, str(kernel), "windows")),
        "MONAI's network, whole frame": (python, MONAI, (place, str(kernel), "whole")),
        "phbatch": (sys.executable, PHBATCH, (place, str(folder))),
    }
    found = run_sides(runs, sides, size * size)
    found["phbatch"]["macs_per_pixel"] = round(count_operations(config))
    return {"what": f"network, kernel {kernel}, 32 filters, {size}^2", "sides": found}


def compare_smoothing(python: str, scratch: Path, size: int, runs: int) -> dict[str, Any]:
    """dask-image's Gaussian filter, and phbatch's with its histograms."""
    movie = PhaseContrast(shape=(size, size), n_frames=4, seed=5, background_electrons=600.0)
    place = str(scratch / "frames.npy")
    np.save(place, np.stack([movie.frame(t) for t in range(4)]))
    sides = {"dask-image": (python, DASK_IMAGE, (place,)), "phbatch": (sys.executable, KERNEL, (place,))}
    found = run_sides(runs, sides, 4 * size * size)
    return {"what": f"smoothing 4 x {size}^2 uint16", "sides": found}


def show(row: dict[str, Any]) -> None:
    """One line of the table per side."""
    for side, one in row["sides"].items():
        facts = ", ".join(f"{name} {one[name]}" for name in ("form", "macs_per_pixel", "weights") if name in one)
        print_row((row["what"], side, facts, one["mpx_per_s"], show_spread(one["phbatch_over"])))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--kernel", type=int, action="append", help="may be repeated")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    print(f"{machine()}; medians of {arguments.runs} alternating runs")
    print_head(("what", "side", "facts", "MPx/s", "phbatch's rate / this (range)"))
    rows = []
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        monai = install(scratch / "monai", "monai")
        for kernel in arguments.kernel or [3, 5]:
            if monai is not None:
                rows.append(compare_networks(monai, scratch, arguments.size, kernel, arguments.runs))
                show(rows[-1])
        dask_image = install(scratch / "dask-image", "dask-image")
        if dask_image is not None:
            rows.append(compare_smoothing(dask_image, scratch, 2 * arguments.size, arguments.runs))
            show(rows[-1])
    for peer, python in (("MONAI", monai), ("dask-image", dask_image)):
        if python is None:
            print(f"{peer}: absent")
    write_record(arguments.json, rows=rows)


if __name__ == "__main__":
    main()
