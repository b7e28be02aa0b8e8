"""TIFFs to OME-Zarr: `phbatch convert` against a loop of tifffile and zarr, in one run.

python benchmarks/convert.py [--frames 24] [--size 2048] [--runs 3] [--folder FOLDER]

The loop is what one writes by hand, ``array[t] = tifffile.imread(path)``: once with the codec that zarr takes by
itself, and once with that of phbatch. It neither records checksums nor makes its chunks durable, and cannot be
continued. Each side is a process of its own, timed after its imports.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from common import alternate, machine, measure, print_row, show_spread, spread_of_ratios

_TIMED = """
import json, resource, sys, time
wall, cpu = time.perf_counter(), time.process_time()
work()
print(json.dumps({
    "wall": time.perf_counter() - wall,
    "cpu": time.process_time() - cpu,
    "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
}))
"""

_PHBATCH = """
import sys, phbatch
from phbatch.kernels.glance import glance_at
phbatch.convert
def work():
    assert not phbatch.convert(sys.argv[1], sys.argv[2]).failed
"""

_LOOP = """
import sys, tifffile, zarr
from pathlib import Path
from zarr.codecs import BloscCodec
options = {"compressors": BloscCodec(cname="lz4", clevel=5, shuffle="shuffle")} if sys.argv[3] == "lz4" else {}
def work():
    path = Path(sys.argv[1])
    if path.is_dir():
        files = sorted(path.iterdir())
        first = tifffile.imread(files[0])
        read, count = lambda t: tifffile.imread(files[t]), len(files)
    else:
        stack = tifffile.TiffFile(path)
        first, count = stack.pages[0].asarray(), len(stack.pages)
        read = lambda t: stack.pages[t].asarray()
    array = zarr.create_array(
        sys.argv[2], shape=(count, *first.shape), chunks=(1, *first.shape), dtype=first.dtype, **options
    )
    for t in range(count):
        array[t] = read(t)
"""


def main() -> None:
    """Print a row for each form of the same frames."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--size", type=int, default=2048)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="Where TIFFs and outputs lie meanwhile.")
    arguments = parser.parse_args()
    print(f"{machine()}; {arguments.frames} frames of {arguments.size} x {arguments.size} uint16")
    print_row(["form", "loop/phbatch wall", "cpu", "loop lz4/phbatch wall", "cpu", "phbatch MPx/s", "peak MB"])
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        for form, path in _write(Path(folder), arguments.frames, arguments.size).items():
            print_row([form, *_compare(path, Path(folder) / "out.zarr", arguments)])


def _write(folder: Path, count: int, size: int) -> dict[str, Path]:
    """The same frames, 12 bits with the noise of a camera, as files, as one stack, and deflated."""
    random = np.random.default_rng(0)
    forms = {"folder": folder / "files", "stack": folder / "stack.tif", "deflated": folder / "deflated"}
    for name in ("folder", "deflated"):
        forms[name].mkdir()
    with tifffile.TiffWriter(forms["stack"], bigtiff=True) as stack:
        for t in range(count):
            frame = random.normal(1800, 30, (size, size)).clip(0, 4095).astype(np.uint16)
            tifffile.imwrite(forms["folder"] / f"t{t:04}.tif", frame)
            tifffile.imwrite(forms["deflated"] / f"t{t:04}.tif", frame, compression="zlib")
            stack.write(frame, contiguous=True, metadata=None)
    return forms


def _compare(path: Path, output: Path, arguments: argparse.Namespace) -> list[Any]:
    def side(code: str, codec: str) -> dict[str, float]:
        shutil.rmtree(output, ignore_errors=True)
        return dict(measure(code + _TIMED, str(path), str(output), codec))

    sides = {"phbatch": (_PHBATCH, ""), "loop": (_LOOP, ""), "lz4": (_LOOP, "lz4")}
    found = alternate(arguments.runs, {name: partial(side, *given) for name, given in sides.items()})
    ratios = [
        show_spread(spread_of_ratios([each[unit] for each in found[name]], [each[unit] for each in found["phbatch"]]))
        for name in ("loop", "lz4")
        for unit in ("wall", "cpu")
    ]
    pixels = arguments.frames * arguments.size**2
    fastest = min(each["wall"] for each in found["phbatch"])
    peak = max(each["peak"] for each in found["phbatch"])
    return [*ratios, round(pixels / fastest / 1e6, 1), round(peak / 1e6)]


if __name__ == "__main__":
    main()
