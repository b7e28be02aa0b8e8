"""The study of normalizations: train, restore, measure, and say what differs.

    python -m benchmarks.normalization_study [--folder DIR] [--seeds 0 1 2] [--steps N] [--cells PATTERN ...] [--list]

Every cell is a network, a rule and a seed, and one file in the folder; the same command goes on after a stop. Real
frames are those below PHBATCH_DATA. With --publish the results and figures of the repository are written anew.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from phbatch.words.errors import PhbatchError

from .cells import SEEDS, choose, design
from .compute import compute
from .figures import FOLDER, draw
from .results import PUBLISHED, Results
from .tables import tables
from .train import Effort


def main(arguments: list[str] | None = None) -> int:
    """Compute what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("build/normalization-study"), help="cells and models")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--steps", type=int, default=Effort.steps, help="of every training")
    parser.add_argument("--cells", nargs="+", default=[], metavar="PATTERN", help='such as "rules-*"')
    parser.add_argument("--publish", action="store_true", help="write results and figures of the repository")
    parser.add_argument("--published", action="store_true", help="print the tables of the repository's results")
    parser.add_argument("--list", action="store_true", help="print the names of the cells")
    given = parser.parse_args(arguments)
    cells = choose(design(given.seeds), given.cells)
    if given.list:
        print(*(cell.name for cell in cells), sep="\n")
        return 0
    if given.published:
        _show(Results.read())
        return 0
    logging.getLogger("phbatch").setLevel(logging.ERROR)  # that a rule is another one than the card's is meant here
    try:
        records = compute(given.folder, cells, Effort(steps=given.steps), lambda text: print(text, flush=True))
    except PhbatchError as error:
        print(error, file=sys.stderr)
        return 1
    results = Results.collect(records)
    results.write(PUBLISHED if given.publish else given.folder / "results.json")
    draw(results, FOLDER if given.publish else given.folder)
    _show(results)
    return 0


def _show(results: Results) -> None:
    print(f"\n{sum(cell['seconds'] for cell in results.cells) / 60:.0f} minutes, {len(results.cells)} cells")
    print(f"PSNR of the frames as they are: {results.cells[0]['measures']['input_psnr']:.2f} dB")
    for table in tables(results):
        print(f"\n{table}")


if __name__ == "__main__":
    sys.exit(main())
