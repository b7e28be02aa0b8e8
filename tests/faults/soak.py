"""The long part of the campaign: prints the tables of docs/benchmarks. `make soak`, or parts of it by name."""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from phbatch.places import retry
from tests.faults.faults import BENCHES, Bench, small_units, table
from tests.faults.inputs import LAYOUTS
from tests.faults.kills import WORKERS, Victims
from tests.faults.moto_server import run_moto
from tests.faults.s3_kills import kill_on_s3, lose_a_worker_on_s3
from tests.faults.stores import VARIABLES, new_bucket
from tests.faults.tasks import Tasks
from tests.faults.workers import MEMORY_CASES, concurrency_cases, lose_a_worker, lose_nothing, measure_memory
from tests.handmade import write_model

SEED = 5
PARTS = ["kills", "clusters", "s3", "array", "faults", "workers", "memory"]


def main() -> None:
    """Try everything, print what survived, and fail where anything did not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "parts", nargs="*", default=PARTS, metavar="PART", help=f"of {', '.join(PARTS)}; all by default"
    )
    parser.add_argument("--kills", type=int, default=100, help="kill -9 at random moments, over all layouts")
    parser.add_argument("--s3", type=int, default=20, help="runs on S3 through a bad network that are killed")
    parser.add_argument("--array", type=int, default=20, help="stops of tasks that share an output, and as many on S3")
    parser.add_argument("--clusters", type=int, default=3, help="clusters that lose a worker, and as many on S3")
    parser.add_argument("--faults", type=int, default=10_000, help="single faults of each kind and format, at most")
    chosen = parser.parse_args()
    survived_all = True
    with tempfile.TemporaryDirectory(prefix="phbatch-soak-") as folder:
        rows = {
            "kills": lambda: kill_rows(Path(folder), chosen.kills),
            "clusters": lambda: [cluster_row(Path(folder), chosen.clusters)],
            "s3": lambda: s3_rows(Path(folder), chosen.s3, chosen.clusters),
            "array": lambda: array_rows(Path(folder), chosen.array),
            "faults": lambda: fault_rows(Path(folder), chosen.faults),
            "workers": lambda: [concurrency_row(Path(folder))],
        }
        print("| fault | tried | survived | seconds |\n|---|---|---|---|", flush=True)
        for part in (name for name in rows if name in chosen.parts):
            for name, count, survived, seconds in rows[part]():
                print(f"| {name} | {count} | {survived} | {seconds:.0f} |", flush=True)
                survived_all &= count == survived
        if "memory" in chosen.parts:
            survived_all &= print_memory(Path(folder))
    if not survived_all:
        raise SystemExit(1)


Row = tuple[str, int, int, float]


def tried(name: str, cases: Iterable[Callable[[], object]]) -> Row:
    """Try every case; what raises did not survive, and says why."""
    started, count, survived = time.monotonic(), 0, 0
    for case in cases:
        count += 1
        try:
            case()
            survived += 1
        except Exception as error:
            print(f"{name}: {type(error).__name__}: {error}", flush=True)
    return name, count, survived, time.monotonic() - started


def kill_rows(folder: Path, kills: int) -> Iterable[Row]:
    """kill -9, by layout; the work that was lost goes into the name of the row."""
    for number, layout in enumerate(LAYOUTS):
        victims, draw = Victims(folder / f"kills{number}", layout), random.Random(SEED + number)
        repeated = [0]

        def kill(victims: Victims = victims, draw: random.Random = draw, repeated: list[int] = repeated) -> None:
            killed = victims.kill(draw)
            assert killed.repeated <= killed.kills * (2 * WORKERS + 1), killed
            repeated[0] = max(repeated[0], -(-killed.repeated // killed.kills))

        count = kills // len(LAYOUTS) + (number < kills % len(LAYOUTS))
        name, *numbers = tried(f"kill -9, {layout}", [kill] * count)
        yield f"{name}; units lost per kill: {repeated[0]} at most, {WORKERS} workers", *numbers  # type: ignore[misc]


def cluster_row(folder: Path, clusters: int) -> Row:
    """A worker of a local cluster killed, with a model."""
    model = write_model(folder / "model")

    def lose(number: int) -> Callable[[], None]:
        place = folder / f"cluster{number}"
        place.mkdir()
        return lambda: lose_a_worker(place, {"model": model, "tile": 512})

    return tried("a worker of a cluster killed", [lose(number) for number in range(clusters)])


def s3_rows(folder: Path, kills: int, clusters: int) -> Iterable[Row]:
    """kill -9 at random requests to S3 through a bad network, half of them with shards, and clusters there."""
    for name in VARIABLES:
        os.environ.pop(name, None)
    killed = [0]
    with run_moto() as port:

        def place(kind: str, number: int) -> Path:
            found = folder / f"{kind}{number}"
            found.mkdir()
            return found

        def kill(number: int) -> None:
            killed[0] += kill_on_s3(place("s3-kill", number), new_bucket(port), number, kills=2)

        def lose(number: int) -> None:
            lose_a_worker_on_s3(place("s3-cluster", number), new_bucket(port), number)

        name, *numbers = tried(
            "kill -9 on S3 through a bad network", [partial(kill, number) for number in range(kills)]
        )
        yield f"{name}, {killed[0]} kills in all", *numbers  # type: ignore[misc]
        yield tried("a worker of a cluster killed, on S3", [partial(lose, number) for number in range(clusters)])


def array_rows(folder: Path, stops: int) -> Iterable[Row]:
    """Tasks of arrays stopped at random, some of them where statistics must be known first; on a disk and on S3."""
    for name in VARIABLES:
        os.environ.pop(name, None)
    cases: list[dict[str, Any]] = [{}, {"layout": "zarr 3, sharded output"}, {"smooth_time": 3}, {"scope": "series"}]
    with run_moto() as port:
        for where in ("a disk", "S3"):
            draw, stopped = Random(SEED), [0]

            def stop(case: int, where: str = where, draw: Random = draw, stopped: list[int] = stopped) -> None:
                bucket = new_bucket(port) if where == "S3" else None
                place = folder / f"array-{where}-{case}".replace(" ", "-")
                stopped[0] += Tasks(place, bucket=bucket, **cases[case % len(cases)]).stop_at_random(draw)

            name, *numbers = tried(
                f"a task of an array stopped, on {where}", [partial(stop, at) for at in range(stops)]
            )
            yield f"{name}; {stopped[0]} before their end", *numbers  # type: ignore[misc]


def fault_rows(folder: Path, limit: int) -> Iterable[Row]:
    """The table of single faults, by kind."""
    retry.BACKOFF_S = 0.01
    names = {
        "exception": "exception in a stage of a unit, by attempt",
        "object": "object flipped, torn, emptied, deleted",
        "ledger": "ledger truncated",
        "second run": "second run on one output",
    }
    for number, layout in enumerate(BENCHES):
        (folder / f"faults{number}").mkdir()
        with small_units():
            bench = Bench(folder / f"faults{number}", layout)
            faults = table(bench.objects)
            for kind, name in names.items():
                chosen = [fault for fault in faults if fault.kind == kind]
                chosen = random.Random(SEED).sample(chosen, min(limit, len(chosen)))
                yield tried(f"{name}, {layout}", [partial(bench.survive, fault) for fault in chosen])


def concurrency_row(folder: Path) -> Row:
    """Sixteen workers over the table of layouts, shapes, chunks and selections."""

    def lose(number: int, case: tuple[str, str, str, str]) -> Callable[[], None]:
        place = folder / f"workers{number}"
        place.mkdir()
        return lambda: lose_nothing(place, case)

    cases = [lose(number, case) for number, case in enumerate(concurrency_cases())]
    return tried("16 workers, by source chunks, output chunks, layout", cases)


def print_memory(folder: Path) -> bool:
    """Measured and projected peaks; whether all are within."""
    print("\n| run | measured MB | projected MB | measured / projected |\n|---|---|---|---|")
    fitting = True
    for number, name in enumerate(MEMORY_CASES):
        place = folder / f"memory{number}"
        place.mkdir()
        peak, projected = measure_memory(place, name)
        fitting &= peak <= projected
        print(f"| {name} | {peak / 1e6:.0f} | {projected / 1e6:.0f} | {peak / projected:.2f} |", flush=True)
    return fitting


if __name__ == "__main__":
    main()
