"""A bundled model on real phase-contrast frames: a before/after picture of each data set, and a table.

    python benchmarks/real_frames.py FOLDER [--model NAME|DIR]

Reads the TIFF folders below ``PHBATCH_DATA`` (default ``../shared/data`` beside the checkout) and writes Zarr, results
and pictures into FOLDER. There is no truth here: the table shows how much quieter the flattest background became, and
whether intensities were kept.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import zarr
from numpy.typing import NDArray

import phbatch
from phbatch.report import print_comparison, save_before_after, save_comparison

DATA = Path(os.environ.get("PHBATCH_DATA", Path(__file__).parents[2] / "shared" / "data"))
SETS = ("t98g", "caulobacter", "ecoli", "yeast", "brightness-jump", "zoom")
COMPARED = ("t98g", "caulobacter", "brightness-jump")
PATCH = 48


def read_set(folder: Path, limit: int = 5) -> NDArray[Any]:
    """First frames of a data set as ``(t, y, x)``."""
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".tif")
    return np.stack([tifffile.imread(path) for path in files[:limit]])


def flattest_patch(image: NDArray[Any]) -> tuple[slice, slice]:
    """Window of 48 x 48 pixels, on a grid, with the smallest standard deviation."""
    corners = [
        (y, x)
        for y in range(0, image.shape[0] - PATCH, PATCH // 2)
        for x in range(0, image.shape[1] - PATCH, PATCH // 2)
    ]
    y, x = min(corners, key=lambda at: float(image[at[0] : at[0] + PATCH, at[1] : at[1] + PATCH].std()))
    return slice(y, y + PATCH), slice(x, x + PATCH)


def restore_set(name: str, folder: Path, model: str) -> str:
    """Run phbatch on one data set; returns its row of the table."""
    frames = read_set(DATA / name)
    source = folder / f"{name}.zarr"
    zarr.create_array(source, data=frames, chunks=(1, *frames.shape[1:]), overwrite=True)
    result = phbatch.run(source, folder / f"{name}.phbatch.zarr", model=model, axes="tyx", overwrite=True)
    divisors, medians, modes = (
        np.asarray(zarr.open_array(result.output, path=f"statistics/{name}", mode="r")[:], np.float64)
        for name in ("divisor", "median", "mode")
    )
    divisors = divisors[:, np.newaxis, np.newaxis]
    before = frames / divisors
    after = np.asarray(zarr.open_array(result.output, path="0", mode="r")[:])
    window = flattest_patch(after[0])
    titles = ("raw / median", f"phbatch {model}")
    save_before_after(folder / f"{name}.png", list(zip(titles, (before[0], after[0]), strict=True)))
    noise = before[0][window].std(), after[0][window].std()
    return (
        f"| {name} | {len(frames)} x {frames.shape[1]} x {frames.shape[2]} | {min(medians):.0f}-{max(medians):.0f}"
        f" | {min(modes):.0f}-{max(modes):.0f} | {noise[0]:.4f} | {noise[1]:.4f} | {after.mean() / before.mean():.4f} |"
    )


def compare_set(name: str, folder: Path) -> None:
    """Print and save what `phbatch compare` says of all frames of a data set."""
    frames = read_set(DATA / name, limit=100)
    source = folder / f"{name}-all.zarr"
    zarr.create_array(source, data=frames, chunks=(1, *frames.shape[1:]), overwrite=True)
    found = phbatch.compare_rules(str(source), axes="tyx", samples=25)
    print(f"\n{name}: {len(found[0].levels)} of {len(frames)} frames")
    print_comparison(found)
    save_comparison(folder / f"{name}-compare.html", found, name)


def main() -> None:
    """Print the tables and say where the pictures are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="phase-2d")
    arguments = parser.parse_args()
    if not DATA.is_dir():
        sys.exit(f"no data: {DATA} does not exist; set PHBATCH_DATA")
    arguments.folder.mkdir(parents=True, exist_ok=True)
    print("| data | frames | median | mode | background std before | after | mean after / before |")
    print("|---|---|---|---|---|---|---|")
    for name in SETS:
        print(restore_set(name, arguments.folder, arguments.model), flush=True)
    for name in COMPARED:
        compare_set(name, arguments.folder)
    print(f"pictures in {arguments.folder}")


if __name__ == "__main__":
    main()
