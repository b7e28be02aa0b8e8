"""What the default costs where no reduced precision holds its bound, against ``--precision float32``.

    python benchmarks/precision_check.py [--kernel 5 --kernel 3] [--filters 32] [--size 1024] [--frames 12] [--runs 3]

The default checks reduced precisions on the input before it computes in float32 all the same: the bound that is given
here, 1e-9, is held by none. Both are `phbatch run` of CARE models of random weights as in `benchmarks/end_to_end.py`,
each in a process of its own, alternating; they remember what an earlier run found. Ratios are of pairs of runs.
"""

from __future__ import annotations

import argparse
import tempfile
from itertools import product
from pathlib import Path

from common import machine, print_head, print_row, show_spread, spread_of_ratios, write_record
from end_to_end import PHBATCH, Measured, make_model, run_sides

import phbatch
from phbatch.tools.simulated import write_time_lapse

OPTIONS = {"float32": "precision='float32'", "refused": "precision_bound=1e-9"}
SIDES = {side: PHBATCH.replace("OPTIONS", options) for side, options in OPTIONS.items()}


def compare(folder: Path, size: int, frames: int, runs: int) -> dict[str, list[Measured]]:
    """All runs of both, the first of each, which remembers nothing yet, left out."""
    with tempfile.TemporaryDirectory() as scratch:
        source = f"{scratch}/in.zarr"
        write_time_lapse(source, phbatch.PhaseContrast(shape=(size, size), n_frames=frames, seed=11))
        found = run_sides(SIDES, folder, source, Path(scratch), runs + 1)
    return {side: rows[1:] for side, rows in found.items()}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kernel", type=int, action="append", help="of a random model; may be repeated")
    parser.add_argument("--filters", type=int, action="append", help="of a random model; may be repeated")
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--frames", type=int, default=12)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    print(f"{machine()}; {arguments.frames} frames of {arguments.size}^2")
    print_head(["kernel, filters", "network", "default / float32 (range)", "by processor time (range)"])
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for kernel, filters in product(arguments.kernel or [5, 3], arguments.filters or [32]):
            folder = make_model(Path(scratch), kernel, filters)
            found = compare(folder, arguments.size, arguments.frames, arguments.runs)
            pairs = {
                clock: spread_of_ratios(*([getattr(one, clock) for one in found[side]] for side in SIDES))
                for clock in ("seconds", "processor_seconds")
            }
            networks = ", ".join(sorted({one.network for one in found["refused"]}))
            print_row([f"{kernel}, {filters}", networks, *map(show_spread, pairs.values())])
            rows.append({"kernel": kernel, "filters": filters, "networks": networks, **pairs})
    write_record(arguments.json, size=arguments.size, frames=arguments.frames, rows=rows)


if __name__ == "__main__":
    main()
