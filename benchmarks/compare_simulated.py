"""What `phbatch compare` says of a simulated series whose cells multiply under a flickering lamp; draws its picture.

python benchmarks/compare_simulated.py docs/compare.png
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import zarr

import phbatch
from phbatch.report import print_comparison, save_comparison

FRAMES = 16


def write_growing(path: Path) -> None:
    """A colony that grows from nearly nothing to a third of the view, in light that flickers by a tenth."""
    array = zarr.create_array(path, shape=(FRAMES, 512, 512), chunks=(1, 512, 512), dtype="uint16")
    for t in range(FRAMES):
        movie = phbatch.PhaseContrast(n_frames=FRAMES, seed=4, density=0.001 + 0.25 * t / FRAMES, flicker=0.1)
        array[t] = movie.frame(t)


def main() -> None:
    """Print the table and say where the picture is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_growing(Path(folder) / "growing.zarr")
        found = phbatch.compare_rules(f"{folder}/growing.zarr", samples=FRAMES)
    print_comparison(found)
    save_comparison(arguments.picture, found, "simulated")
    print(arguments.picture)


if __name__ == "__main__":
    main()
